//! Input rules beyond the model's constraints: ARNs, tags, names.

use super::errors::AcmError;
use super::state::{Certificate, Tags};
use crate::tx::View;
use gantry_api::acm;
use gantry_decide::arn::Arn;
use gantry_decide::ids::{CertificateId, Scope};
use gantry_wire::sigv4::SessionKey;

/// Tags of one certificate: Certificate Manager's limit.
pub const TAGS_MAX: usize = 50;
/// Certificates of a scope: Certificate Manager's quota.
pub const CERTIFICATES_MAX: usize = 2500;
/// What keys are sealed for.
pub const SEALING: &str = "certificate keys";

/// Text of a request as an error repeats it.
pub fn shortened(text: &str) -> String {
    text.chars().take(256).collect()
}

/// The certificate that an ARN of this scope names.
pub fn id(scope: &Scope, arn: &str) -> Option<CertificateId> {
    let arn: Arn = arn.parse().ok()?;
    let here = arn.service == "acm"
        && arn.region == scope.region.as_str()
        && arn.account == scope.account.to_string();
    arn.resource.strip_prefix("certificate/").filter(|_| here)?.parse().ok()
}

pub fn arn(scope: &Scope, id: CertificateId) -> String {
    format!("arn:aws:acm:{}:{}:certificate/{id}", scope.region, scope.account)
}

/// # Errors
/// For text that is no certificate's ARN, and for one of nothing.
pub fn certificate<'a>(view: View<'a>, given: &str) -> Result<&'a Certificate, AcmError> {
    let parsed: Option<Arn> = given.parse().ok();
    if !parsed.is_some_and(|arn| arn.service == "acm" && arn.resource.starts_with("certificate/")) {
        return Err(AcmError::InvalidArn(shortened(given)));
    }
    let found = id(view.scope, given).and_then(|id| view.state.acm.certificates.get(&id));
    found.map(AsRef::as_ref).ok_or_else(|| AcmError::NotFound(shortened(given)))
}

/// The key under which private keys are sealed.
///
/// # Errors
/// When the installation has none: then no private key is taken.
pub fn sealing_key(view: View<'_>) -> Result<SessionKey, AcmError> {
    let key = view.state.installation.key.clone();
    key.ok_or(AcmError::Unsupported("This server has no key under which private keys could be kept."))
}

/// Reads tags.
///
/// # Errors
/// For repeated and reserved ones.
pub fn tags(given: Option<&[acm::Tag]>) -> Result<Tags, AcmError> {
    let mut tags = Tags::new();
    for tag in given.unwrap_or_default() {
        if tag.key.get(..4).is_some_and(|prefix| prefix.eq_ignore_ascii_case("aws:")) {
            let message = "Tag keys that begin with 'aws:' are reserved for system use.";
            return Err(AcmError::InvalidTag(message.to_owned()));
        }
        if tags.insert(tag.key.clone(), tag.value.clone().unwrap_or_default()).is_some() {
            return Err(AcmError::InvalidTag(format!("The tag key '{}' is given twice.", tag.key)));
        }
    }
    Ok(tags)
}

/// # Errors
/// For more tags than a certificate can have.
pub fn few_tags(tags: Tags) -> Result<Tags, AcmError> {
    if tags.len() > TAGS_MAX { Err(AcmError::TooManyTags(TAGS_MAX)) } else { Ok(tags) }
}

/// # Errors
/// When there are as many certificates as there can be.
pub fn room(view: View<'_>) -> Result<(), AcmError> {
    if view.state.acm.certificates.len() < CERTIFICATES_MAX {
        Ok(())
    } else {
        Err(AcmError::LimitExceeded(CERTIFICATES_MAX))
    }
}
