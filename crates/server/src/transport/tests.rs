//! The transport over real sockets, against clients that misbehave.
#![allow(clippy::unwrap_used)]

use super::*;
use std::time::Instant;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

struct Echo;

impl Handler for Echo {
    async fn handle(&self, request: Request) -> Response {
        match request.parts.uri.path() {
            "/panic" => panic!("asked to"),
            "/slow" => tokio::time::sleep(Duration::from_millis(300)).await,
            "/big" => return Response::new(vec![b'x'; 64 << 20].into()),
            _ => {}
        }
        Response::new(request.body.into())
    }

    fn refuse(&self, parts: &Parts, refusal: Refusal) -> Response {
        Response::new(format!("{refusal:?} {}", parts.uri.path()).into())
    }
}

const SHORT: Timeouts = Timeouts {
    head: Duration::from_millis(300),
    body: Duration::from_millis(300),
    write: Duration::from_millis(300),
    shutdown: Duration::from_secs(5),
};

async fn server() -> Transport {
    let options = Options { timeouts: SHORT, host_names: vec![] };
    Transport::start("127.0.0.1:0".parse().unwrap(), Arc::new(Echo), options).await.unwrap()
}

/// Sends bytes and reads until the server closes.
async fn exchange(server: &Transport, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    // The server may close while we still send; what it answered is what counts.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        match timeout(Duration::from_secs(5), stream.read(&mut chunk)).await.expect("the server must close") {
            Ok(0) | Err(_) => return String::from_utf8_lossy(&answer).into_owned(),
            Ok(n) => answer.extend_from_slice(&chunk[..n]),
        }
    }
}

fn post(path: &str, headers: &str, body: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{headers}\r\n{body}")
}

#[tokio::test]
async fn answers_and_keeps_the_connection() {
    let server = server().await;
    let twice = post("/", "Content-Length: 3\r\n", "abc") + &post("/", "Content-Length: 3\r\n", "def");
    let answer = exchange(&server, twice.as_bytes()).await;
    assert_eq!(answer.matches("HTTP/1.1 200").count(), 2, "{answer}");
    assert!(answer.contains("abc") && answer.ends_with("def"), "{answer}");
}

#[tokio::test]
async fn garbage_and_oversized_heads_get_a_4xx() {
    let server = server().await;
    assert!(
        exchange(&server, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n").await.starts_with("HTTP/1.1 400")
    );
    // The limit counts what is buffered before the head is complete, so it is not exact to the byte.
    let long = post("/", &format!("X-Long: {}\r\n", "a".repeat(2 * HEAD_BYTES_MAX)), "");
    let answer = exchange(&server, long.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    let many: String = (0..=HEADERS_MAX).map(|n| format!("X-{n}: 1\r\n")).collect();
    assert!(exchange(&server, post("/", &many, "").as_bytes()).await.starts_with("HTTP/1.1 431"));
}

#[tokio::test]
async fn huge_bodies_are_refused_announced_or_not() {
    let server = server().await;
    let announced = post("/x", &format!("Content-Length: {}\r\n", BODY_BYTES_MAX + 1), "a");
    let answer = exchange(&server, announced.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 413") && answer.ends_with("BodyTooLarge /x"), "{answer}");
    let chunk = "a".repeat(1 << 20);
    let chunks = format!("{:x}\r\n{chunk}\r\n", chunk.len()).repeat(5);
    let answer = exchange(&server, post("/x", "Transfer-Encoding: chunked\r\n", &chunks).as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    let overflow = post("/x", "Content-Length: 99999999999999999999999\r\n", "a");
    assert!(exchange(&server, overflow.as_bytes()).await.starts_with("HTTP/1.1 4"));
}

#[tokio::test]
async fn half_open_and_slow_clients_are_dropped() {
    let server = server().await;
    let began = Instant::now();
    let (nothing, half_a_head, half_a_body) = tokio::join!(
        exchange(&server, b""),
        exchange(&server, b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\n"),
        exchange(&server, post("/", "Content-Length: 10\r\n", "abc").as_bytes().to_owned().leak()),
    );
    assert!(nothing.is_empty() || nothing.starts_with("HTTP/1.1 408"), "{nothing}");
    assert!(half_a_head.is_empty() || half_a_head.starts_with("HTTP/1.1 408"), "{half_a_head}");
    assert!(half_a_body.starts_with("HTTP/1.1 408"), "{half_a_body}");
    assert!(began.elapsed() >= SHORT.head, "nobody is dropped before the time");
}

#[tokio::test]
async fn a_client_that_reads_nothing_is_dropped() {
    let server = server().await;
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    stream.write_all(post("/big", "", "").as_bytes()).await.unwrap();
    tokio::time::sleep(SHORT.write * 3).await;
    let mut received = 0;
    let mut chunk = vec![0; 1 << 20];
    while let Ok(n @ 1..) = stream.read(&mut chunk).await {
        received += n;
    }
    assert!(received < 64 << 20, "all {received} bytes came, though nobody read for long");
}

#[tokio::test]
async fn a_panic_is_one_requests_500() {
    let server = server().await;
    let answer = exchange(&server, (post("/panic", "", "") + &post("/", "", "")).as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 500") && answer.contains("Panicked /panic"), "{answer}");
    assert!(answer.contains("HTTP/1.1 200"), "the connection goes on: {answer}");
}

#[tokio::test]
async fn foreign_pages_are_refused() {
    let server = server().await;
    let answer = exchange(&server, b"POST / HTTP/1.1\r\nHost: evil.example\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 403") && answer.contains("ForeignHost"), "{answer}");
    let answer = exchange(&server, post("/", "Origin: https://evil.example\r\n", "").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 403") && answer.contains("ForeignOrigin"), "{answer}");
}

#[tokio::test]
async fn shutdown_finishes_what_was_begun_and_accepts_nothing_more() {
    let server = server().await;
    let address = server.address();
    let mut idle = TcpStream::connect(address).await.unwrap();
    let mut busy = TcpStream::connect(address).await.unwrap();
    busy.write_all(post("/slow", "Content-Length: 2\r\n", "ok").as_bytes()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    server.shutdown().await;
    let mut answer = String::new();
    busy.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("ok"), "{answer}");
    assert_eq!(idle.read(&mut [0; 1]).await.unwrap_or(0), 0);
    assert!(TcpStream::connect(address).await.is_err());
}
