//! A target's answer: its head read within limits, and written anew for the client.

use super::super::tables::Table;
use super::body::{Body, Chunks};
use super::exchange::Client;
use super::plan::Forwarding;
use super::text::{push_decimal, push_header};
use gantry_decide::routing::config::Stickiness;
use httparse::Status;
use std::mem::MaybeUninit;

/// All headers of an answer, as an Application Load Balancer takes them.
pub const MAX_HEAD: usize = 32 * 1024;
const MAX_HEADERS: usize = 128;

/// The answer's head cannot be understood: 502.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the target's answer is malformed")]
pub struct BadResponse;

/// An answer's head, taken over.
#[derive(Debug)]
pub struct Translated {
    /// Bytes that it took.
    pub length: usize,
    pub status: u16,
    pub body: Body,
    /// The target's connection can be used again after the body.
    pub keep_target: bool,
    /// So can the client's.
    pub keep_client: bool,
    /// The body goes on without its chunks' frames, to a client that knows none.
    pub decode: bool,
}

/// Reads a head and writes the client's into `out`. None while it is incomplete.
///
/// # Errors
/// When it is malformed.
pub fn translate(
    bytes: &[u8],
    forwarding: &Forwarding,
    table: &Table,
    client: &Client,
    keep: bool,
    out: &mut Vec<u8>,
) -> Result<Option<Translated>, BadResponse> {
    let mut space = [const { MaybeUninit::uninit() }; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let length = match config.parse_response_with_uninit_headers(&mut response, bytes, &mut space) {
        Ok(Status::Complete(length)) => length,
        Ok(Status::Partial) => return Ok(None),
        Err(_) => return Err(BadResponse),
    };
    if length > MAX_HEAD {
        return Err(BadResponse);
    }
    let status = response.code.ok_or(BadResponse)?;
    let modern = response.version == Some(1);
    let upgraded = status == 101 && forwarding.websocket;
    if status == 101 && !upgraded {
        return Err(BadResponse);
    }
    let interim = status < 200 && !upgraded;
    let bodiless = forwarding.to_head || status < 200 || status == 204 || status == 304;
    let (mut length_header, mut chunked, mut keep_target) = (None::<u64>, false, modern);
    let mut app_cookie_set = false;
    out.extend_from_slice(b"HTTP/1.1 ");
    push_decimal(out, status.into());
    out.push(b' ');
    out.extend_from_slice(response.reason.unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\n");
    for header in response.headers.iter() {
        let (name, value) = (header.name, header.value.trim_ascii());
        match name.len() {
            7 if name.eq_ignore_ascii_case("upgrade") && !upgraded => continue,
            10 if name.eq_ignore_ascii_case("connection") => {
                for token in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                    if token.eq_ignore_ascii_case(b"close") {
                        keep_target = false;
                    } else if token.eq_ignore_ascii_case(b"keep-alive") {
                        keep_target = true;
                    }
                }
                continue;
            }
            10 if name.eq_ignore_ascii_case("keep-alive") => continue,
            10 if name.eq_ignore_ascii_case("set-cookie") => {
                if let Some(Stickiness::AppCookie { name, .. }) = forwarding.service.stickiness() {
                    app_cookie_set |=
                        value.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.starts_with(b"="));
                }
            }
            14 if name.eq_ignore_ascii_case("content-length") => {
                let number =
                    std::str::from_utf8(value).ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
                let number = number.and_then(|text| text.parse().ok()).ok_or(BadResponse)?;
                if length_header.replace(number).is_some_and(|before| before != number) {
                    return Err(BadResponse);
                }
                continue;
            }
            17 if name.eq_ignore_ascii_case("transfer-encoding") => {
                if !value.eq_ignore_ascii_case(b"chunked") || chunked {
                    return Err(BadResponse);
                }
                chunked = true;
                continue;
            }
            _ => {}
        }
        let replaced = !table.listener.response_headers.is_empty()
            && table.listener.response_headers.keys().any(|have| have.eq_ignore_ascii_case(name));
        if !replaced {
            push_header(out, name, value);
        }
    }
    let body = match (bodiless, chunked, length_header) {
        (true, _, _) => Body::None,
        (false, true, _) => Body::Chunked(Chunks::default()),
        (false, false, Some(length)) => Body::Length(length),
        (false, false, None) => Body::Close,
    };
    // A length beside chunks has no meaning; the connection is not trusted with another message.
    if body == Body::Close || (chunked && length_header.is_some()) {
        keep_target = false;
    }
    let decode = matches!(body, Body::Chunked(_)) && !forwarding.modern;
    let keep_client = keep && body != Body::Close && !decode;
    match length_header {
        Some(length) if !chunked && !interim && status != 204 => {
            out.extend_from_slice(b"Content-Length: ");
            push_decimal(out, length);
            out.extend_from_slice(b"\r\n");
        }
        _ if chunked && !interim && !decode => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
        _ => {}
    }
    if !interim {
        for (name, value) in &table.listener.response_headers {
            push_header(out, name, value.as_bytes());
        }
        forwarding.cookies(out, client, app_cookie_set);
        out.extend_from_slice(match (upgraded, keep_client) {
            (true, _) => b"Connection: upgrade\r\n".as_slice(),
            (false, true) => b"Connection: keep-alive\r\n",
            (false, false) => b"Connection: close\r\n",
        });
    }
    out.extend_from_slice(b"\r\n");
    Ok(Some(Translated { length, status, body, keep_target, keep_client, decode }))
}
