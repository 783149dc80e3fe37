//! One certificate: describe, get, delete, its options.

use crate::call::Call;
use crate::services::acm::errors::AcmError;
use crate::services::acm::{check, views};
use crate::services::elbv2;
use crate::tx::{Tx, View};
use gantry_api::acm;

pub fn describe_certificate(
    view: View<'_>,
    _call: &Call,
    request: acm::DescribeCertificateRequest,
) -> Result<acm::DescribeCertificateResponse, AcmError> {
    let certificate = check::certificate(view, &request.certificate_arn)?;
    Ok(acm::DescribeCertificateResponse { certificate: Some(views::detail(view, certificate)) })
}

pub fn get_certificate(
    view: View<'_>,
    _call: &Call,
    request: acm::GetCertificateRequest,
) -> Result<acm::GetCertificateResponse, AcmError> {
    let certificate = check::certificate(view, &request.certificate_arn)?;
    let issued = certificate.issued.as_ref();
    let issued = issued.ok_or_else(|| AcmError::InProgress(request.certificate_arn.clone()))?;
    Ok(acm::GetCertificateResponse {
        certificate: Some(issued.body.clone()),
        certificate_chain: issued.chain.clone(),
    })
}

pub fn delete_certificate(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: acm::DeleteCertificateRequest,
) -> Result<acm::DeleteCertificateResponse, AcmError> {
    let arn = &request.certificate_arn;
    let id = check::certificate(tx.view(), arn)?.id;
    if !elbv2::links::users_of_certificate(tx.view(), arn).is_empty() {
        return Err(AcmError::InUse(arn.clone()));
    }
    tx.state.acm.certificates.remove(&id);
    Ok(acm::DeleteCertificateResponse::default())
}

/// Whether a certificate would be in public logs: the only option that can change.
pub fn update_certificate_options(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: acm::UpdateCertificateOptionsRequest,
) -> Result<acm::UpdateCertificateOptionsResponse, AcmError> {
    let certificate = check::certificate(tx.view(), &request.certificate_arn)?;
    if certificate.wish.is_none() {
        let message = format!("Certificate {} was imported: it has no options.", request.certificate_arn);
        return Err(AcmError::InvalidState(message));
    }
    let id = certificate.id;
    let options = &request.options;
    if options.export == Some(acm::CertificateExport::Enabled) {
        return Err(AcmError::Unsupported("Certificates that can be exported are not supported."));
    }
    if let Some(preference) = options.certificate_transparency_logging_preference {
        let logged = preference == acm::CertificateTransparencyLoggingPreference::Enabled;
        tx.state.acm.certificates.edit(&id, |certificate| {
            if let Some(wish) = &mut certificate.wish {
                wish.logged = logged;
            }
        });
    }
    Ok(acm::UpdateCertificateOptionsResponse::default())
}
