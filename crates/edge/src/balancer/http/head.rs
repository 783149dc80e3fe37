//! A request's head: read within limits, and judged as request smuggling goes. What is forwarded is written anew from
//! the parts that were understood, never copied as it came.

use super::body::{Body, Chunks};
use gantry_decide::routing::Request;
use gantry_decide::routing::config::DesyncMode;
use httparse::{Header, Status};
use std::mem::MaybeUninit;
use std::net::IpAddr;

/// Limits of an Application Load Balancer, in bytes: the request line, one header line, all headers.
pub const MAX_REQUEST_LINE: usize = 16 * 1024;
const MAX_HEADER_LINE: usize = 16 * 1024;
const MAX_HEADER_LINES: usize = 64 * 1024;
pub const MAX_HEAD: usize = MAX_HEADER_LINES + MAX_REQUEST_LINE;
/// Header lines. The documentation has no number; browsers send twenty, and each costs a lookup.
pub const MAX_HEADERS: usize = 128;

/// A head that is refused, by the status it is answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    BadRequest,
    /// TRACE and CONNECT.
    MethodNotAllowed,
    UriTooLong,
    /// More than 30 addresses in `X-Forwarded-For`.
    TooManyForwarders,
    /// A `Transfer-Encoding` other than `chunked` and `identity`.
    NotImplemented,
    VersionNotSupported,
}

impl Refusal {
    pub const fn status(self) -> u16 {
        match self {
            Refusal::BadRequest => 400,
            Refusal::MethodNotAllowed => 405,
            Refusal::UriTooLong => 414,
            Refusal::TooManyForwarders => 463,
            Refusal::NotImplemented => 501,
            Refusal::VersionNotSupported => 505,
        }
    }
}

/// How far a request keeps to RFC 9112, as access logs name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    Compliant,
    Acceptable,
    Ambiguous,
    Severe,
}

impl Class {
    pub const fn as_str(self) -> &'static str {
        match self {
            Class::Compliant => "-",
            Class::Acceptable => "Acceptable",
            Class::Ambiguous => "Ambiguous",
            Class::Severe => "Severe",
        }
    }

    /// Whether the mode refuses such a request. Severe ones are refused in all modes: they have no one meaning that
    /// could be written anew.
    pub const fn refused(self, mode: DesyncMode) -> bool {
        match (self, mode) {
            (Class::Compliant, _) => false,
            (Class::Acceptable | Class::Ambiguous, mode) => matches!(mode, DesyncMode::Strictest),
            (Class::Severe, _) => true,
        }
    }

    /// Whether both connections end after such a request.
    pub const fn closes(self, mode: DesyncMode) -> bool {
        matches!((self, mode), (Class::Ambiguous, DesyncMode::Defensive | DesyncMode::Strictest))
    }
}

/// Space for header lines, on the stack.
pub type HeaderSpace<'b> = [MaybeUninit<Header<'b>>; MAX_HEADERS];

/// A head that was understood.
#[derive(Debug)]
pub struct Head<'h, 'b> {
    /// Bytes that it took.
    pub length: usize,
    pub method: &'b str,
    /// HTTP/1.1 rather than 1.0.
    pub modern: bool,
    /// HTTP/2: the connection carries other requests as well.
    pub http2: bool,
    pub path: &'b str,
    /// None without a `?`.
    pub query: Option<&'b str>,
    /// As the client names it, with the port; None when an HTTP/1.0 client does not.
    pub host: Option<&'b str>,
    /// The `Host` header's own value, where the target named another one.
    pub host_header: Option<&'b str>,
    pub headers: &'h [Header<'b>],
    pub body: Body,
    pub class: Class,
    pub reason: &'static str,
    /// The client wants the connection kept.
    pub keep: bool,
    /// The client asks for `Upgrade: websocket`.
    pub websocket: bool,
    /// `Connection` names other headers, or what nobody knows.
    pub names_more: bool,
    pub source: IpAddr,
}

/// Where the head ends that begins at the start of `bytes`, if it is there in whole; `from` bytes were looked at
/// before. Empty lines before a request are part of it.
pub fn find_end(bytes: &[u8], from: usize) -> bool {
    let from = from.saturating_sub(3);
    let mut rest = &bytes[from..];
    while let Some(at) = rest.iter().position(|byte| *byte == b'\n') {
        match rest.get(at + 1..) {
            Some([b'\n', ..] | [b'\r', b'\n', ..]) => return true,
            Some(behind) => rest = behind,
            None => return false,
        }
    }
    false
}

/// Reads a head. None while it is incomplete.
///
/// # Errors
/// With what is wrong, as the status to answer.
pub fn read<'h, 'b>(
    bytes: &'b [u8],
    space: &'h mut HeaderSpace<'b>,
    source: IpAddr,
) -> Result<Option<Head<'h, 'b>>, Refusal> {
    let mut request = httparse::Request::new(&mut []);
    let parsed =
        httparse::ParserConfig::default().parse_request_with_uninit_headers(&mut request, bytes, space);
    let length = match parsed {
        Ok(Status::Complete(length)) => length,
        Ok(Status::Partial) => return Ok(None),
        Err(httparse::Error::Version) if names_version(bytes) => return Err(Refusal::VersionNotSupported),
        Err(_) => return Err(Refusal::BadRequest),
    };
    let (Some(method), Some(target), Some(version)) = (request.method, request.path, request.version) else {
        return Err(Refusal::BadRequest);
    };
    let line = method.len() + target.len() + " HTTP/1.1  ".len();
    if line > MAX_REQUEST_LINE {
        return Err(Refusal::UriTooLong);
    }
    if length - line > MAX_HEADER_LINES {
        return Err(Refusal::BadRequest);
    }
    if matches!(method, "TRACE" | "CONNECT") {
        return Err(Refusal::MethodNotAllowed);
    }
    let headers: &'h [Header<'b>] = request.headers;
    if !headers.iter().all(fits) {
        return Err(Refusal::BadRequest);
    }
    let (authority, target) = split_target(target, method)?;
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    };
    let mut head = Head {
        length,
        method,
        modern: version == 1,
        http2: false,
        path,
        query,
        host: None,
        host_header: None,
        headers,
        body: Body::None,
        class: Class::Compliant,
        reason: "-",
        keep: version == 1,
        websocket: false,
        names_more: false,
        source,
    };
    head.judge()?;
    if authority.is_some() {
        head.host_header = std::mem::replace(&mut head.host, authority);
    }
    if head.modern && head.host.is_none() {
        return Err(Refusal::BadRequest);
    }
    Ok(Some(head))
}

/// Whether a header line is within its limit.
pub fn fits(header: &Header<'_>) -> bool {
    header.name.len() + header.value.len() + 4 <= MAX_HEADER_LINE
}

/// Whether a request line is one but for a version that nobody speaks.
fn names_version(bytes: &[u8]) -> bool {
    let line = bytes.trim_ascii_start().split(|byte| matches!(byte, b'\r' | b'\n')).next();
    let mut words = line.unwrap_or_default().split(|byte| *byte == b' ');
    matches!((words.next(), words.next(), words.next(), words.next()), (_, Some(_), Some(version), None)
        if version.starts_with(b"HTTP/"))
}

/// The authority of an absolute target, and its path and query.
fn split_target<'b>(target: &'b str, method: &str) -> Result<(Option<&'b str>, &'b str), Refusal> {
    if target.starts_with('/') || (target == "*" && method == "OPTIONS") {
        return Ok((None, target));
    }
    let scheme = |name: &str| {
        target.get(..name.len()).filter(|have| have.eq_ignore_ascii_case(name)).map(|_| &target[name.len()..])
    };
    let rest = scheme("http://").or_else(|| scheme("https://")).ok_or(Refusal::BadRequest)?;
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    match (authority, path) {
        (authority, _) if authority.is_empty() || !is_authority(authority) => Err(Refusal::BadRequest),
        (authority, "") => Ok((Some(authority), "/")),
        (_, path) if path.starts_with('?') => Err(Refusal::BadRequest),
        (authority, path) => Ok((Some(authority), path)),
    }
}

impl<'b> Head<'_, 'b> {
    /// Frames the body, and finds whatever makes the request less than compliant.
    fn judge(&mut self) -> Result<(), Refusal> {
        let (mut length, mut chunked, mut encodings) = (None::<u64>, false, 0);
        let (mut upgrades, mut to_websocket) = (false, false);
        let mut worst = (Class::Compliant, "-");
        let mut found = |class: Class, reason: &'static str| {
            if class > worst.0 {
                worst = (class, reason);
            }
        };
        for header in self.headers {
            let value = header.value.trim_ascii();
            match header.name.len() {
                4 if header.name.eq_ignore_ascii_case("host") => {
                    let host = std::str::from_utf8(value).map_err(|_| Refusal::BadRequest)?;
                    if self.host.replace(host).is_some() || !is_authority(host) {
                        return Err(Refusal::BadRequest);
                    }
                }
                14 if header.name.eq_ignore_ascii_case("content-length") => {
                    let Some(number) = digits(value) else {
                        found(Class::Severe, "BadContentLength");
                        continue;
                    };
                    match length.replace(number) {
                        Some(before) if before == number => found(Class::Ambiguous, "DuplicateContentLength"),
                        Some(_) => found(Class::Severe, "MultipleContentLength"),
                        None => {}
                    }
                }
                17 if header.name.eq_ignore_ascii_case("transfer-encoding") => {
                    encodings += 1;
                    if value.eq_ignore_ascii_case(b"chunked") {
                        if chunked {
                            found(Class::Ambiguous, "MultipleTransferEncodingChunked");
                        }
                        chunked = true;
                    } else if value.eq_ignore_ascii_case(b"identity") {
                        found(Class::Ambiguous, "UndefinedTransferEncodingSemantics");
                    } else if value.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-, ".contains(byte)) {
                        return Err(Refusal::NotImplemented);
                    } else {
                        found(Class::Severe, "BadTransferEncoding");
                    }
                }
                // Servers that take `_` for `-` would read a length here.
                14 | 17 if is_disguised(header.name) => found(Class::Ambiguous, "SuspiciousHeader"),
                10 if header.name.eq_ignore_ascii_case("connection") => {
                    for token in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                        if token.eq_ignore_ascii_case(b"close") {
                            self.keep = false;
                        } else if token.eq_ignore_ascii_case(b"keep-alive") && !self.modern {
                            self.keep = true;
                        } else if token.eq_ignore_ascii_case(b"upgrade") {
                            upgrades = true;
                        } else if !token.eq_ignore_ascii_case(b"keep-alive") {
                            self.names_more = true;
                        }
                    }
                }
                7 if header.name.eq_ignore_ascii_case("upgrade") => {
                    to_websocket = value.eq_ignore_ascii_case(b"websocket");
                }
                _ => {}
            }
            if header.value.contains(&0) || header.value.contains(&b'\r') {
                found(Class::Severe, "BadHeader");
            }
        }
        let bodiless = matches!(self.method, "GET" | "HEAD");
        match (chunked, length) {
            (true, Some(_)) => found(Class::Ambiguous, "BothTeClPresent"),
            (true, None) if bodiless => found(Class::Ambiguous, "UndefinedTransferEncodingSemantics"),
            (false, Some(0)) if bodiless => found(Class::Acceptable, "GetHeadZeroContentLength"),
            (false, Some(_)) if bodiless => found(Class::Acceptable, "UndefinedContentLengthSemantics"),
            _ => {}
        }
        if encodings > 0 && !self.modern {
            // HTTP/1.0 knows no chunks: a server of that version would read the length.
            found(Class::Severe, "BadTransferEncoding");
        }
        (self.class, self.reason) = worst;
        self.body = match (chunked, length) {
            (true, _) => Body::Chunked(Chunks::default()),
            (false, Some(length)) if length > 0 => Body::Length(length),
            (false, _) => Body::None,
        };
        self.websocket =
            upgrades && to_websocket && self.modern && self.method == "GET" && self.body == Body::None;
        Ok(())
    }

    /// The values of a header.
    pub fn values(&self, name: &str) -> impl Iterator<Item = &'b [u8]> {
        self.headers
            .iter()
            .filter(move |header| header.name.eq_ignore_ascii_case(name))
            .map(|header| header.value)
    }

    /// The host without its port.
    pub fn host_name(&self) -> &'b str {
        self.host.map_or("", host_name)
    }

    /// The value of a cookie.
    pub fn cookie(&self, name: &str) -> Option<&'b str> {
        self.values("cookie").filter_map(|value| std::str::from_utf8(value).ok()).find_map(|value| {
            value
                .split(';')
                .filter_map(|pair| pair.trim().split_once('='))
                .find(|pair| pair.0 == name)
                .map(|pair| pair.1)
        })
    }
}

impl Request for Head<'_, '_> {
    fn host(&self) -> &[u8] {
        self.host_name().as_bytes()
    }

    fn path(&self) -> &[u8] {
        self.path.as_bytes()
    }

    fn query(&self) -> &[u8] {
        self.query.unwrap_or_default().as_bytes()
    }

    fn method(&self) -> &[u8] {
        self.method.as_bytes()
    }

    fn source(&self) -> IpAddr {
        self.source
    }

    fn any_header(&self, name: &str, found: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        self.values(name).any(found)
    }
}

/// An authority without its port; an IPv6 address keeps its brackets.
pub fn host_name(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    }
}

/// Characters that an authority may have; user information it may not.
pub fn is_authority(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~:[]%!$&'()*+,;=".contains(&byte))
}

fn digits(value: &[u8]) -> Option<u64> {
    let plain = !value.is_empty() && value.len() <= 18 && value.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(value).ok().filter(|_| plain)?.parse().ok()
}

fn is_disguised(name: &str) -> bool {
    let plain = |wanted: &str| {
        name.bytes().zip(wanted.bytes()).all(|(have, want)| {
            have.eq_ignore_ascii_case(&want) || (want == b'-' && !have.is_ascii_alphanumeric())
        })
    };
    match name.len() {
        14 => plain("content-length"),
        17 => plain("transfer-encoding"),
        _ => false,
    }
}

#[cfg(test)]
#[path = "head_tests.rs"]
mod tests;
