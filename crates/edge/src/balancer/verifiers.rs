//! Who is believed in handshakes: clients that show certificates, and targets.

use super::TrustStore;
use super::certificate::{ClientCertificate, end};
use super::connection_log::{Failure, Refused};
use gantry_decide::routing::config::Verification;
use rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::{CertificateError as Unacceptable, DistinguishedName, OtherError, RootCertStore};
use std::io;
use std::sync::Arc;

/// The half of a verifier, of clients or of servers, that tells whether the other side has the key of what it shows: as
/// its provider does.
macro_rules! signatures_by_provider {
    () => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &rustls::DigitallySignedStruct,
        ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
            let algorithms = &self.provider.signature_verification_algorithms;
            rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &rustls::DigitallySignedStruct,
        ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
            let algorithms = &self.provider.signature_verification_algorithms;
            rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
            self.provider.signature_verification_algorithms.supported_schemes()
        }
    };
}

/// Certificates of one client, its own included, and the bytes of them: AWS's limits.
const CLIENT_CHAIN_MAX: usize = 4;
const CLIENT_CHAIN_BYTES_MAX: usize = 16 * 1024;

/// Takes any certificate of a client, or none: targets are told of it.
#[derive(Debug)]
pub struct PassedThrough {
    pub provider: Arc<CryptoProvider>,
}

/// Takes a certificate of a client that a trust store vouches for.
#[derive(Debug)]
pub struct Verified {
    provider: Arc<CryptoProvider>,
    trusted: Arc<dyn ClientCertVerifier>,
    ignore_expiry: bool,
}

/// A trust store by which nobody can be verified.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    #[error("it is not there")]
    Missing,
    #[error("its PEM cannot be read")]
    Pem(#[source] pem::Error),
    #[error("its authorities or revocation lists are of no use")]
    Unfit(#[source] VerifierBuilderError),
}

impl Verified {
    /// # Errors
    /// When the trust store is not one.
    pub fn new(
        by: &Verification,
        trust_store: Option<&TrustStore>,
        provider: Arc<CryptoProvider>,
    ) -> Result<Verified, TrustError> {
        let store = trust_store.ok_or(TrustError::Missing)?;
        let mut roots = RootCertStore::empty();
        let authorities = CertificateDer::pem_slice_iter(store.authorities.as_bytes());
        let authorities = authorities.collect::<Result<Vec<_>, _>>().map_err(TrustError::Pem)?;
        // One that makes no sense vouches for nobody; the others do.
        roots.add_parsable_certificates(authorities);
        let lists = store.revocation_lists.iter();
        let lists = lists.flat_map(|list| CertificateRevocationListDer::pem_slice_iter(list.as_bytes()));
        let lists = lists.collect::<Result<Vec<_>, _>>().map_err(TrustError::Pem)?;
        // An authority without a list revoked nobody.
        let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
            .with_crls(lists)
            .allow_unknown_revocation_status();
        let builder = if by.advertise_authorities { builder } else { builder.clear_root_hint_subjects() };
        let trusted = builder.build().map_err(TrustError::Unfit)?;
        Ok(Verified { provider, trusted, ignore_expiry: by.ignore_expiry })
    }

    fn judge(
        &self,
        own: &CertificateDer<'_>,
        above: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Failure> {
        bound_chain(own, above)?;
        // Whether it was good while it lasted.
        let end = end(own).filter(|_| self.ignore_expiry);
        let at = end.map_or(now, |end| end.min(now));
        let verified = self.trusted.verify_client_cert(own, above, at);
        verified.map(|_| ()).map_err(|error| failure(&error))
    }
}

/// Whether a chain is as long as one may be.
fn bound_chain(own: &CertificateDer<'_>, above: &[CertificateDer<'_>]) -> Result<(), Failure> {
    let bytes = own.len() + above.iter().map(|certificate| certificate.len()).sum::<usize>();
    match () {
        () if above.len() >= CLIENT_CHAIN_MAX => Err(Failure::ChainDepth),
        () if bytes > CLIENT_CHAIN_BYTES_MAX => Err(Failure::ChainSize),
        () => Ok(()),
    }
}

/// What is wrong with a certificate, as connection logs have it.
fn failure(error: &rustls::Error) -> Failure {
    let unacceptable = match error {
        rustls::Error::InvalidCertificate(unacceptable) => unacceptable,
        rustls::Error::InvalidCertRevocationList(_) => return Failure::RevocationList,
        _ => return Failure::Invalid,
    };
    match unacceptable {
        Unacceptable::Revoked => Failure::Revoked,
        Unacceptable::UnknownRevocationStatus => Failure::RevocationList,
        Unacceptable::UnknownIssuer | Unacceptable::BadSignature => Failure::Untrusted,
        Unacceptable::NotValidYet | Unacceptable::NotValidYetContext { .. } => Failure::NotYetValid,
        Unacceptable::Expired | Unacceptable::ExpiredContext { .. } => Failure::Expired,
        Unacceptable::UnsupportedSignatureAlgorithmContext { .. }
        | Unacceptable::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => Failure::TypeUnsupported,
        Unacceptable::InvalidPurpose | Unacceptable::InvalidPurposeContext { .. } => Failure::Purpose,
        _ => Failure::Invalid,
    }
}

/// A judgement in the form in which it comes out of the handshake again; see [`refused`].
fn told(judged: Result<(), Failure>, own: &CertificateDer<'_>) -> Result<ClientCertVerified, rustls::Error> {
    judged.map(|()| ClientCertVerified::assertion()).map_err(|failure| {
        let certificate = ClientCertificate::read(std::slice::from_ref(own)).map(Arc::new);
        let refused = Refused { certificate, ..failure.into() };
        rustls::Error::InvalidCertificate(Unacceptable::Other(OtherError(Arc::new(refused))))
    })
}

/// Why a handshake failed, as connection logs have it.
pub fn refused(error: &io::Error) -> Refused {
    let rustls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match rustls {
        Some(rustls::Error::InvalidCertificate(Unacceptable::Other(other))) => {
            other.0.downcast_ref().cloned().unwrap_or(Failure::Unmapped.into())
        }
        Some(rustls::Error::InvalidCertificate(_)) => Failure::Invalid.into(),
        Some(rustls::Error::AlertReceived(alert)) => {
            Refused { alert: Some((*alert).into()), ..Failure::Unmapped.into() }
        }
        _ => Failure::Unmapped.into(),
    }
}

impl ClientCertVerifier for PassedThrough {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        own: &CertificateDer<'_>,
        above: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        told(bound_chain(own, above), own)
    }

    signatures_by_provider!();
}

impl ClientCertVerifier for Verified {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.trusted.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        own: &CertificateDer<'_>,
        above: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        told(self.judge(own, above, now), own)
    }

    signatures_by_provider!();
}

/// Takes any certificate of a target.
#[derive(Debug)]
pub struct AnyCertificate {
    pub provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    signatures_by_provider!();
}
