//! HTTPS listeners that verify their clients' certificates by a trust store.

#![allow(clippy::unwrap_used)]
mod common;

use common::{
    Server, World, certificate, client_config, client_showing, group, log_lines, read_answer, secure_by,
    status,
};
use gantry_decide::routing::HealthState;
use gantry_decide::routing::config::*;
use gantry_edge::balancer::TrustStore;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber,
    date_time_ymd,
};
use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority(name: &str) -> Authority {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A client's certificate with its key, as PEM.
fn client(by: &Authority, serial: u64, change: impl FnOnce(&mut CertificateParams)) -> String {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, "a client");
    params.serial_number = Some(SerialNumber::from(serial));
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2100, 1, 1));
    change(&mut params);
    let key = KeyPair::generate().unwrap();
    params.signed_by(&key, by).unwrap().pem() + &key.serialize_pem()
}

fn revoking(by: &Authority, serial: u64) -> String {
    let revoked = RevokedCertParams {
        serial_number: SerialNumber::from(serial),
        revocation_time: date_time_ymd(2024, 1, 1),
        reason_code: None,
        invalidity_date: None,
    };
    let list = CertificateRevocationListParams {
        this_update: date_time_ymd(2024, 1, 1),
        next_update: date_time_ymd(2100, 1, 1),
        crl_number: SerialNumber::from(1_u64),
        issuing_distribution_point: None,
        revoked_certs: vec![revoked],
        key_identifier_method: KeyIdMethod::Sha256,
    };
    list.signed_by(by).unwrap().pem().unwrap()
}

fn trusting(authorities: &[&Authority], revocation_lists: &[String]) -> Option<Arc<TrustStore>> {
    let authorities = authorities.iter().map(|authority| authority.pem()).collect();
    Some(Arc::new(TrustStore { authorities, revocation_lists: revocation_lists.to_vec() }))
}

fn verifying(ignore_expiry: bool, advertise_authorities: bool) -> ListenerTls {
    let trust_store = TrustStoreArn::new("store");
    ListenerTls {
        policy: "ELBSecurityPolicy-TLS13-1-2-2021-06".to_owned(),
        default_certificate: CertificateArn::new("one"),
        certificates: Vec::new(),
        alpn: AlpnPolicy::None,
        client_certificates: ClientCertificates::Verify(Verification {
            trust_store,
            ignore_expiry,
            advertise_authorities,
        }),
    }
}

/// A load balancer whose one listener verifies its clients, once it has a trust store.
fn world(server: &Server, logs: &Path) -> World {
    let world = World::with(vec![group("web", &[server.address])], Vec::new(), |balancer| {
        let prefix = logs.to_str().unwrap().to_owned();
        balancer.attributes.connection_logs = Some(LogDestination { bucket: "logs".to_owned(), prefix });
        balancer.listeners[0].protocol = Protocol::Https;
        balancer.listeners[0].tls = Some(verifying(false, true));
    });
    world.await_health(server.address, HealthState::Healthy);
    world
}

fn trust(world: &mut World, store: Option<Arc<TrustStore>>) {
    *world.told.trust_store.lock().unwrap() = store;
    world.change(|_| {});
}

/// What is answered; nothing to who is refused. In TLS 1.3 a client hears of that after its own part of the handshake.
fn ask(world: &World, config: Arc<rustls::ClientConfig>) -> String {
    let (mut stream, _) = secure_by(world.connect(), "one.example", config);
    let own = "X-Amzn-Mtls-Clientcert-Subject: forged\r\n";
    let mut answer = String::new();
    let asked = write!(stream, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{own}\r\n");
    let _ = asked.and_then(|()| stream.read_to_string(&mut answer));
    answer
}

#[test]
fn clients_are_served_whom_the_trust_store_vouches_for() {
    let (server, logs) = (Server::start(), tempfile::tempdir().unwrap());
    let mut world = world(&server, logs.path());
    let told = world.told.problems.lock().unwrap().join("; ");
    assert!(told.contains("no client can be verified by trust store store"), "{told}");

    let (ours, other) = (authority("ours"), authority("other"));
    let known = client(&ours, 0x0a11ce, |_| {});
    let stranger = client(&other, 7, |_| {});
    let ended = client(&ours, 8, |params| params.not_after = date_time_ymd(2021, 1, 1));
    let future = client(&ours, 9, |params| params.not_before = date_time_ymd(2099, 1, 1));
    let server_only =
        client(&ours, 10, |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]);
    trust(&mut world, trusting(&[&ours], &[]));

    let answer = ask(&world, client_showing(&known));
    assert_eq!(status(&answer), 200, "{answer}");
    let header = |name: &str| {
        let mut lines = answer.lines().filter_map(|line| line.split_once(": "));
        let values: Vec<_> = lines.by_ref().filter(|(key, _)| *key == name).map(|(_, value)| value).collect();
        assert_eq!(values.len(), 1, "{name} in {answer}");
        values[0].to_owned()
    };
    assert_eq!(header("X-Amzn-Mtls-Clientcert-Serial-Number"), "0A11CE");
    assert_eq!(header("X-Amzn-Mtls-Clientcert-Issuer"), "CN=ours");
    assert_eq!(header("X-Amzn-Mtls-Clientcert-Subject"), "CN=a client");
    assert_eq!(
        header("X-Amzn-Mtls-Clientcert-Validity"),
        "NotBefore=2020-01-01T00:00:00Z;NotAfter=2100-01-01T00:00:00Z"
    );
    let leaf = header("X-Amzn-Mtls-Clientcert-Leaf").replace("%20", " ").replace("%0A", "\n");
    assert_eq!(certificate(&leaf), certificate(&known));

    for refused in [&stranger, &ended, &future, &server_only] {
        assert_eq!(ask(&world, client_showing(refused)), "");
    }
    assert_eq!(ask(&world, client_config(&[])), "", "who shows none is refused");
    world.until("the log says why", || {
        let lines = log_lines(logs.path(), "conn_log.");
        let failed = |serial: &str, why: &str| {
            let said = format!("Z {serial} Failed:{why} TID_");
            lines.iter().any(|line| line.contains(&said) && line.contains(" 8080 TLSv1.3 TLS_AES_"))
        };
        lines
            .iter()
            .any(|line| line.contains("\"CN=a client\" NotBefore=20") && line.contains(" 0A11CE Success"))
            && failed("07", "ClientCertUntrusted")
            && failed("08", "ClientCertExpired")
            && failed("09", "ClientCertNotYetValid")
            && failed("0A", "ClientCertPurposeInvalid")
            && lines.iter().any(|line| line.contains("\"-\" - - Failed:UnmappedConnectionError TID_"))
    });

    world.change(|config| config.load_balancers[0].listeners[0].tls = Some(verifying(true, true)));
    assert_eq!(status(&ask(&world, client_showing(&ended))), 200, "that it ended may not matter");
    for refused in [&stranger, &future, &server_only] {
        assert_eq!(ask(&world, client_showing(refused)), "");
    }
}

#[test]
fn a_trust_store_that_changes_holds_for_connections_from_then_on() {
    let (server, logs) = (Server::start(), tempfile::tempdir().unwrap());
    let mut world = world(&server, logs.path());
    let (ours, other) = (authority("ours"), authority("other"));
    let (one, two) = (client(&ours, 1, |_| {}), client(&ours, 2, |_| {}));
    trust(&mut world, trusting(&[&ours], &[]));
    let config = client_showing(&two);
    let (mut open, _) = secure_by(world.connect(), "one.example", config.clone());
    let mut answered = move || {
        open.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        status(&read_answer(&mut open)) == 200
    };
    assert!(answered());

    // One is revoked: connections stay, sessions are not resumed, and others of the authority are served as before.
    trust(&mut world, trusting(&[&ours], &[revoking(&ours, 2), revoking(&other, 1)]));
    assert!(answered(), "what was open goes on");
    assert_eq!(ask(&world, config), "");
    assert_eq!(status(&ask(&world, client_showing(&one))), 200);
    world.until("the log says why", || {
        log_lines(logs.path(), "conn_log.").iter().any(|line| line.contains(" 02 Failed:ClientCertCrlHit "))
    });

    // A list that somebody else signed in the authority's name vouches for nothing.
    let impostor = authority("ours");
    trust(&mut world, trusting(&[&ours], &[revoking(&impostor, 2)]));
    assert_eq!(ask(&world, client_showing(&one)), "");
    world.until("the log says why", || {
        let lines = log_lines(logs.path(), "conn_log.");
        lines.iter().any(|line| line.contains(" 01 Failed:ClientCertCrlProcessingError "))
    });

    trust(&mut world, trusting(&[&other], &[]));
    assert_eq!(ask(&world, client_showing(&one)), "");
    trust(&mut world, trusting(&[&other, &ours], &[]));
    assert_eq!(status(&ask(&world, client_showing(&two))), 200);
}

#[test]
fn clients_hear_of_authorities_where_they_are_advertised() {
    use rustls::client::ResolvesClientCert;
    use std::sync::Mutex;

    /// Has no certificate, and notes what it was asked for.
    #[derive(Debug, Default)]
    struct Asked(Mutex<Vec<Vec<u8>>>);

    impl ResolvesClientCert for Asked {
        fn resolve(
            &self,
            authorities: &[&[u8]],
            _: &[rustls::SignatureScheme],
        ) -> Option<Arc<rustls::sign::CertifiedKey>> {
            *self.0.lock().unwrap() = authorities.iter().map(|name| name.to_vec()).collect();
            None
        }

        fn has_certs(&self) -> bool {
            true
        }
    }

    let (server, logs) = (Server::start(), tempfile::tempdir().unwrap());
    let mut world = world(&server, logs.path());
    trust(&mut world, trusting(&[&authority("ours")], &[]));
    for advertised in [true, false] {
        world.change(|config| config.load_balancers[0].listeners[0].tls = Some(verifying(false, advertised)));
        let asked = Arc::new(Asked::default());
        let mut config = Arc::unwrap_or_clone(client_config(&[]));
        config.client_auth_cert_resolver = asked.clone();
        assert_eq!(ask(&world, Arc::new(config)), "");
        let names = asked.0.lock().unwrap().clone();
        let ours = names.iter().any(|name| name.windows(4).any(|part| part == b"ours"));
        assert_eq!((ours, names.len()), (advertised, usize::from(advertised)));
    }
}
