//! The filter patterns of CloudWatch Logs: which log events a pattern means, and what it takes out of them.
//!
//! Four forms, told apart by their first character, as AWS documents them:
//! nothing at all (every event), terms (`ERROR -"exact phrase" ?this ?that %regex%`), a condition on a JSON object
//! (`{ $.code >= 500 && $.user.name = "a*" }`) and one on fields between blanks (`[ip, ..., status = 4*, bytes]`).
//!
//! A pattern is parsed once; no pattern takes longer than its length times the event's.

mod cursor;
mod fields;
mod json;
mod operand;
mod terms;
#[cfg(test)]
mod tests;

use cursor::Cursor;
use std::collections::BTreeMap;

/// Characters of a pattern: the model's limit.
pub const PATTERN_MAX: usize = 1024;

/// What a pattern takes out of an event that it matches: values by the names that the pattern gives them.
pub type Extracted = BTreeMap<String, String>;

/// Text that is no pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Invalid filter pattern: {reason} at character {at}")]
pub struct InvalidPattern {
    /// What was wrong or missing.
    pub reason: &'static str,
    /// Counts from 0.
    pub at: usize,
}

/// A parsed pattern.
#[derive(Clone, Debug)]
pub struct Pattern(Kind);

#[derive(Clone, Debug)]
enum Kind {
    All,
    Terms(terms::Terms),
    Json(json::Condition),
    Fields(fields::Fields),
}

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// For text that is none.
    pub fn parse(text: &str) -> Result<Pattern, InvalidPattern> {
        if text.chars().count() > PATTERN_MAX {
            return Err(InvalidPattern {
                reason: "the pattern is longer than 1024 characters",
                at: PATTERN_MAX,
            });
        }
        let mut cursor = Cursor::new(text);
        cursor.skip_blanks();
        let kind = match cursor.peek() {
            None => Kind::All,
            Some('{') => Kind::Json(json::parse(&mut cursor)?),
            Some('[') => Kind::Fields(fields::parse(&mut cursor)?),
            Some(_) => Kind::Terms(terms::parse(&mut cursor)?),
        };
        Ok(Pattern(kind))
    }

    /// Whether every event matches.
    pub fn is_all(&self) -> bool {
        matches!(self.0, Kind::All)
    }

    pub fn matches(&self, message: &str) -> bool {
        match &self.0 {
            Kind::All => true,
            Kind::Terms(terms) => terms.matches(message),
            Kind::Json(condition) => condition.matches(message),
            Kind::Fields(fields) => fields.matches(message),
        }
    }

    /// What the pattern takes out of a message; `None` if it does not match.
    pub fn extract(&self, message: &str) -> Option<Extracted> {
        match &self.0 {
            Kind::Json(condition) => condition.extract(message),
            Kind::Fields(fields) => fields.extract(message),
            Kind::All | Kind::Terms(_) => self.matches(message).then(Extracted::new),
        }
    }
}
