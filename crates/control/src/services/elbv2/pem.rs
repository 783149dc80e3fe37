//! What trust stores are made of: bundles of authorities' certificates and files of revocation lists. A list that a balancer
//! cannot judge by would have it refuse every client, so that none is taken that is out of the ordinary.

use super::state::{Authorities, Revocations};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::X509Extension;
use x509_parser::oid_registry::{
    OID_X509_EXT_AUTHORITY_KEY_IDENTIFIER, OID_X509_EXT_CRL_NUMBER, OID_X509_EXT_INVALIDITY_DATE,
    OID_X509_EXT_REASON_CODE, Oid,
};
use x509_parser::pem::Pem;
use x509_parser::prelude::{FromDer as _, X509Version};
use x509_parser::revocation_list::CertificateRevocationList;

/// Certificates of a bundle, bytes of one, and of all their subjects: AWS's quotas.
const AUTHORITIES_MAX: usize = 25;
const AUTHORITY_BYTES_MAX: usize = 16 * 1024;
const SUBJECTS_BYTES_MAX: usize = 10_000;

/// Why a file cannot be taken, in words for who brings it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    #[error("it must hold PEM-encoded certificates, and between them nothing but lines that begin with '#'")]
    Bundle,
    #[error("it holds what is no X.509v3 certificate")]
    Certificate,
    #[error("it holds more than {AUTHORITIES_MAX} certificates")]
    TooMany,
    #[error("a certificate is larger than {AUTHORITY_BYTES_MAX} bytes")]
    TooLarge,
    #[error("the certificates' subjects are larger than {SUBJECTS_BYTES_MAX} bytes")]
    Subjects,
    #[error("it must hold PEM-encoded certificate revocation lists")]
    Lists,
    #[error("it holds what is no complete X.509v2 revocation list of one authority")]
    List,
}

/// # Errors
/// For what is no bundle of certificates.
pub fn authorities(bytes: &[u8]) -> Result<Authorities, Unfit> {
    let text = std::str::from_utf8(bytes).map_err(|_| Unfit::Bundle)?;
    let mut inside = false;
    for line in text.lines() {
        match line.trim_end() {
            "-----BEGIN CERTIFICATE-----" if !inside => inside = true,
            "-----END CERTIFICATE-----" if inside => inside = false,
            line if inside && !line.is_empty() => {}
            // As documented: such lines are no comments.
            line if !inside && line.starts_with('#') && !line.contains('-') => {}
            _ => return Err(Unfit::Bundle),
        }
    }
    let (mut count, mut subjects) = (0, 0);
    for pem in Pem::iter_from_buffer(bytes) {
        let der = pem.map_err(|_| Unfit::Bundle)?.contents;
        if der.len() > AUTHORITY_BYTES_MAX {
            return Err(Unfit::TooLarge);
        }
        let (rest, parsed) = X509Certificate::from_der(&der).map_err(|_| Unfit::Certificate)?;
        if parsed.version() != X509Version::V3 || !rest.is_empty() {
            return Err(Unfit::Certificate);
        }
        (count, subjects) = (count + 1, subjects + parsed.subject().as_raw().len());
    }
    match () {
        () if count == 0 => Err(Unfit::Bundle),
        () if count > AUTHORITIES_MAX => Err(Unfit::TooMany),
        () if subjects > SUBJECTS_BYTES_MAX => Err(Unfit::Subjects),
        () => Ok(Authorities { pem: text.to_owned(), count }),
    }
}

/// Whether a list is all that one authority has to say, for as long as it says.
fn is_plain(list: &CertificateRevocationList<'_>) -> bool {
    let knows = |extension: &X509Extension<'_>, known: &[Oid<'_>]| {
        !extension.critical || known.contains(&extension.oid)
    };
    let of_list = [OID_X509_EXT_CRL_NUMBER, OID_X509_EXT_AUTHORITY_KEY_IDENTIFIER];
    // Without that of the certificate's issuer, which would be another authority.
    let of_entry = [OID_X509_EXT_REASON_CODE, OID_X509_EXT_INVALIDITY_DATE];
    list.version() == Some(X509Version::V2)
        && list.next_update().is_some()
        // Changes to another list, and parts of one, have critical extensions of their own.
        && list.extensions().iter().all(|extension| knows(extension, &of_list))
        && list
            .iter_revoked_certificates()
            .all(|entry| entry.extensions().iter().all(|extension| knows(extension, &of_entry)))
}

/// # Errors
/// For what is no file of revocation lists.
pub fn revocations(bytes: &[u8]) -> Result<Revocations, Unfit> {
    let text = std::str::from_utf8(bytes).map_err(|_| Unfit::Lists)?;
    let (mut lists, mut entries) = (0, 0);
    for pem in Pem::iter_from_buffer(bytes) {
        let pem = pem.ok().filter(|pem| pem.label == "X509 CRL").ok_or(Unfit::Lists)?;
        let read = CertificateRevocationList::from_der(&pem.contents);
        let (_, list) =
            read.ok().filter(|(rest, list)| rest.is_empty() && is_plain(list)).ok_or(Unfit::List)?;
        entries += list.iter_revoked_certificates().count();
        lists += 1;
    }
    if lists == 0 { Err(Unfit::Lists) } else { Ok(Revocations { pem: text.to_owned(), entries }) }
}
