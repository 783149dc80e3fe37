//! Tags of certificates.

use crate::call::Call;
use crate::services::acm::errors::AcmError;
use crate::services::acm::{check, views};
use crate::tx::{Tx, View};
use gantry_api::acm;

pub fn add_tags_to_certificate(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: acm::AddTagsToCertificateRequest,
) -> Result<acm::AddTagsToCertificateResponse, AcmError> {
    let certificate = check::certificate(tx.view(), &request.certificate_arn)?;
    let (id, mut tags) = (certificate.id, certificate.tags.clone());
    tags.extend(check::tags(Some(&request.tags))?);
    let tags = check::few_tags(tags)?;
    tx.state.acm.certificates.edit(&id, |certificate| certificate.tags = tags);
    Ok(acm::AddTagsToCertificateResponse::default())
}

/// Removes tags. One that is given with a value goes only if it has that value.
pub fn remove_tags_from_certificate(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: acm::RemoveTagsFromCertificateRequest,
) -> Result<acm::RemoveTagsFromCertificateResponse, AcmError> {
    let id = check::certificate(tx.view(), &request.certificate_arn)?.id;
    let named = |key: &String, value: &String| {
        request
            .tags
            .iter()
            .any(|tag| tag.key == *key && tag.value.as_ref().is_none_or(|given| given == value))
    };
    tx.state
        .acm
        .certificates
        .edit(&id, |certificate| certificate.tags.retain(|key, value| !named(key, value)));
    Ok(acm::RemoveTagsFromCertificateResponse::default())
}

pub fn list_tags_for_certificate(
    view: View<'_>,
    _call: &Call,
    request: acm::ListTagsForCertificateRequest,
) -> Result<acm::ListTagsForCertificateResponse, AcmError> {
    let certificate = check::certificate(view, &request.certificate_arn)?;
    Ok(acm::ListTagsForCertificateResponse { tags: Some(views::tags(&certificate.tags)) })
}
