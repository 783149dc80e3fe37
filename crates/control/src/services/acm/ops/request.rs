//! Certificates that are asked for by their names.

use crate::call::Call;
use crate::services::acm::check;
use crate::services::acm::errors::AcmError;
use crate::services::acm::state::{Certificate, Validation, Wish};
use crate::services::acm::x509::KeyAlgorithm;
use crate::tx::Tx;
use gantry_api::acm;
use gantry_decide::ids::CertificateId;
use std::collections::BTreeMap;
use std::time::Duration;

/// Names of one certificate: Certificate Manager's limit.
const NAMES_MAX: usize = 100;
/// How long the same token means the same request: Certificate Manager documents one hour.
const TOKEN_LIFETIME: Duration = Duration::from_secs(3600);

fn key_algorithm(given: Option<acm::KeyAlgorithm>) -> Result<KeyAlgorithm, AcmError> {
    match given {
        None | Some(acm::KeyAlgorithm::Rsa2048) => Ok(KeyAlgorithm::Rsa2048),
        Some(acm::KeyAlgorithm::EcPrime256v1) => Ok(KeyAlgorithm::P256),
        Some(acm::KeyAlgorithm::EcSecp384r1) => Ok(KeyAlgorithm::P384),
        Some(other) => {
            let message = format!("The key algorithm {} cannot be requested.", other.as_str());
            Err(AcmError::InvalidParameter(message))
        }
    }
}

fn wish(request: &acm::RequestCertificateRequest) -> Result<Wish, AcmError> {
    let mut names = vec![request.domain_name.to_ascii_lowercase()];
    for name in request.subject_alternative_names.iter().flatten() {
        let name = name.to_ascii_lowercase();
        if !names.contains(&name) {
            names.push(name);
        }
    }
    if names.len() > NAMES_MAX {
        return Err(AcmError::LimitExceeded(NAMES_MAX));
    }
    let mut mail_domains = BTreeMap::new();
    for option in request.domain_validation_options.iter().flatten() {
        let (name, domain) =
            (option.domain_name.to_ascii_lowercase(), option.validation_domain.to_ascii_lowercase());
        let above = name == domain || name.ends_with(&format!(".{domain}"));
        if !names.contains(&name) || !above {
            let message =
                format!("The validation domain {domain} does not belong to the certificate's names.");
            return Err(AcmError::InvalidParameter(message));
        }
        mail_domains.insert(name, domain);
    }
    let options = request.options.as_ref();
    if options.is_some_and(|options| options.export == Some(acm::CertificateExport::Enabled)) {
        return Err(AcmError::Unsupported("Certificates that can be exported are not supported."));
    }
    let preference = options.and_then(|options| options.certificate_transparency_logging_preference);
    Ok(Wish {
        names,
        key_algorithm: key_algorithm(request.key_algorithm)?,
        validation: match request.validation_method {
            Some(acm::ValidationMethod::Dns) => Validation::Dns,
            Some(acm::ValidationMethod::Http) => Validation::Http,
            Some(acm::ValidationMethod::Email) | None => Validation::Email,
        },
        mail_domains,
        logged: preference != Some(acm::CertificateTransparencyLoggingPreference::Disabled),
        token: request.idempotency_token.clone(),
    })
}

/// Asks for a certificate. It is issued a moment later, whoever the names belong to.
pub fn request_certificate(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: acm::RequestCertificateRequest,
) -> Result<acm::RequestCertificateResponse, AcmError> {
    let view = tx.view();
    check::sealing_key(view)?;
    if request.certificate_authority_arn.is_some() {
        return Err(AcmError::Unsupported("Private certificate authorities are not supported."));
    }
    if request.managed_by.is_some() {
        return Err(AcmError::Unsupported("Certificates that CloudFront manages are not supported."));
    }
    let wish = wish(&request)?;
    let tags = check::few_tags(check::tags(request.tags.as_deref())?)?;
    if wish.token.is_some() {
        let same = |certificate: &&std::sync::Arc<Certificate>| {
            tx.now < certificate.created_at + TOKEN_LIFETIME && certificate.wish.as_ref() == Some(&wish)
        };
        if let Some(same) = view.state.acm.certificates.values().find(same) {
            let certificate_arn = Some(check::arn(tx.scope, same.id));
            return Ok(acm::RequestCertificateResponse { certificate_arn });
        }
    }
    check::room(view)?;
    let id = CertificateId::random(tx.random);
    let wish = Some(wish);
    tx.state.acm.certificates.put(Certificate { id, created_at: tx.now, wish, issued: None, tags });
    Ok(acm::RequestCertificateResponse { certificate_arn: Some(check::arn(tx.scope, id)) })
}
