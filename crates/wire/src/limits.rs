//! What a model demands of values beyond their type: lengths, ranges, patterns. Checked as a request is read; what
//! does not satisfy is collected, for AWS tells all of it at once.

use crate::field::Field;
use crate::reading::Reading;
use regex::Regex;
use std::sync::OnceLock;

/// The constraints of one shape.
#[derive(Debug)]
pub struct Limits {
    /// Of a number its value; of a text its characters; of a list or map its entries.
    pub min: Option<f64>,
    pub max: Option<f64>,
    pub pattern: Option<Pattern>,
    /// Of a list's items or a map's values.
    pub item: Option<&'static Limits>,
    /// Of a map's keys.
    pub key: Option<&'static Limits>,
}

/// A regular expression of the model, compiled when it is first needed. Its matching time is linear in the text.
#[derive(Debug)]
pub struct Pattern {
    text: &'static str,
    compiled: OnceLock<Option<Regex>>,
}

impl Pattern {
    pub const fn new(text: &'static str) -> Pattern {
        Pattern { text, compiled: OnceLock::new() }
    }

    /// Whether the whole of `text` matches. A pattern that cannot be compiled demands nothing; a test sees to it that
    /// there is none.
    fn fits(&self, text: &str) -> bool {
        self.regex().is_none_or(|regex| regex.is_match(text))
    }

    fn regex(&self) -> Option<&Regex> {
        // Models spell what lies beyond 16 bits as the pairs of halves that Java's strings have.
        let text = || self.text.replace(r"\uD800\uDC00-\uDBFF\uDFFF", r"\u{10000}-\u{10FFFF}");
        self.compiled.get_or_init(|| Regex::new(&format!(r"\A(?:{})\z", text())).ok()).as_ref()
    }

    /// Whether this engine knows what the pattern says.
    pub fn is_valid(&self) -> bool {
        self.regex().is_some()
    }
}

/// What a value is held to. `shown` tells how an error may show it; `None` for what must not be seen.
impl Limits {
    pub(crate) fn number(&self, value: f64, shown: impl Fn() -> Option<String>, reading: &mut Reading) {
        self.within_bounds(value, "value", shown, reading);
    }

    pub(crate) fn length(&self, length: usize, shown: impl Fn() -> Option<String>, reading: &mut Reading) {
        self.within_bounds(length as f64, "length", shown, reading);
    }

    fn within_bounds(
        &self,
        amount: f64,
        of: &str,
        shown: impl Fn() -> Option<String>,
        reading: &mut Reading,
    ) {
        if let Some(min) = self.min.filter(|min| amount < *min) {
            reading.unsatisfied(shown(), format!("Member must have {of} greater than or equal to {min}"));
        }
        if let Some(max) = self.max.filter(|max| amount > *max) {
            reading.unsatisfied(shown(), format!("Member must have {of} less than or equal to {max}"));
        }
    }

    pub(crate) fn text(&self, text: &str, shown: impl Fn() -> Option<String>, reading: &mut Reading) {
        self.length(text.chars().count(), &shown, reading);
        if let Some(pattern) = self.pattern.as_ref().filter(|pattern| !pattern.fits(text)) {
            let rule = format!("Member must satisfy regular expression pattern: {}", pattern.text);
            reading.unsatisfied(shown(), rule);
        }
    }

    pub(crate) fn items<'a>(&self, items: impl Iterator<Item = &'a dyn Field>, reading: &mut Reading) {
        if let Some(limits) = self.item {
            for (index, item) in items.enumerate() {
                reading.at_item(index, |reading| item.check(limits, reading));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use crate::{ApiError, json, query};
    use std::collections::BTreeMap;

    /// Limits as generated code spells them.
    macro_rules! limits {
        ($name:ident $min:expr, $max:expr, $pattern:expr, $item:expr, $key:expr) => {
            static $name: super::Limits =
                super::Limits { min: $min, max: $max, pattern: $pattern, item: $item, key: $key };
        };
    }
    limits!(WORD Some(2.0), Some(4.0), Some(super::Pattern::new(r"[\w]+")), None, None);
    limits!(COUNT Some(1.0), Some(9.0), None, None, None);
    limits!(WORDS None, Some(2.0), None, Some(&WORD), None);
    limits!(LABELS None, None, None, Some(&WORD), Some(&WORD));

    crate::structure! { Ask {
        word "Word" false Option<String> = WORD,
        key "key" false Option<crate::Secret> = WORD,
        count "count" false Option<i32> = COUNT,
        words "words" false Option<Vec<String>> = WORDS,
        labels "labels" false Option<BTreeMap<String, String>> = LABELS,
        inner "inner" false Option<Vec<Inner>>,
    } }
    crate::structure! { Inner { word "word" false Option<String> = WORD, } }

    fn refused(body: &str) -> ApiError {
        json::read_request(&mut Ask::default(), body.as_bytes()).unwrap_err()
    }

    #[test]
    fn pairs_of_halves_mean_one_character() {
        let pattern = super::Pattern::new(r"[\u0020-\uD7FF\uE000-\uFFFD\uD800\uDC00-\uDBFF\uDFFF\r\n\t]*");
        assert!(pattern.is_valid() && pattern.fits("a\u{1F600}\n") && !pattern.fits("a\u{1}"));
    }

    #[test]
    fn what_satisfies_passes() {
        let body =
            r#"{"Word":"\u00e9\u00e9","key":"abcd","count":9,"words":["ab","cd"],"labels":{"ab":"cd"}}"#;
        json::read_request(&mut Ask::default(), body.as_bytes()).unwrap();
        json::read_request(&mut Ask::default(), b"{}").unwrap();
    }

    #[test]
    fn every_violation_is_told_at_its_place() {
        let error = refused(r#"{"Word":"a b","inner":[{},{"word":"x"}]}"#);
        assert_eq!(error.code, "InvalidParameterException");
        assert_eq!(
            error.message,
            r"2 validation errors detected: Value 'a b' at 'word' failed to satisfy constraint: Member must satisfy regular expression pattern: [\w]+; Value 'x' at 'inner.2.member.word' failed to satisfy constraint: Member must have length greater than or equal to 2"
        );
        for (body, text) in [
            (
                r#"{"count":0}"#,
                "Value '0' at 'count' failed to satisfy constraint: Member must have value greater than or equal to 1",
            ),
            (r#"{"count":10}"#, "Member must have value less than or equal to 9"),
            (
                r#"{"words":["ab","cd","ef"]}"#,
                "Value '[ab, cd, ef]' at 'words' failed to satisfy constraint: Member must have length less than or equal to 2",
            ),
            (r#"{"words":["abcde"]}"#, "at 'words.1.member'"),
            (r#"{"labels":{"ab":"c"}}"#, "Value 'c' at 'labels.ab.member'"),
            (r#"{"labels":{"a":"cd"}}"#, "Value 'a' at 'labels'"),
        ] {
            let error = refused(body);
            assert!(error.message.starts_with("1 validation error detected: Value"), "{error}");
            assert!(error.message.contains(text), "{error}");
        }
    }

    #[test]
    fn secrets_are_not_repeated_and_floods_are_cut() {
        let error = refused(r#"{"key":"s e c r e t"}"#);
        assert!(!error.message.contains("s e c"), "{error}");
        assert!(error.message.starts_with("2 validation errors detected: Value at 'key' failed"), "{error}");
        let many = vec![r#"{"word":"x"}"#; 10_000].join(",");
        let error = refused(&format!(r#"{{"inner":[{many}],"Word":"{}"}}"#, "y".repeat(1 << 20)));
        assert!(error.message.len() < 16 << 10, "{}", error.message.len());
    }

    #[test]
    fn a_client_takes_what_it_gets() {
        json::from_slice::<Ask>(br#"{"count":99}"#).unwrap();
    }

    #[test]
    fn forms_are_held_to_them_too() {
        let error = query::read(&mut Ask::default(), b"count=0&words.member.1=x").unwrap_err();
        assert_eq!(error.code, "ValidationError");
        assert!(error.message.starts_with("2 validation errors detected: "), "{error}");
    }
}
