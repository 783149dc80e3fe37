//! Certificates between Certificate Manager and those who need them: balancers find them here, and those that were asked
//! for are issued, and issued anew before they end.
//!
//! Issuing is level-triggered: each look compares the published snapshot with the time, and what is wanted stands in the
//! state until it is durable. A key costs up to some hundred milliseconds, so that none is made on the writer's thread.

use crate::cell::Shared;
use crate::os;
use crate::writer::Inbox;
use gantry_api::acm::ImportCertificateResponse;
use gantry_control::engine::{CallId, Input, Write};
use gantry_control::routing::{certificate, trust_store};
use gantry_control::service::Reply;
use gantry_control::services::acm::KeyAlgorithm;
use gantry_control::services::acm::links::{self, LIFETIME};
use gantry_control::services::acm::state::Wish;
use gantry_decide::ids::{CertificateId, Scope};
use gantry_decide::routing::channel::{Pem, TrustStore};
use gantry_decide::routing::config::{CertificateArn, TrustStoreArn};
use gantry_wire::{ApiError, Secret};
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
    RsaKeySize,
};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

/// Between two looks: changes come in bursts, and nobody waits for a certificate who would notice.
const LOOK_PAUSE: Duration = Duration::from_millis(100);
/// How often it is looked which ones end soon, when nothing changes.
const LOOK_EVERY: Duration = Duration::from_secs(3600);
/// Clocks of clients may be behind ours by as much.
const CLOCK_SKEW: Duration = Duration::from_secs(3600);
/// Calls of this part of the server have numbers of their own: see [`crate::instances`].
const FIRST_CALL: u64 = (1 << 63) | (1 << 62);

/// Finds certificates for balancers, and trust stores.
#[derive(Clone)]
pub struct Certificates(Arc<Shared>);

impl Certificates {
    pub fn new(shared: Arc<Shared>) -> Certificates {
        Certificates(shared)
    }

    /// A certificate with its key, as it is now. None when there is no such.
    pub fn find(&self, arn: &CertificateArn) -> Option<Pem> {
        certificate(&self.0.published(), arn)
    }

    /// A trust store as it is now. None when there is no such.
    pub fn trust_store(&self, arn: &TrustStoreArn) -> Option<Arc<TrustStore>> {
        trust_store(&self.0.published(), arn).map(Arc::new)
    }
}

/// A certificate and its key, both as PEM.
struct Made {
    body: String,
    key: Secret,
}

fn make(wish: &Wish) -> Result<Made, rcgen::Error> {
    let key = match wish.key_algorithm {
        KeyAlgorithm::Rsa2048 => KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048),
        KeyAlgorithm::Rsa3072 => KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_3072),
        KeyAlgorithm::Rsa4096 => KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_4096),
        KeyAlgorithm::P256 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256),
        KeyAlgorithm::P384 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384),
        KeyAlgorithm::P521 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P521_SHA512),
    }?;
    let mut params = CertificateParams::new(wish.names.clone())?;
    params.distinguished_name = DistinguishedName::new();
    // The name of a subject holds at most 64 characters; a longer one stands among the alternatives alone.
    if let Some(name) = wish.names.first().filter(|name| name.len() <= 64) {
        params.distinguished_name.push(DnType::CommonName, name);
    }
    let now = SystemTime::now();
    params.not_before = (now - CLOCK_SKEW).into();
    params.not_after = (now + LIFETIME).into();
    // Nobody can issue others by it, although clients trust it as an authority is trusted.
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let certificate = params.self_signed(&key)?;
    Ok(Made { body: certificate.pem(), key: Secret::new(key.serialize_pem()) })
}

/// The loop that does so.
pub(crate) struct Issuer {
    shared: Arc<Shared>,
    inbox: Inbox<Input>,
    next_call: u64,
    /// Those that could not be made, so that they are not tried without end.
    failed: BTreeSet<CertificateId>,
}

impl Issuer {
    pub fn new(shared: Arc<Shared>, inbox: Inbox<Input>) -> Issuer {
        Issuer { shared, inbox, next_call: FIRST_CALL, failed: BTreeSet::new() }
    }

    /// Runs until the writer has ended or this is dropped.
    pub async fn run(mut self, mut published: watch::Receiver<()>) {
        loop {
            // What is published from here on is for the next look.
            published.borrow_and_update();
            while let Some((scope, id, wish)) = self.next() {
                if self.issue(scope, id, wish).await.is_err() {
                    return;
                }
            }
            if let Ok(Err(_)) = timeout(LOOK_EVERY, published.changed()).await {
                return;
            }
            sleep(LOOK_PAUSE).await;
        }
    }

    /// What is wanted next.
    fn next(&self) -> Option<(Scope, CertificateId, Wish)> {
        let (state, now) = (self.shared.published(), os::now());
        state.scopes().find_map(|(scope, state)| {
            let mut wanted = links::wanted(&state.acm, now).filter(|(id, _)| !self.failed.contains(id));
            wanted.next().map(|(id, wish)| (scope.clone(), id, wish.clone()))
        })
    }

    /// Makes one, and waits until it is durable and published. An error: the writer has ended.
    async fn issue(&mut self, scope: Scope, id: CertificateId, wish: Wish) -> Result<(), ()> {
        let made = match tokio::task::spawn_blocking(move || make(&wish)).await {
            Ok(Ok(made)) => made,
            Ok(Err(error)) => {
                tracing::error!(%id, error = &error as &dyn std::error::Error, "a certificate cannot be made");
                self.failed.insert(id);
                return Ok(());
            }
            // A panic has been logged; or the runtime is going away.
            Err(_) => {
                self.failed.insert(id);
                return Ok(());
            }
        };
        let write: Write = Box::new(move |tx| -> Reply {
            let taken = links::take_issued(tx, id, &made.body, &made.key);
            taken.map_err(|unfit| ApiError::new("ValidationException", unfit.to_string()))?;
            // Nothing is answered but that it was taken.
            Ok(Box::new(ImportCertificateResponse::default()))
        });
        let call = CallId(self.next_call);
        self.next_call += 1;
        let reply = self.shared.expect(call);
        self.inbox.hand_over(Input::Call { id: call, scope, write }).await.map_err(|_| ())?;
        if let Err(error) = reply.await.map_err(|_| ())? {
            tracing::error!(%id, error = error.message, "a certificate that was made cannot be taken");
            self.failed.insert(id);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use gantry_control::services::acm::state::Validation;

    #[test]
    fn each_kind_of_key_that_can_be_requested_is_made() {
        let long = format!("{}.example.com", "a".repeat(60));
        for (key_algorithm, label) in
            [(KeyAlgorithm::Rsa2048, "RSA"), (KeyAlgorithm::P256, "P-256"), (KeyAlgorithm::P384, "P-384")]
        {
            let wish = Wish {
                names: vec![long.clone(), "*.example.com".to_owned()],
                key_algorithm,
                validation: Validation::Dns,
                mail_domains: Default::default(),
                logged: true,
                token: None,
            };
            let made = make(&wish).unwrap();
            let checked = links::check_pair(&made.body, &made.key).unwrap_or_else(|e| panic!("{label}: {e}"));
            assert_eq!(checked.key_algorithm, key_algorithm, "{label}");
            assert_eq!(checked.names, wish.names, "{label}");
        }
    }
}
