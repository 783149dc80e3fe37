//! What values are compared with: text with wildcards, numbers, regular expressions.

use super::InvalidPattern;
use super::cursor::Cursor;

/// Bytes of a compiled regular expression. Nested repetitions grow beyond every measure otherwise; the patterns that
/// AWS documents take some kilobytes.
const REGEX_BYTES_MAX: usize = 1 << 20;

/// A regular expression of the subset that CloudWatch Logs has: no groups, no look-around, ASCII.
#[derive(Clone, Debug)]
pub struct Regex(regex::bytes::Regex);

impl Regex {
    pub fn new(text: &str) -> Result<Regex, &'static str> {
        if text.is_empty() {
            return Err("a regular expression is empty");
        }
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            let allowed = match c {
                '\\' => match chars.next() {
                    Some('d' | 'D' | 's' | 'S' | 'w' | 'W' | 'x') => true,
                    Some(escaped) => escaped.is_ascii_punctuation(),
                    None => false,
                },
                c => c.is_ascii_alphanumeric() || ":_#=@/;,-^$?[]{}|*+.".contains(c),
            };
            if !allowed {
                return Err("the regular expression has a character that is not supported");
            }
        }
        regex::bytes::RegexBuilder::new(text)
            .unicode(false)
            .size_limit(REGEX_BYTES_MAX)
            .dfa_size_limit(REGEX_BYTES_MAX)
            .build()
            .map(Regex)
            .map_err(|_| "the regular expression makes no sense")
    }

    pub fn matches(&self, text: &str) -> bool {
        self.0.is_match(text.as_bytes())
    }
}

/// A comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Operator {
    pub fn parse(cursor: &mut Cursor<'_>) -> Option<Operator> {
        const ALL: [(&str, Operator); 6] = [
            ("!=", Operator::NotEqual),
            ("<=", Operator::LessOrEqual),
            (">=", Operator::GreaterOrEqual),
            ("=", Operator::Equal),
            ("<", Operator::Less),
            (">", Operator::Greater),
        ];
        ALL.into_iter().find(|(sign, _)| cursor.eat(sign)).map(|(_, operator)| operator)
    }
}

/// The right side of a comparison.
#[derive(Clone, Debug)]
enum Operand {
    /// `*` stands for anything. A number if it reads as one and was not quoted.
    Text {
        parts: Vec<String>,
        number: Option<f64>,
    },
    Regex(Regex),
}

/// An operator with its right side.
#[derive(Clone, Debug)]
pub struct Comparison {
    operator: Operator,
    operand: Operand,
}

impl Comparison {
    /// Reads what stands behind an operator. `ends` says where unquoted text stops.
    pub fn parse(
        cursor: &mut Cursor<'_>,
        operator: Operator,
        ends: impl Fn(char) -> bool,
    ) -> Result<Comparison, InvalidPattern> {
        cursor.skip_blanks();
        let operand = match cursor.peek() {
            Some('%') => {
                cursor.next();
                Operand::Regex(cursor.regex()?)
            }
            Some('"') => {
                cursor.next();
                Operand::Text { parts: split(&cursor.quoted('"')?), number: None }
            }
            _ => {
                let text = cursor.run(|c| !ends(c) && !c.is_whitespace());
                if text.is_empty() {
                    return Err(cursor.wrong("a value is missing"));
                }
                Operand::Text { parts: split(text), number: number(text) }
            }
        };
        let ordered = !matches!(operator, Operator::Equal | Operator::NotEqual);
        if ordered && !matches!(operand, Operand::Text { number: Some(_), .. }) {
            return Err(cursor.wrong("only numbers can be compared by size"));
        }
        Ok(Comparison { operator, operand })
    }

    /// Compares a text, which may be a number as well.
    pub fn holds(&self, text: &str, value: Option<f64>) -> bool {
        let equal = || match &self.operand {
            Operand::Regex(regex) => regex.matches(text),
            Operand::Text { parts, number } => match (number, value) {
                (Some(number), Some(value)) => number == &value,
                _ => fits(parts, text),
            },
        };
        let by_size = |holds: fn(f64, f64) -> bool| match (&self.operand, value) {
            (Operand::Text { number: Some(number), .. }, Some(value)) => holds(value, *number),
            _ => false,
        };
        match self.operator {
            Operator::Equal => equal(),
            Operator::NotEqual => !equal(),
            Operator::Less => by_size(|a, b| a < b),
            Operator::LessOrEqual => by_size(|a, b| a <= b),
            Operator::Greater => by_size(|a, b| a > b),
            Operator::GreaterOrEqual => by_size(|a, b| a >= b),
        }
    }
}

/// Text as a number: digits, a sign, a fraction, an exponent; not the words that Rust reads as numbers too.
pub fn number(text: &str) -> Option<f64> {
    let plain = text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'+' | b'-' | b'.' | b'e' | b'E'));
    text.parse().ok().filter(|number: &f64| plain && number.is_finite())
}

fn split(text: &str) -> Vec<String> {
    text.split('*').map(str::to_owned).collect()
}

/// Whether `text` is `parts` with anything between them. Each part is taken where it comes first, which is right for
/// wildcards of any length.
fn fits(parts: &[String], text: &str) -> bool {
    let [first, middle @ .., last] = parts else { return parts.first().is_some_and(|only| only == text) };
    let Some(mut rest) = text.strip_prefix(first.as_str()) else { return false };
    for part in middle {
        match rest.find(part.as_str()) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last.as_str())
}
