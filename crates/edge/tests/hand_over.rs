//! One balancer takes another's place: who connects is served at any time, who was connected gets answers to the end.

#![allow(clippy::unwrap_used)]
mod common;

use common::{Server, World, header, read_answer, status};
use gantry_decide::routing::HealthState;
use gantry_decide::routing::config::Protocol;
use gantry_edge::balancer::hand_over::{self, Offer};
use gantry_edge::balancer::{Balancer, Inherited, Settings};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;

fn ask(stream: &mut TcpStream) -> String {
    write!(stream, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    read_answer(stream)
}

/// Gives its sockets to the next one that takes them and serves.
fn give(offer: &Offer, balancer: &Balancer) {
    let mut successor = offer.wait().unwrap();
    balancer.hand_over(&successor).unwrap();
    successor.serves().unwrap();
    balancer.retire();
    successor.closed().unwrap();
}

fn take(path: &Path) -> (hand_over::Predecessor, Inherited) {
    hand_over::ask(path).unwrap().expect("somebody offers")
}

#[test]
fn a_successor_serves_and_the_old_one_ends_with_its_connections() {
    let server = Server::start();
    let old = World::of(&[&server]);
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("hand-over.sock");
    assert!(hand_over::ask(&path).unwrap().is_none(), "nobody is there");
    let offer = hand_over::offer(&path).unwrap();
    let mut idle = old.connect();
    assert_eq!(status(&ask(&mut idle)), 200);

    let new = std::thread::scope(|scope| {
        scope.spawn(|| give(&offer, &old.balancer));
        let (predecessor, inherited) = take(&path);
        assert!(inherited.has(old.address));
        let settings = Settings { workers: 1, ..Settings::default() };
        let new = Balancer::inherit(&settings, old.told.clone(), inherited).unwrap();
        assert!(new.apply(&old.config));
        // Whoever comes while it looks at its targets is the old one's client still.
        assert_eq!(status(&ask(&mut old.connect())), 200);
        assert_eq!(new.connections(), 0);
        old.until("it knows its target", || new.health()[0].health.state == HealthState::Healthy);
        new.open();
        predecessor.replace().unwrap();
        new
    });
    // The listening socket is the new one's alone: whoever comes now is its client.
    old.until("only the idle one is left", || old.balancer.connections() == 1);
    let mut fresh = old.connect();
    old.until("the new one has its client", || new.connections() == 1);
    assert_eq!(status(&ask(&mut fresh)), 200);
    // The old one answers who was idle, and says that it was the last time.
    let answer = ask(&mut idle);
    assert_eq!((status(&answer), header(&answer, "connection")), (200, Some("close")));
    assert_eq!(idle.read(&mut [0]).unwrap(), 0);
    old.until("the old one has no more connections", || old.balancer.connections() == 0);
    assert_eq!(status(&ask(&mut fresh)), 200);
}

#[test]
fn who_does_not_come_to_serve_takes_nothing() {
    let server = Server::start();
    let old = World::of(&[&server]);
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("hand-over.sock");
    let offer = hand_over::offer(&path).unwrap();
    std::thread::scope(|scope| {
        let given = scope.spawn(|| {
            let mut successor = offer.wait().unwrap();
            old.balancer.hand_over(&successor).unwrap();
            successor.serves()
        });
        drop(take(&path));
        assert!(given.join().unwrap().is_err());
    });
    assert_eq!(status(&ask(&mut old.connect())), 200);
}

#[test]
fn addresses_that_nobody_wants_any_more_are_closed() {
    let server = Server::start();
    let mut old = World::of(&[&server]);
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("hand-over.sock");
    let offer = hand_over::offer(&path).unwrap();
    old.change(|config| {
        let mut other = config.load_balancers[0].listeners[0].clone();
        (other.port, other.protocol) = (other.port + 1, Protocol::Tcp);
        other.arn = gantry_decide::routing::config::ListenerArn::new("other");
        config.load_balancers[0].listeners.push(other);
    });
    let mut elsewhere = old.address;
    elsewhere.set_port(old.address.port() + 1);
    old.until("it listens there", || TcpStream::connect(elsewhere).is_ok());
    let new = std::thread::scope(|scope| {
        scope.spawn(|| give(&offer, &old.balancer));
        let (predecessor, inherited) = take(&path);
        let settings = Settings { workers: 1, ..Settings::default() };
        let new = Balancer::inherit(&settings, old.told.clone(), inherited).unwrap();
        let mut config = old.config.clone();
        config.load_balancers[0].listeners.truncate(1);
        assert!(new.apply(&config));
        new.open();
        predecessor.replace().unwrap();
        new
    });
    old.until("nobody listens there", || TcpStream::connect(elsewhere).is_err());
    assert!(TcpStream::connect(old.address).is_ok());
    drop(new);
    old.until("nobody listens anywhere", || TcpStream::connect(old.address).is_err());
}
