//! Secrets of users that have to be kept: sealed with AES-256-GCM under a key that follows from the installation's, so that
//! the store and its copies alone give none of them away.

use super::SessionKey;
use crate::field::Secret;
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;

impl SessionKey {
    /// Bytes that a caller draws for each sealing. Of 96 random bits no two are alike in 2^32 sealings, as far as anybody
    /// need care.
    pub const NONCE: usize = NONCE_LEN;

    fn sealing(&self, purpose: &str) -> LessSafeKey {
        let derived = self.derive("sealing", purpose.as_bytes());
        let key = UnboundKey::new(&AES_256_GCM, &derived.as_ref()[..AES_256_GCM.key_len()]);
        LessSafeKey::new(key.expect("the key has the length that the algorithm names"))
    }

    /// Seals a secret as text: the nonce, then what is sealed. It opens only with what it is `about` and for its `purpose`,
    /// so that nobody who can write to the store puts one in another's place.
    pub fn seal(&self, purpose: &str, about: &str, nonce: [u8; SessionKey::NONCE], secret: &str) -> String {
        let mut bytes = secret.as_bytes().to_vec();
        let given = Nonce::assume_unique_for_key(nonce);
        self.sealing(purpose)
            .seal_in_place_append_tag(given, Aad::from(about.as_bytes()), &mut bytes)
            .expect("a text is shorter than the 64 GiB that can be sealed");
        STANDARD_NO_PAD.encode([&nonce[..], &bytes].concat())
    }

    /// What was sealed for `purpose` `about` the same. None for all other text.
    pub fn unseal(&self, purpose: &str, about: &str, sealed: &str) -> Option<Secret> {
        let bytes = STANDARD_NO_PAD.decode(sealed).ok()?;
        let (nonce, rest) = bytes.split_at_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut rest = rest.to_vec();
        let opened =
            self.sealing(purpose).open_in_place(nonce, Aad::from(about.as_bytes()), &mut rest).ok()?;
        std::str::from_utf8(opened).ok().map(Secret::new)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_was_sealed_opens_where_it_belongs_and_nowhere_else() {
        let key = SessionKey::new(&[7; SessionKey::LENGTH]);
        let sealed = key.seal("keys", "arn:one", [3; SessionKey::NONCE], "hidden");
        assert!(!sealed.contains("hidden"));
        assert_eq!(key.unseal("keys", "arn:one", &sealed).unwrap().expose(), "hidden");
        assert!(key.unseal("keys", "arn:two", &sealed).is_none());
        assert!(key.unseal("others", "arn:one", &sealed).is_none());
        assert!(SessionKey::new(&[8; SessionKey::LENGTH]).unseal("keys", "arn:one", &sealed).is_none());
        for text in ["", "A", "****", &sealed[..sealed.len() - 4], &sealed.replacen(&sealed[20..21], "_", 1)]
        {
            assert!(key.unseal("keys", "arn:one", text).is_none(), "{text}");
        }
        assert_ne!(sealed, key.seal("keys", "arn:one", [4; SessionKey::NONCE], "hidden"));
    }
}
