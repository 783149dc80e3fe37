//! Reading a decoded body into a structure: where the reader is, and what it says of values that do not fit.

use crate::shape::Structure;

/// A decoded body, whatever the protocol: forms become the same tree with texts at the leaves.
pub type Value = serde_json::Value;

/// Why a body does not fit its shape. `path` leads to the member: `containerDefinitions[0].name`, or in forms and
/// constraints `tags.1.member.key`, both as AWS writes them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    #[error("{path} is missing")]
    Missing { path: String },
    #[error("{path} must be {expected}")]
    Type { path: String, expected: &'static str },
    #[error("{path} is '{value}', but must be one of: {allowed}")]
    NotOneOf { path: String, value: String, allowed: String },
    /// Values of the right type that the model's constraints do not allow; at least one.
    #[error("{}", told(.0))]
    Unsatisfied(Vec<Unsatisfied>),
}

/// A value that a constraint does not allow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsatisfied {
    pub path: String,
    /// In quotes and cut to a length fit to be shown, or `null`; `None` for what must not be seen.
    pub value: Option<String>,
    /// The constraint, in AWS's words.
    pub rule: String,
}

/// All violations of constraints as AWS tells them.
pub(crate) fn told(all: &[Unsatisfied]) -> String {
    let each = all.iter().map(|Unsatisfied { path, value, rule }| {
        let value = value.as_ref().map(|value| format!("{value} ")).unwrap_or_default();
        format!("Value {value}at '{path}' failed to satisfy constraint: {rule}")
    });
    let plural = if all.len() == 1 { "" } else { "s" };
    format!("{} validation error{plural} detected: {}", all.len(), each.collect::<Vec<_>>().join("; "))
}

/// Constraint violations told in one answer: more help nobody.
const UNSATISFIED_MAX: usize = 20;
/// Characters of a value shown in an error.
pub(crate) const SHOWN_MAX: usize = 256;

/// The start of `text`.
pub(crate) fn shown(text: &str) -> String {
    text.chars().take(SHOWN_MAX).collect()
}

/// One part of the way to a member.
pub(crate) enum Step {
    Member(&'static str),
    Item(usize),
    Key(String),
}

/// Where in a body the reader is, and how that body spells its values.
pub struct Reading {
    path: Vec<Step>,
    /// Forms carry numbers and booleans as text, and lists as numbered members.
    pub textual: bool,
    /// Whether the model's constraints hold: for requests, not for what a server answered.
    constrained: bool,
    unsatisfied: Vec<Unsatisfied>,
}

impl Reading {
    /// A JSON body that is taken as it comes.
    pub fn json() -> Reading {
        Reading { path: Vec::new(), textual: false, constrained: false, unsatisfied: Vec::new() }
    }

    /// A request in JSON.
    pub fn json_request() -> Reading {
        Reading { constrained: true, ..Reading::json() }
    }

    /// A request as a form.
    pub fn form() -> Reading {
        Reading { textual: true, ..Reading::json_request() }
    }

    /// Notes that the value here does not satisfy `rule`. `None` stands for a value that must not be seen.
    pub(crate) fn unsatisfied(&mut self, value: Option<String>, rule: String) {
        if self.unsatisfied.len() < UNSATISFIED_MAX {
            let value = value.map(|value| format!("'{}'", shown(&value)));
            let path = self.dotted_path();
            self.unsatisfied.push(Unsatisfied { path, value, rule });
        }
    }

    pub(crate) fn at_item(&mut self, index: usize, check: impl FnOnce(&mut Reading)) {
        self.path.push(Step::Item(index));
        check(self);
        self.path.pop();
    }

    pub(crate) fn at_key(&mut self, key: &str, check: impl FnOnce(&mut Reading)) {
        self.path.push(Step::Key(shown(key)));
        check(self);
        self.path.pop();
    }

    /// The path as constraints have it: members in lower case at their start, items counted from 1.
    fn dotted_path(&self) -> String {
        let mut path = String::new();
        for step in &self.path {
            let dot = if path.is_empty() { "" } else { "." };
            match step {
                Step::Member(name) => {
                    let mut letters = name.chars();
                    path.push_str(dot);
                    path.extend(letters.next().map(|first| first.to_ascii_lowercase()));
                    path.push_str(letters.as_str());
                }
                Step::Item(index) => path.push_str(&format!("{dot}{}.member", index + 1)),
                Step::Key(key) => path.push_str(&format!("{dot}{key}.member")),
            }
        }
        path
    }

    pub(crate) fn path(&self) -> String {
        if self.textual {
            return self.dotted_path();
        }
        let mut path = String::new();
        for step in &self.path {
            match step {
                Step::Member(name) if path.is_empty() => path.push_str(name),
                Step::Member(name) => path.extend([".", name]),
                Step::Item(index) => path.push_str(&format!("[{index}]")),
                Step::Key(key) => path.push_str(&format!("[{key}]")),
            }
        }
        path
    }

    pub(crate) fn wrong(&self, expected: &'static str) -> Violation {
        Violation::Type { path: self.path(), expected }
    }

    /// The violation of an enum by `value`.
    pub fn not_one_of(&self, value: &str, allowed: &[&str]) -> Violation {
        let value = value.chars().take(100).collect();
        Violation::NotOneOf { path: self.path(), value, allowed: allowed.join(", ") }
    }

    pub(crate) fn within<T>(
        &mut self,
        step: Step,
        read: impl FnOnce(&mut Reading) -> Result<T, Violation>,
    ) -> Result<T, Violation> {
        self.path.push(step);
        let result = read(self);
        self.path.pop();
        result
    }
}

/// Reads a body into `target`.
///
/// # Errors
/// As [`read_structure`], and for a request what the model's constraints do not allow.
pub fn read_body(target: &mut dyn Structure, value: Value, mut reading: Reading) -> Result<(), Violation> {
    read_structure(target, value, &mut reading)?;
    if reading.unsatisfied.is_empty() { Ok(()) } else { Err(Violation::Unsatisfied(reading.unsatisfied)) }
}

/// Reads a structure's members; unknown ones are ignored, as AWS does: clients may be newer than we are.
///
/// # Errors
/// The first member that does not fit, or a required one that is missing.
pub fn read_structure(
    target: &mut dyn Structure,
    value: Value,
    reading: &mut Reading,
) -> Result<(), Violation> {
    let mut given = match value {
        Value::Object(given) => given,
        // An empty structure in a form is an empty text.
        Value::String(text) if reading.textual && text.is_empty() => serde_json::Map::new(),
        _ => return Err(reading.wrong("an object")),
    };
    for (index, member) in target.members().iter().enumerate() {
        let name = if reading.textual { member.form } else { member.name };
        match given.remove(name).filter(|value| !value.is_null()) {
            Some(value) => {
                let field = target.field_mut(index);
                reading.within(Step::Member(member.name), |reading| {
                    field.read(value, reading)?;
                    if let Some(limits) = member.limits.filter(|_| reading.constrained) {
                        field.check(limits, reading);
                    }
                    Ok(())
                })?;
            }
            None if member.required => {
                return reading
                    .within(Step::Member(member.name), |r| Err(Violation::Missing { path: r.path() }));
            }
            None => {}
        }
    }
    Ok(())
}
