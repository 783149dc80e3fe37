//! Certificates that the caller brings, with their keys.

use crate::call::Call;
use crate::services::acm::errors::AcmError;
use crate::services::acm::state::{Certificate, Issued};
use crate::services::acm::x509::Unfit;
use crate::services::acm::{check, links, x509};
use crate::tx::Tx;
use gantry_api::acm;
use gantry_decide::ids::CertificateId;

/// Imports a certificate, or puts another in the place of an imported one: whoever uses that has the new one at once.
pub fn import_certificate(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: acm::ImportCertificateRequest,
) -> Result<acm::ImportCertificateResponse, AcmError> {
    let view = tx.view();
    let sealing = check::sealing_key(view)?;
    let before = match request.certificate_arn.as_deref() {
        Some(arn) => {
            let before = check::certificate(view, arn)?;
            if before.wish.is_some() {
                return Err(AcmError::validation(format!("Certificate {arn} was not imported.")));
            }
            if request.tags.is_some() {
                return Err(AcmError::validation("Tagging is not permitted on re-import."));
            }
            Some(before.clone())
        }
        None => {
            check::room(view)?;
            None
        }
    };
    let chain = request.certificate_chain.as_ref().map(|chain| chain.expose());
    let checked = x509::check(request.certificate.expose(), request.private_key.expose(), chain)?;
    let facts = checked.facts;
    if facts.not_after <= tx.now {
        return Err(AcmError::validation("The certificate has expired."));
    }
    if facts.not_before > tx.now {
        return Err(AcmError::validation("The certificate is not valid yet."));
    }
    if before.as_ref().and_then(Certificate::key_algorithm).is_some_and(|had| had != facts.key_algorithm) {
        let message = "The key type of a certificate that is imported again must be what it was.";
        return Err(AcmError::validation(message));
    }
    let mut certificate = match before {
        Some(before) => before,
        None => Certificate {
            id: CertificateId::random(tx.random),
            created_at: tx.now,
            wish: None,
            issued: None,
            tags: check::few_tags(check::tags(request.tags.as_deref())?)?,
        },
    };
    let arn = check::arn(tx.scope, certificate.id);
    let key = std::str::from_utf8(request.private_key.expose()).map_err(|_| Unfit::Key)?;
    certificate.issued = Some(Issued {
        at: tx.now,
        body: checked.body,
        chain: checked.chain,
        key: links::seal(&sealing, tx.random, &arn, key),
        facts,
    });
    tx.state.acm.certificates.put(certificate);
    Ok(acm::ImportCertificateResponse { certificate_arn: Some(arn) })
}
