//! The derived key: what a secret becomes for one day, region and service.

use super::{ALGORITHM, Stamp, canonical};
use crate::field::Secret;
use aws_lc_rs::{digest, hmac};
use std::fmt;

/// A key to sign and verify with. Holding it saves four rounds of HMAC a request; it is worth one day in one region
/// and service. Its memory is wiped when it goes, and `Debug` hides it.
#[derive(Clone)]
pub struct SigningKey(hmac::Key);

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[hidden]")
    }
}

fn mac(key: &[u8], data: &[u8]) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), data)
}

impl SigningKey {
    /// `date` as in a credential scope, `20310101`.
    pub fn derive(secret: &Secret, date: &str, region: &str, service: &str) -> SigningKey {
        let secret = format!("AWS4{}", secret.expose());
        let key = mac(secret.as_bytes(), date.as_bytes());
        let key = mac(key.as_ref(), region.as_bytes());
        let key = mac(key.as_ref(), service.as_bytes());
        SigningKey(hmac::Key::new(hmac::HMAC_SHA256, mac(key.as_ref(), b"aws4_request").as_ref()))
    }

    /// The signature of a request.
    pub(super) fn signature(&self, stamp: &Stamp, scope: &str, canonical: &str) -> String {
        let hash = digest::digest(&digest::SHA256, canonical.as_bytes());
        let mut text = format!("{ALGORITHM}\n{stamp}\n{scope}\n");
        canonical::push_hex(&mut text, hash.as_ref());
        self.sign(&text)
    }

    /// The signature of a finished string to sign.
    pub(super) fn sign(&self, string_to_sign: &str) -> String {
        let mut signature = String::with_capacity(64);
        canonical::push_hex(&mut signature, hmac::sign(&self.0, string_to_sign.as_bytes()).as_ref());
        signature
    }
}
