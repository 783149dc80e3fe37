//! Network load balancers: TCP, TLS and UDP through a running balancer.

#![allow(clippy::unwrap_used)]
mod common;

use common::{PATIENCE, World, client_config, group, log_lines, secure, secure_by, tls};
use gantry_decide::routing::HealthState;
use gantry_decide::routing::config::*;
use gantry_decide::time::Timestamp;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

/// A target that gives back what it gets, after its own port as two bytes.
fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                let _ = stream.write_all(&address.port().to_be_bytes());
                let mut from = stream.try_clone().unwrap();
                let _ = std::io::copy(&mut from, &mut stream);
                let _ = stream.shutdown(Shutdown::Write);
            });
        }
    });
    address
}

fn network(targets: &[SocketAddr], change: impl FnOnce(&mut LoadBalancer, &mut TargetGroup)) -> World {
    let mut of = group("web", targets);
    of.protocol = Protocol::Tcp;
    of.health_check.protocol = Protocol::Tcp;
    let mut group = Some(of);
    let mut changed = None;
    let mut apply = Some(change);
    let mut balancer_change = |balancer: &mut LoadBalancer| {
        balancer.kind = LoadBalancerKind::Network;
        balancer.listeners[0].protocol = Protocol::Tcp;
        let mut group = group.take().unwrap();
        (apply.take().unwrap())(balancer, &mut group);
        changed = Some(group);
    };
    let mut world = World::with(Vec::new(), Vec::new(), &mut balancer_change);
    let group = changed.unwrap();
    world.change(|config| config.target_groups.push(group));
    targets.iter().for_each(|target| world.await_health(*target, HealthState::Healthy));
    world
}

fn talk(mut stream: TcpStream, bytes: &[u8]) -> (u16, Vec<u8>) {
    let mut writer = stream.try_clone().unwrap();
    let sent = bytes.to_vec();
    let sending = std::thread::spawn(move || {
        writer.write_all(&sent).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    let mut got = Vec::new();
    stream.read_to_end(&mut got).unwrap();
    sending.join().unwrap();
    (u16::from_be_bytes([got[0], got[1]]), got.split_off(2))
}

#[test]
fn connections_go_through_small_and_large() {
    let world = network(&[echo()], |_, _| {});
    assert_eq!(talk(world.connect(), b"hello").1, b"hello");
    // Large enough for the kernel's way, in both directions.
    let big: Vec<u8> = (0..5_000_000_u32).map(|n| (n % 251) as u8).collect();
    assert!(talk(world.connect(), &big).1 == big);
    let sample = world.balancer.samples().0.remove(0);
    assert!(sample.processed_bytes > 10_000_000, "{sample:?}");
}

#[test]
fn flows_spread_and_sources_stick() {
    let targets = [echo(), echo(), echo()];
    let mut world = network(&targets, |_, _| {});
    let seen = |world: &World| -> std::collections::BTreeSet<u16> {
        (0..40).map(|_| talk(world.connect(), b"x").0).collect()
    };
    assert_eq!(seen(&world).len(), 3);
    world.change(|config| config.target_groups[0].attributes.stickiness = Some(Stickiness::SourceIp));
    assert_eq!(seen(&world).len(), 1);
}

#[test]
fn targets_learn_whose_connection_it_is() {
    let world = network(&[echo()], |_, group| group.attributes.proxy_protocol = true);
    let stream = world.connect();
    let from = stream.local_addr().unwrap();
    let got = talk(stream, b"hello").1;
    assert_eq!(got[..16], [13, 10, 13, 10, 0, 13, 10, 81, 85, 73, 84, 10, 0x21, 0x11, 0, 12]);
    assert_eq!(
        (&got[16..20], &got[24..26]),
        ([127, 0, 0, 1].as_slice(), from.port().to_be_bytes().as_slice())
    );
    assert_eq!(&got[28..], b"hello");
}

#[test]
fn tls_ends_at_the_balancer() {
    let target = echo();
    let world = network(&[target], |balancer, _| {
        balancer.listeners[0].protocol = Protocol::Tls;
        balancer.listeners[0].tls = Some(tls());
    });
    let (mut stream, _) = secure(world.connect(), "one.example");
    stream.write_all(b"hello").unwrap();
    let mut got = [0; 7];
    stream.read_exact(&mut got).unwrap();
    assert_eq!(&got[2..], b"hello");
}

#[test]
fn connections_of_tls_listeners_are_logged_as_network_load_balancers_do() {
    let folder = tempfile::tempdir().unwrap();
    let world = network(&[echo()], |balancer, _| {
        let prefix = folder.path().to_str().unwrap().to_owned();
        balancer.attributes.access_logs = Some(LogDestination { bucket: "logs".to_owned(), prefix });
        balancer.listeners[0].protocol = Protocol::Tls;
        let certificates = vec![CertificateArn::new("two")];
        balancer.listeners[0].tls =
            Some(ListenerTls { certificates, alpn: AlpnPolicy::Http2Preferred, ..tls() });
    });
    let (mut stream, _) = secure_by(world.connect(), "two.example", client_config(&[b"http/1.1", b"h3"]));
    stream.write_all(b"hello").unwrap();
    stream.read_exact(&mut [0; 7]).unwrap();
    drop(stream);
    // Who does not believe the certificate ends the handshake.
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let wary = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let mut wary = rustls::ClientConnection::new(wary.into(), "one.example".try_into().unwrap()).unwrap();
    assert!(wary.complete_io(&mut world.connect()).is_err());
    world.send(b"GET / HTTP/1.1\r\n\r\n");

    let begin = "111122223333_elasticloadbalancing_eu-north-1_app.web.1_20";
    let mut lines = Vec::new();
    let mut logged = |what: &str| {
        world.until(what, || {
            lines = log_lines(folder.path(), begin);
            lines.iter().any(|line| line.contains(what))
        });
        lines.iter().find(|line| line.contains(what)).unwrap().clone()
    };
    let served = logged(" two - TLS");
    let fields: Vec<_> = served.split(' ').collect();
    assert_eq!((fields[0], fields[3], fields[4]), ("tls", "app/web/1", "listener"));
    assert_eq!((fields[6], &fields[9..12]), (world.address.to_string().as_str(), &["5", "7", "-"][..]));
    assert!(fields[14].starts_with("TLS_AES_") && fields[15] == "tlsv13", "{served}");
    assert_eq!(&fields[16..21], ["-", "two.example", "http/1.1", "-", "\"http/1.1\",\"h3\""]);
    // certificate_unknown.
    let refused = logged(" - 0 0 46 one - - - - one.example - - - 20");
    assert_eq!(refused.split(' ').count(), fields.len());
    logged(" - 0 0 - - - - - - - - - - 20");
}

#[test]
fn datagrams_find_their_way_back() {
    // Health is asked by TCP on the same port, which has to be free of both.
    let both = std::iter::repeat_with(|| {
        let target = UdpSocket::bind("127.0.0.1:0").unwrap();
        let checks = TcpListener::bind(target.local_addr().unwrap()).ok()?;
        Some((target, checks))
    });
    let (target, checks) = both.take(100).flatten().next().unwrap();
    let address = target.local_addr().unwrap();
    std::thread::spawn(move || checks.incoming().for_each(drop));
    std::thread::spawn(move || {
        let mut buffer = [0; 65_535];
        while let Ok((count, peer)) = target.recv_from(&mut buffer) {
            let _ = target.send_to(&buffer[..count].to_ascii_uppercase(), peer);
        }
    });
    let world = network(&[address], |balancer, group| {
        balancer.listeners[0].protocol = Protocol::TcpUdp;
        group.protocol = Protocol::TcpUdp;
    });
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.connect(world.address).unwrap();
    client.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    for text in ["first", "second"] {
        let begun = Instant::now();
        let mut buffer = [0; 100];
        // A datagram may be lost; an answer to an earlier one is no less an answer.
        let count = loop {
            assert!(begun.elapsed() < PATIENCE, "no answer");
            client.send(text.as_bytes()).unwrap();
            match client.recv(&mut buffer) {
                Ok(count) if buffer[..count] == *text.to_ascii_uppercase().as_bytes() => break count,
                _ => {}
            }
        };
        assert_eq!(count, text.len());
    }
    // Flows of one datagram, as those of DNS are.
    let answered = |_: &u32| {
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        client.send_to(b"alone", world.address).unwrap();
        let mut buffer = [0; 100];
        client.recv(&mut buffer).is_ok_and(|count| &buffer[..count] == b"ALONE")
    };
    assert!((0..10).filter(answered).count() > 7);
}

#[test]
fn without_a_target_connections_end() {
    let world = network(&[], |_, _| {});
    let mut rest = Vec::new();
    let _ = world.connect().read_to_end(&mut rest);
    assert!(rest.is_empty());
}

#[test]
fn connections_outlive_a_targets_delay_unless_told_otherwise() {
    for cut in [false, true] {
        let target = echo();
        let mut world = network(&[target], |_, group| group.attributes.terminate_deregistered = cut);
        let mut stream = world.connect();
        let mut got = [0; 2];
        stream.read_exact(&mut got).unwrap();
        world.change(|config| config.target_groups[0].targets[0].deregistered = Some(Timestamp::EPOCH));
        world.change(|config| config.target_groups[0].targets.clear());
        if cut {
            assert_eq!(stream.read(&mut got).unwrap_or(0), 0);
        } else {
            // Two rounds of the look that would cut it.
            std::thread::sleep(Duration::from_millis(2100));
            stream.write_all(b"hi").unwrap();
            stream.read_exact(&mut got).unwrap();
            assert_eq!(&got, b"hi");
        }
    }
}

#[test]
fn a_drained_target_is_told_of_once_nothing_is_under_way() {
    let target = echo();
    let mut world = network(&[target], |_, _| {});
    let mut stream = world.connect();
    stream.read_exact(&mut [0; 2]).unwrap();
    world.change(|config| config.target_groups[0].targets[0].deregistered = Some(Timestamp::EPOCH));
    std::thread::sleep(Duration::from_millis(2500));
    assert!(world.told.drained.lock().unwrap().is_empty());
    drop(stream);
    world.until("it is drained", || world.told.drained.lock().unwrap().len() == 1);
    assert_eq!(world.told.drained.lock().unwrap()[0].port, target.port());
}

#[test]
fn an_unhealthy_targets_connections_end() {
    let (staying, failing) = (echo(), echo());
    let health = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = health.local_addr().unwrap().port();
    let mut world = network(&[staying, failing], |_, group| {
        group.health_check.port = HealthCheckPort::Port(port);
        // All are in use when all are unhealthy; here that is not so.
        group.attributes.fail_open_below = MinimumHealthy { count: 0, percent: None };
    });
    let mut stream = world.connect();
    stream.read_exact(&mut [0; 2]).unwrap();
    drop(health);
    world.await_health(staying, HealthState::Unhealthy);
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
    assert!(rest.is_empty());
    world.change(|config| config.target_groups[0].attributes.fail_open_below = MinimumHealthy::default());
    assert_eq!(talk(world.connect(), b"open").1, b"open");
}

#[test]
fn an_unhealthy_target_drains_for_a_while() {
    let health = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = health.local_addr().unwrap().port();
    let target = echo();
    let world = network(&[target], |_, group| {
        group.health_check.port = HealthCheckPort::Port(port);
        group.attributes.terminate_unhealthy = false;
        group.attributes.unhealthy_draining = Duration::from_secs(1);
    });
    let mut stream = world.connect();
    let mut got = [0; 2];
    stream.read_exact(&mut got).unwrap();
    drop(health);
    world.await_health(target, HealthState::Unhealthy);
    let states: Vec<_> =
        world.told.reports.lock().unwrap().iter().map(|report| report.health.state).collect();
    assert!(states.ends_with(&[HealthState::UnhealthyDraining, HealthState::Unhealthy]), "{states:?}");
    // Its connections go on.
    stream.write_all(b"hi").unwrap();
    stream.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"hi");
}
