//! Tags: reading them from requests under ECS's rules, and showing them.

use super::errors::EcsError;
use super::state::Tags;
use gantry_api::ecs;

/// Tags of one resource, those with the `aws:` prefix not counted: ECS's limit.
pub const TAGS_MAX: usize = 50;
/// Characters of a key: ECS's limit.
const KEY_LENGTH_MAX: usize = 128;
/// Characters of a value: ECS's limit.
const VALUE_LENGTH_MAX: usize = 256;
/// Keys with this prefix are AWS's own.
const RESERVED_PREFIX: &str = "aws:";

/// The tags of a request.
///
/// # Errors
/// `InvalidParameterException` for too many, repeated, reserved or malformed tags.
pub fn read(tags: Option<&[ecs::Tag]>) -> Result<Tags, EcsError> {
    let tags = tags.unwrap_or_default();
    if tags.len() > TAGS_MAX {
        return Err(EcsError::invalid(format!("At most {TAGS_MAX} tags are allowed.")));
    }
    let mut read = Tags::new();
    for tag in tags {
        let key = tag.key.as_deref().unwrap_or_default();
        let value = tag.value.as_deref().unwrap_or_default();
        check_key(key)?;
        if value.chars().count() > VALUE_LENGTH_MAX || !value.chars().all(allowed) {
            return Err(EcsError::invalid(format!("The value of the tag '{key}' is not valid.")));
        }
        if read.insert(key.to_owned(), value.to_owned()).is_some() {
            return Err(EcsError::invalid(format!(
                "Tag keys must be unique: '{key}' is given more than once."
            )));
        }
    }
    Ok(read)
}

/// Checks a key that a caller wants to set or to remove.
///
/// # Errors
/// `InvalidParameterException` for a reserved or malformed key.
pub fn check_key(key: &str) -> Result<(), EcsError> {
    if key.get(..RESERVED_PREFIX.len()).is_some_and(|prefix| prefix.eq_ignore_ascii_case(RESERVED_PREFIX)) {
        return Err(EcsError::invalid("aws: prefixed tag key names are not allowed for external use."));
    }
    let length = key.chars().count();
    if length == 0 || length > KEY_LENGTH_MAX || !key.chars().all(allowed) {
        let shown: String = key.chars().take(KEY_LENGTH_MAX).collect();
        return Err(EcsError::invalid(format!("The tag key '{shown}' is not valid.")));
    }
    Ok(())
}

fn allowed(c: char) -> bool {
    c.is_alphanumeric() || c.is_whitespace() || "_.:/=+-@".contains(c)
}

/// Adds `more` to `tags`; equal keys take the new value.
///
/// # Errors
/// `LimitExceededException` when the resource would have too many; `tags` is unchanged then.
pub fn merge(tags: &mut Tags, more: Tags) -> Result<(), EcsError> {
    let mut merged = tags.clone();
    merged.extend(more);
    if merged.keys().filter(|key| !key.starts_with(RESERVED_PREFIX)).count() > TAGS_MAX {
        return Err(EcsError::LimitExceeded(format!("A resource can have at most {TAGS_MAX} tags.")));
    }
    *tags = merged;
    Ok(())
}

pub fn show(tags: &Tags) -> Vec<ecs::Tag> {
    tags.iter().map(|(key, value)| ecs::Tag { key: Some(key.clone()), value: Some(value.clone()) }).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn tag(key: &str, value: &str) -> ecs::Tag {
        ecs::Tag { key: Some(key.to_owned()), value: Some(value.to_owned()) }
    }

    #[test]
    fn rules_hold() {
        assert!(read(None).unwrap().is_empty());
        let tags = read(Some(&[tag("team", "röda laget"), tag("a:b/c=d+e-f@g_h.i", "")])).unwrap();
        assert_eq!(tags.len(), 2);
        for wrong in [tag("", "x"), tag("aws:x", "x"), tag("AWS:x", "x"), tag("a*b", "x"), tag("a", "<b>")] {
            assert!(read(Some(std::slice::from_ref(&wrong))).is_err(), "{wrong:?}");
        }
        assert!(read(Some(&[tag(&"k".repeat(129), "x")])).is_err());
        assert!(read(Some(&[tag("k", &"v".repeat(257))])).is_err());
        assert!(read(Some(&[tag("k", "1"), tag("k", "2")])).is_err());
        let many: Vec<_> = (0..51).map(|n| tag(&n.to_string(), "x")).collect();
        assert!(read(Some(&many)).is_err());
        assert_eq!(read(Some(&many[..50])).unwrap().len(), 50);
    }

    #[test]
    fn merging_keeps_the_limit_and_the_old_tags() {
        let fifty: Vec<_> = (0..50).map(|n| tag(&n.to_string(), "x")).collect();
        let mut tags = read(Some(&fifty)).unwrap();
        tags.insert("aws:ecs:clusterName".to_owned(), "default".to_owned());
        let before = tags.clone();
        assert!(merge(&mut tags, read(Some(&[tag("new", "x")])).unwrap()).is_err());
        assert_eq!(tags, before);
        merge(&mut tags, read(Some(&[tag("7", "y")])).unwrap()).unwrap();
        assert_eq!(tags["7"], "y");
    }
}
