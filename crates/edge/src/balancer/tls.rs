//! TLS: certificates by the name that a client asks for, the versions of a security policy, and clients of targets.

use super::certificate::dns_names;
use super::verifiers::{AnyCertificate, PassedThrough, Verified};
use super::{Observer, Pem, Problem, TrustStore};
use gantry_decide::routing::config::{
    AlpnPolicy, CertificateArn, ClientCertificates, ListenerArn, ListenerTls,
};
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::kx_group::{SECP256R1MLKEM768, X25519MLKEM768};
use rustls::crypto::aws_lc_rs::{Ticketer, default_provider};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{CipherSuite, ServerConfig, SupportedProtocolVersion};
use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

/// A certificate that cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    #[error("it is not there")]
    Missing,
    #[error("its PEM cannot be read")]
    Pem(#[source] rustls::pki_types::pem::Error),
    #[error("it has no certificate")]
    Empty,
    #[error("its key is of no use")]
    Key(#[source] rustls::Error),
}

/// What a listener's TLS connections go by, and what it was made of. It stays while that does: with another one clients
/// could not resume their sessions.
pub struct Served {
    tls: ListenerTls,
    alpn: &'static [&'static [u8]],
    /// In the order in which `tls` names them.
    certificates: Vec<Option<Pem>>,
    trust_store: Option<Arc<TrustStore>>,
    /// None without a certificate that can be served, and where clients cannot be verified as they have to be.
    pub config: Option<Arc<Secured>>,
}

/// What a connection's handshake goes by.
#[derive(Debug)]
pub struct Secured {
    pub config: Arc<ServerConfig>,
    pub certificates: Arc<ByName>,
}

impl Served {
    /// For a listener, of which `before` was served until now.
    pub fn of(
        tls: &ListenerTls,
        alpn: &'static [&'static [u8]],
        listener: &ListenerArn,
        observer: &dyn Observer,
        problems: &mut Vec<Problem>,
        before: Option<Served>,
    ) -> Served {
        let named = std::iter::once(&tls.default_certificate).chain(&tls.certificates);
        let certificates = named.map(|arn| observer.certificate(arn)).collect();
        let trust_store = match &tls.client_certificates {
            ClientCertificates::Verify(by) => observer.trust_store(&by.trust_store),
            ClientCertificates::Off | ClientCertificates::Passthrough => None,
        };
        let served = Served { tls: tls.clone(), alpn, certificates, trust_store, config: None };
        match before {
            Some(before) if before.is_made_of(&served) => before,
            _ => Served { config: served.secured(listener, problems), ..served },
        }
    }

    fn is_made_of(&self, other: &Served) -> bool {
        self.tls == other.tls
            && self.alpn == other.alpn
            && self.certificates == other.certificates
            && self.trust_store == other.trust_store
    }

    fn secured(&self, listener: &ListenerArn, problems: &mut Vec<Problem>) -> Option<Arc<Secured>> {
        let tls = &self.tls;
        let provider = Arc::new(provider(&tls.policy));
        let named = std::iter::once(&tls.default_certificate).chain(&tls.certificates);
        let mut load = |(arn, pem): (&CertificateArn, &Option<Pem>)| match load(pem.as_ref(), &provider) {
            Ok(key) => Some(Arc::new(Known { arn: arn.clone(), key: Arc::new(key) })),
            Err(source) => {
                let (listener, certificate) = (listener.to_string(), arn.to_string());
                problems.push(Problem::Certificate { listener, certificate, source });
                None
            }
        };
        let mut loaded = named.zip(&self.certificates);
        let default = loaded.next().and_then(&mut load)?;
        let mut names: BTreeMap<String, Vec<Arc<Known>>> = BTreeMap::new();
        for known in std::iter::once(default.clone()).chain(loaded.filter_map(load)) {
            for name in known.key.cert.first().map(dns_names).unwrap_or_default() {
                names.entry(name).or_default().push(known.clone());
            }
        }
        let certificates = Arc::new(ByName { names, default });
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(versions(&tls.policy))
            .ok()?;
        let builder = match &tls.client_certificates {
            ClientCertificates::Off => builder.with_no_client_auth(),
            ClientCertificates::Passthrough => {
                builder.with_client_cert_verifier(Arc::new(PassedThrough { provider }))
            }
            ClientCertificates::Verify(by) => {
                match Verified::new(by, self.trust_store.as_deref(), provider) {
                    Ok(verified) => builder.with_client_cert_verifier(Arc::new(verified)),
                    Err(source) => {
                        let (listener, trust_store) = (listener.to_string(), by.trust_store.clone());
                        problems.push(Problem::TrustStore { listener, trust_store, source });
                        return None;
                    }
                }
            }
        };
        let mut config = builder.with_cert_resolver(certificates.clone());
        config.alpn_protocols = self.alpn.iter().map(|name| name.to_vec()).collect();
        if tls.client_certificates != ClientCertificates::Off {
            // As documented. A client whose certificate is revoked meanwhile is asked for it again.
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        } else if let Ok(ticketer) = Ticketer::new() {
            config.ticketer = ticketer;
        }
        Some(Arc::new(Secured { config: Arc::new(config), certificates }))
    }
}

/// The names that a network load balancer's TLS listener negotiates.
pub fn alpn_names(policy: AlpnPolicy) -> &'static [&'static [u8]] {
    match policy {
        AlpnPolicy::None => &[],
        AlpnPolicy::Http1Only => &[b"http/1.1"],
        AlpnPolicy::Http2Only => &[b"h2"],
        AlpnPolicy::Http2Optional => &[b"http/1.1", b"h2"],
        AlpnPolicy::Http2Preferred => &[b"h2", b"http/1.1"],
    }
}

/// What a security policy's handshakes are made of. Those with PQ in their names prefer key exchanges that withstand quantum
/// computers, and the others have none.
fn provider(policy: &str) -> CryptoProvider {
    let mut provider = default_provider();
    let hybrid = [X25519MLKEM768, SECP256R1MLKEM768];
    provider.kx_groups.retain(|group| hybrid.iter().all(|other| other.name() != group.name()));
    if policy.contains("-PQ-") {
        provider.kx_groups.splice(0..0, hybrid);
    }
    provider
}

/// What of a security policy's versions is served: policies for TLS 1.0 and 1.1 begin at 1.2.
fn versions(policy: &str) -> &'static [&'static SupportedProtocolVersion] {
    use rustls::version::{TLS12, TLS13};
    static NEWEST: [&SupportedProtocolVersion; 1] = [&TLS13];
    static BOTH: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];
    static OLDER: [&SupportedProtocolVersion; 1] = [&TLS12];
    match policy {
        policy if policy.contains("TLS13-1-3") => &NEWEST,
        policy if policy.contains("TLS13") => &BOTH,
        _ => &OLDER,
    }
}

/// A cipher suite as OpenSSL calls it, and with it headers, logs and `DescribeSSLPolicies`.
pub fn openssl_name(suite: CipherSuite) -> &'static str {
    match suite {
        CipherSuite::TLS13_AES_128_GCM_SHA256 => "TLS_AES_128_GCM_SHA256",
        CipherSuite::TLS13_AES_256_GCM_SHA384 => "TLS_AES_256_GCM_SHA384",
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => "TLS_CHACHA20_POLY1305_SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 => "ECDHE-ECDSA-AES128-GCM-SHA256",
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 => "ECDHE-RSA-AES128-GCM-SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 => "ECDHE-ECDSA-AES256-GCM-SHA384",
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384 => "ECDHE-RSA-AES256-GCM-SHA384",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256 => "ECDHE-ECDSA-CHACHA20-POLY1305",
        CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 => "ECDHE-RSA-CHACHA20-POLY1305",
        _ => "-",
    }
}

fn load(pem: Option<&Pem>, provider: &CryptoProvider) -> Result<CertifiedKey, CertificateError> {
    let pem = pem.ok_or(CertificateError::Missing)?;
    let chain = CertificateDer::pem_slice_iter(pem.chain.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(CertificateError::Pem)?;
    if chain.is_empty() {
        return Err(CertificateError::Empty);
    }
    let key = PrivateKeyDer::from_pem_slice(pem.key.as_bytes()).map_err(CertificateError::Pem)?;
    CertifiedKey::from_der(chain, key, provider).map_err(CertificateError::Key)
}

/// Chooses by the name that the client asks for, then by the signatures that it knows.
#[derive(Debug)]
pub struct ByName {
    /// With wildcards as they stand in certificates, `*.example.com`.
    names: BTreeMap<String, Vec<Arc<Known>>>,
    default: Arc<Known>,
}

/// A certificate with its key.
#[derive(Debug)]
pub struct Known {
    pub arn: CertificateArn,
    key: Arc<CertifiedKey>,
}

impl ByName {
    /// What is shown to a client that begins so.
    pub fn choose(&self, hello: &ClientHello<'_>) -> &Known {
        let known = hello.server_name().and_then(|name| {
            let name = name.to_ascii_lowercase();
            self.names.get(&name).or_else(|| {
                let (_, parent) = name.split_once('.')?;
                self.names.get(&format!("*.{parent}"))
            })
        });
        let fits = |known: &&Arc<Known>| known.key.key.choose_scheme(hello.signature_schemes()).is_some();
        let chosen = known.and_then(|known| known.iter().find(fits).or_else(|| known.first()));
        chosen.unwrap_or(&self.default)
    }
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.choose(&hello).key.clone())
    }
}

/// What clients of HTTPS and TLS targets go by. A load balancer takes any certificate of a target, as documented: the
/// network between them is the user's own.
/// `http2`: they speak HTTP/2.
pub fn client_config(http2: bool) -> Arc<rustls::ClientConfig> {
    type Config = LazyLock<Arc<rustls::ClientConfig>>;
    static FIRST: Config = LazyLock::new(|| make_client_config(&[]));
    static SECOND: Config = LazyLock::new(|| make_client_config(&[b"h2"]));
    if http2 { SECOND.clone() } else { FIRST.clone() }
}

fn make_client_config(alpn: &[&[u8]]) -> Arc<rustls::ClientConfig> {
    let provider = Arc::new(default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .expect("the provider has the suites of its own default versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate { provider }))
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    config.enable_sni = false;
    Arc::new(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_suite_that_is_served_has_a_name() {
        let suites = default_provider().cipher_suites;
        assert!(suites.iter().all(|suite| openssl_name(suite.suite()) != "-"), "{suites:?}");
    }

    #[test]
    fn post_quantum_key_exchanges_are_of_policies_that_are_named_for_them() {
        let first = |policy: &str| provider(policy).kx_groups[0].name();
        assert_eq!(first("ELBSecurityPolicy-TLS13-1-2-PQ-2025-09"), rustls::NamedGroup::X25519MLKEM768);
        let plain = provider("ELBSecurityPolicy-TLS13-1-2-2021-06").kx_groups;
        assert_eq!(plain[0].name(), rustls::NamedGroup::X25519);
        assert!(plain.iter().all(|group| !format!("{group:?}").contains("MLKEM")), "{plain:?}");
    }

    #[test]
    fn policies_have_the_versions_of_their_names() {
        let count = |policy: &str| versions(policy).len();
        assert_eq!(count("ELBSecurityPolicy-TLS13-1-2-2021-06"), 2);
        assert_eq!(versions("ELBSecurityPolicy-TLS13-1-3-2021-06"), [&rustls::version::TLS13]);
        assert_eq!(versions("ELBSecurityPolicy-2016-08"), [&rustls::version::TLS12]);
    }
}
