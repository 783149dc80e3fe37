//! The door to Certificate Manager: what listeners may use, what balancers are given, and what the server has to issue.

use super::check::{self, SEALING};
use super::state::{AcmState, Issued, SealedKey, Wish};
use super::x509;
use crate::tx::{Tx, View};
use gantry_decide::ids::CertificateId;
use gantry_decide::random::Random;
use gantry_decide::routing::channel::Pem;
use gantry_decide::time::Timestamp;
use gantry_wire::Secret;
use gantry_wire::sigv4::SessionKey;
use std::time::Duration;

/// How long one that was asked for is good: 13 months, as those of Certificate Manager.
pub const LIFETIME: Duration = Duration::from_secs(395 * 24 * 3600);
/// So long before its end it is issued anew: Certificate Manager begins 60 days ahead.
const RENEWAL: Duration = Duration::from_secs(60 * 24 * 3600);

/// Whether an ARN names a certificate that a listener can serve.
pub fn is_issued(view: View<'_>, arn: &str) -> bool {
    issued(view, arn).is_some()
}

/// When an ARN's certificate became what it is now; another time means another certificate or key.
pub fn issued_at(view: View<'_>, arn: &str) -> Option<Timestamp> {
    issued(view, arn).map(|issued| issued.at)
}

fn issued<'a>(view: View<'a>, arn: &str) -> Option<&'a Issued> {
    let certificate = view.state.acm.certificates.get(&check::id(view.scope, arn)?)?;
    certificate.issued.as_ref()
}

/// What a balancer serves for an ARN.
pub fn pem(view: View<'_>, arn: &str) -> Option<Pem> {
    let issued = issued(view, arn)?;
    let key = view.state.installation.key.as_ref()?.unseal(SEALING, arn, &issued.key.0)?;
    let above = issued.chain.as_deref().unwrap_or_default();
    Some(Pem { chain: format!("{}{above}", issued.body), key: key.expose().to_owned() })
}

pub(super) fn seal(key: &SessionKey, random: &mut dyn Random, arn: &str, secret: &str) -> SealedKey {
    let mut nonce = [0; SessionKey::NONCE];
    random.fill(&mut nonce);
    SealedKey(key.seal(SEALING, arn, nonce, secret))
}

/// What a certificate says of itself, if the key is its own.
///
/// # Errors
/// When one of them cannot be read, or they do not belong together.
pub fn check_pair(body: &str, key: &Secret) -> Result<x509::Facts, x509::Unfit> {
    x509::check(body.as_bytes(), key.expose().as_bytes(), None).map(|checked| checked.facts)
}

/// The certificates that have to be issued: those that were asked for, and those whose end is near.
pub fn wanted(acm: &AcmState, now: Timestamp) -> impl Iterator<Item = (CertificateId, &Wish)> {
    acm.certificates.values().filter_map(move |certificate| {
        let due = certificate.issued.as_ref().is_none_or(|had| had.facts.not_after <= now + RENEWAL);
        certificate.wish.as_ref().filter(|_| due).map(|wish| (certificate.id, wish))
    })
}

/// A certificate that was wanted is there. One that is not wanted any more is dropped.
///
/// # Errors
/// When certificate and key are not what they should be.
pub fn take_issued(tx: &mut Tx<'_>, id: CertificateId, body: &str, key: &Secret) -> Result<(), x509::Unfit> {
    if !wanted(&tx.state.acm, tx.now).any(|(wanted, _)| wanted == id) {
        return Ok(());
    }
    let Some(sealing) = tx.state.installation.key.clone() else { return Ok(()) };
    let checked = x509::check(body.as_bytes(), key.expose().as_bytes(), None)?;
    let key = seal(&sealing, tx.random, &check::arn(tx.scope, id), key.expose());
    let issued = Issued { at: tx.now, body: checked.body, chain: checked.chain, key, facts: checked.facts };
    tx.state.acm.certificates.edit(&id, |certificate| certificate.issued = Some(issued));
    Ok(())
}
