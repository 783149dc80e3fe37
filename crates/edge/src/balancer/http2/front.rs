//! A client's HTTP/2 connection: many requests at once, within bounds.

use super::super::counters::add;
use super::super::http::{Client, Io};
use super::super::tables::Door;
use super::super::worker::Worker;
use super::Local;
use super::exchange::answer;
use hyper::server::conn::http2::Builder;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::cell::Cell;
use std::convert::Infallible;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::time::Instant;

/// Requests of one connection at a time, as documented.
const MAX_STREAMS: u32 = 128;
/// All headers of a request.
const MAX_HEADERS: u32 = 64 * 1024;
/// Streams that a client opened and reset before they were looked at. More is an attack (rapid reset), and the
/// connection ends.
const MAX_RESETS: usize = 20;
/// Sent to a client, and not yet taken by it, for one stream.
const MAX_UNSENT: usize = 64 * 1024;
/// A silent client is asked whether it is there so often, and has as long to answer.
const PING: Duration = Duration::from_secs(20);

/// What a connection's requests share.
pub struct Connected {
    pub client: Client,
    pub door: Arc<Door>,
    pub worker: Rc<Worker>,
    /// Requests under way, and those of them that have no answer yet.
    pub active: Cell<u32>,
    pub unanswered: Cell<u32>,
    /// When something of a request or an answer moved last.
    pub last: Cell<Instant>,
}

impl Connected {
    /// Something moved: the idle timeout counts from here. Frames that carry nothing (PING, SETTINGS, WINDOW_UPDATE) do
    /// not count, as documented.
    pub fn touch(&self) {
        self.last.set(Instant::now());
    }
}

/// A request without an answer, until it is dropped.
struct Unanswered(Rc<Connected>);

impl Unanswered {
    fn new(shared: Rc<Connected>) -> Unanswered {
        shared.unanswered.set(shared.unanswered.get() + 1);
        Unanswered(shared)
    }
}

impl Drop for Unanswered {
    fn drop(&mut self) {
        self.0.unanswered.set(self.0.unanswered.get().saturating_sub(1));
        self.0.touch();
    }
}

/// Serves a connection until it ends.
pub async fn serve<S: Io + 'static>(stream: S, client: Client, door: Arc<Door>, worker: Rc<Worker>) {
    let begun = Instant::now();
    let (active, unanswered, last) = (Cell::new(0), Cell::new(0), Cell::new(begun));
    let shared = Rc::new(Connected { client, door, worker, active, unanswered, last });
    let requests = shared.clone();
    let service = service_fn(move |request| {
        let shared = requests.clone();
        // Of its own memory: the library moves it from hand to hand, and it is some kilobytes.
        Box::pin(async move {
            let table = shared.door.table.load_full();
            add(&table.balanced.counters.requests, 1);
            let _unanswered = Unanswered::new(shared.clone());
            Ok::<_, Infallible>(answer(request, table, shared).await)
        })
    });
    let mut connection = pin!(
        Builder::new(Local)
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_STREAMS)
            .max_header_list_size(MAX_HEADERS)
            .max_pending_accept_reset_streams(MAX_RESETS)
            .max_send_buf_size(MAX_UNSENT)
            .keep_alive_interval(PING)
            .keep_alive_timeout(PING)
            .serve_connection(TokioIo::new(stream), service)
    );
    let mut look = tokio::time::interval(Duration::from_secs(1));
    let mut ending = false;
    loop {
        tokio::select! {
            // However it ends: the client knows as well as we do.
            _ = connection.as_mut() => return,
            _ = look.tick() => {
                let (idle, aged) = {
                    let attributes = &shared.door.table.load().attributes;
                    (attributes.idle_timeout, attributes.client_keep_alive)
                };
                let silence = shared.last.get().elapsed();
                let silent = shared.active.get() == 0 && silence >= idle;
                // Waits for targets have an end of their own. What else is under way waits for the client: one that
                // opens no window would have it wait for ever.
                if shared.active.get() > 0 && shared.unanswered.get() == 0 && silence >= idle {
                    return;
                }
                if !ending && (silent || begun.elapsed() > aged || shared.door.closed.load(Relaxed)) {
                    ending = true;
                    connection.as_mut().graceful_shutdown();
                } else if ending && silent {
                    // It was told, and does not go.
                    return;
                }
            }
        }
    }
}
