//! Patterns of rule conditions, made ready to match: wildcards as Elastic Load Balancing has them, and expressions.

use super::config::Pattern;
use regex::bytes::{Regex, RegexBuilder};

/// Memory that one compiled expression may take: it is matched against every request. Ordinary ones stay far below;
/// repetitions such as `(a{1000}){1000}` do not.
const REGEX_BYTES: usize = 256 * 1024;

/// An expression that is none, or too large.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("'{pattern}' is not a valid regular expression")]
pub struct InvalidPattern {
    pub pattern: String,
    #[source]
    source: regex::Error,
}

/// Checks that an expression can be served, regardless of case or not: the former takes more.
///
/// # Errors
/// When it is none, or too large.
pub fn check_regex(text: &str) -> Result<(), InvalidPattern> {
    regex(text, true).map(drop)
}

/// Classes are those of ASCII: requests are bytes, and AWS knows no others.
pub(super) fn regex(text: &str, fold: bool) -> Result<Regex, InvalidPattern> {
    RegexBuilder::new(text)
        .case_insensitive(fold)
        .unicode(false)
        .size_limit(REGEX_BYTES)
        .build()
        .map_err(|source| InvalidPattern { pattern: text.to_owned(), source })
}

/// A pattern ready to match.
#[derive(Clone, Debug)]
pub(super) enum Matcher {
    Glob(Glob),
    Regex(Regex),
}

impl Matcher {
    /// `fold`: regardless of (ASCII) case.
    pub fn new(pattern: &Pattern, fold: bool) -> Result<Matcher, InvalidPattern> {
        Ok(match pattern {
            Pattern::Wildcard(text) => Matcher::Glob(Glob::new(text, fold, false)),
            Pattern::Regex(text) => Matcher::Regex(regex(text, fold)?),
        })
    }

    pub fn matches(&self, text: &[u8]) -> bool {
        match self {
            Matcher::Glob(glob) => glob.matches(text),
            Matcher::Regex(regex) => regex.is_match(text),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    Byte(u8),
    One,
    Many,
}

/// Text in which `*` stands for any bytes and `?` for one.
#[derive(Clone, Debug)]
pub(super) struct Glob {
    tokens: Vec<Token>,
    fold: bool,
}

impl Glob {
    /// `escapes`: `\` takes the meaning of the wildcard, or of the `\`, behind it.
    pub fn new(text: &str, fold: bool, escapes: bool) -> Glob {
        let mut tokens = Vec::with_capacity(text.len());
        let mut bytes = text.bytes().peekable();
        while let Some(byte) = bytes.next() {
            tokens.push(match byte {
                b'*' => Token::Many,
                b'?' => Token::One,
                b'\\' if escapes => match bytes.next_if(|next| matches!(next, b'*' | b'?' | b'\\')) {
                    Some(escaped) => Token::Byte(escaped),
                    None => Token::Byte(byte),
                },
                byte if fold => Token::Byte(byte.to_ascii_lowercase()),
                byte => Token::Byte(byte),
            });
        }
        tokens.dedup_by(|a, b| *a == Token::Many && *b == Token::Many);
        Glob { tokens, fold }
    }

    /// Whether all of `text` is what the pattern says. When it fails behind a `*`, only the last `*` takes more: what
    /// an earlier one could take, the last one can.
    pub fn matches(&self, text: &[u8]) -> bool {
        let (mut at, mut token) = (0, 0);
        let mut retry: Option<(usize, usize)> = None;
        loop {
            match self.tokens.get(token) {
                Some(Token::Many) => {
                    token += 1;
                    if token == self.tokens.len() {
                        return true;
                    }
                    retry = Some((token, at));
                    continue;
                }
                Some(Token::One) if at < text.len() => {
                    (at, token) = (at + 1, token + 1);
                    continue;
                }
                Some(Token::Byte(byte)) if text.get(at).is_some_and(|have| self.fold(*have) == *byte) => {
                    (at, token) = (at + 1, token + 1);
                    continue;
                }
                None if at == text.len() => return true,
                _ => {}
            }
            match retry {
                Some((after, from)) if from < text.len() => {
                    retry = Some((after, from + 1));
                    (at, token) = (from + 1, after);
                }
                _ => return false,
            }
        }
    }

    fn fold(&self, byte: u8) -> u8 {
        if self.fold { byte.to_ascii_lowercase() } else { byte }
    }

    /// The bytes every match begins with.
    pub fn prefix(&self) -> Vec<u8> {
        literal(self.tokens.iter())
    }

    /// The bytes every match ends with, last first.
    pub fn reversed_suffix(&self) -> Vec<u8> {
        literal(self.tokens.iter().rev())
    }
}

fn literal<'a>(tokens: impl Iterator<Item = &'a Token>) -> Vec<u8> {
    tokens
        .map_while(|token| match token {
            Token::Byte(byte) => Some(*byte),
            Token::One | Token::Many => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn wildcards_mean_what_the_documentation_says() {
        for (pattern, text, expected) in [
            ("/img/*", "/img/", true),
            ("/img/*", "/img/a/b.png", true),
            ("/img/*", "/img", false),
            ("/img/*/pics", "/img/a/b/pics", true),
            ("/a?c", "/abc", true),
            ("/a?c", "/ac", false),
            ("*.jpg", "/x.jpg.jpg", true),
            ("*", "", true),
            ("", "x", false),
            ("*a*b*c", "xaxbxcxc", true),
            ("*a*b*c", "xaxbxcx", false),
        ] {
            assert_eq!(
                Glob::new(pattern, false, false).matches(text.as_bytes()),
                expected,
                "{pattern} {text}"
            );
        }
        assert!(Glob::new("*.Example.com", true, false).matches(b"WWW.example.COM"));
        assert!(!Glob::new("/Img", false, false).matches(b"/img"));
        assert!(Glob::new(r"what\?\*", true, true).matches(b"what?*"));
        assert!(!Glob::new(r"what\?", true, true).matches(b"whatx"));
    }

    #[test]
    fn an_expression_is_bounded() {
        for ordinary in
            ["^/v[12]/", r"^/\w+/\w+", "^/[^/]{1,64}/", r"^/\d{4}/.{1,200}\.html$", r"(?i)\s\S\D\W\b"]
        {
            assert!(check_regex(ordinary).is_ok(), "{ordinary}");
        }
        assert!(regex("^/[^/]{1,3}/", false).is_ok_and(|regex| regex.is_match(b"/\xff\xfe/x")));
        assert!(check_regex(r"\p{L}").is_err());
        assert!(regex("(", false).is_err());
        assert!(regex("(a{1000}){1000}", false).is_err());
    }

    proptest! {
        /// As the obvious recursive definition has it.
        #[test]
        fn globs_match_like_their_definition(pattern in "[ab*?]{0,8}", text in "[ab]{0,10}") {
            fn slow(pattern: &[u8], text: &[u8]) -> bool {
                match pattern.split_first() {
                    None => text.is_empty(),
                    Some((b'*', rest)) => (0..=text.len()).any(|n| slow(rest, &text[n..])),
                    Some((b'?', rest)) => !text.is_empty() && slow(rest, &text[1..]),
                    Some((byte, rest)) => text.first() == Some(byte) && slow(rest, &text[1..]),
                }
            }
            let glob = Glob::new(&pattern, false, false);
            prop_assert_eq!(glob.matches(text.as_bytes()), slow(pattern.as_bytes(), text.as_bytes()));
        }
    }
}
