//! Keys of machines that join by an activation. Nobody stores them: the activation's code follows from its id and the
//! installation's key, and a machine's secret from the code and the machine's own id. So both sides know it from what
//! they have, and it never passes between them.

use super::Credentials;
use super::session::SessionKey;
use crate::field::Secret;
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::fmt::Write;

/// Between the ids of activation and machine in an access key id.
const BETWEEN: char = '.';
/// Bytes of a secret: 40 symbols of 64, as long as AWS's own.
const SECRET: usize = 30;

/// The code that belongs to an activation's id: 32 hexadecimal digits.
pub fn activation_code(key: &SessionKey, activation: &str) -> Secret {
    let mut code = String::with_capacity(32);
    for byte in key.id("activation", activation) {
        // Writing to a String cannot fail.
        let _ = write!(code, "{byte:02x}");
    }
    Secret::new(code)
}

/// The key of a machine that joined by an activation.
pub fn machine_key(activation: &str, code: &Secret, machine: &str) -> Credentials {
    let key = hmac::Key::new(hmac::HMAC_SHA512, code.expose().as_bytes());
    let tag = hmac::sign(&key, machine.as_bytes());
    Credentials {
        access_key_id: format!("{activation}{BETWEEN}{machine}"),
        secret_access_key: Secret::new(STANDARD.encode(&tag.as_ref()[..SECRET])),
        session_token: None,
    }
}

/// The activation and the machine that an access key id names.
pub fn machine_of(access_key_id: &str) -> Option<(&str, &str)> {
    access_key_id.split_once(BETWEEN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_differ_by_installation_activation_and_machine() {
        let key = |byte| SessionKey::new(&[byte; SessionKey::LENGTH]);
        let code = activation_code(&key(1), "a");
        assert_eq!(code.expose().len(), 32);
        assert_eq!(code.expose(), activation_code(&key(1), "a").expose());
        assert_ne!(code.expose(), activation_code(&key(1), "b").expose());
        assert_ne!(code.expose(), activation_code(&key(2), "a").expose());
        let one = machine_key("a", &code, "mi-1");
        assert_eq!(machine_of(&one.access_key_id), Some(("a", "mi-1")));
        assert_eq!(one.secret_access_key.expose().len(), 40);
        assert_ne!(
            one.secret_access_key.expose(),
            machine_key("a", &code, "mi-2").secret_access_key.expose()
        );
        assert_eq!(machine_of("AKIAEXAMPLE"), None);
    }
}
