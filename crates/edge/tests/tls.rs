//! HTTPS listeners: certificates by name, and what targets learn of the handshake.

#![allow(clippy::unwrap_used)]
mod common;

use common::{
    Server, World, certificate, client_config, client_showing, forward, group, log_lines, secure, secure_by,
    status,
};
use gantry_decide::routing::HealthState;
use gantry_decide::routing::config::*;
use std::io::{Read, Write};

fn https(certificates: &[&str]) -> ListenerTls {
    ListenerTls {
        policy: "ELBSecurityPolicy-TLS13-1-2-2021-06".to_owned(),
        default_certificate: CertificateArn::new("one"),
        certificates: certificates.iter().map(|arn| CertificateArn::new(arn)).collect(),
        alpn: AlpnPolicy::None,
        client_certificates: ClientCertificates::Off,
    }
}

#[test]
fn a_client_gets_the_certificate_of_the_name_it_asks_for() {
    let server = Server::start();
    let mut world = World::with(vec![group("web", &[server.address])], Vec::new(), |balancer| {
        balancer.attributes.tls_headers = true;
        balancer.listeners[0].protocol = Protocol::Https;
        balancer.listeners[0].tls = Some(https(&["two", "missing"]));
    });
    world.await_health(server.address, HealthState::Healthy);
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
    let (mut stream, _) = secure(world.connect(), "two.example");
    stream.write_all(b"GET / HTTP/1.1\r\nHost: two.example\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
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
    world.change(|config| config.load_balancers[0].listeners[0].tls = Some(https(&["two"])));
    world.change(|config| config.load_balancers[0].listeners[0].tls = Some(https(&["missing"])));
    assert_eq!(world.told.problems.lock().unwrap().len(), 2);
    assert_eq!(&secure(world.connect(), "two.example").1, &one);
}

#[test]
fn headers_of_tls_have_the_names_that_a_listener_gives_and_no_client_sets_them() {
    let server = Server::start();
    let world = World::with(vec![group("web", &[server.address])], Vec::new(), |balancer| {
        balancer.attributes.tls_headers = true;
        balancer.listeners[0].protocol = Protocol::Https;
        balancer.listeners[0].attributes.tls_headers =
            [(TlsHeader::Version, "X-Version".to_owned())].into_iter().collect();
        balancer.listeners[0].tls = Some(https(&[]));
    });
    world.await_health(server.address, HealthState::Healthy);
    let (mut stream, _) = secure(world.connect(), "one.example");
    let own = "x-version: none\r\nX-Amzn-Tls-Cipher-Suite: none\r\nx-amzn-tls-version: mine\r\n";
    stream
        .write_all(format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{own}\r\n").as_bytes())
        .unwrap();
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    assert!(answer.contains("\r\nX-Version: TLSv1.3\r\n"), "{answer}");
    assert!(answer.contains("\r\nx-amzn-tls-cipher-suite: TLS_AES_"), "{answer}");
    // The usual name means nothing here.
    assert!(answer.contains("x-amzn-tls-version: mine") && !answer.contains(": none"), "{answer}");
}

#[test]
fn certificates_of_clients_are_passed_through() {
    let server = Server::start();
    let folder = tempfile::tempdir().unwrap();
    let world = World::with(vec![group("web", &[server.address])], Vec::new(), |balancer| {
        let prefix = folder.path().to_str().unwrap().to_owned();
        balancer.attributes.connection_logs = Some(LogDestination { bucket: "logs".to_owned(), prefix });
        balancer.listeners[0].protocol = Protocol::Https;
        balancer.listeners[0].tls =
            Some(ListenerTls { client_certificates: ClientCertificates::Passthrough, ..https(&[]) });
    });
    world.await_health(server.address, HealthState::Healthy);
    let pem = include_str!("common/two.pem");
    let ask = |client| {
        let (mut stream, _) = secure_by(world.connect(), "one.example", client);
        let own = "X-Amzn-Mtls-Clientcert: forged\r\n";
        write!(stream, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{own}\r\n").unwrap();
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answer
    };
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
    let world = World::with(vec![group("web", &[server.address])], Vec::new(), |balancer| {
        let prefix = folder.path().to_str().unwrap().to_owned();
        balancer.attributes.connection_logs = Some(LogDestination { bucket: "logs".to_owned(), prefix });
        balancer.listeners[0].protocol = Protocol::Https;
        balancer.listeners[0].tls = Some(https(&[]));
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
    let inner = World::with(vec![group("web", &[server.address])], Vec::new(), |balancer| {
        balancer.listeners[0].protocol = Protocol::Https;
        balancer.listeners[0].tls = Some(https(&[]));
    });
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
    let world = World::with(vec![group("web", &[server.address])], Vec::new(), |balancer| {
        balancer.listeners[0].protocol = Protocol::Https;
        balancer.listeners[0].default_action = forward(&[("web", 1)]);
        balancer.listeners[0].tls =
            Some(ListenerTls { default_certificate: CertificateArn::new("missing"), ..https(&[]) });
    });
    assert_eq!(world.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"), "");
    assert_eq!(world.told.problems.lock().unwrap().len(), 1);
}
