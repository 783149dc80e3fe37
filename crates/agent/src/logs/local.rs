//! Sinks that do not know how far they are in a log: a file beside it does. After a crash of the agent what was sent
//! last is sent again.

use super::assemble::Event;
use super::ship::{Outcome, Sink};
use std::fs;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::timeout;

/// For connecting, and for the transmission of one batch.
const TRANSMIT_MAX: Duration = Duration::from_secs(30);

/// What takes events and tells nothing of them afterwards.
pub trait Receiver: Send {
    /// Hands over all events; connects first if need be.
    ///
    /// # Errors
    /// When some may not have arrived. The connection is made anew then.
    fn transmit(&mut self, events: &[Event]) -> impl Future<Output = io::Result<()>> + Send;

    /// Lets go of a connection that has failed.
    fn hang_up(&mut self);
}

/// A receiver, and the file that holds how far it is.
pub struct LocalSink<R> {
    receiver: R,
    position: PathBuf,
    name: String,
}

impl<R> LocalSink<R> {
    /// `log` is the log that is sent.
    pub fn new(receiver: R, log: &Path, name: String) -> LocalSink<R> {
        LocalSink { receiver, position: log.with_extension("sent"), name }
    }
}

impl<R: Receiver> Sink for LocalSink<R> {
    type Error = io::Error;

    async fn position(&mut self) -> io::Result<Option<u64>> {
        match fs::read_to_string(&self.position) {
            Ok(text) => Ok(text.trim().parse().ok()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn send(&mut self, _before: Option<u64>, after: u64, events: Vec<Event>) -> io::Result<Outcome> {
        let sent = timeout(TRANSMIT_MAX, self.receiver.transmit(&events)).await;
        if let Err(error) = sent.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            self.receiver.hang_up();
            return Err(error);
        }
        // Whole or not at all; whether it outlives the host matters no more than whether the container does.
        let unfinished = self.position.with_extension("sent.tmp");
        fs::write(&unfinished, after.to_string())?;
        fs::rename(&unfinished, &self.position)?;
        Ok(Outcome::Sent)
    }

    fn name(&self) -> &str {
        &self.name
    }
}
