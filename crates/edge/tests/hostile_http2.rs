//! HTTP/2 clients that mean harm: floods of frames, heads that grow when they are read, windows that never open.

#![allow(clippy::unwrap_used)]
mod common;

use common::{Server, World, client_config, status};
use rustls::{ClientConnection, StreamOwned};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

/// More than all buffers on a connection's way together.
const ENDLESS: usize = 64 << 20;

const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// `GET https://a/x` from the static table.
const GET: &[u8] = b"\x82\x87\x44\x02/x\x41\x01a";

type Client = StreamOwned<ClientConnection, TcpStream>;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend_from_slice(&[kind, flags]);
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

fn https(server: &Server, idle: Duration) -> World {
    World::https(&[server], |balancer| balancer.attributes.idle_timeout = idle)
}

/// A connection on which HTTP/2 has begun with these settings.
fn connect(world: &World, settings: &[u8]) -> Client {
    let name = rustls::pki_types::ServerName::try_from("one.example").unwrap();
    let connection = ClientConnection::new(client_config(&[b"h2"]), name).unwrap();
    let mut client = StreamOwned::new(connection, world.connect());
    client.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
    client.write_all(&frame(SETTINGS, 0, 0, settings)).unwrap();
    client
}

/// The frames that come until the connection ends: kind, stream, payload.
fn frames(client: &mut Client) -> Vec<(u8, u32, Vec<u8>)> {
    let mut bytes = Vec::new();
    let _ = client.read_to_end(&mut bytes);
    let (mut frames, mut rest) = (Vec::new(), bytes.as_slice());
    while let [a, b, c, kind, _flags, w, x, y, z, behind @ ..] = rest {
        let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        let Some((payload, next)) = behind.split_at_checked(length) else { break };
        frames.push((*kind, u32::from_be_bytes([*w, *x, *y, *z]), payload.to_vec()));
        rest = next;
    }
    frames
}

/// Others are served whatever one does.
fn assert_serves(world: &World) {
    assert_eq!(status(&world.get_secure("")), 200);
}

#[test]
fn floods_that_ask_for_answers_are_not_kept() {
    let server = Server::start();
    let world = https(&server, Duration::from_secs(60));
    let continued = frame(HEADERS, 0, 1, GET);
    for (what, first, endless) in [
        ("PING", Vec::new(), frame(PING, 0, 0, b"12345678")),
        ("SETTINGS", Vec::new(), frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0xff, 0xff])),
        ("CONTINUATION", continued.clone(), frame(CONTINUATION, 0, 1, &b"\0\x01x\x01y".repeat(1000))),
        ("empty CONTINUATION", continued, frame(CONTINUATION, 0, 1, b"")),
    ] {
        let mut client = connect(&world, &[]);
        client.sock.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
        // What it does not read fills little.
        rustix::net::sockopt::set_socket_recv_buffer_size(&client.sock, 4096).unwrap();
        let piece = endless.repeat((1 << 16) / endless.len() + 1);
        let mut taken = 0;
        // Its answers are never read.
        if client.write_all(&first).is_ok() {
            while taken < ENDLESS && client.write_all(&piece).is_ok() {
                taken += piece.len();
            }
        }
        assert!(taken < ENDLESS, "{what} without end was taken");
    }
    assert_serves(&world);
    assert_eq!(server.requests.load(SeqCst), 1);
}

#[test]
fn a_flood_of_resets_ends_the_connection() {
    let server = Server::start();
    let world = https(&server, Duration::from_secs(60));
    let mut client = connect(&world, &[]);
    let opened_and_reset = |stream: u32| {
        [frame(HEADERS, END_HEADERS | END_STREAM, stream, GET), frame(RESET, 0, stream, &[0, 0, 0, 8])]
            .concat()
    };
    let flood: Vec<u8> = (1..20_000).step_by(2).flat_map(opened_and_reset).collect();
    let _ = client.write_all(&flood);
    // What was said at the end is lost when more came in behind it.
    client.sock.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let ended = client.read_to_end(&mut Vec::new()).map_err(|error| error.kind());
    assert_ne!(ended, Err(ErrorKind::WouldBlock), "the connection goes on");
    assert!(server.requests.load(SeqCst) < 1000);
    assert_serves(&world);
}

#[test]
fn streams_that_are_broken_on_purpose_end_the_connection() {
    let server = Server::start();
    let world = https(&server, Duration::from_secs(60));
    // Each is opened, and then has the balancer reset it.
    for offence in [
        |stream: u32| frame(WINDOW_UPDATE, 0, stream, &[0, 0, 0, 0]),
        |stream: u32| frame(WINDOW_UPDATE, 0, stream, &[0x7f, 0xff, 0xff, 0xff]),
        |stream: u32| frame(HEADERS, END_HEADERS | END_STREAM, stream, GET),
    ] {
        let mut client = connect(&world, &[]);
        let broken = (1..20_000).step_by(2).any(|stream| {
            let opened = client.write_all(&frame(HEADERS, END_HEADERS, stream, GET));
            opened.and_then(|()| client.write_all(&offence(stream))).is_err()
        });
        // What was said at the end is lost when more came in behind it.
        let mut told = || frames(&mut client).iter().any(|(kind, ..)| *kind == GOAWAY);
        assert!(broken || told(), "the connection goes on");
    }
    assert_serves(&world);
}

#[test]
fn a_head_that_grows_when_it_is_read_is_refused() {
    let server = Server::start();
    let world = https(&server, Duration::from_secs(1));
    // A header of 1,000 bytes that is kept in the table, and then named by one byte each time: 100 are beyond what a
    // request may have, 16,000 beyond what anybody should hold.
    let mut kept = vec![0x40, 1, b'x', 0x7f, 0xe9, 0x06];
    kept.extend_from_slice(&[b'a'; 1000]);
    for names in [100, 14_000] {
        let mut block = GET.to_vec();
        block.extend_from_slice(&kept);
        block.extend(std::iter::repeat_n(0xbe, names));
        let mut client = connect(&world, &[]);
        client.write_all(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &block)).unwrap();
        let got = frames(&mut client);
        // An answer of the balancer's, or the stream's or connection's end.
        assert!(
            got.iter().any(
                |(kind, stream, _)| (*stream == 1 && matches!(*kind, HEADERS | RESET)) || *kind == GOAWAY
            ),
            "{got:?}"
        );
        assert_eq!(server.requests.load(SeqCst), 0, "{names} headers of 1,000 bytes came through");
    }
    assert_serves(&world);
}

#[test]
fn who_opens_no_window_is_let_go_of() {
    let server = Server::start();
    let world = https(&server, Duration::from_secs(1));
    world.balancer.samples();
    // SETTINGS_INITIAL_WINDOW_SIZE is zero: nothing may be sent.
    let mut client = connect(&world, &[0, 4, 0, 0, 0, 0]);
    let path = format!("/bytes/{ENDLESS}");
    let mut block = b"\x82\x87\x44".to_vec();
    block.push(path.len() as u8);
    block.extend_from_slice(path.as_bytes());
    block.extend_from_slice(b"\x41\x01a");
    const STREAMS: u32 = 20;
    for stream in 0..STREAMS {
        client.write_all(&frame(HEADERS, END_HEADERS | END_STREAM, 2 * stream + 1, &block)).unwrap();
    }
    world.until("all were asked", || server.requests.load(SeqCst) == STREAMS as usize);
    let mut moved = 0;
    world.until("the connection is ended", || {
        // It is there, and says so, but takes nothing.
        let _ = client.write_all(&frame(PING, 0, 0, b"12345678"));
        std::thread::sleep(Duration::from_millis(20));
        let sample = world.balancer.samples().0.remove(0);
        moved += sample.processed_bytes;
        sample.active_connections == 0
    });
    assert!(moved < ENDLESS as u64, "{moved} bytes were taken of targets for nobody");
    assert_serves(&world);
}
