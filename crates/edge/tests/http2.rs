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
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::convert::Infallible;
use std::net::SocketAddr;

type Client = SendRequest<Full<Bytes>>;

async fn connect(address: SocketAddr) -> Client {
    let tcp = tokio::net::TcpStream::connect(address).await.unwrap();
    let name = rustls::pki_types::ServerName::try_from("one.example").unwrap();
    let tls = tokio_rustls::TlsConnector::from(client_config(&[b"h2"])).connect(name, tcp).await.unwrap();
    assert_eq!(tls.get_ref().1.alpn_protocol(), Some(b"h2".as_slice()));
    let (sender, driver) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(tls)).await.unwrap();
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

/// An HTTP/2 server that gives back what it gets, as gRPC does: with its status in trailers.
async fn second() -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
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
