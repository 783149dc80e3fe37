//! What becomes of a request: an answer of ours, or the target it goes to and the head it goes with.

use super::super::access_log::{Entry, Spoken};
use super::super::clock;
use super::super::tables::{Group, Outstanding, Service, Table, Target};
use super::answer::Answer;
use super::body::Body;
use super::exchange::Client;
use super::head::{Class, Head, Refusal};
use super::rewrite::Rewritten;
use super::text::{push_decimal, push_header, push_hex};
use gantry_decide::routing::config::{Action, Forward, ForwardedFor, ProtocolVersion, Stickiness};
use gantry_decide::routing::{Asked, Matched, Ticket, choose_group};
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Addresses that `X-Forwarded-For` may hold, as documented for status 463.
const MAX_FORWARDERS: usize = 30;

/// What is done with a request, and by which rule.
#[derive(Debug)]
pub struct Planned {
    pub plan: Plan,
    /// As access logs have it: 0 for the default rule, -1 when the request came to none.
    pub priority: i64,
    /// The action's type; empty for none.
    pub action: &'static str,
    pub rewritten: Rewritten,
}

impl Planned {
    /// Adds to an access log's entry what became of its request. `head` is as the target gets it.
    pub fn complete(&mut self, entry: Entry, head: &[u8]) -> Entry {
        let trace = trace_of(head).map(str::to_owned);
        let (redirect, spoken) = match &self.plan {
            Plan::Answer(answer) => (answer.location.clone(), entry.spoken),
            Plan::Forward(Forwarding { service, .. }) if service.version == ProtocolVersion::Grpc => {
                (None, Spoken::Grpc)
            }
            Plan::Forward(_) => (None, entry.spoken),
        };
        Entry {
            priority: self.priority,
            action: self.action,
            trace: trace.unwrap_or(entry.trace),
            redirect: redirect.unwrap_or_default(),
            spoken,
            rewritten: std::mem::take(&mut self.rewritten),
            ..entry
        }
    }
}

#[derive(Debug)]
pub enum Plan {
    Answer(Answer),
    Forward(Forwarding),
}

/// A request on its way to a target.
#[derive(Debug)]
pub struct Forwarding {
    pub group: Arc<Group>,
    pub service: Arc<Service>,
    pub target: Arc<Target>,
    pub body: Body,
    /// Neither connection is used again.
    pub close: bool,
    /// The answer has no body.
    pub to_head: bool,
    pub modern: bool,
    pub websocket: bool,
    /// It may be sent a second time when a kept connection turns out to be dead.
    pub replayable: bool,
    /// The application's cookie is in the request (`app_cookie` stickiness).
    pub app_cookie: bool,
    /// The client gets a group's cookie, for so long.
    pub group_cookie: Option<Duration>,
}

/// Decides on a request, and writes the head that its target gets into `out`.
pub fn plan(head: &Head<'_, '_>, table: &Table, client: &Client, random: u64, out: &mut Vec<u8>) -> Planned {
    let attributes = &table.attributes;
    let refused = |status| Planned {
        plan: Plan::Answer(Answer::error(status)),
        priority: -1,
        action: "",
        rewritten: Rewritten::default(),
    };
    if head.class.refused(attributes.desync) {
        return refused(400);
    }
    if forwarders(head) > MAX_FORWARDERS {
        return refused(Refusal::TooManyForwarders.status());
    }
    let matched = table.rules.find(head);
    let mut rewritten = Rewritten::default();
    let (plan, action) = match matched.action {
        Action::FixedResponse(fixed) => (
            Plan::Answer(Answer {
                status: fixed.status,
                content_type: fixed.content_type.clone().unwrap_or_else(|| "text/plain".to_owned()),
                location: None,
                body: fixed.body.clone(),
            }),
            "fixed-response",
        ),
        Action::Redirect(redirect) => {
            let asked = Asked {
                protocol: client.scheme(),
                host: head.host_name(),
                port: table.port,
                path: head.path,
                query: head.query.unwrap_or_default(),
            };
            (Plan::Answer(Answer::redirect(redirect.permanent, redirect.location(asked))), "redirect")
        }
        Action::Forward(forward) => (
            match rewritten
                .take(head, matched.transforms)
                .and_then(|()| route(head, table, client, &matched, forward, random))
            {
                Ok((group, service, target, app_cookie, group_cookie)) => {
                    write_head(head, table, &rewritten, client, random, out);
                    Plan::Forward(Forwarding {
                        group,
                        service,
                        target,
                        body: head.body.clone(),
                        close: head.class.closes(attributes.desync),
                        to_head: head.method == "HEAD",
                        modern: head.modern,
                        websocket: head.websocket,
                        replayable: head.body == Body::None
                            && matches!(head.method, "GET" | "HEAD" | "OPTIONS" | "PUT" | "DELETE"),
                        app_cookie,
                        group_cookie,
                    })
                }
                Err(status) => Plan::Answer(Answer::error(status)),
            },
            "forward",
        ),
    };
    Planned { plan, priority: i64::from(matched.priority), action, rewritten }
}

/// What an access log says of a request that was understood.
pub fn entry(head: &Head<'_, '_>, client: &Client, port: u16, begun: Instant) -> Entry {
    let first = |name: &str| {
        head.values(name).next().map(|value| String::from_utf8_lossy(value).into_owned()).unwrap_or_default()
    };
    let query = head.query.map(|query| format!("?{query}")).unwrap_or_default();
    let version = match (head.http2, head.modern) {
        (true, _) => "HTTP/2.0",
        (false, true) => "HTTP/1.1",
        (false, false) => "HTTP/1.0",
    };
    let host =
        if head.host_name().is_empty() { client.local.ip().to_string() } else { head.host_name().to_owned() };
    Entry {
        request: format!("{} {}://{host}:{port}{}{query} {version}", head.method, client.scheme(), head.path),
        user_agent: first("user-agent"),
        spoken: match (head.http2, head.websocket) {
            (true, _) => Spoken::Http2,
            (false, true) => Spoken::WebSocket,
            (false, false) => Spoken::Http,
        },
        trace: first("x-amzn-trace-id"),
        class: head.class.as_str(),
        reason: head.reason,
        ..Entry::refused(client, begun)
    }
}

/// The trace id in a head that was written for a target.
fn trace_of(head: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(head).ok()?;
    text.split_once("\r\nX-Amzn-Trace-Id: ")?.1.split("\r\n").next()
}

type Route = (Arc<Group>, Arc<Service>, Arc<Target>, bool, Option<Duration>);

/// The target of a forward.
///
/// # Errors
/// With the status to answer when there is none.
fn route(
    head: &Head<'_, '_>,
    table: &Table,
    client: &Client,
    matched: &Matched<'_>,
    forward: &Forward,
    random: u64,
) -> Result<Route, u16> {
    // From other sites browsers send the twin alone.
    let ticket = |name: &str| {
        let read = |name: &str| head.cookie(name).and_then(|text| Ticket::read(text, clock::now()));
        read(name).or_else(|| read(&format!("{name}CORS")))
    };
    let stuck = forward.stickiness.and_then(|_| ticket("AWSALBTG")).and_then(|ticket| {
        (0..forward.groups.len()).find(|place| {
            table.group(matched.slot, *place).is_some_and(|group| group.ticket == ticket.holder)
        })
    });
    let place = stuck.or_else(|| choose_group(forward, random)).ok_or(503_u16)?;
    let group = table.group(matched.slot, place).ok_or(503_u16)?;
    let service = group.service.load_full().of_zone(|| table.zone(client.local));
    if service.is_empty() {
        return Err(503);
    }
    let is_grpc = || head.values("content-type").any(|value| value.starts_with(b"application/grpc"));
    let fits = match service.version {
        ProtocolVersion::Http1 => !head.http2 || !is_grpc(),
        ProtocolVersion::Http2 => head.http2,
        ProtocolVersion::Grpc => head.http2 && head.method == "POST",
    };
    if !fits {
        return Err(464);
    }
    let app_cookie = match service.stickiness() {
        Some(Stickiness::AppCookie { name, .. }) => head.cookie(name).is_some(),
        _ => false,
    };
    let sticky = match service.stickiness() {
        Some(Stickiness::LbCookie(_)) => ticket("AWSALB"),
        Some(Stickiness::AppCookie { .. }) if app_cookie => ticket("AWSALBAPP-0"),
        _ => None,
    };
    let target = sticky
        .and_then(|ticket| service.sticky(ticket))
        .or_else(|| service.choose(&group.turn, random.rotate_left(32)))
        .ok_or(503_u16)?
        .clone();
    Ok((group.clone(), service, target, app_cookie, forward.stickiness.filter(|_| stuck.is_none())))
}

/// Addresses in `X-Forwarded-For`.
fn forwarders(head: &Head<'_, '_>) -> usize {
    head.values("x-forwarded-for")
        .map(|value| value.split(|byte| *byte == b',').filter(|part| !part.trim_ascii().is_empty()).count())
        .sum()
}

/// Writes the head that a target gets.
fn write_head(
    head: &Head<'_, '_>,
    table: &Table,
    rewritten: &Rewritten,
    client: &Client,
    random: u64,
    out: &mut Vec<u8>,
) {
    let attributes = &table.attributes;
    out.extend_from_slice(head.method.as_bytes());
    out.push(b' ');
    rewritten.write_url(head, out);
    out.extend_from_slice(b" HTTP/1.1\r\nHost: ");
    rewritten.write_host(head, table, client, out);
    out.extend_from_slice(b"\r\n");
    let of_tls = client.tls.as_ref().map(|tls| tls.headers(table)).unwrap_or_default();
    let mut trace: Option<&[u8]> = None;
    for header in head.headers {
        let name = header.name;
        // A client cannot tell these of itself.
        if of_tls.iter().any(|(ours, _)| name.eq_ignore_ascii_case(ours)) {
            continue;
        }
        match name.len() {
            // Written anew below, or only for the connection that it came by.
            2 if name.eq_ignore_ascii_case("te") => continue,
            4 if name.eq_ignore_ascii_case("host") => continue,
            7 if name.eq_ignore_ascii_case("upgrade") => continue,
            10 if name.eq_ignore_ascii_case("connection") || name.eq_ignore_ascii_case("keep-alive") => {
                continue;
            }
            14 if name.eq_ignore_ascii_case("content-length") => continue,
            15 if name.eq_ignore_ascii_case("x-amzn-trace-id") => {
                trace = Some(header.value);
                continue;
            }
            15 if name.eq_ignore_ascii_case("x-forwarded-for")
                && attributes.forwarded_for != ForwardedFor::Preserve =>
            {
                continue;
            }
            16 if name.eq_ignore_ascii_case("x-forwarded-port") => continue,
            16 if name.eq_ignore_ascii_case("proxy-connection") => continue,
            17 if name.eq_ignore_ascii_case("x-forwarded-proto") => continue,
            17 if name.eq_ignore_ascii_case("transfer-encoding") => continue,
            _ => {}
        }
        if attributes.drop_invalid_headers
            && !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        {
            continue;
        }
        if head.names_more && is_named_by_connection(head, name) {
            continue;
        }
        push_header(out, name, header.value);
    }
    match &head.body {
        Body::Length(length) => {
            out.extend_from_slice(b"Content-Length: ");
            push_decimal(out, *length);
            out.extend_from_slice(b"\r\n");
        }
        Body::Chunked(_) => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
        Body::None if !matches!(head.method, "GET" | "HEAD" | "OPTIONS" | "DELETE") => {
            out.extend_from_slice(b"Content-Length: 0\r\n");
        }
        Body::None | Body::Close => {}
    }
    if attributes.forwarded_for == ForwardedFor::Append {
        out.extend_from_slice(b"X-Forwarded-For: ");
        for value in head.values("x-forwarded-for") {
            out.extend_from_slice(value);
            out.extend_from_slice(b", ");
        }
        let brackets = attributes.forwarded_client_port && client.shown.contains(':');
        out.extend_from_slice(if brackets { b"[" } else { b"" });
        out.extend_from_slice(client.shown.as_bytes());
        out.extend_from_slice(if brackets { b"]" } else { b"" });
        if attributes.forwarded_client_port {
            out.push(b':');
            push_decimal(out, client.peer.port().into());
        }
        out.extend_from_slice(b"\r\n");
    }
    push_header(out, "X-Forwarded-Proto", client.scheme().as_bytes());
    out.extend_from_slice(b"X-Forwarded-Port: ");
    push_decimal(out, table.port.into());
    out.extend_from_slice(b"\r\n");
    write_trace(out, trace, random);
    for (name, value) in of_tls {
        if let Some(value) = value {
            push_header(out, name, value.as_bytes());
        }
    }
    if head.websocket {
        out.extend_from_slice(b"Connection: upgrade\r\nUpgrade: websocket\r\n");
    }
    if head.class == Class::Ambiguous && head.class.closes(attributes.desync) {
        out.extend_from_slice(b"Connection: close\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

/// Whether `Connection` names the header, which then is for this connection alone.
fn is_named_by_connection(head: &Head<'_, '_>, name: &str) -> bool {
    head.values("connection").any(|value| {
        value
            .split(|byte| *byte == b',')
            .any(|token| token.trim_ascii().eq_ignore_ascii_case(name.as_bytes()))
    })
}

/// `X-Amzn-Trace-Id`: a root of our own, or the client's with ourselves before it.
fn write_trace(out: &mut Vec<u8>, trace: Option<&[u8]>, random: u64) {
    let seconds = (clock::now().as_millis() / 1000).cast_unsigned();
    // 96 bits, of which 64 are random and the rest follows from them: an id, not a secret.
    let more = random.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    let trace = trace.filter(|trace| trace.windows(5).any(|part| part == b"Root="));
    out.extend_from_slice(b"X-Amzn-Trace-Id: ");
    out.extend_from_slice(if trace.is_some() { b"Self=1-" } else { b"Root=1-" });
    push_hex::<8>(out, seconds);
    out.push(b'-');
    push_hex::<16>(out, random);
    push_hex::<8>(out, more);
    if let Some(trace) = trace {
        out.push(b';');
        out.extend_from_slice(trace);
    }
    out.extend_from_slice(b"\r\n");
}

impl Forwarding {
    /// Another target for a request that could not be handed to these; false when there is none.
    pub fn reroute(&mut self, random: u64, refused: &[Arc<Target>]) -> bool {
        match self.service.other(&self.group.turn, random, refused) {
            Some(target) => self.target = target.clone(),
            None => return false,
        }
        true
    }

    /// The cookies that the answer carries, as whole header lines. `app_cookie_set`: the target's answer sets the
    /// application's cookie.
    pub fn cookies(&self, out: &mut Vec<u8>, client: &Client, app_cookie_set: bool) {
        if let Some(duration) = self.group_cookie {
            cookie(out, "AWSALBTG", self.group.ticket, duration, client);
        }
        match self.service.stickiness() {
            Some(Stickiness::LbCookie(duration)) => {
                cookie(out, "AWSALB", self.target.ticket, *duration, client)
            }
            Some(Stickiness::AppCookie { duration, .. }) if self.app_cookie || app_cookie_set => {
                cookie(out, "AWSALBAPP-0", self.target.ticket, *duration, client);
            }
            _ => {}
        }
    }

    /// Counts the request as one that its target works on, until the guard is dropped.
    pub fn enter(&self) -> Outstanding {
        Target::enter(&self.target)
    }
}

/// A stickiness cookie, and its twin for requests from other sites.
fn cookie(out: &mut Vec<u8>, name: &str, holder: u64, duration: Duration, client: &Client) {
    let until = clock::now() + duration;
    let value = Ticket { holder, until }.text();
    let expires = super::answer::http_date(until.as_millis() / 1000);
    let _ = write!(out, "Set-Cookie: {name}={value}; Expires={expires}; Path=/\r\n");
    let secure = if client.scheme() == "https" { "; Secure" } else { "" };
    if name != "AWSALBAPP-0" {
        let _ = write!(
            out,
            "Set-Cookie: {name}CORS={value}; Expires={expires}; Path=/; SameSite=None{secure}\r\n"
        );
    }
}
