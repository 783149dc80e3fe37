//! Derived signing keys that proved themselves, kept for the requests that follow.

use gantry_wire::sigv4::SigningKey;
use parking_lot::RwLock;
use std::collections::HashMap;

/// Keys kept at most. A key is worth one day of one access key in one region and service: a thousand callers fill
/// this in a day. What is kept takes some 1 KiB each.
const KEPT_MAX: usize = 4096;

/// Signing keys by what `Credential` says: access key, date, region and service. Only keys that verified a signature
/// come in, so that nobody without a secret can fill it.
#[derive(Debug, Default)]
pub struct SigningKeys(RwLock<HashMap<String, SigningKey>>);

impl SigningKeys {
    pub fn get(&self, credential: &str) -> Option<SigningKey> {
        self.0.read().get(credential).cloned()
    }

    /// Keeps a key that has just verified a signature. When there is no room all go: the living ones return with
    /// their next request, and those of past days do not.
    pub fn keep(&self, credential: &str, key: SigningKey) {
        let mut kept = self.0.write();
        if kept.len() >= KEPT_MAX {
            kept.clear();
        }
        kept.insert(credential.to_owned(), key);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use gantry_wire::Secret;

    #[test]
    fn it_never_grows_beyond_its_bound_and_shows_nothing() {
        let keys = SigningKeys::default();
        let key = SigningKey::derive(&Secret::new("secret"), "20310101", "us-east-1", "ecs");
        for number in 0..=KEPT_MAX {
            keys.keep(&format!("AKID{number}/20310101/us-east-1/ecs/aws4_request"), key.clone());
            assert!(keys.0.read().len() <= KEPT_MAX);
        }
        assert!(keys.get("AKID0/20310101/us-east-1/ecs/aws4_request").is_none());
        assert!(keys.get(&format!("AKID{KEPT_MAX}/20310101/us-east-1/ecs/aws4_request")).is_some());
        assert!(format!("{keys:?}").contains("[hidden]"));
    }
}
