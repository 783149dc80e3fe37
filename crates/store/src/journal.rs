//! The commit pipeline between the writer and the disk, as data: batches queue here while a group of earlier ones
//! syncs, so that one sync serves many transactions and the writer never waits for the disk.

use crate::batch::Batch;
use std::collections::VecDeque;

/// Most bytes in one group. Bounds how long one sync can take: 8 MiB is some tens of milliseconds on a slow disk,
/// and thousands of records.
pub const GROUP_BYTES_MAX: usize = 8 << 20;

/// Bytes queued from which the writer should take no more calls. A disk that stalls for a second at full load queues
/// about this much; beyond it callers are better told to slow down than kept waiting.
pub const QUEUE_BYTES_HIGH: usize = 64 << 20;

/// Batches on their way to the disk.
#[derive(Debug, Default)]
pub struct Journal {
    queue: VecDeque<Batch>,
    queued_bytes: usize,
    /// Number of the last batch of the group being made durable.
    in_flight: Option<u64>,
}

impl Journal {
    /// Queues a batch.
    ///
    /// # Panics
    /// When batches come out of order: the pipeline would lose its meaning.
    pub fn push(&mut self, batch: Batch) {
        if let Some(last) = self.queue.back().map(|b| b.seq).or(self.in_flight) {
            assert_eq!(batch.seq, last + 1, "batches are numbered without gaps");
        }
        self.queued_bytes += batch.bytes();
        self.queue.push_back(batch);
    }

    /// Whether so much is queued that new calls should be refused until the disk catches up.
    pub fn is_full(&self) -> bool {
        self.queued_bytes >= QUEUE_BYTES_HIGH
    }

    /// Whether nothing is queued or in flight.
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.in_flight.is_none()
    }

    pub fn queued_bytes(&self) -> usize {
        self.queued_bytes
    }

    /// Takes the next group to append: everything queued up to [`GROUP_BYTES_MAX`], at least one batch. `None` while
    /// a group is in flight or nothing is queued.
    pub fn take_group(&mut self) -> Option<Vec<Batch>> {
        if self.in_flight.is_some() {
            return None;
        }
        let mut group = Vec::new();
        let mut bytes = 0;
        while let Some(batch) = self.queue.front() {
            let size = batch.bytes();
            if !group.is_empty() && bytes + size > GROUP_BYTES_MAX {
                break;
            }
            bytes += size;
            group.extend(self.queue.pop_front());
        }
        self.queued_bytes -= bytes;
        self.in_flight = group.last().map(|batch: &Batch| batch.seq);
        self.in_flight.map(|_| group)
    }

    /// The group in flight is durable; returns the number of its last batch.
    pub fn group_durable(&mut self) -> Option<u64> {
        self.in_flight.take()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::batch::Write;
    use proptest::prelude::*;

    fn batch(seq: u64, bytes: usize) -> Batch {
        let write = Write { key: "k".to_owned(), value: Some(vec![b'x'; bytes - 1].into_boxed_slice()) };
        Batch { seq, writes: vec![write] }
    }

    proptest! {
        // Each case moves hundreds of megabytes.
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn everything_comes_out_once_and_in_order(sizes in proptest::collection::vec((1..5usize, 0..3u8), 0..60)) {
            let mut journal = Journal::default();
            let (mut taken, mut durable) = (0, 0);
            for (n, (megabytes, action)) in sizes.iter().enumerate() {
                journal.push(batch(n as u64 + 1, megabytes << 20));
                if *action == 0 && let Some(group) = journal.take_group() {
                    prop_assert_eq!(durable, taken, "one group at a time");
                    let bytes: usize = group.iter().map(Batch::bytes).sum();
                    prop_assert!(group.len() == 1 || bytes <= GROUP_BYTES_MAX);
                    for batch in group {
                        taken += 1;
                        prop_assert_eq!(batch.seq, taken);
                    }
                }
                if *action == 1 && let Some(seq) = journal.group_durable() {
                    prop_assert_eq!(seq, taken);
                    durable = seq;
                }
            }
            loop {
                journal.group_durable();
                let Some(group) = journal.take_group() else { break };
                taken += group.len() as u64;
            }
            prop_assert_eq!(taken, sizes.len() as u64);
            prop_assert!(journal.is_idle());
            prop_assert_eq!(journal.queued_bytes(), 0);
        }
    }

    #[test]
    fn fills_up_and_recovers() {
        let mut journal = Journal::default();
        let mut seq = 0;
        while !journal.is_full() {
            seq += 1;
            journal.push(batch(seq, 1 << 20));
        }
        assert_eq!(seq, 64);
        assert_eq!(journal.take_group().unwrap().len(), 8);
        assert!(!journal.is_full());
        assert!(journal.take_group().is_none(), "one group is in flight");
    }

    #[test]
    #[should_panic(expected = "without gaps")]
    fn a_gap_is_a_bug() {
        let mut journal = Journal::default();
        journal.push(batch(1, 1));
        journal.push(batch(3, 1));
    }
}
