//! EC2's instance metadata service, version 2, for the programs of a container instance: at the address and in the form
//! in which AWS's SDKs and stock software ask. Tasks with a network of their own do not reach it.
//!
//! What stands in it is the instance as ECS knows it. What a machine here does not have (an image, a role, user data, a
//! notice that it is taken away) is not found, as on a machine of EC2's without it.

mod facts;
mod token;

use crate::endpoints::{Body, whole};
pub use facts::Facts;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::request::Parts;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use token::Tokens;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Connections at once; more wait.
const CONNECTIONS_MAX: usize = 64;
/// How long a connection may last: a question takes milliseconds, and SDKs keep none.
const CONNECTION_MAX: Duration = Duration::from_secs(30);
/// Bytes of a request's line and headers.
const HEAD_MAX: usize = 16 << 10;
/// After a failure of accept(2), most likely for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

const TTL_HEADER: &str = "x-aws-ec2-metadata-token-ttl-seconds";
const TOKEN_HEADER: &str = "x-aws-ec2-metadata-token";
/// EC2 gives none to who asks through a proxy that is open by mistake.
const FORWARDED_HEADER: &str = "x-forwarded-for";

/// What is asked, and how tokens are known again.
struct Service {
    facts: Facts,
    tokens: Tokens,
}

/// Answers until it is dropped.
pub async fn serve(listener: TcpListener, facts: Facts) {
    let service = Arc::new(Service { facts, tokens: Tokens::new() });
    let mut connections = JoinSet::new();
    loop {
        while connections.len() >= CONNECTIONS_MAX {
            connections.join_next().await;
        }
        while connections.try_join_next().is_some() {}
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection for instance metadata was not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let service = Arc::clone(&service);
        connections.spawn(async move {
            let answer = service_fn(move |request: Request<Incoming>| {
                let answer = service.answer(&request.into_parts().0);
                async move { Ok::<_, Infallible>(answer) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(CONNECTION_MAX)
                .max_buf_size(HEAD_MAX)
                .serve_connection(TokioIo::new(stream), answer);
            // A client that breaks off has no one to tell.
            let _ = timeout(CONNECTION_MAX, connection).await;
        });
    }
}

impl Service {
    fn answer(&self, asked: &Parts) -> Response<Body> {
        let path = asked.uri.path();
        match asked.method {
            Method::PUT if path == "/latest/api/token" => self.token(&asked.headers),
            Method::GET if !self.may_ask(&asked.headers) => plain(StatusCode::UNAUTHORIZED, String::new()),
            Method::GET => match self.facts.look_up(path) {
                Some(text) => plain(StatusCode::OK, text),
                None => plain(StatusCode::NOT_FOUND, String::new()),
            },
            _ => plain(StatusCode::METHOD_NOT_ALLOWED, String::new()),
        }
    }

    fn token(&self, headers: &HeaderMap) -> Response<Body> {
        if headers.contains_key(FORWARDED_HEADER) {
            return plain(StatusCode::FORBIDDEN, String::new());
        }
        let Some((token, seconds)) = text(headers, TTL_HEADER).and_then(|wanted| self.tokens.give(wanted))
        else {
            return plain(StatusCode::BAD_REQUEST, String::new());
        };
        let mut response = plain(StatusCode::OK, token);
        response.headers_mut().insert(TTL_HEADER, HeaderValue::from(seconds));
        response
    }

    fn may_ask(&self, headers: &HeaderMap) -> bool {
        text(headers, TOKEN_HEADER).is_some_and(|token| self.tokens.is_good(token))
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn plain(status: StatusCode, text: String) -> Response<Body> {
    let mut response = Response::new(whole(text));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn ask(service: &Service, method: Method, path: &str, headers: &[(&str, &str)]) -> Response<Body> {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        service.answer(&request.body(()).unwrap().into_parts().0)
    }

    #[test]
    fn nothing_is_told_without_a_token() {
        let service = Service { facts: facts::tests::sample(), tokens: Tokens::new() };
        let status = |method, path, headers: &[_]| ask(&service, method, path, headers).status().as_u16();
        let instance_id = "/latest/meta-data/instance-id";
        assert_eq!(status(Method::GET, instance_id, &[]), 401);
        assert_eq!(status(Method::GET, instance_id, &[(TOKEN_HEADER, "x")]), 401);
        assert_eq!(status(Method::POST, instance_id, &[]), 405);
        let token = "/latest/api/token";
        for (headers, expected) in [
            (&[][..], 400),
            (&[(TTL_HEADER, "0")], 400),
            (&[(TTL_HEADER, "21601")], 400),
            (&[(TTL_HEADER, "60"), (FORWARDED_HEADER, "10.0.0.1")], 403),
            (&[(TTL_HEADER, "60")], 200),
        ] {
            assert_eq!(status(Method::PUT, token, headers), expected, "{headers:?}");
        }
        let given = ask(&service, Method::PUT, token, &[(TTL_HEADER, "21600")]);
        assert_eq!(given.headers()[TTL_HEADER], "21600");
        let (good, _) = service.tokens.give("60").unwrap();
        assert_eq!(status(Method::GET, instance_id, &[(TOKEN_HEADER, &good)]), 200);
        assert_eq!(status(Method::GET, "/latest/meta-data/iam/info", &[(TOKEN_HEADER, &good)]), 404);
    }
}
