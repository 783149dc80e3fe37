//! Conditions on events that are JSON objects: `{ ($.a.b[0] = "x*" || $.n > 1.5e3) && $.c IS NULL }`.
//!
//! A selector that leads nowhere, or to an object or array, makes its comparison false, whatever the operator; so does
//! an event that is no JSON.

use super::cursor::Cursor;
use super::operand::{Comparison, Operator};
use super::{Extracted, InvalidPattern};
use serde_json::Value;

/// Nested parentheses: far beyond what anybody writes, low enough for every stack.
const DEPTH_MAX: usize = 32;

/// One step of a selector.
#[derive(Clone, Debug, PartialEq)]
enum Step {
    Member(String),
    Item(usize),
    /// Each item or member.
    Each,
}

/// `$.a[0]['b']`.
#[derive(Clone, Debug, PartialEq)]
struct Selector {
    text: String,
    steps: Vec<Step>,
}

#[derive(Clone, Debug)]
enum Test {
    Compare(Comparison),
    IsNull,
    IsTrue,
    IsFalse,
    Exists,
    NotExists,
}

/// See the module.
#[derive(Clone, Debug)]
pub enum Condition {
    All(Vec<Condition>),
    Any(Vec<Condition>),
    Test(Box<SelectorTest>),
}

/// A selector and what must hold of its value.
#[derive(Clone, Debug)]
pub struct SelectorTest {
    selector: Selector,
    test: Test,
}

pub fn parse(cursor: &mut Cursor<'_>) -> Result<Condition, InvalidPattern> {
    cursor.expect("{", "'{' is missing")?;
    let condition = any(cursor, 0)?;
    cursor.expect("}", "'}' is missing")?;
    cursor.end()?;
    Ok(condition)
}

fn any(cursor: &mut Cursor<'_>, depth: usize) -> Result<Condition, InvalidPattern> {
    let mut list = vec![all(cursor, depth)?];
    while cursor.eat("||") {
        list.push(all(cursor, depth)?);
    }
    Ok(if list.len() == 1 { list.remove(0) } else { Condition::Any(list) })
}

fn all(cursor: &mut Cursor<'_>, depth: usize) -> Result<Condition, InvalidPattern> {
    let mut list = vec![one(cursor, depth)?];
    while cursor.eat("&&") {
        list.push(one(cursor, depth)?);
    }
    Ok(if list.len() == 1 { list.remove(0) } else { Condition::All(list) })
}

fn one(cursor: &mut Cursor<'_>, depth: usize) -> Result<Condition, InvalidPattern> {
    if cursor.eat("(") {
        if depth >= DEPTH_MAX {
            return Err(cursor.wrong("too many parentheses"));
        }
        let inner = any(cursor, depth + 1)?;
        cursor.expect(")", "')' is missing")?;
        return Ok(inner);
    }
    let selector = selector(cursor)?;
    let test = if cursor.eat_word("IS") {
        match () {
            () if cursor.eat_word("NULL") => Test::IsNull,
            () if cursor.eat_word("TRUE") => Test::IsTrue,
            () if cursor.eat_word("FALSE") => Test::IsFalse,
            () => return Err(cursor.wrong("NULL, TRUE or FALSE is missing")),
        }
    } else if cursor.eat_word("NOT") {
        if !cursor.eat_word("EXISTS") {
            return Err(cursor.wrong("EXISTS is missing"));
        }
        Test::NotExists
    } else if cursor.eat_word("EXISTS") {
        Test::Exists
    } else {
        let operator = Operator::parse(cursor).ok_or_else(|| cursor.wrong("an operator is missing"))?;
        Test::Compare(Comparison::parse(cursor, operator, |c| matches!(c, '&' | '|' | ')' | '}' | '='))?)
    };
    Ok(Condition::Test(Box::new(SelectorTest { selector, test })))
}

fn selector(cursor: &mut Cursor<'_>) -> Result<Selector, InvalidPattern> {
    cursor.expect("$", "a selector, which begins with '$', is missing")?;
    let mut steps = Vec::new();
    let mut text = "$".to_owned();
    loop {
        match cursor.peek() {
            Some('.') => {
                cursor.next();
                match cursor.peek() {
                    // `$.['a.b']` and `$['a.b']` are the same.
                    Some('[') => text.push('.'),
                    Some('*') => {
                        cursor.next();
                        text.push_str(".*");
                        steps.push(Step::Each);
                    }
                    _ => {
                        let name =
                            cursor.run(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '@' | ':' | '/'));
                        if name.is_empty() {
                            return Err(cursor.wrong("a member's name is missing"));
                        }
                        text.extend([".", name]);
                        steps.push(Step::Member(name.to_owned()));
                    }
                }
            }
            Some('[') => {
                cursor.next();
                let step = match cursor.peek() {
                    Some(quote @ ('\'' | '"')) => {
                        cursor.next();
                        let name = cursor.quoted(quote)?;
                        text.push_str(&format!("['{name}']"));
                        Step::Member(name)
                    }
                    Some('*') => {
                        cursor.next();
                        text.push_str("[*]");
                        Step::Each
                    }
                    _ => {
                        let digits = cursor.run(|c| c.is_ascii_digit());
                        text.push_str(&format!("[{digits}]"));
                        Step::Item(digits.parse().map_err(|_| cursor.wrong("an item's number is missing"))?)
                    }
                };
                cursor.expect("]", "']' is missing")?;
                steps.push(step);
            }
            _ if steps.is_empty() => return Err(cursor.wrong("a member's name is missing")),
            _ => return Ok(Selector { text, steps }),
        }
    }
}

impl Selector {
    /// Every value that the selector leads to.
    fn find<'v>(&self, root: &'v Value) -> Vec<&'v Value> {
        let mut found = vec![root];
        for step in &self.steps {
            found = found
                .into_iter()
                .flat_map(|value| -> Vec<&Value> {
                    match (step, value) {
                        (Step::Member(name), Value::Object(members)) => {
                            members.get(name).into_iter().collect()
                        }
                        (Step::Item(index), Value::Array(items)) => items.get(*index).into_iter().collect(),
                        (Step::Each, Value::Array(items)) => items.iter().collect(),
                        (Step::Each, Value::Object(members)) => members.values().collect(),
                        _ => Vec::new(),
                    }
                })
                .collect();
        }
        found
    }
}

impl SelectorTest {
    fn holds(&self, root: &Value) -> bool {
        let found = self.selector.find(root);
        let any = |holds: &dyn Fn(&Value) -> bool| found.iter().any(|value| holds(value));
        match &self.test {
            Test::Exists => !found.is_empty(),
            Test::NotExists => found.is_empty(),
            Test::IsNull => any(&Value::is_null),
            Test::IsTrue => any(&|value| value == &Value::Bool(true)),
            Test::IsFalse => any(&|value| value == &Value::Bool(false)),
            Test::Compare(comparison) => any(&|value| match value {
                Value::String(text) => comparison.holds(text, None),
                Value::Number(number) => comparison.holds(&number.to_string(), number.as_f64()),
                Value::Bool(truth) => comparison.holds(if *truth { "true" } else { "false" }, None),
                Value::Null | Value::Array(_) | Value::Object(_) => false,
            }),
        }
    }
}

impl Condition {
    fn holds(&self, root: &Value) -> bool {
        match self {
            Condition::All(list) => list.iter().all(|condition| condition.holds(root)),
            Condition::Any(list) => list.iter().any(|condition| condition.holds(root)),
            Condition::Test(test) => test.holds(root),
        }
    }

    pub fn matches(&self, message: &str) -> bool {
        read(message).is_some_and(|root| self.holds(&root))
    }

    pub fn extract(&self, message: &str) -> Option<Extracted> {
        let root = read(message)?;
        if !self.holds(&root) {
            return None;
        }
        let mut extracted = Extracted::new();
        self.collect(&root, &mut extracted);
        Some(extracted)
    }

    fn collect(&self, root: &Value, extracted: &mut Extracted) {
        match self {
            Condition::All(list) | Condition::Any(list) => {
                list.iter().for_each(|condition| condition.collect(root, extracted));
            }
            Condition::Test(test) => {
                let selector = &test.selector;
                if let Some(value) = selector.find(root).first() {
                    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                    extracted.insert(selector.text.clone(), text);
                }
            }
        }
    }
}

/// An event that begins like an object and is one.
fn read(message: &str) -> Option<Value> {
    let is_object = message.trim_start().starts_with(['{', '[']);
    is_object.then(|| serde_json::from_str(message).ok())?
}
