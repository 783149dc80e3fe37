//! Access keys of this installation, and who a key speaks for.
//!
//! Three pairs are made on first start: the root key, for the operator's AWS clients, the agent key, which allows what
//! container agents do and nothing else, and the like for load balancers on other hosts. They live in one JSON file in the data directory that only its owner
//! may read. Beside it stands the key behind tasks' credentials; servers of one cluster have the same.

mod signing;

pub use signing::SigningKeys;

use gantry_control::call::Principal;
use gantry_decide::ids::AccountId;
use gantry_wire::sigv4::SessionKey;
use rand::Rng;
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The file in the data directory.
pub const FILE_NAME: &str = "keys.json";
/// The file of the key behind tasks' credentials: [`SessionKey::LENGTH`] bytes in hexadecimal digits. With another one the
/// ids that containers were told lead to no credentials: tasks that run have to be replaced.
const SESSION_KEY_FILE: &str = "session-key";

/// Characters of a secret: as long as AWS's own, 40 of 64 symbols are 240 bits.
const SECRET_LENGTH: usize = 40;
/// Characters of a key id after `AKIA`.
const ID_LENGTH: usize = 16;

/// A file of keys that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    #[error("cannot {doing} {path}", path = path.display())]
    File {
        doing: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{path} does not hold Gantry's keys; restore it, or remove it to have new keys made", path = path.display())]
    Content {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    #[error("{path} does not hold a key; restore it, or remove it to have a new one made", path = path.display())]
    SessionKey { path: PathBuf },
    #[error(
        "--auth open accepts any credentials, so it is allowed on loopback addresses only, not on {address}"
    )]
    OpenBeyondLoopback { address: SocketAddr },
}

/// An access key pair. Its `Debug` hides the secret.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyPair {
    pub access_key_id: String,
    pub secret_access_key: String,
}

impl std::fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "KeyPair({}, …)", self.access_key_id)
    }
}

impl KeyPair {
    /// A fresh pair from the operating system's randomness.
    fn random() -> KeyPair {
        const ID: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
        // Without the slash and plus that AWS uses: such secrets survive shells and URLs.
        const SECRET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let mut bytes = [0_u8; ID_LENGTH + SECRET_LENGTH];
        rand::rng().fill_bytes(&mut bytes);
        let (id, secret) = bytes.split_at(ID_LENGTH);
        // Both alphabets have a power of two symbols, so no symbol is likelier than another.
        let id = id.iter().map(|byte| char::from(ID[usize::from(byte % 32)]));
        let secret = secret.iter().map(|byte| char::from(SECRET[usize::from(byte % 64)]));
        KeyPair { access_key_id: "AKIA".chars().chain(id).collect(), secret_access_key: secret.collect() }
    }
}

/// The keys of an installation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keys {
    /// The account that the keys belong to.
    pub account: AccountId,
    pub root: KeyPair,
    pub agent: KeyPair,
    /// Empty in a file from before there was one, until a server starts.
    #[serde(default)]
    pub balancer: KeyPair,
}

impl Keys {
    /// Reads the keys in `directory`, or makes them for `account` where there are none. The file is complete and on
    /// the disk before this returns.
    ///
    /// # Errors
    /// When the file cannot be read or written, or holds something else.
    pub fn open_or_create(directory: &Path, account: AccountId) -> Result<Keys, KeysError> {
        let path = directory.join(FILE_NAME);
        match Keys::open(directory) {
            Err(KeysError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            Ok(keys) if keys.balancer == KeyPair::default() => {
                let keys = Keys { balancer: KeyPair::random(), ..keys };
                return keys.saved(directory, path);
            }
            found => return found,
        }
        let (root, agent, balancer) = (KeyPair::random(), KeyPair::random(), KeyPair::random());
        let keys = Keys { account, root, agent, balancer };
        keys.saved(directory, path)
    }

    fn saved(self, directory: &Path, path: PathBuf) -> Result<Keys, KeysError> {
        self.save(directory, &path).map_err(|source| KeysError::File { doing: "write", path, source })?;
        Ok(self)
    }

    /// Reads the keys in `directory`; for `gantry env` and agents on the same machine.
    ///
    /// # Errors
    /// When there are none, or they cannot be read.
    pub fn open(directory: &Path) -> Result<Keys, KeysError> {
        let path = directory.join(FILE_NAME);
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|source| KeysError::Content { path, source }),
            Err(source) => Err(KeysError::File { doing: "read", path, source }),
        }
    }

    fn save(&self, directory: &Path, path: &Path) -> io::Result<()> {
        let mut text = serde_json::to_vec_pretty(self)?;
        text.push(b'\n');
        save(directory, path, &text)
    }

    /// The pair with this id, and whom it speaks for.
    pub fn find(&self, access_key_id: &str) -> Option<(&KeyPair, Principal)> {
        let pairs = [
            (&self.root, Principal::Root),
            (&self.agent, Principal::Agent),
            (&self.balancer, Principal::Balancer),
        ];
        pairs.into_iter().find(|(pair, _)| !access_key_id.is_empty() && pair.access_key_id == access_key_id)
    }
}

/// Reads the key behind tasks' credentials in `directory`, or makes one where there is none.
///
/// # Errors
/// When the file cannot be read or written, or holds something else.
pub fn open_or_create_session_key(directory: &Path) -> Result<SessionKey, KeysError> {
    let path = directory.join(SESSION_KEY_FILE);
    let mut bytes = [0; SessionKey::LENGTH];
    match fs::read_to_string(&path) {
        Ok(text) => {
            let digits = text.trim().as_bytes();
            let whole = digits.len() == 2 * SessionKey::LENGTH;
            if !whole || faster_hex::hex_decode(digits, &mut bytes).is_err() {
                return Err(KeysError::SessionKey { path });
            }
        }
        Err(source) if source.kind() == io::ErrorKind::NotFound => {
            rand::rng().fill_bytes(&mut bytes);
            let text = format!("{}\n", faster_hex::hex_string(&bytes));
            save(directory, &path, text.as_bytes()).map_err(|source| KeysError::File {
                doing: "write",
                path,
                source,
            })?;
        }
        Err(source) => return Err(KeysError::File { doing: "read", path, source }),
    }
    Ok(SessionKey::new(&bytes))
}

/// Makes a file that only its owner may read, whole and on the disk.
fn save(directory: &Path, path: &Path, text: &[u8]) -> io::Result<()> {
    let temporary = path.with_added_extension("new");
    // One left behind by a crash may have another mode.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    file.write_all(text)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    File::open(directory)?.sync_all()
}

/// How requests are authenticated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Auth {
    /// Every signature is verified.
    #[default]
    Strict,
    /// Any credentials are accepted: for test suites that expect an emulator.
    Open,
}

impl Auth {
    /// Whether this mode may be used on a listening address.
    ///
    /// # Errors
    /// For [`Auth::Open`] anywhere but on loopback.
    pub fn allowed_on(self, address: SocketAddr) -> Result<(), KeysError> {
        if self == Auth::Open && !address.ip().to_canonical().is_loopback() {
            return Err(KeysError::OpenBeyondLoopback { address });
        }
        Ok(())
    }
}

/// The account that an unverified key id names under [`Auth::Open`]: a 12-digit id is an account's number, every
/// other id means `default`.
pub fn open_account(access_key_id: &str, default: AccountId) -> AccountId {
    access_key_id.parse().unwrap_or(default)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn keys_are_made_once_and_private() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("keys.json.new"), "left behind").unwrap();
        let keys = Keys::open_or_create(directory.path(), AccountId::DEFAULT).unwrap();
        assert_eq!(keys, Keys::open_or_create(directory.path(), AccountId::DEFAULT).unwrap());
        assert_eq!(keys, Keys::open(directory.path()).unwrap());
        let path = directory.path().join(FILE_NAME);
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(keys.root.access_key_id.len(), 20);
        assert_eq!(keys.root.secret_access_key.len(), 40);
        assert_ne!(keys.root, keys.agent);
        assert!(!format!("{keys:?}").contains(&keys.root.secret_access_key), "secrets are not shown");
    }

    #[test]
    fn a_key_speaks_for_its_holder_only() {
        let directory = tempfile::tempdir().unwrap();
        let keys = Keys::open_or_create(directory.path(), AccountId::DEFAULT).unwrap();
        assert_eq!(keys.find(&keys.agent.access_key_id), Some((&keys.agent, Principal::Agent)));
        assert_eq!(keys.find(&keys.root.access_key_id), Some((&keys.root, Principal::Root)));
        assert_eq!(keys.find("AKIAIOSFODNN7EXAMPLE"), None);
        assert_eq!(keys.find(""), None);
    }

    #[test]
    fn an_installation_from_before_balancers_had_a_key_gets_one() {
        let directory = tempfile::tempdir().unwrap();
        let keys = Keys::open_or_create(directory.path(), AccountId::DEFAULT).unwrap();
        let older = serde_json::json!({ "account": keys.account, "root": keys.root, "agent": keys.agent });
        fs::write(directory.path().join(FILE_NAME), older.to_string()).unwrap();
        let newer = Keys::open_or_create(directory.path(), AccountId::DEFAULT).unwrap();
        assert_eq!((&newer.root, &newer.agent), (&keys.root, &keys.agent));
        assert_eq!(newer.find(&newer.balancer.access_key_id), Some((&newer.balancer, Principal::Balancer)));
        assert!(newer.balancer != keys.balancer && newer.balancer != KeyPair::default());
        assert_eq!(Keys::open(directory.path()).unwrap(), newer);
    }

    #[test]
    fn the_key_of_sessions_is_made_once_and_private() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(SESSION_KEY_FILE);
        let made = open_or_create_session_key(directory.path()).unwrap();
        let read = open_or_create_session_key(directory.path()).unwrap();
        let other = open_or_create_session_key(tempfile::tempdir().unwrap().path()).unwrap();
        assert_eq!(made.id("x", "y"), read.id("x", "y"));
        assert_ne!(made.id("x", "y"), other.id("x", "y"));
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        for damaged in ["", "abc", &"zz".repeat(SessionKey::LENGTH), &"00".repeat(SessionKey::LENGTH + 1)] {
            fs::write(&path, damaged).unwrap();
            let opened = open_or_create_session_key(directory.path());
            assert!(matches!(opened, Err(KeysError::SessionKey { .. })), "{damaged}");
        }
    }

    #[test]
    fn damaged_keys_are_not_replaced() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join(FILE_NAME), "{").unwrap();
        assert!(matches!(
            Keys::open_or_create(directory.path(), AccountId::DEFAULT),
            Err(KeysError::Content { .. })
        ));
        assert_eq!(fs::read(directory.path().join(FILE_NAME)).unwrap(), b"{");
    }

    #[test]
    fn open_is_for_loopback_and_names_accounts_by_number() {
        for (address, allowed) in [
            ("127.0.0.1:1", true),
            ("[::1]:1", true),
            ("[::ffff:127.0.0.1]:1", true),
            ("0.0.0.0:1", false),
            ("[::]:1", false),
            ("10.0.0.1:1", false),
        ] {
            let address = address.parse().unwrap();
            assert_eq!(Auth::Open.allowed_on(address).is_ok(), allowed, "{address}");
            assert!(Auth::Strict.allowed_on(address).is_ok());
        }
        assert_eq!(open_account("000000000042", AccountId::DEFAULT).to_string(), "000000000042");
        assert_eq!(open_account("test", AccountId::DEFAULT), AccountId::DEFAULT);
    }
}
