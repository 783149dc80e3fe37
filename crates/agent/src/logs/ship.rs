//! Follows one container's log and sends it on, to whatever sink.

use super::Wish;
use super::assemble::{Assembler, Batch, Event};
use super::options::Multiline;
use super::tail::{self, Tail};
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

/// Between two looks for something new, and so the least between two batches of a container that writes little.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// After a failure, doubled with each.
const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// Where a log goes.
pub trait Sink: Send {
    type Error: std::error::Error + Send;

    /// How far the sink is in the log, in bytes; absent if it has nothing of it.
    fn position(&mut self) -> impl Future<Output = Result<Option<u64>, Self::Error>> + Send;

    /// Sends events, which lie between the two positions.
    ///
    /// # Errors
    /// When it may succeed later.
    fn send(
        &mut self,
        before: Option<u64>,
        after: u64,
        events: Vec<Event>,
    ) -> impl Future<Output = Result<Outcome, Self::Error>> + Send;

    /// For messages.
    fn name(&self) -> &str;
}

/// What became of a batch.
#[derive(Debug)]
pub enum Outcome {
    Sent,
    /// The sink is elsewhere in the log.
    Elsewhere,
    /// It will never be taken.
    Refused {
        reason: String,
    },
}

/// Sends the log of one container until it has ended and all is sent.
pub async fn ship<S: Sink>(
    sink: S,
    log: PathBuf,
    multiline: Option<Multiline>,
    mut wish: watch::Receiver<Wish>,
) {
    let mut shipper = Shipper { sink, log, multiline, at: None, astray: false };
    let mut pause = RETRY_FIRST;
    loop {
        // The wish before the look: what was written before the container ended is there to be seen.
        let finishing = *wish.borrow_and_update() == Wish::Finish;
        match shipper.round(finishing).await {
            Ok(true) => pause = RETRY_FIRST,
            Ok(false) if finishing && !wish.has_changed().unwrap_or(false) => return,
            Ok(false) => {
                let _ = timeout(LOOK_EVERY, wish.changed()).await;
                // Nobody wishes any more: the agent ends.
                if wish.has_changed().is_err() && !finishing {
                    return;
                }
            }
            Err(error) => {
                let to = shipper.sink.name();
                tracing::warn!(%error, to, ?pause, "a container's log cannot be sent; trying again");
                // What was taken for the failed batch is read again.
                shipper.at = None;
                sleep(pause).await;
                pause = (pause * 2).min(RETRY_MAX);
            }
        }
    }
}

struct Shipper<S> {
    sink: S,
    log: PathBuf,
    multiline: Option<Multiline>,
    /// Unknown until the sink has said how far it is.
    at: Option<Place>,
    /// The sink was elsewhere, and has taken nothing since.
    astray: bool,
}

struct Place {
    tail: Tail,
    assembler: Assembler,
    /// What the sink has: everything before.
    sent: Option<u64>,
}

/// Why a round came to nothing.
#[derive(Debug, thiserror::Error)]
enum RoundError<E: std::error::Error> {
    #[error("{0}")]
    Sink(#[source] E),
    #[error("the position in the log is not agreed upon")]
    Astray,
    #[error("the log cannot be read: {0}")]
    Read(#[from] io::Error),
}

impl<S: Sink> Shipper<S> {
    /// Reads what is there and sends what is whole of it. False if there was nothing to do.
    async fn round(&mut self, finishing: bool) -> Result<bool, RoundError<S::Error>> {
        if self.at.is_none() {
            let sent = self.sink.position().await.map_err(RoundError::Sink)?;
            let assembler = Assembler::new(self.multiline.clone());
            self.at = Some(Place { tail: Tail::new(&self.log, sent.unwrap_or(0)), assembler, sent });
        }
        let Some(place) = &mut self.at else { return Ok(false) };
        let read = if place.tail.has_more()? {
            let mut tail = std::mem::replace(&mut place.tail, Tail::new(&self.log, 0));
            let reading = tokio::task::spawn_blocking(move || {
                let read = tail.read();
                (tail, read)
            });
            let (tail, read) = reading.await.map_err(io::Error::other)?;
            place.tail = tail;
            read?
        } else {
            tail::Read::default()
        };
        if read.lost > 0 {
            let (bytes, to) = (read.lost, self.sink.name());
            tracing::warn!(
                bytes,
                to,
                "a part of a container's log is lost: it was rotated away before it could be sent"
            );
        }
        let any = !read.entries.is_empty();
        let now = crate::driver::now().as_millis();
        for entry in read.entries {
            place.assembler.push(entry, now);
        }
        place.assembler.close(now, finishing && !any);
        let mut sent_any = false;
        while let Some(batch) = self.at.as_mut().and_then(|place| place.assembler.batch()) {
            self.send(batch).await?;
            sent_any = true;
        }
        let waits = self.at.as_ref().is_none_or(|place| !place.assembler.is_empty());
        Ok(any || sent_any || (finishing && waits))
    }

    async fn send(&mut self, batch: Batch) -> Result<(), RoundError<S::Error>> {
        let Some(place) = &mut self.at else { return Ok(()) };
        if batch.events.is_empty() {
            // Only empty lines: the sink learns of it with the next event.
            return Ok(());
        }
        match self.sink.send(place.sent, batch.after, batch.events).await.map_err(RoundError::Sink)? {
            Outcome::Sent => {
                place.sent = Some(batch.after);
                self.astray = false;
            }
            Outcome::Refused { reason } => {
                tracing::error!(
                    reason,
                    to = self.sink.name(),
                    "a part of a container's log is refused and left out"
                );
            }
            // What was read is read again from where the sink is.
            Outcome::Elsewhere if self.astray => return Err(RoundError::Astray),
            Outcome::Elsewhere => {
                self.at = None;
                self.astray = true;
            }
        }
        Ok(())
    }
}
