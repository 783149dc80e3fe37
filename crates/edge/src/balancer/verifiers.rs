//! Who is believed in handshakes: clients that show certificates, and targets.

use super::connection_log::Failure;
use rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError as Unacceptable, DistinguishedName, OtherError};
use std::io;
use std::sync::Arc;

/// The half of a verifier, of clients or of servers, that tells whether the other side has the key of what it shows: as
/// the provider in the verifier's first field does.
macro_rules! signatures_by_provider {
    () => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &rustls::DigitallySignedStruct,
        ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
            let algorithms = &self.0.signature_verification_algorithms;
            rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &rustls::DigitallySignedStruct,
        ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
            let algorithms = &self.0.signature_verification_algorithms;
            rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
            self.0.signature_verification_algorithms.supported_schemes()
        }
    };
}

/// Certificates of one client, its own included, and the bytes of them: AWS's limits.
const CLIENT_CHAIN_MAX: usize = 4;
const CLIENT_CHAIN_BYTES_MAX: usize = 16 * 1024;

/// Takes any certificate of a client, or none: targets are told of it.
#[derive(Debug)]
pub struct PassedThrough(pub Arc<CryptoProvider>);

/// A chain of certificates that is not looked at.
///
/// # Errors
/// The failure that connection logs tell of.
fn bound_chain(own: &CertificateDer<'_>, above: &[CertificateDer<'_>]) -> Result<(), rustls::Error> {
    let bytes = own.len() + above.iter().map(|certificate| certificate.len()).sum::<usize>();
    let failure = match () {
        () if above.len() >= CLIENT_CHAIN_MAX => Failure::ChainDepth,
        () if bytes > CLIENT_CHAIN_BYTES_MAX => Failure::ChainSize,
        () => return Ok(()),
    };
    Err(rustls::Error::InvalidCertificate(Unacceptable::Other(OtherError(Arc::new(failure)))))
}

/// Why a handshake failed, as connection logs have it.
pub fn failure(error: &io::Error) -> Failure {
    let rustls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match rustls {
        Some(rustls::Error::InvalidCertificate(Unacceptable::Other(other))) => {
            other.0.downcast_ref().copied().unwrap_or(Failure::Unmapped)
        }
        Some(rustls::Error::InvalidCertificate(_)) => Failure::Invalid,
        _ => Failure::Unmapped,
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
        bound_chain(own, above).map(|()| ClientCertVerified::assertion())
    }

    signatures_by_provider!();
}

/// Takes any certificate of a target.
#[derive(Debug)]
pub struct AnyCertificate(pub Arc<CryptoProvider>);

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
