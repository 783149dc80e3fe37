//! Conditions on fields between blanks: `[ip, user, ..., request, status = 4* && status != 404, bytes > 1000]`.
//!
//! An event is taken apart at blanks; what stands between quotation marks or square brackets is one field, without
//! them. There must be as many fields as the pattern names; `...`, once, stands for any number.

use super::cursor::Cursor;
use super::operand::{Comparison, Operator, number};
use super::{Extracted, InvalidPattern};

/// Nested parentheses: see the conditions on JSON.
const DEPTH_MAX: usize = 32;

#[derive(Clone, Debug)]
enum Condition {
    All(Vec<Condition>),
    Any(Vec<Condition>),
    /// Of the field at this place of the pattern's.
    Compare(usize, Comparison),
    True,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Fields {
    /// Without the ellipsis. A field without a name has its number, from 1.
    names: Vec<String>,
    /// How many of the names stand before the ellipsis, if there is one.
    ellipsis: Option<usize>,
    conditions: Vec<Condition>,
}

pub fn parse(cursor: &mut Cursor<'_>) -> Result<Fields, InvalidPattern> {
    cursor.expect("[", "'[' is missing")?;
    let mut fields = Fields { names: Vec::new(), ellipsis: None, conditions: Vec::new() };
    loop {
        if cursor.eat("...") {
            if fields.ellipsis.replace(fields.names.len()).is_some() {
                return Err(cursor.wrong("'...' may stand once"));
            }
        } else {
            let place = fields.names.len();
            fields.names.push((place + 1).to_string());
            let condition = fields.any(cursor, 0)?;
            if !matches!(condition, Condition::True) {
                fields.conditions.push(condition);
            }
        }
        if cursor.eat(",") {
            continue;
        }
        cursor.expect("]", "',' or ']' is missing")?;
        cursor.end()?;
        return Ok(fields);
    }
}

impl Fields {
    fn any(&mut self, cursor: &mut Cursor<'_>, depth: usize) -> Result<Condition, InvalidPattern> {
        let mut list = vec![self.all(cursor, depth)?];
        while cursor.eat("||") {
            list.push(self.all(cursor, depth)?);
        }
        Ok(if list.len() == 1 { list.remove(0) } else { Condition::Any(list) })
    }

    fn all(&mut self, cursor: &mut Cursor<'_>, depth: usize) -> Result<Condition, InvalidPattern> {
        let mut list = vec![self.one(cursor, depth)?];
        while cursor.eat("&&") {
            list.push(self.one(cursor, depth)?);
        }
        Ok(if list.len() == 1 { list.remove(0) } else { Condition::All(list) })
    }

    fn one(&mut self, cursor: &mut Cursor<'_>, depth: usize) -> Result<Condition, InvalidPattern> {
        if cursor.eat("(") {
            if depth >= DEPTH_MAX {
                return Err(cursor.wrong("too many parentheses"));
            }
            let inner = self.any(cursor, depth + 1)?;
            cursor.expect(")", "')' is missing")?;
            return Ok(inner);
        }
        cursor.skip_blanks();
        let name = cursor.run(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '$'));
        let operator = Operator::parse(cursor);
        if name.is_empty() && operator.is_none() {
            return Err(cursor.wrong("a field's name is missing"));
        }
        let place = self.place(name);
        match operator {
            None => Ok(Condition::True),
            Some(operator) => {
                let ends = |c| matches!(c, ',' | ']' | '&' | '|' | ')' | '=');
                Ok(Condition::Compare(place, Comparison::parse(cursor, operator, ends)?))
            }
        }
    }

    /// The field that a name means: one named before, or the newest, which gets it.
    fn place(&mut self, name: &str) -> usize {
        let newest = self.names.len() - 1;
        if name.is_empty() {
            return newest;
        }
        if let Some(place) = self.names.iter().position(|known| known == name) {
            return place;
        }
        let number = (newest + 1).to_string();
        if self.names[newest] == number {
            self.names[newest] = name.to_owned();
        }
        newest
    }

    /// The event's fields by the pattern's places; `None` if their number does not fit.
    fn assign<'m>(&self, message: &'m str) -> Option<Vec<&'m str>> {
        let found = split(message);
        match self.ellipsis {
            None => (found.len() == self.names.len()).then_some(found),
            Some(before) => {
                let after = self.names.len() - before;
                let tail = found.len().checked_sub(after).filter(|tail| *tail >= before)?;
                Some([&found[..before], &found[tail..]].concat())
            }
        }
    }

    pub fn matches(&self, message: &str) -> bool {
        self.assign(message).is_some_and(|fields| self.hold(&fields))
    }

    fn hold(&self, fields: &[&str]) -> bool {
        self.conditions.iter().all(|condition| holds(condition, fields))
    }

    pub fn extract(&self, message: &str) -> Option<Extracted> {
        let fields = self.assign(message).filter(|fields| self.hold(fields))?;
        let pairs = self.names.iter().zip(fields);
        Some(pairs.map(|(name, value)| (format!("${name}"), value.to_owned())).collect())
    }
}

fn holds(condition: &Condition, fields: &[&str]) -> bool {
    match condition {
        Condition::True => true,
        Condition::All(list) => list.iter().all(|inner| holds(inner, fields)),
        Condition::Any(list) => list.iter().any(|inner| holds(inner, fields)),
        Condition::Compare(place, comparison) => {
            fields.get(*place).is_some_and(|text| comparison.holds(text, number(text)))
        }
    }
}

/// Takes an event apart. What is opened and not closed goes on to the event's end.
fn split(message: &str) -> Vec<&str> {
    let mut fields = Vec::new();
    let mut rest = message.trim_start();
    while let Some(first) = rest.chars().next() {
        let closing = match first {
            '"' => Some('"'),
            '[' => Some(']'),
            _ => None,
        };
        let (field, behind) = match closing {
            Some(closing) => {
                let inner = &rest[1..];
                inner.split_once(closing).unwrap_or((inner, ""))
            }
            None => rest.split_at(rest.find(char::is_whitespace).unwrap_or(rest.len())),
        };
        fields.push(field);
        rest = behind.trim_start();
    }
    fields
}
