//! Where the parsers are in a pattern, and the words that all forms have in common.

use super::InvalidPattern;
use super::operand::Regex;

/// A place in a pattern.
pub struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    pub fn new(text: &'a str) -> Cursor<'a> {
        Cursor { text, at: 0 }
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    pub fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    pub fn next(&mut self) -> Option<char> {
        let next = self.peek()?;
        self.at += next.len_utf8();
        Some(next)
    }

    pub fn skip_blanks(&mut self) {
        while self.peek().is_some_and(char::is_whitespace) {
            self.next();
        }
    }

    /// Takes `token` if it comes next, blanks before it skipped.
    pub fn eat(&mut self, token: &str) -> bool {
        self.skip_blanks();
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    /// Takes a word of letters in any case, blanks before it skipped; it must end where it ends.
    pub fn eat_word(&mut self, word: &str) -> bool {
        self.skip_blanks();
        let rest = self.rest();
        let found = rest.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word))
            && !rest[word.len()..].starts_with(|c: char| c.is_alphanumeric() || c == '_');
        if found {
            self.at += word.len();
        }
        found
    }

    /// Takes what must come next.
    pub fn expect(&mut self, token: &str, reason: &'static str) -> Result<(), InvalidPattern> {
        if self.eat(token) { Ok(()) } else { Err(self.wrong(reason)) }
    }

    /// Nothing but blanks may be left.
    pub fn end(&mut self) -> Result<(), InvalidPattern> {
        self.skip_blanks();
        if self.rest().is_empty() { Ok(()) } else { Err(self.wrong("nothing may follow")) }
    }

    /// The longest run of characters that `belongs` takes; may be empty.
    pub fn run(&mut self, belongs: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let length = rest.find(|c| !belongs(c)).unwrap_or(rest.len());
        self.at += length;
        &rest[..length]
    }

    /// Text between `quote`s, the first of which is taken already. A backslash keeps a quote or itself from its meaning.
    pub fn quoted(&mut self, quote: char) -> Result<String, InvalidPattern> {
        let mut text = String::new();
        loop {
            match self.next() {
                None => return Err(self.wrong("a quotation mark is not closed")),
                Some(c) if c == quote => return Ok(text),
                Some('\\') => match self.peek() {
                    Some(c) if c == quote || c == '\\' => text.extend(self.next()),
                    _ => text.push('\\'),
                },
                Some(c) => text.push(c),
            }
        }
    }

    /// A regular expression up to its closing `%`; the opening one is taken already.
    pub fn regex(&mut self) -> Result<Regex, InvalidPattern> {
        let text = self.run(|c| c != '%');
        if self.next().is_none() {
            return Err(self.wrong("a regular expression is not closed by %"));
        }
        Regex::new(text).map_err(|reason| self.wrong(reason))
    }

    pub fn wrong(&self, reason: &'static str) -> InvalidPattern {
        InvalidPattern { reason, at: self.text[..self.at].chars().count() }
    }
}
