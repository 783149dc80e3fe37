//! HTTP/1.1 clients and targets that mean harm: what two servers could read differently, what has no end, who takes
//! nothing.

#![allow(clippy::unwrap_used)]
mod common;

use common::{Server, World, body, client_config, exchange, read_answer, secure, status};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A request that nobody has sent, if it is understood as one.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";

/// More than all buffers on a connection's way together: kernels', and the balancer's within its bounds.
const ENDLESS: usize = 64 << 20;

/// Requests that two servers could read differently: the status, the method, and what stands behind the host's line.
fn corpus() -> Vec<(u16, &'static str, String)> {
    let escapes = [
        (r"\r", "\r"),
        (r"\n", "\n"),
        (r"\t", "\t"),
        (r"\x00", "\0"),
        (r"\x0b", "\x0b"),
        (r"\x85", "\u{85}"),
        ("SMUGGLED", SMUGGLED),
    ];
    let case = |line: &'static str| {
        let mut parts = line.splitn(3, ' ');
        let (status, method, text) = (parts.next()?.parse().ok()?, parts.next()?, parts.next()?);
        Some((
            status,
            method,
            escapes.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to)),
        ))
    };
    let lines = include_str!("common/smuggling.txt").lines();
    lines
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| case(line).expect(line))
        .collect()
}

#[test]
fn no_target_sees_a_request_that_nobody_sent() {
    let server = Server::start();
    let world = World::of(&[&server]);
    for (expected, method, rest) in corpus() {
        let before = server.requests.load(SeqCst);
        let answer =
            world.send(format!("{method} /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{rest}").as_bytes());
        let seen = server.requests.load(SeqCst) - before;
        assert_eq!(
            (status(&answer), seen),
            (expected, usize::from(expected == 200)),
            "{method} {rest:?} -> {answer}"
        );
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{rest:?} -> {answer}");
        // What the target got, and gives back, has one framing and leads to no other protocol.
        let got = body(&answer).to_ascii_lowercase();
        let framings = got.matches("\ncontent-length:").count() + got.matches("\ntransfer-encoding:").count();
        assert!(framings <= 1, "{rest:?} -> {answer}");
        for name in ["\nupgrade:", "http2-settings", "\nte:"] {
            assert!(!got.contains(name), "{rest:?} -> {answer}");
        }
    }
    // Connections to the target that were kept hold nothing that it takes for a request.
    let before = server.requests.load(SeqCst);
    for _ in 0..8 {
        assert_eq!(status(&world.get("/x")), 200);
    }
    assert_eq!(server.requests.load(SeqCst), before + 8);
}

#[test]
fn request_lines_and_versions_are_strict() {
    let server = Server::start();
    let world = World::of(&[&server]);
    for (expected, line) in [
        (400, "GET  / HTTP/1.1"),
        (400, "GET\t/ HTTP/1.1"),
        (400, "GET / HTTP/1.1 x"),
        (400, "GET /\u{1} HTTP/1.1"),
        (400, "GET /a b HTTP/1.1"),
        (400, "G@T / HTTP/1.1"),
        (400, "GET /"),
        (400, "GET http:///x HTTP/1.1"),
        (400, "GET http://user@a/x HTTP/1.1"),
        (405, "CONNECT a:80 HTTP/1.1"),
        (405, "TRACE / HTTP/1.1"),
        (505, "GET / HTTP/1.2"),
        (505, "PRI * HTTP/2.0"),
    ] {
        let answer = world.send(format!("{line}\r\nHost: a\r\nConnection: close\r\n\r\n").as_bytes());
        assert_eq!(status(&answer), expected, "{line} -> {answer}");
    }
    // An HTTP/1.0 client knows no chunks: what it says of them is refused.
    let old = "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    assert_eq!(status(&world.send(old.as_bytes())), 400);
    assert_eq!(server.requests.load(SeqCst), 0);
}

/// How much of what has no end is taken before the balancer stops reading, or ends the connection.
fn taken(stream: &mut TcpStream, first: &[u8], endless: &[u8]) -> usize {
    stream.set_write_timeout(Some(Duration::from_secs(2))).unwrap();
    let mut taken = 0;
    if stream.write_all(first).is_err() {
        return 0;
    }
    let piece = endless.repeat((1 << 16) / endless.len() + 1);
    while taken < ENDLESS {
        match stream.write(&piece) {
            Ok(count) => taken += count,
            Err(_) => break,
        }
    }
    taken
}

#[test]
fn what_has_no_end_is_not_kept() {
    let server = Server::start();
    let world = World::of(&[&server]);
    for (what, first, endless) in [
        ("a request line", "GET /", "x"),
        ("one header", "GET / HTTP/1.1\r\nHost: a\r\nX: ", "x"),
        ("headers", "GET / HTTP/1.1\r\nHost: a\r\n", "X: y\r\n"),
        ("a chunk's extension", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;", "x"),
        ("trailers", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", "X: y\r\n"),
        // Requests behind one that takes its time wait in the kernel's buffers.
        ("requests", "GET /sleep/60000 HTTP/1.1\r\nHost: a\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    ] {
        let taken = taken(&mut world.connect(), first.as_bytes(), endless.as_bytes());
        assert!(taken < ENDLESS, "{what} without end: {taken} bytes were taken");
    }
    assert_eq!(status(&world.get("/x")), 200);
}

#[test]
fn who_takes_nothing_is_let_go_of() {
    let server = Server::start();
    let mut world = World::of(&[&server]);
    world.change(|config| config.load_balancers[0].attributes.idle_timeout = Duration::from_millis(500));
    world.balancer.samples();
    let mut slow: Vec<TcpStream> = (0..4)
        .map(|_| {
            let mut stream = world.connect();
            write!(stream, "GET /bytes/{ENDLESS} HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
            stream
        })
        .collect();
    world.until("all were asked", || server.requests.load(SeqCst) == slow.len());
    // The answers stay with the target but for what buffers hold, and the connections end.
    let mut moved = 0;
    world.until("slow readers are gone", || {
        let balancer = world.balancer.samples().0.remove(0);
        moved += balancer.processed_bytes;
        balancer.active_connections == 0
    });
    assert!(moved < slow.len() as u64 * ENDLESS as u64, "{moved} bytes were taken of targets for nobody");
    for stream in &mut slow {
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(answer.len() < ENDLESS, "an answer that was given up came whole");
    }
}

#[test]
fn a_half_closed_client_has_gone() {
    let server = Server::start();
    let world = World::of(&[&server]);
    world.balancer.samples();
    // One that leaves while its request is under way, one within a head, one within a body, one without a word.
    for text in [
        "GET /sleep/60000 HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost:",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf",
        "",
    ] {
        let mut stream = world.connect();
        stream.write_all(text.as_bytes()).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(exchange(stream, b""), "", "{text:?}");
    }
    world.until("all are gone", || world.balancer.samples().0[0].active_connections == 0);
    // A request that was whole is answered although nothing comes behind it.
    let mut stream = world.connect();
    stream.write_all(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    assert_eq!(status(&read_answer(&mut stream)), 200);
}

/// A target that gives this to whatever it is asked, health checks excepted.
fn hostile(answer: impl Fn(&mut TcpStream) -> std::io::Result<()> + Send + Sync + 'static) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let answer = Arc::new(answer);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let answer = answer.clone();
            std::thread::spawn(move || {
                let mut head = [0; 4096];
                while let Ok(count @ 1..) = stream.read(&mut head) {
                    let done = match head[..count].starts_with(b"GET /health") {
                        true => stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
                        false => answer(&mut stream),
                    };
                    if done.is_err() {
                        return;
                    }
                }
            });
        }
    });
    Server { address, accepted: Arc::default(), requests: Arc::default() }
}

#[test]
fn a_targets_answer_is_one() {
    let text = Arc::new(Mutex::new(String::new()));
    let given = text.clone();
    let server = hostile(move |stream| stream.write_all(given.lock().unwrap().as_bytes()));
    let world = World::of(&[&server]);
    for (expected, answer) in [
        (502, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nhi!"),
        (502, "HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nhi"),
        (502, "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nhi"),
        (502, "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
        (502, "HTTP/1.1 200 OK\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n"),
        (502, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n"),
        (502, "HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n"),
        (
            200,
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhiHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nstolen",
        ),
        (204, "HTTP/1.1 204 No Content\r\nContent-Length: 6\r\n\r\nstolen"),
    ] {
        *text.lock().unwrap() = answer.to_owned();
        let got = world.get("/x");
        assert_eq!(status(&got), expected, "{answer:?} -> {got}");
        assert!(!got.contains("stolen"), "{answer:?} -> {got}");
    }
    // What came behind an answer is nobody's: the connection it came by is not used again.
    *text.lock().unwrap() = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nmine".to_owned();
    for _ in 0..8 {
        let got = world.get("/x");
        assert!(got.ends_with("\r\n\r\nmine"), "{got}");
    }
}

#[test]
fn a_targets_endless_head_ends() {
    for endless in ["X: y\r\n", "HTTP/1.1 100 Continue\r\n\r\n"] {
        let server = hostile(move |stream| {
            stream.write_all(b"HTTP/1.1 100 Continue\r\n")?;
            if endless.starts_with("HTTP") {
                stream.write_all(b"\r\n")?;
            }
            loop {
                stream.write_all(endless.repeat(1000).as_bytes())?;
            }
        });
        let world = World::of(&[&server]);
        let mut answer = world.connect();
        answer.write_all(b"GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
        // Interim answers may come through, but not for ever.
        let (mut got, mut piece) = (String::new(), vec![0; 1 << 16]);
        while let Ok(count @ 1..) = answer.read(&mut piece) {
            got += &String::from_utf8_lossy(&piece[..count]);
            assert!(got.len() < 1 << 20, "interim answers without end");
        }
        assert!(got.contains("HTTP/1.1 502 "), "{got}");
    }
}

#[test]
fn what_is_no_handshake_ends_and_others_are_served() {
    let server = Server::start();
    let world = World::https(&[&server], |_| {});
    let records: [&[u8]; 8] = [
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        // A record longer than any may be; one of no known kind; an empty one; data before the handshake; an alert.
        b"\x16\x03\x01\xff\xff",
        b"\xff\x03\x01\x00\x01\x00",
        b"\x16\x03\x01\x00\x00",
        b"\x17\x03\x03\x00\x05hello",
        b"\x15\x03\x01\x00\x02\x02\x28",
        // A greeting that says it is 16 MiB long, and SSL 3.
        b"\x16\x03\x01\x00\x04\x01\xff\xff\xff",
        b"\x16\x03\x00\x00\x05\x01\x00\x00\x01\x03",
    ];
    for record in records {
        let mut stream = world.connect();
        // The balancer may have ended it already.
        let _ = stream.write_all(record).and_then(|()| stream.shutdown(Shutdown::Write));
        let mut answer = Vec::new();
        let ended = stream.read_to_end(&mut answer).map_err(|error| error.kind());
        assert!(matches!(ended, Ok(_) | Err(ErrorKind::ConnectionReset)), "{record:?}: {ended:?}");
        assert!(answer.len() < 64 && !answer.starts_with(b"HTTP"), "{record:?}: {answer:?}");
    }
    // Handshakes that never end hold little, and a greeting without end is not kept.
    let greeting = b"\x16\x03\x01\x40\x00\x01\xff\xff\xff";
    assert!(taken(&mut world.connect(), greeting, &[0; 16 << 10]) < ENDLESS);
    assert_eq!(status(&world.get_secure("")), 200);
    // A record whose seal is broken ends a connection that was established.
    let mut broken = secure(world.connect(), "one.example").0;
    broken.sock.write_all(b"\x17\x03\x03\x00\x20aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa").unwrap();
    let mut answer = Vec::new();
    let _ = broken.read_to_end(&mut answer);
    assert_eq!(answer, b"");
}

/// Handshakes that are never done: each has its time, however it drips, and holds up nobody.
#[test]
fn slow_handshakes_end_and_others_are_served() {
    let server = Server::start();
    let world = World::https(&[&server], |_| {});
    let mut greeting = Vec::new();
    let name = rustls::pki_types::ServerName::try_from("one.example").unwrap();
    let mut client = rustls::ClientConnection::new(client_config(&[]), name).unwrap();
    client.write_tls(&mut greeting).unwrap();
    world.balancer.samples();
    // Nothing, a part of a greeting, and all of it with no word after the answer.
    let mut held: Vec<TcpStream> = Vec::new();
    for part in [&greeting[..0], &greeting[..1], &greeting[..greeting.len() / 2], &greeting[..]] {
        for _ in 0..50 {
            let mut stream = world.connect();
            stream.write_all(part).unwrap();
            held.push(stream);
        }
    }
    let mut dripping = world.connect();
    let mut drops = greeting.iter();
    world.until("all of them are ended", || {
        if let Some(drop) = drops.next() {
            let _ = dripping.write_all(&[*drop]);
        }
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(status(&world.get_secure("")), 200);
        world.balancer.samples().0[0].active_connections == 0
    });
    assert!(
        held.iter_mut().all(|stream| stream.read_to_end(&mut Vec::new()).is_ok_and(|count| count < 8192))
    );
}
