//! HTTP/2 connections to targets: each carries many requests, and as many are open as those take.

use super::super::http::{ConnectError, Connection, Pool};
use super::super::tables::Target;
use super::Local;
use super::upload::Upwards;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ClientConfig;
use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// A silent target is asked whether it is there so often while requests are under way.
const PING: Duration = Duration::from_secs(20);

/// Requests on one connection at a time: so many every server should take, as RFC 9113 has it.
const MAX_STREAMS: u32 = 100;
/// What waits here of one answer, and of one request, until it is taken.
const WINDOW: u32 = 64 * 1024;

/// A worker's HTTP/2 connections to targets.
#[derive(Default)]
pub struct Sessions {
    /// By the target's address in memory.
    open: RefCell<HashMap<usize, Kept>>,
}

/// A target's connections.
type Kept = (Arc<Target>, Vec<Session>);

/// A connection, and what its requests hold.
struct Session {
    sender: SendRequest<Upwards>,
    places: Place,
}

/// A request's place on a connection, to be held until its answer is through.
#[derive(Clone, Debug, Default)]
pub struct Place(Rc<()>);

/// A request's way to a target.
pub struct Joined {
    pub sender: SendRequest<Upwards>,
    pub place: Place,
    /// The connection was there before.
    pub reused: bool,
}

/// What became of a request that has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unanswered {
    /// The target did nothing with it (RFC 9113, sections 6.8 and 8.7), or never got it.
    Unprocessed,
    /// Its connection broke.
    Broken,
    /// The target refused it, or broke the protocol's rules.
    Refused,
}

impl From<&hyper::Error> for Unanswered {
    fn from(error: &hyper::Error) -> Unanswered {
        let of_frames =
            std::error::Error::source(error).and_then(|source| source.downcast_ref::<h2::Error>());
        match of_frames {
            Some(of_frames) if of_frames.is_go_away() && of_frames.is_remote() => Unanswered::Unprocessed,
            Some(of_frames)
                if of_frames.is_remote() && of_frames.reason() == Some(h2::Reason::REFUSED_STREAM) =>
            {
                Unanswered::Unprocessed
            }
            Some(of_frames) if of_frames.is_io() => Unanswered::Broken,
            _ if error.is_canceled() || error.is_closed() => Unanswered::Unprocessed,
            _ => Unanswered::Refused,
        }
    }
}

impl Session {
    fn requests(&self) -> usize {
        Rc::strong_count(&self.places.0) - 1
    }

    fn join(&self, reused: bool) -> Joined {
        Joined { sender: self.sender.clone(), place: self.places.clone(), reused }
    }
}

impl std::fmt::Debug for Sessions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sessions({})", self.open.borrow().len())
    }
}

impl Sessions {
    /// A connection to a target, made if there is none that works and has room.
    ///
    /// # Errors
    /// When the target cannot be reached.
    pub async fn get(
        &self,
        target: &Arc<Target>,
        secure: Option<&Arc<ClientConfig>>,
        pool: &Rc<Pool>,
    ) -> Result<Joined, ConnectError> {
        let key = Arc::as_ptr(target) as usize;
        let has_room = |kept: &&Session| !kept.sender.is_closed() && kept.requests() < MAX_STREAMS as usize;
        if let Some((_, kept)) = self.open.borrow().get(&key)
            && let Some(kept) = kept.iter().find(has_room)
        {
            return Ok(kept.join(true));
        }
        let connection = pool.connect(target, secure).await?;
        let sender = open(connection).await.map_err(ConnectError::Refused)?;
        let session = Session { sender, places: Place::default() };
        let joined = session.join(false);
        if !target.retired.load(Relaxed) {
            let mut open = self.open.borrow_mut();
            open.entry(key).or_insert_with(|| (target.clone(), Vec::new())).1.push(session);
        }
        Ok(joined)
    }

    /// Takes a connection from those that get requests; what is under way on it goes on.
    pub fn forget(&self, target: &Arc<Target>, place: &Place) {
        if let Some((_, kept)) = self.open.borrow_mut().get_mut(&(Arc::as_ptr(target) as usize)) {
            kept.retain(|session| !Rc::ptr_eq(&session.places.0, &place.0));
        }
    }

    /// Lets go of connections that are closed, to targets that get no more requests, and beyond one that are idle.
    pub fn tidy(&self) {
        self.open.borrow_mut().retain(|_, (target, kept)| {
            let mut spare = true;
            kept.retain(|session| {
                !session.sender.is_closed() && (session.requests() > 0 || std::mem::take(&mut spare))
            });
            !target.retired.load(Relaxed) && !kept.is_empty()
        });
    }
}

/// Begins HTTP/2 on a connection.
///
/// # Errors
/// When the other side does not speak it.
async fn open(connection: Connection) -> io::Result<SendRequest<Upwards>> {
    let handshake = Builder::new(Local)
        .timer(TokioTimer::new())
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING)
        // Answers that nobody takes hold up no other one of their connection.
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW * MAX_STREAMS)
        .max_send_buf_size(WINDOW as usize)
        .handshake::<_, Upwards>(TokioIo::new(connection));
    let (sender, driver) = handshake.await.map_err(io::Error::other)?;
    tokio::task::spawn_local(async move { drop(driver.await) });
    Ok(sender)
}
