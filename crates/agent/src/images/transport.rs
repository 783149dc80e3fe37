//! Connections to registries, and whom they trust.

use http::{Request, Response};
use http_body_util::Empty;
use hyper::body::{Bytes, Incoming};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Client, Error};
use hyper_util::rt::TokioExecutor;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Until a TCP connection stands.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Where distributions keep the authorities that the operator trusts, their own registries' included.
const SYSTEM_AUTHORITIES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem"];

/// Whom to believe beyond the host's own authorities.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trust {
    /// PEM files of the operator's certificate authorities.
    pub authorities: Vec<PathBuf>,
    /// Registries, `HOST` or `HOST:PORT`, that are spoken to without TLS. Those of this machine always are.
    pub plain: BTreeSet<String>,
}

impl Trust {
    /// Whether plain HTTP to this server was allowed.
    pub fn is_plain(&self, authority: &str) -> bool {
        let host = match authority.rsplit_once(':') {
            Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
            _ => authority,
        };
        self.plain.contains(authority) || self.plain.contains(host)
    }
}

/// Connections that cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    #[error("{} holds no certificate of an authority", .0.display())]
    Authority(PathBuf),
    #[error("failed to set up TLS")]
    Tls(#[from] rustls::Error),
}

/// Connections to registries, shared by all pulls.
#[derive(Clone)]
pub struct Transport(Client<HttpsConnector<HttpConnector>, Empty<Bytes>>);

impl Transport {
    /// Trusts the authorities that browsers trust, those of the host (`SSL_CERT_FILE` or the distribution's bundle), and
    /// those named.
    ///
    /// # Errors
    /// When a file that was named holds no authority.
    pub fn new(trusted: &Trust) -> Result<Transport, TrustError> {
        Ok(Transport(Client::builder(TokioExecutor::new()).build(connector(trusted)?)))
    }

    /// Sends the request; the answer's body is still to be read.
    pub async fn request(&self, request: Request<Empty<Bytes>>) -> Result<Response<Incoming>, Error> {
        self.0.request(request).await
    }
}

/// Connects by TLS or without, believing those whom [`Transport::new`] does.
///
/// # Errors
/// When a file that was named holds no authority.
pub(crate) fn connector(trusted: &Trust) -> Result<HttpsConnector<HttpConnector>, TrustError> {
    let mut roots = RootCertStore::empty();
    roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    let named = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    let files = named.map_or_else(|| SYSTEM_AUTHORITIES.map(PathBuf::from).to_vec(), |file| vec![file]);
    for file in &files {
        trust(&mut roots, file);
    }
    for file in &trusted.authorities {
        if trust(&mut roots, file) == 0 {
            return Err(TrustError::Authority(file.clone()));
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
    tcp.set_nodelay(true);
    Ok(HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().wrap_connector(tcp))
}

/// Adds the authorities in a PEM file and tells how many. A file that is not there adds none; one certificate that cannot
/// be read does not spoil the others.
fn trust(roots: &mut RootCertStore, file: &Path) -> usize {
    let Ok(certificates) = CertificateDer::pem_file_iter(file) else { return 0 };
    let (added, ignored) = roots.add_parsable_certificates(certificates.flatten());
    tracing::debug!(file = %file.display(), added, ignored, "read certificate authorities");
    added
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const AUTHORITY: &str = "-----BEGIN CERTIFICATE-----\n\
        MIIBmDCCAT2gAwIBAgIUWpYhul4S79RhgziPG0HLBZ4uZGAwCgYIKoZIzj0EAwIw\n\
        IDEeMBwGA1UEAwwVR2FudHJ5IHRlc3QgYXV0aG9yaXR5MCAXDTI2MTEyMTAwMzYy\n\
        NFoYDzIxMjYxMDI4MDAzNjI0WjAgMR4wHAYDVQQDDBVHYW50cnkgdGVzdCBhdXRo\n\
        b3JpdHkwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAARyNr5lflmqJSE6Sn0bZ0R2\n\
        iVGno8OYtUqzSImdJCZ2yRI8GU+RTDoLE5fAbQI64U5BnyLd6Oi+AMFpjLKdfBKt\n\
        o1MwUTAdBgNVHQ4EFgQUQHRYHQqJ/gSIRNBExxKSd3kg/xgwHwYDVR0jBBgwFoAU\n\
        QHRYHQqJ/gSIRNBExxKSd3kg/xgwDwYDVR0TAQH/BAUwAwEB/zAKBggqhkjOPQQD\n\
        AgNJADBGAiEA+5Lk48uBLX+j4sIas9xhVJ3eI92P++i0vtcGDR3O8bICIQDo3xC3\n\
        M+NkLb3K/JnhbdGj09NMYg+7Z2CCm4q7L+i9mA==\n\
        -----END CERTIFICATE-----\n";

    #[test]
    fn authorities_are_read_and_nonsense_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("bundle.pem");
        let mut roots = RootCertStore::empty();
        assert_eq!(trust(&mut roots, &file), 0);
        let named = Trust { authorities: vec![file.clone()], ..Trust::default() };
        assert!(matches!(Transport::new(&named), Err(TrustError::Authority(_))));
        let nonsense = "-----BEGIN CERTIFICATE-----\nbm9uc2Vuc2U=\n-----END CERTIFICATE-----\n";
        std::fs::write(&file, format!("words\n{nonsense}{AUTHORITY}")).unwrap();
        assert_eq!((trust(&mut roots, &file), roots.len()), (1, 1));
        assert!(Transport::new(&named).is_ok());
    }

    #[test]
    fn plain_registries_are_named_with_a_port_or_all_of_them() {
        let trust = Trust {
            plain: ["a.example:5000", "b.example", "[2001:db8::1]"].map(str::to_owned).into(),
            ..Trust::default()
        };
        for known in ["a.example:5000", "b.example", "b.example:80", "[2001:db8::1]:5000", "[2001:db8::1]"] {
            assert!(trust.is_plain(known), "{known}");
        }
        for other in ["a.example", "a.example:443", "c.b.example", "[2001:db8::2]"] {
            assert!(!trust.is_plain(other), "{other}");
        }
    }
}
