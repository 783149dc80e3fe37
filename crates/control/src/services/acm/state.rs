//! Certificate Manager's table, and what must always hold in it.

use super::x509::{Facts, KeyAlgorithm};
use gantry_decide::ids::CertificateId;
use gantry_decide::time::Timestamp;
use gantry_store::{LoadError, Record, Table, Write, decode};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// A tag list as stored.
pub type Tags = BTreeMap<String, String>;

/// How Certificate Manager would have it shown that a name is the caller's. Here that is nobody's to check: it is only
/// shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Validation {
    Dns,
    Email,
    Http,
}

/// A certificate as it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wish {
    /// The names it is for, the first of which it is known by.
    pub names: Vec<String>,
    pub key_algorithm: KeyAlgorithm,
    pub validation: Validation,
    /// Where mails about a name would go that are not sent: the domain, by name.
    pub mail_domains: BTreeMap<String, String>,
    /// Whether it would be in public logs of certificates. It is only shown.
    pub logged: bool,
    /// By which the same request is known again.
    pub token: Option<String>,
}

/// A private key as text that only the installation's key opens. Its `Debug` shows nothing of it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SealedKey(pub String);

impl fmt::Debug for SealedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[sealed]")
    }
}

/// The certificate itself, with its key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Issued {
    /// When it was imported or issued, the last time.
    pub at: Timestamp,
    /// As PEM, and the ones that vouch for it, if any were given.
    pub body: String,
    pub chain: Option<String>,
    pub key: SealedKey,
    pub facts: Facts,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    pub id: CertificateId,
    pub created_at: Timestamp,
    /// None when it was imported.
    pub wish: Option<Wish>,
    /// None until it is issued.
    pub issued: Option<Issued>,
    pub tags: Tags,
}

impl Certificate {
    /// The name that it is known by: empty for an imported one that names nothing.
    pub fn domain(&self) -> &str {
        let wished = self.wish.as_ref().and_then(|wish| wish.names.first()).map(String::as_str);
        wished.or(self.issued.as_ref().map(|issued| issued.facts.domain())).unwrap_or_default()
    }

    /// The names that it is for.
    pub fn names(&self) -> &[String] {
        match (&self.wish, &self.issued) {
            (Some(wish), _) => &wish.names,
            (None, Some(issued)) => &issued.facts.names,
            (None, None) => &[],
        }
    }

    /// The kind of its key, as it has it or shall have it.
    pub fn key_algorithm(&self) -> Option<KeyAlgorithm> {
        let wished = self.wish.as_ref().map(|wish| wish.key_algorithm);
        wished.or(self.issued.as_ref().map(|issued| issued.facts.key_algorithm))
    }
}

impl Record for Certificate {
    const KIND: &'static str = "acm/certificate";
    const VERSION: u32 = 1;
    type Key = CertificateId;

    fn key(&self) -> CertificateId {
        self.id
    }

    fn path(key: &CertificateId) -> String {
        key.to_string()
    }
}

/// One record, read.
pub struct Row(Certificate);

impl Row {
    /// Reads one stored record; `None` if no table is named so.
    pub fn read(table: &str, value: &[u8]) -> Result<Option<Row>, LoadError> {
        Ok(if table == "certificate" { Some(Row(decode(value)?)) } else { None })
    }
}

/// All of Certificate Manager in one scope.
#[derive(Clone, Default)]
pub struct AcmState {
    pub certificates: Table<Certificate>,
}

impl AcmState {
    /// Whether anything changed since the last call.
    pub(crate) fn drain_changes(&mut self) -> bool {
        !self.certificates.drain_changes().is_empty()
    }

    /// Moves what was written since the last call to `out`.
    pub fn drain_writes(&mut self, prefix: &str, out: &mut Vec<Write>) {
        self.certificates.drain_writes(prefix, out);
    }

    /// Takes a row of the store.
    pub(crate) fn adopt(&mut self, row: Row) {
        self.certificates.adopt(row.0);
    }

    /// Panics where a record contradicts itself.
    pub fn check_invariants(&self) {
        for (id, certificate) in self.certificates.iter() {
            assert!(
                certificate.wish.is_some() || certificate.issued.is_some(),
                "{id} was neither imported nor asked for"
            );
        }
    }
}
