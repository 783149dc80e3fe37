//! Heads between HTTP/2 and the text of HTTP/1.1.

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version};
use httparse::{Header, Status};
use std::io::Write as _;

/// Headers of one head, for reading text back: what was written has no more than what was read, and some of ours.
const MAX_HEADERS: usize = 160;

/// Headers that are for one HTTP/1.1 connection, and have no place in HTTP/2.
fn is_of_connection(name: &str) -> bool {
    ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade", "te"]
        .iter()
        .any(|of| name.eq_ignore_ascii_case(of))
}

/// The headers of a client's request as HTTP/1.1 has them: crumbs of cookies are put together in `cookie`.
pub fn headers_of<'a>(headers: &'a HeaderMap, cookie: &'a mut Vec<u8>) -> Vec<Header<'a>> {
    for value in headers.get_all(http::header::COOKIE) {
        if !cookie.is_empty() {
            cookie.extend_from_slice(b"; ");
        }
        cookie.extend_from_slice(value.as_bytes());
    }
    let cookie: &'a [u8] = cookie;
    let mut all: Vec<Header<'a>> = headers
        .iter()
        .filter(|(name, _)| **name != http::header::COOKIE)
        .map(|(name, value)| Header { name: name.as_str(), value: value.as_bytes() })
        .collect();
    if !cookie.is_empty() {
        all.push(Header { name: "cookie", value: cookie });
    }
    all
}

/// The head that was written for a target, as a request of HTTP/2. None when it cannot be one.
pub fn request_of(text: &[u8], secure: bool, grpc: bool) -> Option<Request<()>> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut parsed = httparse::Request::new(&mut headers);
    let Ok(Status::Complete(_)) = parsed.parse(text) else { return None };
    let mut request = Request::new(());
    *request.version_mut() = Version::HTTP_2;
    *request.method_mut() = Method::from_bytes(parsed.method?.as_bytes()).ok()?;
    let mut authority = None;
    for header in parsed.headers.iter() {
        if header.name.eq_ignore_ascii_case("host") {
            authority = Some(std::str::from_utf8(header.value).ok()?);
        } else if !is_of_connection(header.name) {
            request.headers_mut().append(
                HeaderName::from_bytes(header.name.as_bytes()).ok()?,
                HeaderValue::from_bytes(header.value).ok()?,
            );
        }
    }
    if grpc {
        request.headers_mut().insert(http::header::TE, HeaderValue::from_static("trailers"));
    }
    *request.uri_mut() = Uri::builder()
        .scheme(if secure { "https" } else { "http" })
        .authority(authority?)
        .path_and_query(parsed.path?)
        .build()
        .ok()?;
    Some(request)
}

/// A head for a client, as an answer of HTTP/2. None when it cannot be one.
pub fn response_of<B: Default>(text: &[u8]) -> Option<Response<B>> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut parsed = httparse::Response::new(&mut headers);
    let Ok(Status::Complete(_)) = parsed.parse(text) else { return None };
    let mut response = Response::new(B::default());
    *response.status_mut() = StatusCode::from_u16(parsed.code?).ok()?;
    for header in parsed.headers.iter().filter(|header| !is_of_connection(header.name)) {
        response.headers_mut().append(
            HeaderName::from_bytes(header.name.as_bytes()).ok()?,
            HeaderValue::from_bytes(header.value).ok()?,
        );
    }
    Some(response)
}

/// The head of an HTTP/2 target's answer, as text.
pub fn text_of<B>(response: &Response<B>) -> Vec<u8> {
    let mut text = Vec::with_capacity(512);
    let _ = write!(text, "HTTP/1.1 {} \r\n", response.status().as_u16());
    for (name, value) in response.headers() {
        text.extend_from_slice(name.as_str().as_bytes());
        text.extend_from_slice(b": ");
        text.extend_from_slice(value.as_bytes());
        text.extend_from_slice(b"\r\n");
    }
    text.extend_from_slice(b"\r\n");
    text
}

/// The status of gRPC in headers or trailers.
pub fn grpc_status(headers: &HeaderMap) -> Option<u16> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn heads_come_through_both_ways() {
        let text = b"POST /a?b HTTP/1.1\r\nHost: x.example\r\nX-A: 1\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n";
        let request = request_of(text, true, true).unwrap();
        assert_eq!(request.uri(), "https://x.example/a?b");
        let names: Vec<_> = request.headers().keys().map(HeaderName::as_str).collect();
        assert_eq!(names, ["x-a", "te"]);
        let response: Response<()> =
            response_of(b"HTTP/1.1 204 \r\nSet-Cookie: a\r\nSet-Cookie: b\r\nConnection: x\r\n\r\n").unwrap();
        assert_eq!((response.status().as_u16(), response.headers().len()), (204, 2));
        assert!(response_of::<()>(&text_of(&response)).is_some());
    }

    #[test]
    fn crumbs_of_cookies_are_one_header() {
        let mut headers = HeaderMap::new();
        headers.append("cookie", HeaderValue::from_static("a=1"));
        headers.append("x", HeaderValue::from_static("y"));
        headers.append("cookie", HeaderValue::from_static("b=2"));
        let mut cookie = Vec::new();
        let all = headers_of(&headers, &mut cookie);
        assert_eq!(all.last().map(|header| header.value), Some(b"a=1; b=2".as_slice()));
        assert_eq!(all.len(), 2);
    }
}
