//! Image references as people write them in task definitions: `[registry[:port]/]repository[:tag][@digest]`.
//!
//! Short names mean Docker Hub, as they do on ECS: `nginx` is `docker.io/library/nginx:latest`.

use super::digest::Digest;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::fmt;
use std::str::FromStr;

/// The registry meant when a name has none.
pub const DOCKER_HUB: &str = "docker.io";
/// ECS bounds `image` at 255 characters for the name; tag (128) and digest (71) come on top.
const MAX_REFERENCE: usize = 512;
/// The distribution specification's bound on registry and repository together.
const MAX_NAME: usize = 255;
/// The distribution specification's bound on a tag.
const MAX_TAG: usize = 128;

/// One image in one registry, fully spelt out. Two references that mean the same image are equal.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Why a text is not an image reference.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid reference format: '{text}' {why}")]
pub struct InvalidReference {
    /// What was given, cut to 256 characters.
    pub text: String,
    pub why: InvalidPart,
}

/// The part of a reference that is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPart {
    #[error("is empty")]
    Empty,
    #[error("is longer than an image name may be")]
    TooLong,
    #[error("has an invalid registry host")]
    Registry,
    #[error(
        "has an invalid repository name (lower-case letters, digits, and '.', '_', '__' or '-' between them)"
    )]
    Repository,
    #[error("has an invalid tag")]
    Tag,
    #[error("has an invalid digest")]
    Digest,
}

impl Reference {
    /// The registry's host and perhaps port: `docker.io`, `localhost:5000`.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The name in the registry: `library/nginx`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag; `latest` where neither tag nor digest was given, none where only a digest was.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// What a manifest is asked for by: the digest if there is one, else the tag.
    pub fn selector(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            // Not reachable through the parser, which sets one of the two.
            (None, None) => "latest".to_owned(),
        }
    }

    /// Registry and repository without tag and digest: `docker.io/library/nginx`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// The same image in the form that people write: `nginx:latest`, `localhost:5000/app:1`.
    pub fn familiar(&self) -> String {
        let full = self.to_string();
        let short =
            full.strip_prefix("docker.io/").map(|s| s.strip_prefix("library/").unwrap_or(s).to_owned());
        // A repository such as `a.b/c` on Docker Hub has no short form: it would read as a registry.
        short.filter(|s| s.parse().as_ref() == Ok(self)).unwrap_or(full)
    }

    /// Whether the registry is this machine, where plain HTTP is acceptable.
    pub fn is_loopback(&self) -> bool {
        let host = match self.registry.strip_prefix('[') {
            Some(rest) => rest.split(']').next().unwrap_or(rest),
            None => self.registry.split(':').next().unwrap_or(&self.registry),
        };
        host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|a| a.is_loopback())
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Reference {
    type Err = InvalidReference;

    fn from_str(text: &str) -> Result<Self, InvalidReference> {
        parse(text).map_err(|why| InvalidReference { text: text.chars().take(256).collect(), why })
    }
}

impl Serialize for Reference {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Reference {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

fn parse(text: &str) -> Result<Reference, InvalidPart> {
    if text.is_empty() {
        return Err(InvalidPart::Empty);
    }
    if text.len() > MAX_REFERENCE {
        return Err(InvalidPart::TooLong);
    }
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest.parse().map_err(|_| InvalidPart::Digest)?)),
        None => (text, None),
    };
    // A colon after the last slash starts a tag; one before it is a registry's port.
    let name_end = rest.rfind('/').map_or(0, |slash| slash + 1);
    let (name, tag) = match rest[name_end..].find(':') {
        Some(colon) => (&rest[..name_end + colon], Some(&rest[name_end + colon + 1..])),
        None => (rest, None),
    };
    let tag = match tag {
        Some(tag) if is_tag(tag) => Some(tag.to_owned()),
        Some(_) => return Err(InvalidPart::Tag),
        None if digest.is_none() => Some("latest".to_owned()),
        None => None,
    };
    let (registry, repository) = split_registry(name);
    if !is_registry(registry) {
        return Err(InvalidPart::Registry);
    }
    if !is_repository(repository) {
        return Err(InvalidPart::Repository);
    }
    let hub = registry == DOCKER_HUB || registry == "index.docker.io";
    let repository = if hub && !repository.contains('/') {
        format!("library/{repository}")
    } else {
        repository.to_owned()
    };
    let registry = if hub { DOCKER_HUB } else { registry }.to_owned();
    if registry.len() + 1 + repository.len() > MAX_NAME {
        return Err(InvalidPart::TooLong);
    }
    Ok(Reference { registry, repository, tag, digest })
}

/// Docker's rule: the first component is a registry if it has a dot, a colon or a capital, or is `localhost`.
fn split_registry(name: &str) -> (&str, &str) {
    match name.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':', '['])
                || first == "localhost"
                || first.bytes().any(|b| b.is_ascii_uppercase()) =>
        {
            (first, rest)
        }
        _ => (DOCKER_HUB, name),
    }
}

fn is_registry(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, "")) => (address, None),
            Some((address, port)) if port.starts_with(':') => (address, Some(&port[1..])),
            _ => return false,
        },
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let port_ok = port.is_none_or(|p| {
        p.len() <= 5 && p.bytes().all(|b| b.is_ascii_digit()) && p.parse::<u16>().is_ok_and(|p| p > 0)
    });
    let host_ok = if text.starts_with('[') {
        host.parse::<std::net::Ipv6Addr>().is_ok()
    } else {
        host.split('.').all(|label| {
            let inner = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
            !label.is_empty() && !label.starts_with('-') && !label.ends_with('-') && label.bytes().all(inner)
        })
    };
    port_ok && host_ok
}

fn is_repository(text: &str) -> bool {
    text.split('/').all(is_repository_part)
}

/// Letters and digits, with single separators between them: one `.`, one or two `_`, or any number of `-`.
fn is_repository_part(part: &str) -> bool {
    let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let separators_ok = part
        .split(|c: char| c.is_ascii() && word(c as u8))
        .all(|separator| matches!(separator, "" | "." | "_" | "__") || separator.bytes().all(|b| b == b'-'));
    let ends_ok = part.bytes().next().is_some_and(word) && part.bytes().next_back().is_some_and(word);
    ends_ok && separators_ok
}

fn is_tag(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    text.len() <= MAX_TAG
        && text.bytes().next().is_some_and(word)
        && text.bytes().all(|b| word(b) || b == b'.' || b == b'-')
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn full(text: &str) -> String {
        text.parse::<Reference>().unwrap().to_string()
    }

    #[test]
    fn short_names_mean_docker_hub() {
        assert_eq!(full("nginx"), "docker.io/library/nginx:latest");
        assert_eq!(full("redis:alpine"), "docker.io/library/redis:alpine");
        assert_eq!(full("grafana/loki:3"), "docker.io/grafana/loki:3");
        assert_eq!(full("docker.io/nginx"), full("nginx"));
        assert_eq!(full("index.docker.io/library/nginx"), full("nginx"));
        assert_eq!("nginx".parse::<Reference>().unwrap().familiar(), "nginx:latest");
    }

    #[test]
    fn registries_ports_tags_and_digests_are_told_apart() {
        let r: Reference = "localhost:5000/team/app:1.2".parse().unwrap();
        assert_eq!((r.registry(), r.repository(), r.tag()), ("localhost:5000", "team/app", Some("1.2")));
        assert_eq!(full("localhost:5000/app"), "localhost:5000/app:latest");
        assert_eq!(full("localhost/app"), "localhost/app:latest");
        let ecr = "123456789012.dkr.ecr.eu-north-1.amazonaws.com/web:7";
        assert_eq!(full(ecr), ecr);
        let digest = format!("nginx@{}", Digest::of(b"x"));
        let r: Reference = digest.parse().unwrap();
        assert_eq!((r.tag(), r.digest()), (None, Some(Digest::of(b"x"))));
        let both: Reference = format!("nginx:1@{}", Digest::of(b"x")).parse().unwrap();
        assert_eq!(both.selector(), Digest::of(b"x").to_string());
    }

    #[test]
    fn only_this_machine_is_loopback() {
        for text in ["localhost/a", "localhost:80/a", "127.0.0.1:5000/a", "127.9.9.9/a", "[::1]:5000/a"] {
            assert!(text.parse::<Reference>().unwrap().is_loopback(), "{text}");
        }
        for text in ["a", "localhost.example/a", "128.0.0.1/a", "127.0.0.1.example.com/a", "[2001:db8::1]/a"]
        {
            assert!(!text.parse::<Reference>().unwrap().is_loopback(), "{text}");
        }
    }

    #[test]
    fn wrong_text_is_refused() {
        for text in [
            "",
            "/",
            "a/",
            "/a",
            "a//b",
            "Nginx",
            "a:",
            "a:b:c",
            "a@",
            "a@sha256:12",
            "-a",
            "a-",
            "a..b",
            "a___b",
            "a b",
            "host.example:0/a",
            "host.example:99999/a",
            "host.example:x/a",
            "../etc",
            "a/../b",
            "[::1/a",
            ".a/b",
            "a\0",
            "ünï",
            "https://host.example/a",
        ] {
            assert!(text.parse::<Reference>().is_err(), "{text}");
        }
        assert!("a".repeat(300).parse::<Reference>().is_err());
        assert!(format!("a:{}", "t".repeat(129)).parse::<Reference>().is_err());
        assert!("x".repeat(1 << 20).parse::<Reference>().unwrap_err().to_string().len() < 400);
    }

    proptest! {
        #[test]
        fn any_text_is_answered_and_what_is_accepted_is_stable(text in "[a-zA-Z0-9./:@_\\[\\]-]{0,60}|\\PC{0,40}") {
            if let Ok(reference) = text.parse::<Reference>() {
                let shown = reference.to_string();
                prop_assert_eq!(&shown.parse::<Reference>().unwrap(), &reference);
                prop_assert_eq!(reference.familiar().parse::<Reference>().unwrap(), reference);
            }
        }

        #[test]
        fn well_formed_references_are_accepted(
            registry in proptest::option::of("[a-z][a-z0-9]{0,8}\\.[a-z]{2,5}(:[1-9][0-9]{0,3})?"),
            repository in "[a-z0-9]{1,8}([._-][a-z0-9]{1,5})?(/[a-z0-9]{1,8}(__[a-z0-9]{1,4})?){0,3}",
            tag in proptest::option::of("[A-Za-z0-9_][A-Za-z0-9._-]{0,20}"),
        ) {
            let mut text = registry.clone().map(|r| r + "/").unwrap_or_default() + &repository;
            // A first component with a dot would be read as a registry.
            prop_assume!(registry.is_some() || !repository.split('/').next().unwrap().contains('.') || !repository.contains('/'));
            if let Some(tag) = &tag {
                text = text + ":" + tag;
            }
            let reference: Reference = text.parse().unwrap();
            prop_assert_eq!(reference.tag(), Some(tag.as_deref().unwrap_or("latest")));
            prop_assert!(reference.repository().ends_with(&repository));
        }
    }
}
