//! Temporary credentials that nobody has to remember: all that is known of a session stands in its token, and one key
//! proves that the token is ours and yields the session's secret.
//!
//! A token is `tag | claims`. One HMAC-SHA512 over the claims, under the installation's key, gives the access key id, the
//! tag and the secret; who knows the first two learns nothing of the third. Claims are not secret, only authentic.

use super::Credentials;
use crate::field::Secret;
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use std::fmt;
use subtle::ConstantTimeEq;

/// Bytes of the HMAC that become the access key id: 16 symbols of 32.
const ID: usize = 10;
/// Bytes that become the tag: 192 bits.
const TAG: usize = 24;
/// Bytes that become the secret: 40 symbols of 64, as long as AWS's own.
const SECRET: usize = 30;
/// Characters of a token: several times what claims need.
const TOKEN_MAX: usize = 4096;
/// What temporary access key ids begin with.
pub const ACCESS_KEY_PREFIX: &str = "ASIA";

/// The key behind all sessions of an installation. Its memory is wiped when it goes, and `Debug` hides it.
#[derive(Clone)]
pub struct SessionKey(hmac::Key);

impl fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[hidden]")
    }
}

/// What one session's HMAC is cut into.
struct Parts {
    access_key_id: String,
    tag: [u8; TAG],
    secret: Secret,
}

impl SessionKey {
    /// Bytes of a key.
    pub const LENGTH: usize = 32;

    pub fn new(bytes: &[u8; SessionKey::LENGTH]) -> SessionKey {
        SessionKey(hmac::Key::new(hmac::HMAC_SHA512, bytes))
    }

    /// 64 bytes that only this key gives for `text`. `purpose` keeps uses of the key apart.
    pub(super) fn derive(&self, purpose: &str, text: &[u8]) -> hmac::Tag {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(purpose.as_bytes());
        context.update(&[0]);
        context.update(text);
        context.sign()
    }

    /// 128 bits that nobody can guess, always the same for the same text.
    pub fn id(&self, purpose: &str, text: &str) -> [u8; 16] {
        let mut id = [0; 16];
        id.copy_from_slice(&self.derive(purpose, text.as_bytes()).as_ref()[..16]);
        id
    }

    fn parts(&self, claims: &[u8]) -> Parts {
        const SYMBOLS: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
        let derived = self.derive("session", claims);
        let (id, rest) = derived.as_ref().split_at(ID);
        let (tagged, secret) = rest.split_at(TAG);
        // Ten bytes are sixteen symbols of five bits.
        let bits = id.iter().fold(0_u128, |bits, byte| bits << 8 | u128::from(*byte));
        let symbols = (0..16).rev().map(|at| char::from(SYMBOLS[(bits >> (5 * at)) as usize % 32]));
        let mut tag = [0; TAG];
        tag.copy_from_slice(tagged);
        Parts {
            access_key_id: ACCESS_KEY_PREFIX.chars().chain(symbols).collect(),
            tag,
            secret: Secret::new(STANDARD.encode(&secret[..SECRET])),
        }
    }

    /// The credentials of the session with these claims: always the same.
    pub fn issue(&self, claims: &[u8]) -> Credentials {
        let Parts { access_key_id, tag, secret } = self.parts(claims);
        let token = URL_SAFE_NO_PAD.encode([&tag, claims].concat());
        Credentials { access_key_id, secret_access_key: secret, session_token: Some(Secret::new(token)) }
    }

    /// The claims of a token that this key issued for this access key id, and the session's secret. `None` for all
    /// others.
    pub fn open(&self, access_key_id: &str, token: &str) -> Option<(Vec<u8>, Secret)> {
        if token.len() > TOKEN_MAX {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
        let (tag, claims) = bytes.split_at_checked(TAG)?;
        let parts = self.parts(claims);
        let authentic = bool::from(parts.tag.ct_eq(tag)) && parts.access_key_id == access_key_id;
        authentic.then(|| (claims.to_vec(), parts.secret))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_was_issued_opens_and_nothing_else() {
        let key = SessionKey::new(&[7; 32]);
        let issued = key.issue(b"{\"r\":\"painter\"}");
        let token = issued.session_token.clone().unwrap();
        assert!(issued.access_key_id.starts_with("ASIA") && issued.access_key_id.len() == 20);
        assert_eq!(issued.secret_access_key.expose().len(), 40);
        let (claims, secret) = key.open(&issued.access_key_id, token.expose()).unwrap();
        assert_eq!(claims, b"{\"r\":\"painter\"}");
        assert_eq!(secret.expose(), issued.secret_access_key.expose());
        assert!(!token.expose().contains(secret.expose()));

        assert!(key.open("ASIAAAAAAAAAAAAAAAAA", token.expose()).is_none(), "of another session");
        assert!(SessionKey::new(&[8; 32]).open(&issued.access_key_id, token.expose()).is_none());
        for token in ["", "A", "****", &"A".repeat(5000)] {
            assert!(key.open(&issued.access_key_id, token).is_none());
        }
        let mut bytes = URL_SAFE_NO_PAD.decode(token.expose()).unwrap();
        for at in 0..bytes.len() {
            bytes[at] ^= 1;
            assert!(key.open(&issued.access_key_id, &URL_SAFE_NO_PAD.encode(&bytes)).is_none(), "byte {at}");
            bytes[at] ^= 1;
        }
    }

    #[test]
    fn purposes_are_kept_apart_and_nothing_is_shown() {
        let key = SessionKey::new(&[7; 32]);
        assert_eq!(key.id("a", "x"), key.id("a", "x"));
        assert_ne!(key.id("a", "x"), key.id("b", "x"));
        assert_ne!(key.id("a", "x"), key.id("a", "y"));
        assert!(format!("{key:?} {:?}", key.issue(b"x")).contains("[hidden]"));
        assert!(!format!("{:?}", key.issue(b"x")).contains(key.issue(b"x").secret_access_key.expose()));
    }
}
