//! A store in memory that fails on command, for the simulator and tests: it crashes at named points, loses what was
//! not synced, and can be as slow as its driver likes because writing and syncing are separate steps.

use crate::backend::{Backend, BackendError, Fence, RowSink};
use crate::batch::Batch;
use std::collections::BTreeMap;

/// Where an append can be made to fail. Each leaves the store broken until [`MemoryBackend::crash`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Failpoint {
    /// Nothing was written.
    BeforeWrite,
    /// All was written, nothing synced: any prefix may survive.
    AfterWrite,
    /// All is durable, but the caller is not told.
    AfterSync,
}

impl Failpoint {
    pub const ALL: [Failpoint; 3] = [Failpoint::BeforeWrite, Failpoint::AfterWrite, Failpoint::AfterSync];
}

#[derive(Debug, thiserror::Error)]
#[error("injected at {0:?}")]
struct Injected(Failpoint);

/// Rows in memory, split into what a crash spares and what it may take.
#[derive(Clone, Debug, Default)]
pub struct MemoryBackend {
    rows: BTreeMap<String, Box<[u8]>>,
    /// The last batch in `rows`.
    durable_seq: u64,
    unsynced: Vec<Batch>,
    newest_fence: Fence,
    failpoint: Option<Failpoint>,
    busy: u32,
    broken: bool,
}

impl MemoryBackend {
    pub fn new() -> MemoryBackend {
        MemoryBackend::default()
    }

    /// Makes the next append fail there.
    pub fn fail_at(&mut self, failpoint: Failpoint) {
        self.failpoint = Some(failpoint);
    }

    /// Makes the next `times` appends answer [`BackendError::Busy`] without doing anything.
    pub fn be_busy(&mut self, times: u32) {
        self.busy = times;
    }

    /// The process died, and the machine with it if `survivors` is less than what was written: of the batches not
    /// synced, the first `survivors` are kept (whole, as a real store's log keeps them). The store works again.
    pub fn crash(&mut self, survivors: usize) {
        self.unsynced.truncate(survivors);
        self.apply_unsynced();
        self.broken = false;
        self.failpoint = None;
        self.busy = 0;
    }

    /// Batches written and not synced.
    pub fn unsynced(&self) -> usize {
        self.unsynced.len()
    }

    /// What would be loaded after a crash that spares nothing.
    pub fn rows(&self) -> &BTreeMap<String, Box<[u8]>> {
        &self.rows
    }

    pub fn durable_seq(&self) -> u64 {
        self.durable_seq
    }

    /// The first half of an append: written, not yet durable. A driver with a slow disk calls [`Self::sync`] later.
    ///
    /// # Errors
    /// As [`Backend::append`].
    pub fn write(&mut self, fence: Fence, batches: &[Batch]) -> Result<(), BackendError> {
        if self.broken {
            return Err(BackendError::Broken);
        }
        if self.busy > 0 {
            self.busy -= 1;
            let source = Box::new(Injected(Failpoint::BeforeWrite));
            return Err(BackendError::Busy { doing: "beginning to write", source });
        }
        if fence < self.newest_fence {
            return Err(BackendError::Fenced { ours: fence.0, newest: self.newest_fence.0 });
        }
        let mut last = self.unsynced.last().map_or(self.durable_seq, |batch| batch.seq);
        for batch in batches {
            if batch.seq != last + 1 {
                return Err(BackendError::Sequence { found: batch.seq, last });
            }
            last = batch.seq;
        }
        self.newest_fence = fence;
        self.fail_here(Failpoint::BeforeWrite)?;
        self.unsynced.extend_from_slice(batches);
        self.fail_here(Failpoint::AfterWrite)
    }

    /// The second half: all that was written is durable.
    ///
    /// # Errors
    /// At [`Failpoint::AfterSync`], or when the store is broken.
    pub fn sync(&mut self) -> Result<(), BackendError> {
        if self.broken {
            return Err(BackendError::Broken);
        }
        self.apply_unsynced();
        self.fail_here(Failpoint::AfterSync)
    }

    fn apply_unsynced(&mut self) {
        for batch in self.unsynced.drain(..) {
            for write in batch.writes {
                match write.value {
                    Some(value) => self.rows.insert(write.key, value),
                    None => self.rows.remove(&write.key),
                };
            }
            self.durable_seq = batch.seq;
        }
    }

    fn fail_here(&mut self, here: Failpoint) -> Result<(), BackendError> {
        if self.failpoint != Some(here) {
            return Ok(());
        }
        self.failpoint = None;
        self.broken = true;
        Err(BackendError::Failed { doing: "appending", source: Box::new(Injected(here)) })
    }
}

impl Backend for MemoryBackend {
    fn load(&mut self, sink: &mut RowSink<'_>) -> Result<u64, BackendError> {
        if self.broken {
            return Err(BackendError::Broken);
        }
        for (key, value) in &self.rows {
            if sink(key, value).is_break() {
                break;
            }
        }
        Ok(self.durable_seq)
    }

    fn append(&mut self, fence: Fence, batches: &[Batch]) -> Result<(), BackendError> {
        self.write(fence, batches)?;
        self.sync()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::batch::Write;
    use std::ops::ControlFlow;

    fn batch(seq: u64) -> Batch {
        let write = |key: String, value| Write { key, value };
        let value: Option<Box<[u8]>> = Some(seq.to_string().into_bytes().into_boxed_slice());
        Batch { seq, writes: vec![write("last".to_owned(), value.clone()), write(format!("b{seq}"), value)] }
    }

    fn load(store: &mut MemoryBackend) -> (u64, Vec<String>) {
        let mut keys = Vec::new();
        let seq = store.load(&mut |key, _| {
            keys.push(key.to_owned());
            ControlFlow::Continue(())
        });
        (seq.unwrap(), keys)
    }

    #[test]
    fn what_was_acknowledged_survives_every_failpoint_and_batches_stay_whole() {
        for failpoint in Failpoint::ALL {
            for survivors in 0..3 {
                let mut store = MemoryBackend::new();
                store.append(Fence(1), &[batch(1)]).unwrap();
                store.fail_at(failpoint);
                store.append(Fence(1), &[batch(2), batch(3)]).unwrap_err();
                assert!(matches!(store.append(Fence(1), &[batch(4)]), Err(BackendError::Broken)));
                store.crash(survivors);
                let expected = match failpoint {
                    Failpoint::BeforeWrite => 1,
                    Failpoint::AfterWrite => 1 + survivors as u64,
                    Failpoint::AfterSync => 3,
                };
                let (seq, keys) = load(&mut store);
                assert_eq!(seq, expected, "{failpoint:?}");
                assert_eq!(keys.len() as u64, expected + 1, "one row per batch and the common one");
                assert_eq!(store.rows()["last"].as_ref(), expected.to_string().as_bytes());
                store.append(Fence(1), &[batch(expected + 1)]).unwrap();
            }
        }
    }

    #[test]
    fn a_deposed_leader_and_a_gap_are_refused() {
        let mut store = MemoryBackend::new();
        store.append(Fence(7), &[batch(1)]).unwrap();
        assert!(matches!(
            store.append(Fence(6), &[batch(2)]),
            Err(BackendError::Fenced { ours: 6, newest: 7 })
        ));
        assert!(matches!(
            store.append(Fence(7), &[batch(3)]),
            Err(BackendError::Sequence { found: 3, last: 1 })
        ));
        assert!(matches!(
            store.append(Fence(7), &[batch(2), batch(2)]),
            Err(BackendError::Sequence { found: 2, last: 2 })
        ));
        assert_eq!(load(&mut store).0, 1);
    }

    #[test]
    fn a_busy_store_may_be_asked_again() {
        let mut store = MemoryBackend::new();
        store.be_busy(1);
        assert!(store.append(Fence(1), &[batch(1)]).unwrap_err().retry_helps());
        store.append(Fence(1), &[batch(1)]).unwrap();
    }
}
