//! One request of an HTTP/2 client, and its exchange with an HTTP/1.1 target over a connection of its own.

use super::super::access_log::{Entry, Report, Spoken};
use super::super::clock::{TimedOut, Watch};
use super::super::counters::add;
use super::super::http::{
    Answer, Body, Chunks, Class, Connection, Fault, Forwarding, Head, MAX_HEADERS, MAX_INTERIM,
    MAX_REQUEST_LINE, MAX_RESPONSE_HEAD, Plan, Refusal, entry, fits, is_authority, obtain, plan, translate,
    write_all,
};
use super::super::tables::{Outstanding, Table};
use super::body::{Ended, FromFirst, Out, poll_fill, whole};
use super::convert::{headers_of, response_of};
use super::front::Connected;
use super::second::to_second;
use super::sessions::Place;
use super::upload::Upload;
use bytes::{Buf, Bytes};
use gantry_decide::routing::config::ProtocolVersion;
use http::request::Parts;
use http::{Request, Response};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use httparse::Header;
use hyper::body::Incoming;
use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use tokio::io::AsyncWriteExt;
use tokio::time::Instant;

/// Counts and logs a request when its answer is through, or given up.
pub(super) struct Ending {
    pub shared: Rc<Connected>,
    pub table: Arc<Table>,
    entry: RefCell<Option<Entry>>,
    pub report: RefCell<Report>,
    pub under_way: RefCell<Option<Outstanding>>,
    /// On the connection to an HTTP/2 target.
    pub place: RefCell<Option<Place>>,
    /// The request's body, to an HTTP/2 target.
    pub upload: RefCell<Option<Rc<Upload>>>,
}

impl Ended for Rc<Ending> {
    fn moved(&self, bytes: u64) {
        self.shared.touch();
        self.report.borrow_mut().sent_bytes += bytes;
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        let Connected { client, worker, active, .. } = &*self.shared;
        active.set(active.get().saturating_sub(1));
        self.shared.touch();
        let mut report = self.report.borrow_mut();
        if let Some(upload) = self.upload.take() {
            report.received_bytes += upload.bytes.get();
        }
        if let (Some(target), Some(status)) = (&*self.under_way.borrow(), report.target_status) {
            target.count(status >= 500);
        }
        add(&self.table.balanced.counters.processed_bytes, report.received_bytes + report.sent_bytes);
        if report.status == 0 {
            // The client did not wait for an answer.
            report.status = 460;
            self.table.balanced.counters.answered(460);
        }
        if let Some(entry) = self.entry.take() {
            entry.log(&self.table, worker.logs.as_ref(), client, &report);
        }
    }
}

/// Answers a request.
pub async fn answer(request: Request<Incoming>, table: Arc<Table>, shared: Rc<Connected>) -> Response<Out> {
    let begun = Instant::now();
    shared.active.set(shared.active.get() + 1);
    shared.touch();
    let ending = Rc::new(Ending {
        shared: shared.clone(),
        table: table.clone(),
        entry: RefCell::default(),
        report: RefCell::default(),
        under_way: RefCell::default(),
        place: RefCell::default(),
        upload: RefCell::default(),
    });
    let (parts, incoming) = request.into_parts();
    let mut cookie = Vec::new();
    let headers = headers_of(&parts.headers, &mut cookie);
    let client = &shared.client;
    let logged = table.attributes.access_logs.is_some() && shared.worker.logs.is_some();
    let head = match head_of(&parts, &headers, &incoming, client.peer.ip()) {
        Ok(head) => head,
        Err(refusal) => {
            let entry = logged.then(|| Entry { spoken: Spoken::Http2, ..Entry::refused(client, begun) });
            *ending.entry.borrow_mut() = entry;
            return own(&Answer::error(refusal.status()), &ending, true);
        }
    };
    let mut text = Vec::with_capacity(1024);
    let mut planned = plan(&head, &table, client, shared.worker.random(), &mut text);
    if logged {
        let entry = planned.complete(entry(&head, client, table.port, begun), &text);
        *ending.entry.borrow_mut() = Some(entry);
    }
    let to_head = head.method == "HEAD";
    match planned.plan {
        Plan::Answer(answer) => own(&answer, &ending, !to_head),
        Plan::Forward(forwarding) => {
            add(&forwarding.group.counters.requests, 1);
            ending.report.borrow_mut().group = Some(forwarding.group.arn.clone());
            let forwarded = match forwarding.service.version {
                ProtocolVersion::Http1 => to_first(forwarding, text, incoming, &ending).await,
                ProtocolVersion::Http2 | ProtocolVersion::Grpc => {
                    to_second(forwarding, text, incoming, &ending).await
                }
            };
            forwarded.unwrap_or_else(|status| own(&Answer::error(status), &ending, !to_head))
        }
    }
}

/// An answer of ours.
fn own(answer: &Answer, ending: &Ending, body: bool) -> Response<Out> {
    ending.table.balanced.counters.answered(answer.status);
    let mut text = Vec::new();
    answer.write(&mut text, true, false, ending.table.listener.server_header);
    let mut response: Response<Out> = response_of(&text).unwrap_or_default();
    if body {
        *response.body_mut() = Out::Full(Bytes::from(answer.body.clone()));
    }
    let mut report = ending.report.borrow_mut();
    (report.status, report.sent_bytes) = (answer.status, answer.body.len() as u64);
    response
}

/// The request's head as rules and targets of HTTP/1.1 see it. Ambiguity is not possible here: lengths are counted,
/// and characters were checked when the frames were read.
fn head_of<'h, 'b>(
    parts: &'b Parts,
    headers: &'h [Header<'b>],
    body: &Incoming,
    source: std::net::IpAddr,
) -> Result<Head<'h, 'b>, Refusal> {
    let method = parts.method.as_str();
    if method.len() + parts.uri.path_and_query().map_or(0, |url| url.as_str().len()) > MAX_REQUEST_LINE {
        return Err(Refusal::UriTooLong);
    }
    if headers.len() > MAX_HEADERS || !headers.iter().all(fits) {
        return Err(Refusal::BadRequest);
    }
    if matches!(method, "TRACE" | "CONNECT") {
        return Err(Refusal::MethodNotAllowed);
    }
    let host = parts.uri.authority().map(|authority| authority.as_str());
    let host =
        host.or_else(|| parts.headers.get(http::header::HOST)?.to_str().ok()).ok_or(Refusal::BadRequest)?;
    if !is_authority(host) {
        return Err(Refusal::BadRequest);
    }
    let length = parts.headers.get(http::header::CONTENT_LENGTH).map(|value| {
        value.to_str().ok().and_then(|text| text.parse::<u64>().ok()).ok_or(Refusal::BadRequest)
    });
    let body = match length.transpose()? {
        Some(0) => Body::None,
        Some(length) => Body::Length(length),
        None if body.is_end_stream() => Body::None,
        None => Body::Chunked(Chunks::default()),
    };
    Ok(Head {
        length: 0,
        method,
        modern: true,
        http2: true,
        path: parts.uri.path(),
        query: parts.uri.query(),
        host: Some(host),
        host_header: None,
        headers,
        body,
        class: Class::Compliant,
        reason: "-",
        keep: true,
        websocket: false,
        names_more: true,
        source,
    })
}

/// Sends a request to an HTTP/1.1 target and gives its answer, the body of which is still to come.
///
/// # Errors
/// With the status to answer.
async fn to_first(
    mut forwarding: Forwarding,
    text: Vec<u8>,
    incoming: Incoming,
    ending: &Rc<Ending>,
) -> Result<Response<Out>, u16> {
    let (worker, limit) = (&ending.shared.worker, ending.table.attributes.idle_timeout);
    let mut incoming = Some(incoming);
    loop {
        let (connection, outstanding) = obtain(&mut forwarding, worker).await?;
        *ending.under_way.borrow_mut() = Some(outstanding);
        ending.report.borrow_mut().target = Some(forwarding.target.address);
        let reused = connection.reused;
        let connection = Rc::new(RefCell::new(connection));
        let watch = Rc::new(Watch::new(limit));
        let body = match forwarding.body {
            Body::None => None,
            _ => incoming.take(),
        };
        let chunked = matches!(forwarding.body, Body::Chunked(_));
        let sent = Instant::now();
        let mut send: Option<Pin<Box<dyn Future<Output = bool>>>> = match body {
            None => None,
            Some(body) => Some(Box::pin(send(
                connection.clone(),
                text.clone(),
                body,
                chunked,
                watch.clone(),
                ending.clone(),
            ))),
        };
        let only_head = send.is_none();
        let result = {
            let receive = async {
                if only_head {
                    // A target that takes no more may have answered.
                    let _ = write_all(&mut Half(connection.clone()), &text, &watch).await;
                }
                receive(&connection, &forwarding, ending, &watch).await
            };
            let mut receive = pin!(receive);
            let both = poll_fn(|context| {
                if let Some(sending) = &mut send
                    && let Poll::Ready(fine) = sending.as_mut().poll(context)
                {
                    send = None;
                    // A target that takes no more may have answered; a client that breaks off has not asked.
                    if !fine {
                        return Poll::Ready(Err(Failure::Client));
                    }
                }
                receive.as_mut().poll(context)
            });
            watch.guard(limit, both).await
        };
        let (status, keep, out) = match result {
            Ok(Ok(received)) => received,
            Ok(Err(Failure::Nothing)) if reused && forwarding.replayable => continue,
            Ok(Err(Failure::Nothing | Failure::Bad)) => return Err(502),
            Ok(Err(Failure::Client)) => return Err(400),
            Err(TimedOut) => return Err(if send.is_none() { 504 } else { 408 }),
        };
        let mut response: Response<Out> = response_of(&out.0).ok_or(502_u16)?;
        answered(ending, &forwarding, status, sent);
        let at_once = if send.is_none() { whole(&out.1, &mut connection.borrow_mut().buffer) } else { None };
        *response.body_mut() = if let Some(bytes) = at_once {
            ending.moved(bytes.len() as u64);
            if let Some(connection) = Rc::into_inner(connection).filter(|_| keep) {
                connection.into_inner().put();
            }
            Out::Full(bytes)
        } else {
            let mut rest = FromFirst::new(connection, out.1, limit, Box::new(ending.clone()));
            (rest.send, rest.keep) = (send, keep);
            Out::First(Box::new(rest))
        };
        return Ok(response);
    }
}

enum Failure {
    /// The target closed without a word.
    Nothing,
    Bad,
    /// The client broke off its request.
    Client,
}

/// Counts a target's answer.
pub(super) fn answered(ending: &Ending, forwarding: &Forwarding, status: u16, sent: Instant) {
    let now = Instant::now();
    forwarding.group.counters.answered(status, now - sent);
    let mut report = ending.report.borrow_mut();
    (report.status, report.target_status) = (status, Some(status));
    (report.sent, report.answered) = (Some(sent), Some(now));
}

/// Sends head and body; false when the client breaks off.
async fn send(
    connection: Rc<RefCell<Connection>>,
    head: Vec<u8>,
    mut body: Incoming,
    chunked: bool,
    watch: Rc<Watch>,
    ending: Rc<Ending>,
) -> bool {
    let mut to = Half(connection);
    if write_all(&mut to, &head, &watch).await.is_err() {
        return true;
    }
    let mut piece = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return false };
        let Ok(data) = frame.into_data() else { continue };
        if data.is_empty() {
            continue;
        }
        watch.touch();
        ending.shared.touch();
        ending.report.borrow_mut().received_bytes += data.len() as u64;
        piece.clear();
        if chunked {
            piece.extend_from_slice(format!("{:x}\r\n", data.len()).as_bytes());
        }
        piece.extend_from_slice(&data);
        if chunked {
            piece.extend_from_slice(b"\r\n");
        }
        if let Err(Fault::Sink | Fault::Source | Fault::Malformed(_)) =
            write_all(&mut to, &piece, &watch).await
        {
            return true;
        }
    }
    if chunked {
        // Whether the target takes the end is told by its answer.
        let _ = write_all(&mut to, b"0\r\n\r\n", &watch).await;
    }
    let _ = to.flush().await;
    true
}

/// Reads the answer's head: the status, whether the connection can be kept, the head for the client, the body.
async fn receive(
    connection: &Rc<RefCell<Connection>>,
    forwarding: &Forwarding,
    ending: &Ending,
    watch: &Watch,
) -> Result<(u16, bool, (Vec<u8>, Body)), Failure> {
    let (mut out, mut interim) = (Vec::with_capacity(1024), 0);
    loop {
        let translated = {
            let buffer = &connection.borrow().buffer;
            match buffer.is_empty() {
                true => None,
                false => {
                    out.clear();
                    let (table, client) = (&ending.table, &ending.shared.client);
                    translate(buffer, forwarding, table, client, true, &mut out).map_err(|_| Failure::Bad)?
                }
            }
        };
        if let Some(translated) = translated {
            connection.borrow_mut().buffer.advance(translated.length);
            if translated.status < 200 {
                interim += 1;
                if interim > MAX_INTERIM {
                    return Err(Failure::Bad);
                }
                continue;
            }
            return Ok((translated.status, translated.keep_target, (out, translated.body)));
        }
        if connection.borrow().buffer.len() > MAX_RESPONSE_HEAD {
            return Err(Failure::Bad);
        }
        match poll_fn(|context| poll_fill(&mut connection.borrow_mut(), context)).await {
            Ok(0) | Err(_) if connection.borrow().buffer.is_empty() => return Err(Failure::Nothing),
            Ok(0) | Err(_) => return Err(Failure::Bad),
            Ok(_) => watch.touch(),
        }
    }
}

/// Who writes to a target's connection while its answer is read, within one task.
struct Half(Rc<RefCell<Connection>>);

impl tokio::io::AsyncWrite for Half {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0.borrow_mut().stream).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut std::task::Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.borrow_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut std::task::Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.borrow_mut().stream).poll_shutdown(context)
    }
}
