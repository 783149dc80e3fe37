//! The thread that makes batches durable: it gathers what queued up while the last group synced, appends it in one
//! go, and reports. The writer hands batches over and never waits.

use gantry_store::{Backend, BackendError, Batch, Fence, Journal, journal};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

/// How often an append that may succeed later is tried again. With [`RETRY_AFTER`] and the store's own waiting this
/// is some minutes; a store that stays busy so long is broken, and stopping is safer than queueing.
const RETRIES_MAX: u32 = 40;
const RETRY_AFTER: Duration = Duration::from_millis(250);

/// What became of batches.
#[derive(Debug)]
pub enum Notice {
    /// The batch of this number, and all before it, are on disk.
    Durable(u64),
    /// The store failed for good. What was not yet reported durable may or may not be; the process must stop and
    /// start from what is on the disk.
    Failed(BackendError),
}

/// How much waits for the disk. Cheap to clone, and keeps nothing else alive.
#[derive(Clone, Debug, Default)]
pub struct Backlog(Arc<AtomicUsize>);

impl Backlog {
    /// Whether so much waits for the disk that new calls should be refused. The queue itself takes everything, since
    /// what was applied must not be dropped; this bounds it as long as its feeder asks.
    pub fn is_full(&self) -> bool {
        self.0.load(Ordering::Relaxed) >= journal::QUEUE_BYTES_HIGH
    }

    fn add(&self, bytes: usize) {
        self.0.fetch_add(bytes, Ordering::Relaxed);
    }

    fn subtract(&self, bytes: usize) {
        self.0.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// Handle to the thread. Dropping it finishes what is queued, then returns.
pub struct Committer {
    batches: Option<Sender<Batch>>,
    backlog: Backlog,
    thread: Option<JoinHandle<()>>,
}

impl Committer {
    /// Starts the thread. `notify` is called on it.
    ///
    /// # Errors
    /// When no thread can be made.
    pub fn start(
        backend: Box<dyn Backend>,
        fence: Fence,
        notify: impl FnMut(Notice) + Send + 'static,
    ) -> io::Result<Committer> {
        let (batches, queue) = mpsc::channel();
        let backlog = Backlog::default();
        let shared = backlog.clone();
        let thread = std::thread::Builder::new()
            .name("commit".to_owned())
            .spawn(move || run(backend, fence, &queue, &shared, notify))?;
        Ok(Committer { batches: Some(batches), backlog, thread: Some(thread) })
    }

    /// Queues a batch. After a failure batches are dropped: nobody is told that they are durable.
    pub fn persist(&self, batch: Batch) {
        let bytes = batch.bytes();
        if let Some(batches) = &self.batches {
            self.backlog.add(bytes);
            if batches.send(batch).is_err() {
                self.backlog.subtract(bytes);
            }
        }
    }

    /// How much waits for the disk.
    pub fn backlog(&self) -> Backlog {
        self.backlog.clone()
    }
}

impl Drop for Committer {
    fn drop(&mut self) {
        self.batches = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the commit thread panicked");
        }
    }
}

fn run(
    mut backend: Box<dyn Backend>,
    fence: Fence,
    queue: &Receiver<Batch>,
    backlog: &Backlog,
    mut notify: impl FnMut(Notice),
) {
    let mut journal = Journal::default();
    while let Ok(first) = queue.recv() {
        journal.push(first);
        loop {
            while let Ok(batch) = queue.try_recv() {
                journal.push(batch);
            }
            let Some(group) = journal.take_group() else { break };
            if let Err(error) = append(backend.as_mut(), fence, &group) {
                notify(Notice::Failed(error));
                return;
            }
            backlog.subtract(group.iter().map(Batch::bytes).sum());
            if let Some(seq) = journal.group_durable() {
                notify(Notice::Durable(seq));
            }
        }
    }
}

fn append(backend: &mut dyn Backend, fence: Fence, group: &[Batch]) -> Result<(), BackendError> {
    let mut tries = 0;
    loop {
        match backend.append(fence, group) {
            Err(error) if error.retry_helps() && tries < RETRIES_MAX => {
                tries += 1;
                tracing::warn!(%error, tries, "the store is busy; trying again");
                std::thread::sleep(RETRY_AFTER);
            }
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use gantry_store::memory::{Failpoint, MemoryBackend};
    use gantry_store::{RowSink, Write};
    use std::sync::Mutex;

    /// A memory store that outlives its committer, counts appends and is as slow as a disk.
    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<(MemoryBackend, usize)>>);

    impl Backend for Shared {
        fn load(&mut self, sink: &mut RowSink<'_>) -> Result<u64, BackendError> {
            self.0.lock().unwrap().0.load(sink)
        }

        fn append(&mut self, fence: Fence, batches: &[Batch]) -> Result<(), BackendError> {
            std::thread::sleep(Duration::from_millis(2));
            let mut inner = self.0.lock().unwrap();
            inner.1 += 1;
            inner.0.append(fence, batches)
        }
    }

    fn batch(seq: u64) -> Batch {
        Batch { seq, writes: vec![Write { key: format!("k{seq}"), value: Some(Box::from(*b"{}")) }] }
    }

    #[test]
    fn batches_are_grouped_and_all_are_durable_before_it_ends() {
        let store = Shared::default();
        let (notices, noticed) = mpsc::channel();
        let committer =
            Committer::start(Box::new(store.clone()), Fence(1), move |n| notices.send(n).unwrap()).unwrap();
        for seq in 1..=500 {
            committer.persist(batch(seq));
        }
        drop(committer);
        let durable: Vec<u64> = noticed
            .iter()
            .map(|notice| match notice {
                Notice::Durable(seq) => seq,
                Notice::Failed(error) => panic!("{error}"),
            })
            .collect();
        assert!(durable.is_sorted() && durable.last() == Some(&500), "{durable:?}");
        let inner = store.0.lock().unwrap();
        assert_eq!(inner.0.rows().len(), 500);
        assert!(inner.1 < 250, "{} appends served 500 batches", inner.1);
    }

    #[test]
    fn a_busy_store_is_tried_again_and_a_broken_one_reported_once() {
        let store = Shared::default();
        store.0.lock().unwrap().0.be_busy(1);
        let (notices, noticed) = mpsc::channel();
        let committer =
            Committer::start(Box::new(store.clone()), Fence(1), move |n| notices.send(n).unwrap()).unwrap();
        committer.persist(batch(1));
        assert!(matches!(noticed.recv().unwrap(), Notice::Durable(1)));
        store.0.lock().unwrap().0.fail_at(Failpoint::AfterWrite);
        committer.persist(batch(2));
        assert!(matches!(noticed.recv().unwrap(), Notice::Failed(BackendError::Failed { .. })));
        committer.persist(batch(3));
        drop(committer);
        assert!(noticed.recv().is_err(), "nothing was called durable after the failure");
    }
}
