//! Client tokens: the same request again is answered as the first was, another one under the same token is refused.

use crate::services::ecs::errors::EcsError;
use crate::services::ecs::state::{IdempotencyKey, IdempotencyRecord, TOKEN_MEMORY};
use crate::tx::Tx;
use gantry_decide::ids::ClusterName;
use gantry_wire::{Structure, json};

/// An operation that takes a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeated {
    RunTask,
    RegisterContainerInstance,
    CreateService,
    CreateTaskSet,
    CreateDaemon,
}

impl Repeated {
    fn name(self) -> &'static str {
        match self {
            Repeated::RunTask => "RunTask",
            Repeated::RegisterContainerInstance => "RegisterContainerInstance",
            Repeated::CreateService => "CreateService",
            Repeated::CreateTaskSet => "CreateTaskSet",
            Repeated::CreateDaemon => "CreateDaemon",
        }
    }

    /// ECS's limit of a token's length.
    fn length_max(self) -> usize {
        match self {
            Repeated::RunTask | Repeated::RegisterContainerInstance => 64,
            Repeated::CreateService | Repeated::CreateTaskSet | Repeated::CreateDaemon => 36,
        }
    }

    /// What is answered where the first request under the token was another one.
    fn differs(self, resource_ids: &[String]) -> EcsError {
        let created = |what: &str| EcsError::invalid(format!("Creation of {what} was not idempotent."));
        match self {
            Repeated::RunTask | Repeated::RegisterContainerInstance => EcsError::Conflict {
                message: "The client token was used for a request with other parameters.".to_owned(),
                resource_ids: resource_ids.to_vec(),
            },
            Repeated::CreateService => created("service"),
            Repeated::CreateTaskSet => created("task set"),
            Repeated::CreateDaemon => created("daemon"),
        }
    }
}

/// A request's token, checked, with what identifies the request.
pub struct Token {
    operation: Repeated,
    key: IdempotencyKey,
    fingerprint: String,
}

impl Token {
    /// `None` for a request without a token. `request` is the request without its token.
    ///
    /// # Errors
    /// For a token that ECS would not take.
    pub fn read(
        operation: Repeated,
        cluster: &ClusterName,
        token: Option<&str>,
        request: &impl Structure,
    ) -> Result<Option<Token>, EcsError> {
        let Some(token) = token.filter(|token| !token.is_empty()) else { return Ok(None) };
        let most = operation.length_max();
        if token.len() > most || !token.bytes().all(|byte| (33..=126).contains(&byte)) {
            return Err(EcsError::invalid(format!(
                "The client token must be up to {most} ASCII characters without spaces."
            )));
        }
        let key = IdempotencyKey {
            operation: operation.name().to_owned(),
            cluster: cluster.clone(),
            token: token.to_owned(),
        };
        Ok(Some(Token { operation, key, fingerprint: fingerprint(&json::to_vec(request)) }))
    }

    /// The ARNs that the first request under this token made, if there was one.
    ///
    /// # Errors
    /// When the first request was another one.
    pub fn first(&self, tx: &Tx<'_>) -> Result<Option<Vec<String>>, EcsError> {
        let known = tx.state.ecs.idempotency().get(&self.key);
        match known.filter(|record| record.made_at + TOKEN_MEMORY > tx.now) {
            None => Ok(None),
            Some(record) if record.fingerprint == self.fingerprint => Ok(Some(record.resources.clone())),
            Some(record) => Err(self.operation.differs(&record.resources)),
        }
    }

    pub fn remember(self, tx: &mut Tx<'_>, resources: Vec<String>) {
        let Token { key, fingerprint, .. } = self;
        tx.state.ecs.put_idempotency(IdempotencyRecord { key, fingerprint, resources, made_at: tx.now });
    }
}

/// FNV-1a in 128 bits: tells requests of one caller apart; it guards nothing.
fn fingerprint(bytes: &[u8]) -> String {
    const OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    let hash = bytes.iter().fold(OFFSET, |hash, byte| (hash ^ u128::from(*byte)).wrapping_mul(PRIME));
    format!("{hash:032x}")
}
