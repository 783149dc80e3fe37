//! awsQuery and ec2Query requests: a form whose dotted names spell a tree, lists numbered from 1.

use crate::error::ApiError;
use crate::reading::{Reading, Unsatisfied, Value, Violation, read_body, told};
use crate::shape::Structure;
use serde_json::Map;

/// Members in one form. AWS's longest legitimate forms have some hundreds.
const PAIRS_MAX: usize = 10_000;
/// Dots in one name: the deepest shape of an awsQuery service has fewer than ten levels.
const DEPTH_MAX: usize = 32;

/// The pairs of a form body or query string.
///
/// # Errors
/// When there are more than any request needs.
pub fn pairs(body: &[u8]) -> Result<Vec<(String, String)>, ApiError> {
    let pairs: Vec<_> = form_urlencoded::parse(body).into_owned().take(PAIRS_MAX + 1).collect();
    if pairs.len() > PAIRS_MAX {
        return Err(ApiError::new(
            "MalformedQueryString",
            format!("The form has more than {PAIRS_MAX} members."),
        ));
    }
    Ok(pairs)
}

/// Reads a form into `target`, as awsQuery services do.
///
/// # Errors
/// `MalformedQueryString` for names that contradict each other, and `ValidationError` for what does not fit the shape.
pub fn read(target: &mut dyn Structure, body: &[u8]) -> Result<(), ApiError> {
    read_body(target, Value::Object(tree(body)?), Reading::form()).map_err(|violation| {
        let message = match violation {
            Violation::Type { .. } => violation.to_string(),
            violation => told(&as_constraints(violation)),
        };
        ApiError::new("ValidationError", message)
    })
}

/// Reads a form into `target`, as EC2 does: other codes and other words for the same.
///
/// # Errors
/// `MalformedQueryString`, `MissingParameter` and `InvalidParameterValue`.
pub fn read_ec2(target: &mut dyn Structure, body: &[u8]) -> Result<(), ApiError> {
    let invalid = |value: &str, path: &str, rule: &str| {
        let message = format!("Value ({value}) for parameter {path} is invalid. {rule}");
        ApiError::new("InvalidParameterValue", message)
    };
    read_body(target, Value::Object(tree(body)?), Reading::form()).map_err(|violation| match violation {
        Violation::Missing { path } => {
            ApiError::new("MissingParameter", format!("The request must contain the parameter {path}"))
        }
        Violation::Type { path, expected } => {
            ApiError::new("InvalidParameterValue", format!("The parameter {path} must be {expected}."))
        }
        Violation::NotOneOf { path, value, allowed } => {
            invalid(&value, &path, &format!("Expecting one of: {allowed}."))
        }
        Violation::Unsatisfied(all) => {
            let first = all.into_iter().next();
            let Unsatisfied { path, value, rule } = first.expect("it is never empty");
            let rule = rule.trim_start_matches("Member must have ");
            invalid(value.unwrap_or_default().trim_matches('\''), &path, &format!("Expecting a {rule}."))
        }
    })
}

/// What is missing or of no known value, worded as a constraint: so awsQuery services do.
fn as_constraints(violation: Violation) -> Vec<Unsatisfied> {
    let one = |path, value, rule| vec![Unsatisfied { path, value, rule }];
    match violation {
        Violation::Missing { path } => {
            one(path, Some("null".to_owned()), "Member must not be null".to_owned())
        }
        Violation::NotOneOf { path, value, allowed } => {
            one(path, Some(format!("'{value}'")), format!("Member must satisfy enum value set: [{allowed}]"))
        }
        Violation::Type { path, expected } => one(path, None, format!("Member must be {expected}")),
        Violation::Unsatisfied(all) => all,
    }
}

fn tree(body: &[u8]) -> Result<Map<String, Value>, ApiError> {
    let mut tree = Map::new();
    for (name, value) in pairs(body)? {
        if name != "Action" && name != "Version" && !name.starts_with("X-Amz-") {
            insert(&mut tree, &name, value)?;
        }
    }
    Ok(tree)
}

fn insert(tree: &mut Map<String, Value>, name: &str, value: String) -> Result<(), ApiError> {
    let malformed = || ApiError::new("MalformedQueryString", "The names of the form contradict each other.");
    let parts: Vec<&str> = name.split('.').collect();
    let Some((last, inner)) = parts.split_last().filter(|_| parts.len() <= DEPTH_MAX) else {
        return Err(malformed());
    };
    let mut node = tree;
    for part in inner {
        let child = node.entry(*part).or_insert_with(|| Value::Object(Map::new()));
        node = child.as_object_mut().ok_or_else(malformed)?;
    }
    match node.insert((*last).to_owned(), Value::String(value)) {
        None => Ok(()),
        Some(_) => Err(malformed()),
    }
}

/// A list's items in order: `{"1": a, "2": b}`, or the same below `member`.
pub(crate) fn list(mut numbered: Map<String, Value>) -> Option<Vec<Value>> {
    if numbered.len() == 1
        && let Some(inner) = numbered.remove("member")
    {
        return match inner {
            Value::Object(inner) => list(inner),
            Value::String(text) if text.is_empty() => Some(Vec::new()),
            _ => None,
        };
    }
    let numbers: Option<Vec<(u32, Value)>> = numbered
        .into_iter()
        .map(|(number, value)| Some((number.parse().ok().filter(|n| *n > 0)?, value)))
        .collect();
    let mut numbers = numbers?;
    numbers.sort_by_key(|(number, _)| *number);
    Some(numbers.into_iter().map(|(_, value)| value).collect())
}

/// A map's entries: `{"entry": {"1": {"key": k, "value": v}}}`.
pub(crate) fn map(mut entries: Map<String, Value>) -> Option<Map<String, Value>> {
    let numbered = match entries.remove("entry") {
        Some(Value::Object(inner)) => inner,
        Some(_) => return None,
        None => entries,
    };
    let entry = |value: Value| {
        let Value::Object(mut pair) = value else { return None };
        let Value::String(key) = pair.remove("key")? else { return None };
        Some((key, pair.remove("value")?))
    };
    list(numbered)?.into_iter().map(entry).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::collections::BTreeMap;

    crate::structure! { Filter { name "Name" true String, values "Values" false Option<Vec<String>>, } }
    crate::structure! { Ask {
        count "Count" false Option<i32>,
        filters "Filters" false Option<Vec<Filter>>,
        tags "Tags" false Option<BTreeMap<String, String>>,
        dry "DryRun" false Option<bool>,
    } }

    #[test]
    fn ec2_has_its_own_words() {
        let error = |body: &str| read_ec2(&mut Ask::default(), body.as_bytes()).unwrap_err();
        let missing = error("Filters.1.Values.1=x");
        assert_eq!(missing.code, "MissingParameter");
        assert_eq!(missing.message, "The request must contain the parameter filters.1.member.name");
        assert_eq!(error("Count=x").code, "InvalidParameterValue");
        let mut ask = Ask::default();
        read_ec2(&mut ask, b"Filters.1.Name=a&Filters.1.Values.1=x&Filters.1.Values.2=y").unwrap();
        assert_eq!(ask.filters.unwrap()[0].values, Some(vec!["x".to_owned(), "y".to_owned()]));
    }

    #[test]
    fn what_is_missing_is_null() {
        let message = ask("Filters.member.1.Values.member.1=x").unwrap_err().message;
        let text = "1 validation error detected: Value null at 'filters.1.member.name' failed to satisfy constraint: \
                    Member must not be null";
        assert_eq!(message, text);
    }

    fn ask(body: &str) -> Result<Ask, ApiError> {
        let mut ask = Ask::default();
        read(&mut ask, body.as_bytes()).map(|()| ask)
    }

    #[test]
    fn a_form_spells_a_tree() {
        let body = "Action=Ask&Version=2011-06-15&Count=7&DryRun=true&Filters.member.2.Name=b&Filters.member.1.Name=a\
                    &Filters.member.1.Values.member.1=x+y&Tags.entry.1.key=k&Tags.entry.1.value=v%26";
        let read = ask(body).unwrap();
        let filters = read.filters.unwrap();
        assert_eq!((read.count, read.dry), (Some(7), Some(true)));
        assert_eq!(filters[0], Filter { name: "a".to_owned(), values: Some(vec!["x y".to_owned()]) });
        assert_eq!(filters[1].name, "b");
        assert_eq!(read.tags.unwrap()["k"], "v&");
    }

    #[test]
    fn nonsense_is_refused() {
        for body in [
            "Count=x",
            "Filters.member.1.Values=1&Filters.member.1.Name.x=1",
            "Filters.member.0.Name=a",
            "Count=1&Count=2",
            "Tags.entry.1.key=k",
            "Filters.member.1.Values.member.1=1",
        ] {
            assert!(ask(body).is_err(), "{body}");
        }
        assert!(ask(&"a.".repeat(1000)).is_err());
    }
}
