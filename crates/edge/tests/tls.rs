//! HTTPS listeners: certificates by name, and what targets learn of the handshake.

#![allow(clippy::unwrap_used)]
mod common;

use common::{Server, World, certificate, forward, group, secure, status};
use gantry_decide::routing::HealthState;
use gantry_decide::routing::config::*;
use std::io::{Read, Write};

fn https(certificates: &[&str]) -> ListenerTls {
    ListenerTls {
        policy: "ELBSecurityPolicy-TLS13-1-2-2021-06".to_owned(),
        default_certificate: CertificateArn::new("one"),
        certificates: certificates.iter().map(|arn| CertificateArn::new(arn)).collect(),
        alpn: AlpnPolicy::None,
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
    for line in
        ["x-amzn-tls-version: TLSv1.3\r\n", "x-amzn-tls-cipher-suite: TLS", "X-Forwarded-Proto: https\r\n"]
    {
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
