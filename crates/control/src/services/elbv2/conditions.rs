//! When a rule applies: conditions, from requests and to answers.

use super::errors::{Elbv2Error, shortened};
use gantry_api::elbv2;
use gantry_decide::routing::config::{Block, Condition, Pattern, QueryPattern};

/// Values of all conditions of one rule, and wildcards in them: AWS's limits.
const VALUES_MAX: usize = 5;
const WILDCARDS_MAX: usize = 5;
/// Characters of a value, and of a header's or method's name: AWS's limits.
const VALUE_LENGTH_MAX: usize = 128;
const NAME_LENGTH_MAX: usize = 40;

/// Reads the conditions of a rule; all must hold.
///
/// # Errors
/// For what AWS refuses.
pub fn read(given: &[elbv2::RuleCondition]) -> Result<Vec<Condition>, Elbv2Error> {
    if given.is_empty() {
        return Err(Elbv2Error::validation("A condition must be specified"));
    }
    let conditions = given.iter().map(condition).collect::<Result<Vec<_>, _>>()?;
    let repeats = |at: usize, one: &Condition| {
        let kind = std::mem::discriminant(one);
        let once = !matches!(one, Condition::Header { .. } | Condition::Query(_));
        once && conditions[..at].iter().any(|other| std::mem::discriminant(other) == kind)
    };
    if let Some((at, _)) = conditions.iter().enumerate().find(|(at, one)| repeats(*at, one)) {
        let field = view(&conditions[at]).field.unwrap_or_default();
        return Err(Elbv2Error::validation(format!("A rule can only have one '{field}' condition")));
    }
    if conditions.iter().map(values).sum::<usize>() > VALUES_MAX {
        return Err(Elbv2Error::validation(format!("A rule can only have '{VALUES_MAX}' condition values")));
    }
    if conditions.iter().map(wildcards).sum::<usize>() > WILDCARDS_MAX {
        return Err(Elbv2Error::validation(format!(
            "A rule can only have '{WILDCARDS_MAX}' condition wildcards"
        )));
    }
    Ok(conditions)
}

fn values(condition: &Condition) -> usize {
    match condition {
        Condition::Host(values) | Condition::Path(values) | Condition::Header { values, .. } => values.len(),
        Condition::Method(values) => values.len(),
        Condition::Query(values) => values.len(),
        Condition::Source(values) => values.len(),
    }
}

fn wildcards(condition: &Condition) -> usize {
    let of = |text: &str| text.bytes().filter(|b| matches!(b, b'*' | b'?')).count();
    match condition {
        Condition::Host(values) | Condition::Path(values) | Condition::Header { values, .. } => values
            .iter()
            .map(|pattern| match pattern {
                Pattern::Wildcard(text) => of(text),
                Pattern::Regex(_) => 0,
            })
            .sum(),
        Condition::Query(values) => {
            values.iter().map(|pair| of(&pair.value) + pair.key.as_deref().map_or(0, of)).sum()
        }
        Condition::Method(_) | Condition::Source(_) => 0,
    }
}

fn condition(given: &elbv2::RuleCondition) -> Result<Condition, Elbv2Error> {
    let field = given
        .field
        .as_deref()
        .ok_or_else(|| Elbv2Error::validation("A condition field must be specified"))?;
    let plain = || given.values.as_deref().unwrap_or_default();
    let regexes = || given.regex_values.as_deref().unwrap_or_default();
    match field {
        "host-header" => {
            let config = given.host_header_config.as_ref();
            let values = either(field, plain(), config.and_then(|c| c.values.as_deref()))?;
            let regexes = either(field, regexes(), config.and_then(|c| c.regex_values.as_deref()))?;
            patterns(field, values, regexes, is_host).map(Condition::Host)
        }
        "path-pattern" => {
            let config = given.path_pattern_config.as_ref();
            let values = either(field, plain(), config.and_then(|c| c.values.as_deref()))?;
            let regexes = either(field, regexes(), config.and_then(|c| c.regex_values.as_deref()))?;
            patterns(field, values, regexes, is_path).map(Condition::Path)
        }
        "http-header" => {
            let config = given.http_header_config.as_ref();
            let name = config.and_then(|config| config.http_header_name.as_deref()).unwrap_or_default();
            let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'+-.^_`|~".contains(&b);
            if name.is_empty() || name.len() > NAME_LENGTH_MAX || !name.bytes().all(token) {
                return Err(Elbv2Error::validation(format!(
                    "The header name '{}' is not valid",
                    shortened(name)
                )));
            }
            if name.eq_ignore_ascii_case("host") {
                let message = "You cannot use an HTTP header condition for the host header: use a host-header condition";
                return Err(Elbv2Error::validation(message));
            }
            let values = config.and_then(|config| config.values.as_deref()).unwrap_or_default();
            let regexes = config.and_then(|config| config.regex_values.as_deref()).unwrap_or(regexes());
            let values =
                patterns(field, values, regexes, |text| text.bytes().all(|b| (b' '..=b'~').contains(&b)))?;
            Ok(Condition::Header { name: name.to_owned(), values })
        }
        "http-request-method" => {
            let config = given.http_request_method_config.as_ref();
            let values = config.and_then(|config| config.values.as_deref()).unwrap_or_default();
            let fits = |text: &String| {
                (1..=NAME_LENGTH_MAX).contains(&text.len())
                    && text.bytes().all(|b| b.is_ascii_uppercase() || matches!(b, b'-' | b'_'))
            };
            if let Some(bad) = values.iter().find(|text| !fits(text)) {
                return Err(invalid(field, bad));
            }
            some(field, values.to_vec()).map(Condition::Method)
        }
        "query-string" => {
            let config = given.query_string_config.as_ref();
            let pairs = config.and_then(|config| config.values.as_deref()).unwrap_or_default();
            let pair = |pair: &elbv2::QueryStringKeyValuePair| {
                let value = pair.value.clone().filter(|value| !value.is_empty());
                let value =
                    value.ok_or_else(|| Elbv2Error::validation("A query string value must be specified"))?;
                let long = |text: &String| text.chars().count() > VALUE_LENGTH_MAX;
                if long(&value) || pair.key.as_ref().is_some_and(long) {
                    return Err(invalid(field, &value));
                }
                Ok(QueryPattern { key: pair.key.clone().filter(|key| !key.is_empty()), value })
            };
            let values = pairs.iter().map(pair).collect::<Result<Vec<_>, _>>()?;
            some(field, values).map(Condition::Query)
        }
        "source-ip" => {
            let config = given.source_ip_config.as_ref();
            let values = config.and_then(|config| config.values.as_deref()).unwrap_or_default();
            let block = |text: &String| {
                let v4 = text.parse().ok().map(Block::V4);
                v4.or_else(|| text.parse().ok().map(Block::V6)).ok_or_else(|| invalid(field, text))
            };
            let values = values.iter().map(block).collect::<Result<Vec<_>, _>>()?;
            some(field, values).map(Condition::Source)
        }
        other => Err(Elbv2Error::validation(format!(
            "Condition field '{}' must be one of '[http-request-method, host-header, query-string, http-header, \
             path-pattern, source-ip]'",
            shortened(other)
        ))),
    }
}

/// A condition's values stand in one of two places.
fn either<'a>(
    field: &str,
    plain: &'a [String],
    in_config: Option<&'a [String]>,
) -> Result<&'a [String], Elbv2Error> {
    match (plain, in_config.unwrap_or_default()) {
        ([], in_config) => Ok(in_config),
        (plain, []) => Ok(plain),
        (plain, in_config) if plain == in_config => Ok(plain),
        _ => Err(Elbv2Error::validation(format!("You can specify the values of a '{field}' condition once"))),
    }
}

fn some<T>(field: &str, values: Vec<T>) -> Result<Vec<T>, Elbv2Error> {
    if values.is_empty() {
        return Err(Elbv2Error::validation(format!("A '{field}' condition value must be specified")));
    }
    Ok(values)
}

fn invalid(field: &str, value: &str) -> Elbv2Error {
    Elbv2Error::validation(format!("The '{field}' condition value '{}' is not valid", shortened(value)))
}

fn patterns(
    field: &str,
    values: &[String],
    regexes: &[String],
    allowed: impl Fn(&str) -> bool,
) -> Result<Vec<Pattern>, Elbv2Error> {
    let mut patterns = Vec::new();
    for value in values {
        if value.is_empty() || value.chars().count() > VALUE_LENGTH_MAX || !allowed(value) {
            return Err(invalid(field, value));
        }
        patterns.push(Pattern::Wildcard(value.clone()));
    }
    for regex in regexes {
        if regex.is_empty() || regex.chars().count() > VALUE_LENGTH_MAX {
            return Err(invalid(field, regex));
        }
        check_regex(regex)?;
        patterns.push(Pattern::Regex(regex.clone()));
    }
    some(field, patterns)
}

/// # Errors
/// For an expression that Gantry's engine, whose time is linear in the text, does not know or finds too large.
pub fn check_regex(text: &str) -> Result<(), Elbv2Error> {
    gantry_decide::routing::check_regex(text)
        .map_err(|_| Elbv2Error::validation(format!("The regex '{}' is not valid", shortened(text))))
}

fn is_host(text: &str) -> bool {
    let last = text.rsplit_once('.').map(|(_, last)| last);
    text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'*' | b'?'))
        && last.is_some_and(|last| last.bytes().all(|b| b.is_ascii_alphabetic() || matches!(b, b'*' | b'?')))
}

fn is_path(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.$/~\"'@:+&()!,;=%*? ".contains(&b))
}

/// A condition's plain and regular patterns.
fn split(patterns: &[Pattern]) -> (Option<Vec<String>>, Option<Vec<String>>) {
    let (mut plain, mut regexes) = (Vec::new(), Vec::new());
    for pattern in patterns {
        match pattern {
            Pattern::Wildcard(text) => plain.push(text.clone()),
            Pattern::Regex(text) => regexes.push(text.clone()),
        }
    }
    ((!plain.is_empty()).then_some(plain), (!regexes.is_empty()).then_some(regexes))
}

pub fn view(condition: &Condition) -> elbv2::RuleCondition {
    let field = |name: &str| elbv2::RuleCondition { field: Some(name.to_owned()), ..Default::default() };
    match condition {
        Condition::Host(patterns) => {
            let (values, regex_values) = split(patterns);
            elbv2::RuleCondition {
                values: values.clone(),
                host_header_config: Some(elbv2::HostHeaderConditionConfig { values, regex_values }),
                ..field("host-header")
            }
        }
        Condition::Path(patterns) => {
            let (values, regex_values) = split(patterns);
            elbv2::RuleCondition {
                values: values.clone(),
                path_pattern_config: Some(elbv2::PathPatternConditionConfig { values, regex_values }),
                ..field("path-pattern")
            }
        }
        Condition::Header { name, values } => {
            let (values, regex_values) = split(values);
            let http_header_name = Some(name.clone());
            elbv2::RuleCondition {
                http_header_config: Some(elbv2::HttpHeaderConditionConfig {
                    http_header_name,
                    values,
                    regex_values,
                }),
                ..field("http-header")
            }
        }
        Condition::Method(values) => elbv2::RuleCondition {
            http_request_method_config: Some(elbv2::HttpRequestMethodConditionConfig {
                values: Some(values.clone()),
            }),
            ..field("http-request-method")
        },
        Condition::Query(values) => {
            let pair = |pair: &QueryPattern| elbv2::QueryStringKeyValuePair {
                key: pair.key.clone(),
                value: Some(pair.value.clone()),
            };
            elbv2::RuleCondition {
                query_string_config: Some(elbv2::QueryStringConditionConfig {
                    values: Some(values.iter().map(pair).collect()),
                }),
                ..field("query-string")
            }
        }
        Condition::Source(blocks) => {
            let text = |block: &Block| match block {
                Block::V4(block) => block.to_string(),
                Block::V6(block) => block.to_string(),
            };
            elbv2::RuleCondition {
                source_ip_config: Some(elbv2::SourceIpConditionConfig {
                    values: Some(blocks.iter().map(text).collect()),
                    ip_address_type: None,
                }),
                ..field("source-ip")
            }
        }
    }
}
