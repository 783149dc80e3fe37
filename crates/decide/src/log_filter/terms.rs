//! Terms: words, quoted phrases and regular expressions, all of which must be found, none of those with a minus, and
//! any of those with a question mark, which count only if no plain term stands beside them.
//!
//! A word or phrase is found where whole words equal it: `ERROR` is in `[ERROR]`, not in `ERRORS`. Parts of words take
//! a regular expression, as AWS documents it.

use super::InvalidPattern;
use super::cursor::Cursor;
use super::operand::Regex;

#[derive(Clone, Debug)]
enum Term {
    Text(String),
    Regex(Regex),
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Terms {
    all: Vec<Term>,
    any: Vec<Term>,
    none: Vec<Term>,
}

pub fn parse(cursor: &mut Cursor<'_>) -> Result<Terms, InvalidPattern> {
    let mut terms = Terms::default();
    loop {
        cursor.skip_blanks();
        let Some(first) = cursor.peek() else { return Ok(terms) };
        let list = match first {
            '?' => &mut terms.any,
            '-' => &mut terms.none,
            _ => &mut terms.all,
        };
        if matches!(first, '?' | '-') {
            cursor.next();
        }
        list.push(term(cursor)?);
    }
}

fn term(cursor: &mut Cursor<'_>) -> Result<Term, InvalidPattern> {
    match cursor.peek() {
        Some('%') => {
            cursor.next();
            Ok(Term::Regex(cursor.regex()?))
        }
        Some('"') => {
            cursor.next();
            Ok(Term::Text(cursor.quoted('"')?))
        }
        _ => {
            let text = cursor.run(|c| !c.is_whitespace() && c != '"');
            if text.is_empty() {
                return Err(cursor.wrong("a term is missing"));
            }
            Ok(Term::Text(text.to_owned()))
        }
    }
}

impl Terms {
    pub fn matches(&self, message: &str) -> bool {
        let any = || !self.all.is_empty() || self.any.is_empty() || self.any.iter().any(|t| t.is_in(message));
        self.all.iter().all(|term| term.is_in(message))
            && any()
            && !self.none.iter().any(|t| t.is_in(message))
    }
}

impl Term {
    fn is_in(&self, message: &str) -> bool {
        match self {
            Term::Regex(regex) => regex.matches(message),
            Term::Text(text) => contains_words(message, text),
        }
    }
}

/// Whether `text` stands in `message` without a word going on at either of its ends.
fn contains_words(message: &str, text: &str) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let (starts, ends) = (text.starts_with(is_word), text.ends_with(is_word));
    message.match_indices(text).any(|(at, _)| {
        let goes_on_before = starts && message[..at].ends_with(is_word);
        let goes_on_after = ends && message[at + text.len()..].starts_with(is_word);
        !goes_on_before && !goes_on_after
    })
}
