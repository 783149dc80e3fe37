//! A client's HTTP/1.1 connection: requests one after the other, each with its exchange with a target. One task does
//! all of it; the connection to the target is read and written by the same task, so that nothing is handed over.

use super::super::access_log::{Entry, Report};
use super::super::certificate::ClientCertificate;
use super::super::clock::{TimedOut, Watch};
use super::super::counters::add;
use super::super::tables::{Door, Outstanding, Table, Target};
use super::super::worker::Worker;
use super::answer::Answer;
use super::body::Body;
use super::head::{self, MAX_HEAD, MAX_HEADERS};
use super::plan::{Forwarding, Plan, entry, plan};
use super::relay::{Fault, Io, PIECE, Shared, relay, relay_buffered, write_all};
use super::response::{self, translate};
use super::upstream::{ConnectError, Connection};
use arc_swap::ArcSwap;
use bytes::{Buf, BytesMut};
use gantry_decide::routing::config::{CertificateArn, ClientCertificates, TlsHeader};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::future::poll_fn;
use std::mem::{MaybeUninit, take};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Poll;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

/// Targets that a request is offered to when connections are refused: nothing was sent, so nothing is done twice.
const CONNECT_ATTEMPTS: usize = 3;
/// Interim answers (1xx) to one request. Targets send one or two; each more would have the client wait on.
pub const MAX_INTERIM: u32 = 16;
/// What is read of a refused request's rest, so that its sender reads the answer and not a reset.
const LINGER_BYTES: usize = 256 * 1024;
const LINGER_TIME: Duration = Duration::from_secs(2);

/// Who is connected, and how.
#[derive(Clone, Debug)]
pub struct Client {
    pub peer: SocketAddr,
    pub local: SocketAddr,
    /// The peer's address as `X-Forwarded-For` shows it.
    pub shown: String,
    pub tls: Option<Tls>,
    /// What logs know the connection by.
    pub trace: Trace,
}

/// What logs know a connection by: `TID_` and hexadecimal digits, the same in connection logs and in access logs.
#[derive(Clone, Copy, Debug)]
pub struct Trace(pub u64);

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TID_{:016x}", self.0)
    }
}

/// What a client's TLS handshake came to, in OpenSSL's words, as documented.
#[derive(Clone, Debug)]
pub struct Tls {
    pub version: &'static str,
    pub cipher: &'static str,
    /// The name that the client asked for.
    pub name: Option<String>,
    /// The certificate that it was shown.
    pub shown: Option<CertificateArn>,
    /// The protocols that it offered, to a listener that has some itself.
    pub offered: Vec<Vec<u8>>,
    /// What the client showed, where it was asked.
    pub certificate: Option<Arc<ClientCertificate>>,
}

impl Tls {
    /// The headers by which targets of a listener learn of it: names and values, none for what there is not.
    pub fn headers<'a>(&'a self, table: &'a Table) -> Vec<(&'a str, Option<&'a str>)> {
        type Part = fn(&ClientCertificate) -> &str;
        let mut headers = Vec::new();
        if table.attributes.tls_headers {
            headers.push((table.listener.name_of(TlsHeader::Version), Some(self.version)));
            headers.push((table.listener.name_of(TlsHeader::CipherSuite), Some(self.cipher)));
        }
        let told: &[(TlsHeader, Part)] = match table.client_certificates {
            ClientCertificates::Off => &[],
            ClientCertificates::Passthrough => &[(TlsHeader::ClientCertificate, |shown| &shown.chain)],
            ClientCertificates::Verify(_) => &[
                (TlsHeader::SerialNumber, |shown| &shown.serial),
                (TlsHeader::Issuer, |shown| &shown.issuer),
                (TlsHeader::Subject, |shown| &shown.subject),
                (TlsHeader::Validity, |shown| &shown.validity),
                (TlsHeader::Leaf, ClientCertificate::leaf),
            ],
        };
        let shown = self.certificate.as_deref();
        headers.extend(told.iter().map(|(header, part)| (table.listener.name_of(*header), shown.map(part))));
        headers
    }
}

impl Client {
    pub fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }
}

/// Which listener a connection came to.
#[derive(Clone, Debug)]
pub enum Entrance {
    /// A load balancer's own address.
    Own(Arc<Door>),
    /// The shared one: each request names its load balancer by its host.
    Shared(Hosts),
}

/// Doors by host name, in lower case.
pub type Hosts = Arc<ArcSwap<BTreeMap<String, Arc<Door>>>>;

impl Entrance {
    /// Whether both lead to the same.
    pub fn is(&self, other: &Entrance) -> bool {
        match (self, other) {
            (Entrance::Own(one), Entrance::Own(other)) => Arc::ptr_eq(one, other),
            (Entrance::Shared(one), Entrance::Shared(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }
}

/// Serves a connection until it ends.
pub async fn serve<S: Io>(stream: S, client: Client, entrance: Entrance, worker: &Worker) {
    let limit = match &entrance {
        Entrance::Own(door) => door.table.load().attributes.idle_timeout,
        Entrance::Shared(_) => Duration::from_secs(60),
    };
    let mut session = Session {
        stream,
        client,
        entrance,
        worker,
        input: BytesMut::new(),
        output: Vec::new(),
        request: Vec::new(),
        watch: Watch::new(limit),
        limit,
        begun: Instant::now(),
        report: Report::default(),
    };
    // Failures end a connection; what there is to say about them was said to the client, and counted.
    while session.request().await == Next::Request {}
}

struct Session<'w, S> {
    stream: S,
    client: Client,
    entrance: Entrance,
    worker: &'w Worker,
    /// Read from the client, and not yet used.
    input: BytesMut,
    /// For the client. This and the next are the worker's, and here while a request is under way.
    output: Vec<u8>,
    /// The head for the target.
    request: Vec<u8>,
    watch: Watch,
    limit: Duration,
    begun: Instant,
    /// How the request went, for access logs.
    report: Report,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Request,
    End,
}

/// A request that was understood, and what becomes of it.
struct Understood {
    table: Arc<Table>,
    plan: Plan,
    /// The connection may be kept.
    keep: bool,
    to_head: bool,
    bodiless: bool,
    /// For access logs, when there are any.
    entry: Option<Entry>,
}

/// How an exchange with a target ended.
#[derive(Debug)]
enum Outcome {
    Done {
        keep: bool,
    },
    /// The kept connection turned out to be dead before the target said anything.
    Dead,
    /// The target failed before anything was said to the client: the status to answer.
    Failed(u16),
    /// The client is gone, or was cut off in the middle of an answer.
    Lost,
}

impl<S: Io> Session<'_, S> {
    /// Serves the next request.
    async fn request(&mut self) -> Next {
        if self.input.is_empty() {
            // Whatever its capacity seems to be, it holds the memory of all that it ever held.
            self.input = BytesMut::new();
        }
        let refused = match self.read_head().await {
            Ok(()) => None,
            Err(Some(status)) => Some(status),
            Err(None) => return Next::End,
        };
        [self.output, self.request] = self.worker.take_buffers();
        // Of its own memory, which a connection that waits for a request does without.
        let next = Box::pin(self.respond(refused)).await;
        self.worker.give_back([take(&mut self.output), take(&mut self.request)]);
        next
    }

    /// Answers the request whose head was read, or refused with a status.
    async fn respond(&mut self, refused: Option<u16>) -> Next {
        if let Some(status) = refused {
            return self.refuse(status).await;
        }
        self.report = Report::default();
        let Understood { table, plan, keep, to_head, bodiless, entry } = match self.understand() {
            Ok(understood) => understood,
            Err(status) => return self.refuse(status).await,
        };
        let next = match plan {
            Plan::Answer(answer) => {
                table.balanced.counters.answered(answer.status);
                // A body that nobody reads would be taken for the next request.
                self.answer(&answer, keep && bodiless, !to_head, table.listener.server_header).await
            }
            Plan::Forward(forwarding) => self.forward(forwarding, &table, keep, to_head).await,
        };
        if let Some(entry) = entry {
            entry.log(&table, self.worker.logs.as_ref(), &self.client, &self.report);
        }
        next
    }

    /// Takes a head that is there in whole off the input, and decides what becomes of its request. Not a part of
    /// [`request`](Session::request): what it has on its stack is not kept for as long as a connection is.
    ///
    /// # Errors
    /// With the status to answer.
    fn understand(&mut self) -> Result<Understood, u16> {
        let read = Instant::now();
        let mut space = [const { MaybeUninit::uninit() }; MAX_HEADERS];
        let head = match head::read(&self.input, &mut space, self.client.peer.ip()) {
            Ok(Some(head)) => head,
            // Its end was there, so it is not incomplete but none.
            Ok(None) => return Err(400),
            Err(refusal) => return Err(refusal.status()),
        };
        let door = match &self.entrance {
            Entrance::Own(door) => Some(door.clone()),
            Entrance::Shared(doors) => doors.load().get(&head.host_name().to_ascii_lowercase()).cloned(),
        };
        let door = door.ok_or(404_u16)?;
        let table = door.table.load_full();
        self.limit = table.attributes.idle_timeout;
        let aged = read - self.begun > table.attributes.client_keep_alive;
        let keep = head.keep && !aged && !door.closed.load(Relaxed);
        add(&table.balanced.counters.requests, 1);
        let (to_head, bodiless) = (head.method == "HEAD", head.body == Body::None);
        let mut planned = plan(&head, &table, &self.client, self.worker.random(), &mut self.request);
        let logged = table.attributes.access_logs.is_some() && self.worker.logs.is_some();
        let entry =
            logged.then(|| planned.complete(entry(&head, &self.client, table.port, read), &self.request));
        let length = head.length;
        self.report.received_bytes = length as u64;
        self.input.advance(length);
        Ok(Understood { table, plan: planned.plan, keep, to_head, bodiless, entry })
    }

    /// Reads until a whole head is there.
    ///
    /// # Errors
    /// With the status to answer, or none when there is nobody to answer.
    async fn read_head(&mut self) -> Result<(), Option<u16>> {
        let Session { stream, input, watch, limit, worker, .. } = self;
        // From its first byte, a head gets one idle timeout in all, however slowly it drips.
        let mut seen = 0;
        let mut deadline = None;
        loop {
            while input.first().is_some_and(|byte| matches!(byte, b'\r' | b'\n')) {
                input.advance(1);
            }
            if head::find_end(input, seen) {
                return Ok(());
            }
            seen = input.len();
            if seen > head::MAX_REQUEST_LINE && !input[..head::MAX_REQUEST_LINE].contains(&b'\n') {
                return Err(Some(414));
            }
            if seen > MAX_HEAD {
                return Err(Some(400));
            }
            let left = match deadline {
                _ if seen == 0 => *limit,
                None => {
                    deadline = Some(Instant::now() + *limit);
                    *limit
                }
                Some(deadline) => deadline.saturating_duration_since(Instant::now()),
            };
            match watch.guard(left, worker.read(stream, input)).await {
                Ok(Ok(0) | Err(_)) => return Err(None),
                Ok(Ok(_)) => {}
                Err(TimedOut) => return Err((seen > 0).then_some(408)),
            }
        }
    }

    /// Answers a request that was not understood, and ends.
    async fn refuse(&mut self, status: u16) -> Next {
        let table = match &self.entrance {
            Entrance::Own(door) => Some(door.table.load_full()),
            Entrance::Shared(_) => None,
        };
        self.report = Report { received_bytes: self.input.len() as u64, ..Report::default() };
        let entry = Entry::refused(&self.client, Instant::now());
        if let Some(table) = &table {
            table.balanced.counters.answered(status);
        }
        let server = table.as_ref().is_none_or(|table| table.listener.server_header);
        let next = self.answer(&Answer::error(status), false, true, server).await;
        if let Some(table) = table {
            entry.log(&table, self.worker.logs.as_ref(), &self.client, &self.report);
        }
        next
    }

    async fn answer(&mut self, answer: &Answer, keep: bool, body: bool, server: bool) -> Next {
        self.output.clear();
        self.report.status = answer.status;
        answer.write(&mut self.output, keep, body, server);
        self.report.sent_bytes = self.output.len() as u64;
        let Session { stream, output, watch, limit, .. } = self;
        let written = watch.guard(*limit, async {
            write_all(stream, output, watch).await?;
            stream.flush().await.map_err(|_| Fault::Sink)
        });
        match written.await {
            Ok(Ok(())) if keep => Next::Request,
            Ok(Ok(())) => self.linger().await,
            _ => Next::End,
        }
    }

    /// Ends a connection on which the client may still be sending.
    async fn linger(&mut self) -> Next {
        let _ = self.stream.shutdown().await;
        let mut left = LINGER_BYTES;
        let reading = async {
            while left > 0 {
                self.input.clear();
                self.input.reserve(4096);
                match self.stream.read_buf(&mut self.input).await {
                    Ok(0) | Err(_) => return,
                    Ok(count) => left = left.saturating_sub(count),
                }
            }
        };
        let _ = tokio::time::timeout(LINGER_TIME, reading).await;
        Next::End
    }

    /// Hands a request to its target, or to another one when that cannot be reached.
    async fn forward(
        &mut self,
        mut forwarding: Forwarding,
        table: &Table,
        keep: bool,
        to_head: bool,
    ) -> Next {
        add(&forwarding.group.counters.requests, 1);
        self.report.group = Some(forwarding.group.arn.clone());
        loop {
            let (connection, outstanding) = match obtain(&mut forwarding, self.worker).await {
                Ok(obtained) => obtained,
                Err(status) => return self.fail(status, table, to_head).await,
            };
            self.report.target = Some(forwarding.target.address);
            let outcome = self.exchange(connection, &forwarding, table, keep).await;
            // What the client broke off says nothing of the target.
            match (&outcome, self.report.target_status) {
                (Outcome::Failed(500..), _) | (_, Some(500..)) => outstanding.count(true),
                (_, Some(_)) => outstanding.count(false),
                _ => {}
            }
            drop(outstanding);
            match outcome {
                Outcome::Done { keep: true } => return Next::Request,
                // Who asked for the end sends no more; who did not may be in the middle of it.
                Outcome::Done { keep: false } if !keep && self.input.is_empty() => return Next::End,
                Outcome::Done { keep: false } => return self.linger().await,
                Outcome::Dead => {}
                Outcome::Failed(status) => return self.fail(status, table, to_head).await,
                Outcome::Lost => return Next::End,
            }
        }
    }

    async fn fail(&mut self, status: u16, table: &Table, to_head: bool) -> Next {
        table.balanced.counters.answered(status);
        // What of the request's body was read is not known any more.
        self.answer(&Answer::error(status), false, !to_head, table.listener.server_header).await
    }

    /// Sends a request and brings the answer.
    async fn exchange(
        &mut self,
        mut connection: Connection,
        forwarding: &Forwarding,
        table: &Table,
        keep: bool,
    ) -> Outcome {
        let Session { stream, client, input, output, request, watch, limit, report, worker, .. } = self;
        let sent = Instant::now();
        let reused = connection.reused;
        let mut body = forwarding.body.clone();
        let (moved, received) = (Cell::new(0), Cell::new(0));
        // What the client has been told: nothing yet, or an answer's head.
        let committed: Cell<Option<(Instant, u16)>> = Cell::new(None);
        let body_sent = Cell::new(false);
        let result = {
            let near = RefCell::new(&mut *stream);
            let far = RefCell::new(&mut connection.stream);
            let buffer = &mut connection.buffer;
            // Sends the request, then looks out for the client's leaving. Never ends well: the answer does.
            let send = async {
                // The head, and what is there of the body, go in one packet.
                let count = body.take(input, |_| {}).map_err(Fault::Malformed)?;
                request.extend_from_slice(&input[..count]);
                input.advance(count);
                write_all(&mut Shared(&far), request, watch).await?;
                moved.set(count as u64);
                relay(&mut Shared(&near), input, &mut Shared(&far), &mut body, false, watch, &moved).await?;
                body_sent.set(true);
                // The next requests may come while this one is served; so many are read that one head has room.
                while input.len() < MAX_HEAD {
                    match worker.read(&mut Shared(&near), input).await {
                        Ok(0) | Err(_) => return Err(Fault::Source),
                        Ok(_) => {}
                    }
                }
                std::future::pending::<Result<(), Fault>>().await
            };
            let receive = async {
                let mut interim = 0;
                let translated = loop {
                    output.clear();
                    // What the head promises is kept: so nothing that changes later may decide on it.
                    let keep = keep && !forwarding.close && body_sent.get();
                    if !buffer.is_empty()
                        && let Some(translated) = translate(buffer, forwarding, table, client, keep, output)
                            .map_err(|_| Received::Bad)?
                    {
                        buffer.advance(translated.length);
                        if translated.status >= 200 || translated.status == 101 {
                            break translated;
                        }
                        interim += 1;
                        if interim > MAX_INTERIM {
                            return Err(Received::Bad);
                        }
                        write_all(&mut Shared(&near), output, watch)
                            .await
                            .map_err(|_| Received::ClientGone)?;
                        continue;
                    }
                    if buffer.len() > response::MAX_HEAD {
                        return Err(Received::Bad);
                    }
                    buffer.reserve(PIECE / 4);
                    match Shared(&far).read_buf(buffer).await {
                        Ok(0) | Err(_) if buffer.is_empty() => return Err(Received::Nothing),
                        Ok(0) | Err(_) => return Err(Received::Bad),
                        Ok(_) => watch.touch(),
                    }
                };
                let answered = Instant::now();
                forwarding.group.counters.answered(translated.status, answered - sent);
                committed.set(Some((answered, translated.status)));
                let mut body = translated.body.clone();
                // The head, and what is there of the body, go in one packet.
                if !translated.decode && !buffer.is_empty() {
                    let count = body.take(buffer, |_| {}).map_err(|_| Received::Cut)?;
                    output.extend_from_slice(&buffer[..count]);
                    buffer.advance(count);
                }
                received.set(output.len() as u64);
                write_all(&mut Shared(&near), output, watch).await.map_err(|_| Received::ClientGone)?;
                let (from, to) = (&mut Shared(&far), &mut Shared(&near));
                relay(from, buffer, to, &mut body, translated.decode, watch, &received).await.map_err(
                    |fault| match fault {
                        Fault::Sink => Received::ClientGone,
                        Fault::Source | Fault::Malformed(_) => Received::Cut,
                    },
                )?;
                Ok(translated)
            };
            let (mut send, mut receive) = (pin!(send), pin!(receive));
            let mut sending = true;
            let both = poll_fn(|context| {
                if sending && let Poll::Ready(result) = send.as_mut().poll(context) {
                    sending = false;
                    match result {
                        // The target may have answered before it closed.
                        Err(Fault::Sink) | Ok(()) => {}
                        Err(Fault::Malformed(_)) => return Poll::Ready(Err(Received::BadBody)),
                        Err(Fault::Source) if committed.get().is_some() && body_sent.get() => {}
                        Err(Fault::Source) => return Poll::Ready(Err(Received::ClientGone)),
                    }
                }
                receive.as_mut().poll(context)
            });
            watch.guard(*limit, both).await
        };
        add(&table.balanced.counters.processed_bytes, moved.get() + received.get());
        report.sent = Some(sent);
        report.received_bytes += moved.get();
        report.sent_bytes = received.get();
        report.status = 460;
        if let Some((answered, status)) = committed.get() {
            (report.answered, report.status, report.target_status) = (Some(answered), status, Some(status));
        }
        let translated = match result {
            Ok(Ok(translated)) => translated,
            Ok(Err(Received::Nothing)) if reused && forwarding.replayable => return Outcome::Dead,
            _ if committed.get().is_some() => return Outcome::Lost,
            Ok(Err(Received::Nothing | Received::Bad | Received::Cut)) => return Outcome::Failed(502),
            Ok(Err(Received::BadBody)) => return Outcome::Failed(400),
            Ok(Err(Received::ClientGone)) => {
                table.balanced.counters.answered(460);
                return Outcome::Lost;
            }
            Err(TimedOut) => return Outcome::Failed(if body_sent.get() { 504 } else { 408 }),
        };
        if translated.status == 101 {
            let (up, down) = (Cell::new(0), Cell::new(0));
            let far = (&mut connection.stream, &mut connection.buffer);
            relay_buffered((stream, input), far, watch, *limit, &up, &down).await;
            add(&table.balanced.counters.processed_bytes, up.get() + down.get());
            report.received_bytes += up.get();
            report.sent_bytes += down.get();
            return Outcome::Lost;
        }
        let done = body.is_done();
        if translated.keep_target && done && !forwarding.close {
            connection.put();
        }
        Outcome::Done { keep: translated.keep_client }
    }
}

/// A connection to the request's target, and the guard of its being under way.
///
/// # Errors
/// With the status to answer.
pub async fn obtain(forwarding: &mut Forwarding, worker: &Worker) -> Result<(Connection, Outstanding), u16> {
    let secure = forwarding.service.to_secure();
    let connect = async |target: &Arc<Target>| match worker.pool.take(target) {
        Some(kept) => Ok(kept),
        None => worker.pool.connect(target, secure.as_ref()).await,
    };
    reach(forwarding, worker, connect).await
}

/// What leads to the request's target, and the guard of its being under way; to another target when that one does not
/// accept.
///
/// # Errors
/// With the status to answer.
pub async fn reach<C>(
    forwarding: &mut Forwarding,
    worker: &Worker,
    connect: impl AsyncFn(&Arc<Target>) -> Result<C, ConnectError>,
) -> Result<(C, Outstanding), u16> {
    let mut refused = Vec::new();
    loop {
        let outstanding = forwarding.enter();
        let error = match connect(&forwarding.target).await {
            Ok(connection) => return Ok((connection, outstanding)),
            Err(error) => error,
        };
        add(&forwarding.group.counters.connection_errors, 1);
        tracing::debug!(target = %forwarding.target, %error, "no connection");
        refused.push(forwarding.target.clone());
        let last = refused.len() == CONNECT_ATTEMPTS || matches!(error, ConnectError::TimedOut);
        if last || !forwarding.reroute(worker.random(), &refused) {
            return Err(error.status());
        }
    }
}

/// Why there is no whole answer.
#[derive(Debug)]
enum Received {
    /// The target closed without a word.
    Nothing,
    /// No answer that could be understood.
    Bad,
    /// The answer broke off.
    Cut,
    /// The request's body is malformed.
    BadBody,
    ClientGone,
}
