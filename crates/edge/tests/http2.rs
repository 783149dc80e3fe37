//! HTTP/2 in front of HTTP/1.1, HTTP/2 and gRPC targets.

#![allow(clippy::unwrap_used)]
mod common;

use bytes::Bytes;
use common::{Server, World, client_config, group};
use gantry_decide::routing::HealthState;
use gantry_decide::routing::config::*;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

type Client = SendRequest<Full<Bytes>>;

/// A TLS connection on which HTTP/2 was agreed on.
async fn secure(address: SocketAddr) -> TokioIo<TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(address).await.unwrap();
    let name = rustls::pki_types::ServerName::try_from("one.example").unwrap();
    let tls = tokio_rustls::TlsConnector::from(client_config(&[b"h2"])).connect(name, tcp).await.unwrap();
    assert_eq!(tls.get_ref().1.alpn_protocol(), Some(b"h2".as_slice()));
    TokioIo::new(tls)
}

async fn connect(address: SocketAddr) -> Client {
    let (sender, driver) = http2::handshake(TokioExecutor::new(), secure(address).await).await.unwrap();
    tokio::spawn(driver);
    sender
}

fn request(method: &str, path: &str, body: &str) -> Request<Full<Bytes>> {
    let builder = Request::builder().method(method).uri(format!("https://one.example{path}"));
    builder
        .header("cookie", "a=1")
        .header("cookie", "b=2")
        .body(Full::new(Bytes::from(body.to_owned())))
        .unwrap()
}

async fn ask(client: &Client, request: Request<Full<Bytes>>) -> (u16, HeaderMap, String) {
    let response = client.clone().send_request(request).await.unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, headers, String::from_utf8_lossy(&body).into_owned())
}

type Frames = fn(stream: [u8; 4]) -> Vec<u8>;

/// Reads a request's head, says something else than an answer, and no more.
async fn say_instead(stream: &mut TcpStream, instead: Frames) {
    let mut head = [0; 24];
    stream.read_exact(&mut head).await.unwrap();
    stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
    loop {
        stream.read_exact(&mut head[..9]).await.unwrap();
        let [a, b, c, kind, _, id @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _, _] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        stream.read_exact(&mut payload).await.unwrap();
        if kind == 1 {
            stream.write_all(&instead(id)).await.unwrap();
            break;
        }
    }
    let _ = stream.read_to_end(&mut Vec::new()).await;
}

/// GOAWAY: the last stream that was looked at is none.
fn goes_away(_: [u8; 4]) -> Vec<u8> {
    vec![0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
}

/// RST_STREAM with REFUSED_STREAM, and with INTERNAL_ERROR.
fn refuses([a, b, c, d]: [u8; 4]) -> Vec<u8> {
    vec![0, 0, 4, 3, 0, a, b, c, d, 0, 0, 0, 7]
}

fn fails([a, b, c, d]: [u8; 4]) -> Vec<u8> {
    vec![0, 0, 4, 3, 0, a, b, c, d, 0, 0, 0, 2]
}

/// A world with a group of HTTP/2 targets that nobody checks.
fn unchecked(version: ProtocolVersion, targets: &[SocketAddr], idle: Duration) -> World {
    let mut web = group("web", targets);
    web.protocol_version = version;
    web.health_check.enabled = false;
    let world = World::with(vec![web], Vec::new(), |balancer| {
        common::https(balancer);
        balancer.attributes.idle_timeout = idle;
    });
    targets.iter().for_each(|target| world.await_health(*target, HealthState::Unavailable));
    world
}

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn requests_for_http2_targets_that_do_not_accept_go_to_others() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let world = unchecked(ProtocolVersion::Grpc, &[second().await, nobody], MINUTE);
    let client = connect(world.address).await;
    for _ in 0..10 {
        let (status, _, body) = ask(&client, request("POST", "/x", "hello")).await;
        assert_eq!((status, body.as_str()), (200, "hello"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_http2_target_did_not_look_at_is_asked_again() {
    let target = second_after(vec![refuses, goes_away]).await;
    let world = unchecked(ProtocolVersion::Http2, &[target], MINUTE);
    let client = connect(world.address).await;
    let (status, _, body) = ask(&client, request("POST", "/x", "hello")).await;
    assert_eq!((status, body.as_str()), (200, "hello"));
    // Not without end, and nothing that may have been done.
    for (instead, status) in [(vec![goes_away as Frames; 3], 502), (vec![fails], 502), (Vec::new(), 200)] {
        let world = unchecked(ProtocolVersion::Http2, &[second_after(instead).await], MINUTE);
        let client = connect(world.address).await;
        assert_eq!(ask(&client, request("GET", "/x", "")).await.0, status);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_to_an_http2_target_takes_as_long_as_it_moves() {
    let idle = Duration::from_secs(1);
    let world = unchecked(ProtocolVersion::Http2, &[second().await], idle);
    let (mut sender, driver) =
        http2::handshake(TokioExecutor::new(), secure(world.address).await).await.unwrap();
    tokio::spawn(driver);
    for (pieces, ends, expected) in [(8, true, 200), (2, false, 408)] {
        let body = futures_util::stream::unfold(0, move |at| async move {
            tokio::time::sleep(idle / 4).await;
            if at == pieces && !ends {
                std::future::pending::<()>().await;
            }
            let piece = Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"x")));
            (at < pieces).then_some((piece, at + 1))
        });
        let body: BoxBody<Bytes, Infallible> = BodyExt::boxed(StreamBody::new(body));
        let request = Request::post("https://one.example/x").body(body).unwrap();
        assert_eq!(sender.send_request(request).await.unwrap().status(), expected);
    }
}

/// An HTTP/2 server that gives back what it gets, as gRPC does: with its status in trailers.
async fn second() -> SocketAddr {
    second_after(Vec::new()).await
}

/// The same, after so many connections that answer a request with these frames.
async fn second_after(mut instead: Vec<Frames>) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            if let Some(instead) = instead.pop() {
                tokio::spawn(async move { say_instead(&mut stream, instead).await });
                continue;
            }
            let service = hyper::service::service_fn(|request: Request<Incoming>| async move {
                let te = request.headers().get("te").cloned();
                let body = request.into_body().collect().await.unwrap().to_bytes();
                let mut trailers = HeaderMap::new();
                trailers.insert("grpc-status", HeaderValue::from_static("12"));
                let frames = [Ok::<_, Infallible>(Frame::data(body)), Ok(Frame::trailers(trailers))];
                let body: BoxBody<Bytes, Infallible> =
                    BodyExt::boxed(StreamBody::new(futures_util::stream::iter(frames)));
                let mut response = Response::new(body);
                if let Some(te) = te {
                    response.headers_mut().insert("x-te", te);
                }
                Ok::<_, Infallible>(response)
            });
            let serving = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service);
            tokio::spawn(serving);
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn many_requests_of_one_connection_reach_http1_targets() {
    let server = Server::start();
    let world = World::https(&[&server], |_| {});
    let client = connect(world.address).await;
    let big = "b".repeat(300_000);
    let all = (0..50).map(|n| {
        let (client, big) = (client.clone(), big.clone());
        tokio::spawn(async move {
            match n % 5 {
                0 => {
                    let (status, _, body) = ask(&client, request("GET", &format!("/{n}"), "")).await;
                    assert!(
                        status == 200
                            && body.contains(&format!("GET /{n} HTTP/1.1\r\nHost: one.example:8080\r\n")),
                        "{body}"
                    );
                    assert!(
                        body.contains("cookie: a=1; b=2\r\n") && body.contains("X-Forwarded-Proto: https"),
                        "{body}"
                    );
                }
                1 => assert!(ask(&client, request("POST", "/x", &big)).await.2.ends_with(&big)),
                2 => assert_eq!(
                    ask(&client, request("GET", "/chunked/3", "")).await.2,
                    "chunk 0\nchunk 1\nchunk 2\n"
                ),
                3 => assert_eq!(ask(&client, request("GET", "/bytes/1000000", "")).await.2.len(), 1_000_000),
                _ => assert_eq!(ask(&client, request("HEAD", "/x", "")).await.0, 200),
            }
        })
    });
    for task in all.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    assert_eq!(ask(&client, request("GET", "/close", "")).await.0, 502);
    assert_eq!(ask(&client, request("GET", "/status/404", "")).await.0, 404);
    assert_eq!(ask(&client, request("TRACE", "/", "")).await.0, 405);
    let sample = world.balancer.samples().0.remove(0);
    assert_eq!((sample.requests, sample.elb_502, sample.elb_4xx), (53, 1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn http2_and_grpc_targets_are_asked_by_http2() {
    let address = second().await;
    let mut web = group("web", &[address]);
    web.protocol_version = ProtocolVersion::Grpc;
    web.health_check.matcher = Matcher(vec![(12, 12)]);
    let mut world = World::with(vec![web], Vec::new(), common::https);
    world.await_health(address, HealthState::Healthy);
    let client = connect(world.address).await;
    let response =
        client.clone().send_request(request("POST", "/package.Service/Call", "hello")).await.unwrap();
    assert_eq!(response.headers()["x-te"], "trailers");
    let whole = response.into_body().collect().await.unwrap();
    assert_eq!(whole.trailers().unwrap()["grpc-status"], "12");
    assert_eq!(whole.to_bytes(), "hello");
    // What does not fit a group's version is told apart.
    assert_eq!(ask(&client, request("GET", "/", "")).await.0, 464);
    world.change(|config| {
        config.target_groups[0].protocol_version = ProtocolVersion::Http2;
        config.target_groups[0].health_check.matcher = Matcher(vec![(200, 200)]);
    });
    assert_eq!(ask(&client, request("GET", "/", "")).await.0, 200);
    let first = tokio::task::spawn_blocking(move || common::status(&world.get_secure("")));
    assert_eq!(first.await.unwrap(), 464);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_of_http2_are_logged() {
    let server = Server::start();
    let folder = tempfile::tempdir().unwrap();
    let calls = common::rule(2, "/call", common::forward(&[("calls", 1)]));
    let away = Redirect { path: "/new".to_owned(), ..Redirect::default() };
    let rules = vec![common::rule(1, "/old", Action::Redirect(away)), calls];
    let mut grpc = group("calls", &[second().await]);
    grpc.protocol_version = ProtocolVersion::Grpc;
    grpc.health_check.enabled = false;
    let callee = SocketAddr::new(grpc.targets[0].ip.unwrap(), grpc.targets[0].key.port);
    let world = World::with(vec![group("web", &[server.address]), grpc], rules, |balancer| {
        common::https(balancer);
        let prefix = folder.path().to_str().unwrap().to_owned();
        balancer.attributes.access_logs = Some(LogDestination { bucket: "logs".to_owned(), prefix });
    });
    world.await_health(server.address, HealthState::Healthy);
    world.await_health(callee, HealthState::Unavailable);
    let client = connect(world.address).await;
    let long = "x".repeat(20_000);
    let refused = |uri: &str, header: &str| {
        Request::get(uri).header("x", header).body(Full::new(Bytes::new())).unwrap()
    };
    assert_eq!(ask(&client, request("GET", "/old", "")).await.0, 302);
    assert_eq!(ask(&client, request("POST", "/call", "hello")).await.0, 200);
    assert_eq!(ask(&client, refused("https://me@one.example/", "y")).await.0, 400);
    assert_eq!(ask(&client, refused("https://one.example/", &long)).await.0, 400);
    assert_eq!(ask(&client, refused(&format!("https://one.example/{long}"), "y")).await.0, 414);
    let gone = timeout(Duration::from_millis(500), ask(&client, request("GET", "/sleep/60000", ""))).await;
    assert!(gone.is_err());
    let mut lines = Vec::new();
    world.until("six lines are written", || {
        lines = common::log_lines(folder.path(), "");
        lines.len() == 6
    });
    let none = format!("\"- https://{}- -\" \"-\" ", world.address);
    for (line, kind, status, text) in [
        (&lines[0], "h2", 302, "\"redirect\" \"https://one.example:8080/new\""),
        (&lines[1], "grpcs", 200, " 200 200 5 "),
        (&lines[2], "h2", 400, &none),
        (&lines[3], "h2", 400, &none),
        (&lines[4], "h2", 414, &none),
        (&lines[5], "h2", 460, "GET https://one.example:8080/sleep/60000 HTTP/2.0"),
    ] {
        let fits = line.starts_with(&format!("{kind} 20")) && line.contains(&format!(" {status} "));
        assert!(fits && line.contains(text), "{line}");
    }
    // 400 twice, 414, 460.
    assert_eq!(world.balancer.samples().0[0].elb_4xx, 4);
}

/// An HTTP/2 server that answers `/endless` without end, and how much of that it got rid of.
async fn endless() -> (SocketAddr, Arc<AtomicU64>) {
    const PIECE: &[u8] = &[0; 16 << 10];
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, sent) = (listener.local_addr().unwrap(), Arc::new(AtomicU64::new(0)));
    let counted = sent.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let sent = counted.clone();
            let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                let sent = sent.clone();
                let piece = move || {
                    sent.fetch_add(PIECE.len() as u64, SeqCst);
                    Ok::<_, Infallible>(Frame::data(Bytes::from_static(PIECE)))
                };
                let body: BoxBody<Bytes, Infallible> = match request.uri().path() {
                    "/endless" => BodyExt::boxed(StreamBody::new(futures_util::stream::repeat_with(piece))),
                    _ => Full::new(Bytes::from_static(b"soon")).boxed(),
                };
                async move { Ok::<_, Infallible>(Response::new(body)) }
            });
            let serving = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .max_send_buf_size(PIECE.len())
                .serve_connection(TokioIo::new(stream), service);
            tokio::spawn(serving);
        }
    });
    (address, sent)
}

/// Clients that take nothing of what they asked for, whatever they allow to be sent: a target that sends without end is
/// not read into memory for them, and others get its answers.
#[test]
fn who_takes_nothing_of_an_http2_target_holds_up_nobody() {
    const STREAMS: usize = 50;
    // Kernels hold some MiB of each connection, too.
    const MOST: u64 = 256 << 20;
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (address, sent) = runtime.block_on(endless());
    let mut web = group("web", &[address]);
    web.protocol_version = ProtocolVersion::Http2;
    let world = World::with(vec![web], Vec::new(), common::https);
    world.await_health(address, HealthState::Healthy);
    for window in [1, 65_535, 0x7fff_ffff] {
        let asking = async || {
            let (sender, driver) = http2::Builder::new(TokioExecutor::new())
                .initial_stream_window_size(window)
                .initial_connection_window_size(window.max(65_535))
                .handshake(secure(world.address).await)
                .await
                .unwrap();
            tokio::spawn(driver);
            let asked = (0..STREAMS).map(|_| sender.clone().send_request(request("GET", "/endless", "")));
            futures_util::future::join_all(asked).await
        };
        // Nobody reads what comes when this one runs no more.
        let stalled = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let answers = stalled.block_on(futures_util::future::join_all((0..4).map(|_| asking())));
        let before = sent.load(SeqCst);
        assert!(
            answers.iter().flatten().all(|answer| answer.as_ref().is_ok_and(|answer| answer.status() == 200))
        );
        let mut last = 0;
        world.until("nothing more is taken", || {
            std::thread::sleep(Duration::from_millis(300));
            let taken = sent.load(SeqCst) - before;
            assert!(taken < MOST, "{taken} bytes were taken for nobody who allows {window}");
            std::mem::replace(&mut last, taken) == taken
        });
        for _ in 0..8 {
            let asking = async { ask(&connect(world.address).await, request("GET", "/soon", "")).await };
            let answer = runtime.block_on(async { timeout(Duration::from_secs(20), asking).await });
            assert_eq!(answer.expect("others wait for who takes nothing").2, "soon");
        }
    }
}
