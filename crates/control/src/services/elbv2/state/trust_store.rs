//! Trust stores: by whom listeners have clients' certificates verified.

use super::Tags;
use gantry_decide::ids::TrustStoreId;
use gantry_decide::time::Timestamp;
use gantry_store::Record;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// Certificates of authorities: PEM, and how many they are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authorities {
    pub pem: String,
    pub count: usize,
}

/// A file of revocation lists: PEM, and how many certificates they revoke.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocations {
    pub pem: String,
    pub entries: usize,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrustStore {
    pub id: TrustStoreId,
    pub authorities: Authorities,
    /// By their `RevocationId`.
    pub revocations: BTreeMap<i64, Revocations>,
    /// The greatest `RevocationId` that was ever given.
    pub last_revocation: i64,
    /// When it became what it is now: at each time it is another one.
    pub changed_at: Timestamp,
    pub tags: Tags,
}

impl TrustStore {
    /// Is another one from now on.
    pub fn touch(&mut self, now: Timestamp) {
        self.changed_at = now.max(self.changed_at + Duration::from_millis(1));
    }

    pub fn add(&mut self, revocations: Revocations) -> i64 {
        self.last_revocation += 1;
        self.revocations.insert(self.last_revocation, revocations);
        self.last_revocation
    }

    pub fn revoked(&self) -> usize {
        self.revocations.values().map(|file| file.entries).sum()
    }
}

impl Record for TrustStore {
    const KIND: &'static str = "elbv2/trust-store";
    const VERSION: u32 = 1;
    type Key = TrustStoreId;

    fn key(&self) -> TrustStoreId {
        self.id.clone()
    }

    fn path(key: &TrustStoreId) -> String {
        key.to_string()
    }
}
