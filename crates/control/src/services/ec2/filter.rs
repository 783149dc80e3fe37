//! Filters and pages of what is described: which records a request wants to see.

use super::errors::{Ec2Error, Limit};
use super::state::Tags;
use crate::page::Page;
use gantry_api::ec2;
use gantry_decide::ids::Scope;

/// Filters in a request, and values of one: EC2's limits.
const FILTERS_MAX: usize = 50;
const VALUES_MAX: usize = 200;
/// Items of a page: EC2's limits. Also what is shown to those who ask for no pages.
const PAGE_MIN: i32 = 5;
pub const PAGE_MAX: i32 = 1000;

/// The values by which a filter of this name sees a record.
pub type Fact<T> = (&'static str, fn(&Scope, &T) -> Vec<String>);

/// What can be described and filtered.
pub trait Described: Sized + 'static {
    /// Beside those for tags.
    const FACTS: &'static [Fact<Self>];

    fn id(&self) -> String;
    fn tags(&self) -> &Tags;
}

/// The filters of a request, known to be ones of `T`.
pub struct Filters<'a>(Vec<(&'a str, &'a [String])>);

impl<'a> Filters<'a> {
    /// # Errors
    /// For a filter that records of this kind do not know, or too many.
    pub fn read<T: Described>(given: Option<&'a [ec2::Filter]>) -> Result<Filters<'a>, Ec2Error> {
        let known: Vec<&str> = T::FACTS.iter().map(|(name, _)| *name).collect();
        Filters::read_known(given, &known, true)
    }

    /// The same for what is no record. `tagged` says whether filters for tags are known too.
    ///
    /// # Errors
    /// As [`Filters::read`].
    pub fn read_known(
        given: Option<&'a [ec2::Filter]>,
        known: &[&str],
        tagged: bool,
    ) -> Result<Filters<'a>, Ec2Error> {
        let given = given.unwrap_or_default();
        let read = |filter: &'a ec2::Filter| {
            let name = filter.name.as_deref().ok_or(Ec2Error::Missing("filter name"))?;
            let of_tags = tagged && (name == "tag-key" || name.starts_with("tag:"));
            if !of_tags && !known.contains(&name) {
                let name: String = name.chars().take(100).collect();
                return Err(Ec2Error::invalid(format!("The filter '{name}' is invalid")));
            }
            let values = filter.values.as_deref().unwrap_or_default();
            if values.len() > VALUES_MAX { Err(Ec2Error::Limit(Limit::Filters)) } else { Ok((name, values)) }
        };
        if given.len() > FILTERS_MAX {
            return Err(Ec2Error::Limit(Limit::Filters));
        }
        Ok(Filters(given.iter().map(read).collect::<Result<_, _>>()?))
    }

    /// Whether a record passes: each filter by one of its values.
    pub fn pass<T: Described>(&self, scope: &Scope, record: &T) -> bool {
        self.pass_by(|name| match name.strip_prefix("tag:") {
            Some(key) => record.tags().get(key).cloned().into_iter().collect(),
            None if name == "tag-key" => record.tags().keys().cloned().collect(),
            None => {
                let fact = T::FACTS.iter().find(|(known, _)| *known == name);
                fact.map(|(_, values)| values(scope, record)).unwrap_or_default()
            }
        })
    }

    /// Whether something passes that is seen through `values`.
    pub fn pass_by(&self, values: impl Fn(&str) -> Vec<String>) -> bool {
        self.0.iter().all(|(name, wanted)| {
            let values = values(name);
            wanted.iter().any(|pattern| values.iter().any(|value| like(pattern, value)))
        })
    }
}

/// Whether a text is like a pattern: `*` stands for any characters, `?` for one, and a backslash takes the special
/// meaning from what follows.
fn like(pattern: &str, text: &str) -> bool {
    #[derive(PartialEq)]
    enum Sign {
        One(char),
        Any,
        Many,
    }
    let mut signs = Vec::new();
    let mut letters = pattern.chars();
    while let Some(letter) = letters.next() {
        signs.push(match letter {
            '*' => Sign::Many,
            '?' => Sign::Any,
            '\\' => Sign::One(letters.next().unwrap_or('\\')),
            other => Sign::One(other),
        });
    }
    // Greedy with one place to return to: after a later `*` an earlier one need not be tried again.
    let text: Vec<char> = text.chars().collect();
    let (mut at, mut sign) = (0, 0);
    let mut back: Option<(usize, usize)> = None;
    while at < text.len() {
        match signs.get(sign) {
            Some(Sign::Many) => {
                back = Some((at, sign));
                sign += 1;
            }
            Some(Sign::Any) => (at, sign) = (at + 1, sign + 1),
            Some(Sign::One(letter)) if *letter == text[at] => (at, sign) = (at + 1, sign + 1),
            _ => match back {
                Some((from, star)) => {
                    back = Some((from + 1, star));
                    (at, sign) = (from + 1, star + 1);
                }
                None => return false,
            },
        }
    }
    signs[sign..].iter().all(|sign| *sign == Sign::Many)
}

/// The page that a request asks for. With `by_id` it names what it wants, and may not ask for pages.
///
/// # Errors
/// For sizes outside EC2's bounds and tokens that are none of ours.
pub fn page(token: Option<&str>, size: Option<i32>, by_id: bool) -> Result<Page, Ec2Error> {
    if by_id && size.is_some() {
        let message = "The parameter MaxResults cannot be used with ids in the same request";
        return Err(Ec2Error::InvalidCombination(message.to_owned()));
    }
    if let Some(size) = size.filter(|size| *size < PAGE_MIN) {
        let message = format!(
            "Value ( {size} ) for parameter maxResults is invalid. Expecting a value greater than {PAGE_MIN}."
        );
        return Err(Ec2Error::invalid(message));
    }
    Ok(Page::read(token, size, PAGE_MAX, PAGE_MAX)?)
}

/// The records of a request's ids, or all of them, that pass its filters, cut to its page.
///
/// # Errors
/// For the first id that names no record.
pub fn describe<'a, T: Described, S>(
    scope: &Scope,
    records: impl Iterator<Item = &'a T>,
    wanted: &[(String, Ec2Error)],
    filters: &Filters<'_>,
    page: &Page,
    show: impl Fn(&T) -> S,
) -> Result<(Option<Vec<S>>, Option<String>), Ec2Error> {
    let mut records: Vec<&T> = records.collect();
    if !wanted.is_empty() {
        if let Some((_, missing)) = wanted.iter().find(|(id, _)| !records.iter().any(|r| r.id() == *id)) {
            return Err(missing.clone());
        }
        records.retain(|record| wanted.iter().any(|(id, _)| *id == record.id()));
    }
    records.retain(|record| filters.pass(scope, *record));
    records.sort_by_key(|record| record.id());
    let (shown, token) = page.cut(records.into_iter(), |record| record.id(), show);
    Ok((Some(shown), token))
}

/// The ids of a request with the errors for those that name nothing.
///
/// # Errors
/// For a text that is no such id.
pub fn wanted<I: super::check::Id + ToString>(
    texts: Option<&[String]>,
) -> Result<Vec<(String, Ec2Error)>, Ec2Error> {
    let ids: Vec<I> = super::check::ids(texts)?;
    Ok(ids.into_iter().map(|id| (id.to_string(), super::check::not_found::<I>(id))).collect())
}

#[cfg(test)]
mod tests {
    use super::like;

    #[test]
    fn patterns_match_as_on_aws() {
        for (pattern, text, wanted) in [
            ("web", "web", true),
            ("web", "webs", false),
            ("", "", true),
            ("*", "", true),
            ("w*b", "web", true),
            ("w*b", "weber", false),
            ("*b*r", "weber", true),
            ("we?", "web", true),
            ("we?", "we", false),
            (r"a\*", "a*", true),
            (r"a\*", "ab", false),
            ("*aab", "aaaab", true),
        ] {
            assert_eq!(like(pattern, text), wanted, "{pattern} {text}");
        }
    }

    #[test]
    fn a_hostile_pattern_is_no_burden() {
        assert!(!like(&"*a".repeat(500), &"a".repeat(499)));
    }
}
