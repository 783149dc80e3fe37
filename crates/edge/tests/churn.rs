//! Requests go on while everything changes: not one may fail.

#![allow(clippy::unwrap_used)]
mod common;

use common::{Server, World, forward, group, header, read_answer, rule, status, target};
use gantry_decide::routing::HealthState;
use gantry_decide::routing::config::*;
use gantry_decide::time::Timestamp;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

/// Asks until told to stop, on kept connections or a new one each time; what failed.
fn client(address: SocketAddr, keep: bool, body: bool, stop: &AtomicBool, served: &AtomicU64) -> Vec<String> {
    let mut failures = Vec::new();
    let mut stream = None;
    while !stop.load(SeqCst) {
        let mut open = stream.take().unwrap_or_else(|| {
            let stream = TcpStream::connect(address).unwrap();
            stream.set_read_timeout(Some(common::PATIENCE)).unwrap();
            stream
        });
        let connection = if keep { "" } else { "Connection: close\r\n" };
        let request = match body {
            true => format!("PUT /web/x HTTP/1.1\r\nHost: a\r\n{connection}Content-Length: 2\r\n\r\nhi"),
            false => format!("GET /web/x HTTP/1.1\r\nHost: a\r\n{connection}\r\n"),
        };
        let sent = open.write_all(request.as_bytes());
        let answer = read_answer(&mut open);
        if sent.is_err() || status(&answer) != 200 {
            failures.push(format!("{sent:?} {answer}"));
        } else {
            served.fetch_add(1, SeqCst);
        }
        if keep && header(&answer, "connection") == Some("keep-alive") {
            stream = Some(open);
        }
    }
    failures
}

#[test]
fn no_request_fails_while_targets_rules_and_listeners_change() {
    let servers: Vec<Server> = (0..4).map(|_| Server::start()).collect();
    let addresses: Vec<SocketAddr> = servers.iter().map(|server| server.address).collect();
    let groups = vec![group("web", &addresses[..1]), group("other", &addresses[3..])];
    let mut world = World::with(groups, vec![rule(5, "/web/*", forward(&[("web", 1)]))], |_| {});
    world.await_health(addresses[0], HealthState::Healthy);
    let (stop, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let clients: Vec<_> = [(true, false), (true, false), (true, true), (false, false)]
        .map(|(keep, body)| {
            let (address, stop, served) = (world.address, stop.clone(), served.clone());
            std::thread::spawn(move || client(address, keep, body, &stop, &served))
        })
        .into();
    for round in 1..=4 {
        // The next target comes, the one before drains and goes, as in a rolling update.
        let (old, new) = (addresses[(round - 1) % 3], addresses[round % 3]);
        world.change(|config| config.target_groups[0].targets.push(target(new)));
        world.await_health(new, HealthState::Healthy);
        world.change(|config| config.target_groups[0].targets[0].deregistered = Some(Timestamp::EPOCH));
        let drained = TargetKey { id: TargetId::new(&old.ip().to_string()), port: old.port() };
        // Rules and listeners change as well; a group gets its turn when it is healthy.
        world.change(|config| {
            let listener = &mut config.load_balancers[0].listeners[0];
            let action = forward(&[("web", 1), ("other", (round % 2) as u16)]);
            listener.rules =
                (0..round as u32).map(|n| rule(n + 1, &format!("/no-{n}/*"), action.clone())).collect();
            listener.rules.push(rule(100, "/web/*", action));
        });
        world.await_health(addresses[3], HealthState::Healthy);
        let so_far = served.load(SeqCst);
        world.until("requests went on", || served.load(SeqCst) > so_far + 200);
        world.until("nothing of it is under way", || world.told.drained.lock().unwrap().contains(&drained));
        world.told.drained.lock().unwrap().clear();
        world.change(|config| drop(config.target_groups[0].targets.remove(0)));
    }
    stop.store(true, SeqCst);
    let failures: Vec<String> = clients.into_iter().flat_map(|client| client.join().unwrap()).collect();
    assert!(failures.is_empty(), "{} of {} failed: {}", failures.len(), served.load(SeqCst), failures[0]);
}
