//! HTTPS listeners: certificates by name, and what targets learn of the handshake.

#![allow(clippy::unwrap_used)]
mod common;

use common::{
    Server, World, certificate, client_config, client_showing, group, log_lines, secure, status, tls,
};
use gantry_decide::routing::HealthState;
use gantry_decide::routing::config::*;

fn showing(certificates: &[&str]) -> Option<ListenerTls> {
    Some(ListenerTls {
        certificates: certificates.iter().map(|arn| CertificateArn::new(arn)).collect(),
        ..tls()
    })
}

#[test]
fn a_client_gets_the_certificate_of_the_name_it_asks_for() {
    let server = Server::start();
    let mut world = World::https(&[&server], |balancer| {
        balancer.attributes.tls_headers = true;
        balancer.listeners[0].tls = showing(&["two", "missing"]);
    });
    let (one, two) =
        (certificate(include_str!("common/one.pem")), certificate(include_str!("common/two.pem")));
    for (name, expected) in [
        ("one.example", &one),
        ("Two.example", &two),
        ("www.two.example", &two),
        ("a.b.two.example", &one),
        ("x.test", &one),
    ] {
        assert_eq!(&secure(world.connect(), name).1, expected, "{name}");
    }
    let answer = world.get_secure("");
    assert_eq!(status(&answer), 200);
    for line in [
        "x-amzn-tls-version: TLSv1.3\r\n",
        "x-amzn-tls-cipher-suite: TLS_AES_",
        "X-Forwarded-Proto: https\r\n",
    ] {
        assert!(answer.contains(line), "{line} in {answer}");
    }
    let told = world.told.problems.lock().unwrap().join("; ");
    assert!(told.contains("certificate missing cannot be served"), "{told}");
    // What stays as it was is neither made anew nor told again; what changes is.
    world.change(|_| {});
    assert_eq!(world.told.problems.lock().unwrap().len(), 1);
    world.change(|config| config.load_balancers[0].listeners[0].tls = showing(&["two"]));
    world.change(|config| config.load_balancers[0].listeners[0].tls = showing(&["missing"]));
    assert_eq!(world.told.problems.lock().unwrap().len(), 2);
    assert_eq!(&secure(world.connect(), "two.example").1, &one);
}

#[test]
fn headers_of_tls_have_the_names_that_a_listener_gives_and_no_client_sets_them() {
    let server = Server::start();
    let world = World::https(&[&server], |balancer| {
        balancer.attributes.tls_headers = true;
        balancer.listeners[0].attributes.tls_headers =
            [(TlsHeader::Version, "X-Version".to_owned())].into_iter().collect();
    });
    let answer =
        world.get_secure("x-version: none\r\nX-Amzn-Tls-Cipher-Suite: none\r\nx-amzn-tls-version: mine\r\n");
    assert!(answer.contains("\r\nX-Version: TLSv1.3\r\n"), "{answer}");
    assert!(answer.contains("\r\nx-amzn-tls-cipher-suite: TLS_AES_"), "{answer}");
    // The usual name means nothing here.
    assert!(answer.contains("x-amzn-tls-version: mine") && !answer.contains(": none"), "{answer}");
}

#[test]
fn certificates_of_clients_are_passed_through() {
    let server = Server::start();
    let folder = tempfile::tempdir().unwrap();
    let world = World::https(&[&server], |balancer| {
        let prefix = folder.path().to_str().unwrap().to_owned();
        balancer.attributes.connection_logs = Some(LogDestination { bucket: "logs".to_owned(), prefix });
        balancer.listeners[0].tls =
            Some(ListenerTls { client_certificates: ClientCertificates::Passthrough, ..tls() });
    });
    let pem = include_str!("common/two.pem");
    let ask = |client| world.get_by(client, "X-Amzn-Mtls-Clientcert: forged\r\n");
    let answer = ask(client_showing(pem));
    let shown = answer.split("\r\nX-Amzn-Mtls-Clientcert: ").nth(1).unwrap().split("\r\n").next().unwrap();
    let decoded = shown.replace("%20", " ").replace("%0A", "\n");
    assert_eq!(certificate(&decoded), certificate(pem));
    // Who shows none is served too, and cannot make one up.
    let answer = ask(client_config(&[]));
    assert!(status(&answer) == 200 && !answer.to_ascii_lowercase().contains("mtls"), "{answer}");
    world.until("the certificate is logged", || {
        let lines = log_lines(folder.path(), "conn_log.");
        lines.iter().any(|line| line.contains("NotBefore=20") && line.contains(" Success TID_"))
    });
}

#[test]
fn connections_are_logged_as_application_load_balancers_do() {
    let server = Server::start();
    let folder = tempfile::tempdir().unwrap();
    let world = World::https(&[&server], |balancer| {
        let prefix = folder.path().to_str().unwrap().to_owned();
        balancer.attributes.connection_logs = Some(LogDestination { bucket: "logs".to_owned(), prefix });
    });
    secure(world.connect(), "one.example");
    world.send(b"GET / HTTP/1.1\r\n\r\n");
    let mut lines = Vec::new();
    world.until("both connections are told of", || {
        lines =
            log_lines(folder.path(), "conn_log.111122223333_elasticloadbalancing_eu-north-1_app.web.1_20");
        lines.iter().any(|line| line.contains(" Success "))
            && lines
                .iter()
                .any(|line| line.contains(" 8080 - - - \"-\" - - Failed:UnmappedConnectionError TID_"))
    });
    let served = lines.iter().find(|line| line.contains(" Success ")).unwrap();
    assert!(served.contains(" 8080 TLSv1.3 TLS_AES_") && served.contains(" 0."), "{served}");
}

#[test]
fn targets_of_https_groups_are_asked_by_tls() {
    let server = Server::start();
    // Another load balancer is the TLS server, with a certificate that nobody signed.
    let inner = World::https(&[&server], |_| {});
    let mut behind = group("web", &[inner.address]);
    behind.protocol = Protocol::Https;
    behind.health_check.protocol = Protocol::Https;
    let outer = World::with(vec![behind], Vec::new(), |_| {});
    outer.await_health(inner.address, HealthState::Healthy);
    for n in 0..5 {
        let answer = outer.get(&format!("/{n}"));
        assert!(status(&answer) == 200 && answer.contains(&format!("GET /{n} ")), "{answer}");
    }
    let connections = inner.balancer.samples().0[0].new_connections;
    assert!(connections > 0);
}

#[test]
fn a_listener_without_a_certificate_ends_handshakes_and_tells() {
    let server = Server::start();
    let world = World::https(&[&server], |balancer| {
        balancer.listeners[0].tls =
            Some(ListenerTls { default_certificate: CertificateArn::new("missing"), ..tls() });
    });
    assert_eq!(world.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"), "");
    assert_eq!(world.told.problems.lock().unwrap().len(), 1);
}
