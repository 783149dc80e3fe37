//! The certificates of listeners.

use crate::call::Call;
use crate::services::acm;
use crate::services::elbv2::errors::{Elbv2Error, Limit, shortened};
use crate::services::elbv2::state::{Listener, Tls};
use crate::services::elbv2::{check, views};
use crate::tx::{Tx, View};
use gantry_api::elbv2;

/// Certificates of one load balancer, the default ones left out: AWS's quota.
pub const CERTIFICATES_MAX: usize = 25;

/// The ARN of a certificate that a request names, and that there is.
///
/// # Errors
/// When there is none.
pub fn named(view: View<'_>, given: &elbv2::Certificate) -> Result<String, Elbv2Error> {
    let arn = given.certificate_arn.clone().unwrap_or_default();
    if acm::links::is_issued(view, &arn) {
        Ok(arn)
    } else {
        Err(Elbv2Error::CertificateNotFound(shortened(&arn)))
    }
}

/// A listener that speaks TLS, and how.
fn secure<'a>(view: View<'a>, arn: &str) -> Result<(&'a Listener, &'a Tls), Elbv2Error> {
    let listener = check::listener(view, arn)?;
    let tls = listener.tls.as_ref();
    let tls =
        tls.ok_or_else(|| Elbv2Error::UnsupportedProtocol("The listener does not speak TLS".to_owned()))?;
    Ok((listener, tls))
}

pub fn add_listener_certificates(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: elbv2::AddListenerCertificatesInput,
) -> Result<elbv2::AddListenerCertificatesOutput, Elbv2Error> {
    let view = tx.view();
    let (listener, tls) = secure(view, &request.listener_arn)?;
    let mut certificates = tls.more_certificates.clone();
    let mut added = Vec::new();
    for given in &request.certificates {
        let arn = named(view, given)?;
        if !certificates.contains(&arn) {
            certificates.push(arn.clone());
        }
        added.push(views::certificate(&arn, Some(false)));
    }
    let others = view.state.elbv2.listeners_of(&listener.id.balancer).filter(|other| other.id != listener.id);
    let elsewhere: usize =
        others.filter_map(|other| other.tls.as_ref()).map(|tls| tls.more_certificates.len()).sum();
    if elsewhere + certificates.len() > CERTIFICATES_MAX {
        return Err(Elbv2Error::TooMany(Limit::Certificates));
    }
    let changed =
        Listener { tls: Some(Tls { more_certificates: certificates, ..tls.clone() }), ..listener.clone() };
    tx.state.elbv2.listeners.put(changed);
    Ok(elbv2::AddListenerCertificatesOutput { certificates: Some(added) })
}

pub fn remove_listener_certificates(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: elbv2::RemoveListenerCertificatesInput,
) -> Result<elbv2::RemoveListenerCertificatesOutput, Elbv2Error> {
    let (listener, tls) = secure(tx.view(), &request.listener_arn)?;
    let mut certificates = tls.more_certificates.clone();
    for given in &request.certificates {
        let arn = given.certificate_arn.as_deref().unwrap_or_default();
        if arn == tls.certificate && !certificates.iter().any(|other| other == arn) {
            let message = "The default certificate of a listener cannot be removed";
            return Err(Elbv2Error::NotPermitted(message.to_owned()));
        }
        certificates.retain(|other| other != arn);
    }
    let changed =
        Listener { tls: Some(Tls { more_certificates: certificates, ..tls.clone() }), ..listener.clone() };
    tx.state.elbv2.listeners.put(changed);
    Ok(elbv2::RemoveListenerCertificatesOutput::default())
}

pub fn describe_listener_certificates(
    view: View<'_>,
    _call: &Call,
    request: elbv2::DescribeListenerCertificatesInput,
) -> Result<elbv2::DescribeListenerCertificatesOutput, Elbv2Error> {
    let listener = check::listener(view, &request.listener_arn)?;
    let page = check::page(request.marker.as_deref(), request.page_size)?;
    let mut all: Vec<(&str, bool)> = Vec::new();
    if let Some(tls) = &listener.tls {
        all.push((&tls.certificate, true));
        all.extend(tls.more_certificates.iter().map(|arn| (arn.as_str(), false)));
    }
    // The default one first, and then the others in the order of their ARNs.
    let key = |(arn, is_default): &(&str, bool)| format!("{}{arn}", u8::from(!is_default));
    all.sort_by_cached_key(key);
    let show = |(arn, is_default): (&str, bool)| views::certificate(arn, Some(is_default));
    let (certificates, next_marker) = page.cut(all.into_iter(), key, show);
    Ok(elbv2::DescribeListenerCertificatesOutput { certificates: Some(certificates), next_marker })
}
