//! Tokens of instance metadata: each says until when it is good, and is signed, so that none has to be kept. They are good
//! while the agent runs; SDKs ask for another when theirs is refused.

use crate::agent::OsRandom;
use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use gantry_decide::random::Random;
use std::time::{Duration, Instant};

/// Seconds that a token may be good for: EC2's limits.
const TTL: std::ops::RangeInclusive<u32> = 1..=21_600;
/// Bytes of the moment in a token, before the signature.
const MOMENT: usize = 8;

/// See the module.
pub struct Tokens {
    key: hmac::Key,
    since: Instant,
}

impl Tokens {
    pub fn new() -> Tokens {
        let mut key = [0; 32];
        OsRandom.fill(&mut key);
        Tokens { key: hmac::Key::new(hmac::HMAC_SHA256, &key), since: Instant::now() }
    }

    /// A token that is good for so many seconds, and the seconds; `None` for what is no such number.
    pub fn give(&self, seconds: &str) -> Option<(String, u32)> {
        let seconds: u32 = seconds.trim().parse().ok().filter(|seconds| TTL.contains(seconds))?;
        let until = self.since.elapsed() + Duration::from_secs(seconds.into());
        let mut token = u64::try_from(until.as_millis()).ok()?.to_be_bytes().to_vec();
        token.extend_from_slice(hmac::sign(&self.key, &token).as_ref());
        Some((URL_SAFE_NO_PAD.encode(token), seconds))
    }

    pub fn is_good(&self, token: &str) -> bool {
        let Ok(token) = URL_SAFE_NO_PAD.decode(token) else { return false };
        let Some((moment, signature)) = token.split_first_chunk::<MOMENT>() else { return false };
        let until = Duration::from_millis(u64::from_be_bytes(*moment));
        hmac::verify(&self.key, moment, signature).is_ok() && self.since.elapsed() < until
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn tokens_are_good_until_they_end_and_nobody_else_makes_them() {
        let tokens = Tokens::new();
        let (token, seconds) = tokens.give("21600").unwrap();
        assert_eq!(seconds, 21_600);
        assert!(tokens.is_good(&token));
        assert!(!Tokens::new().is_good(&token));
        for wrong in ["", "AAAA", &token[..20], &token.to_lowercase()] {
            assert!(!tokens.is_good(wrong), "{wrong}");
        }
        let earlier = Instant::now().checked_sub(Duration::from_secs(2)).unwrap();
        let (old, _) = tokens.give("1").unwrap();
        assert!(!Tokens { since: earlier, ..tokens }.is_good(&old));
    }
}
