//! Loads the state on start: one thread reads rows from the store, several make records of them, one puts them
//! together. The time to the first answer after a restart is mostly this.

use gantry_control::load::{Loading, Row, StateError};
use gantry_control::state::State;
use gantry_store::{Backend, BackendError};
use std::ops::ControlFlow;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread;

/// Rows that change threads together: some hundred kilobytes, so that handing over costs nothing beside reading them.
const ROWS_PER_CHUNK: usize = 256;
/// Chunks that may wait before each thread: bounds what is in memory twice.
const CHUNKS_WAITING_MAX: usize = 4;
/// Threads that read records. More do not help: putting together is then the slowest part.
const READERS_MAX: usize = 4;

/// Why the state cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("the store cannot be loaded")]
    Store(#[from] BackendError),
    #[error(transparent)]
    State(#[from] StateError),
}

/// Keys and values as stored, one behind the other.
#[derive(Default)]
struct Chunk {
    bytes: Vec<u8>,
    /// Lengths of key and value.
    rows: Vec<(usize, usize)>,
}

impl Chunk {
    fn push(&mut self, key: &str, value: &[u8]) {
        self.bytes.extend_from_slice(key.as_bytes());
        self.bytes.extend_from_slice(value);
        self.rows.push((key.len(), value.len()));
    }

    fn read(&self) -> Result<Vec<Row>, StateError> {
        let mut rest = self.bytes.as_slice();
        let mut next = |length| {
            let (part, after) = rest.split_at(length);
            rest = after;
            part
        };
        let rows = self.rows.iter().map(|(key, value)| {
            let key = String::from_utf8_lossy(next(*key));
            Row::read(&key, next(*value))
        });
        rows.collect()
    }
}

/// Everything that a store holds, and the number of its last batch.
///
/// # Errors
/// When the store cannot be read, or holds what this version does not write.
pub fn load(backend: &mut impl Backend) -> Result<(State, u64), LoadError> {
    let readers = thread::available_parallelism().map_or(1, usize::from).min(READERS_MAX);
    thread::scope(|scope| {
        let (mut chunks, mut read) = (Vec::new(), Vec::new());
        for _ in 0..readers {
            let (give, take) = mpsc::sync_channel::<Chunk>(CHUNKS_WAITING_MAX);
            let (hand_on, collect) = mpsc::sync_channel(CHUNKS_WAITING_MAX);
            scope.spawn(move || {
                // Nobody takes it any more once a row was bad.
                while let Ok(chunk) = take.recv()
                    && hand_on.send(chunk.read()).is_ok()
                {}
            });
            chunks.push(give);
            read.push(collect);
        }
        let collector = scope.spawn(move || collect(&read));
        let last_seq = deal(backend, chunks);
        let state = collector.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        // A store that broke off explains why the rest is missing.
        let last_seq = last_seq?;
        Ok((state?, last_seq))
    })
}

/// Deals the store's rows out to the readers in turn.
fn deal(backend: &mut impl Backend, readers: Vec<SyncSender<Chunk>>) -> Result<u64, BackendError> {
    let mut turns = readers.iter().cycle();
    let mut deal = |chunk: &mut Chunk| match turns.next().map(|reader| reader.send(std::mem::take(chunk))) {
        Some(Ok(())) => ControlFlow::Continue(()),
        // The collector has stopped at a bad row.
        Some(Err(_)) | None => ControlFlow::Break(()),
    };
    let mut chunk = Chunk::default();
    let last_seq = backend.load(&mut |key, value| {
        chunk.push(key, value);
        if chunk.rows.len() < ROWS_PER_CHUNK {
            return ControlFlow::Continue(());
        }
        deal(&mut chunk)
    })?;
    // Whether anyone takes it is the collector's to say.
    let _ = deal(&mut chunk);
    Ok(last_seq)
}

/// Takes rows from the readers in the turn in which they were dealt out.
fn collect(readers: &[Receiver<Result<Vec<Row>, StateError>>]) -> Result<State, StateError> {
    let mut loading = Loading::default();
    for reader in readers.iter().cycle() {
        // The one whose turn it would be is the first to have nothing.
        let Ok(rows) = reader.recv() else { break };
        for row in rows? {
            loading.take(row);
        }
    }
    loading.finish()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use gantry_control::services::ecs::state::Cluster;
    use gantry_decide::time::Timestamp;
    use gantry_store::memory::MemoryBackend;
    use gantry_store::{Batch, Fence, Write};

    fn store(clusters: usize, bad: Option<usize>) -> MemoryBackend {
        let mut backend = MemoryBackend::new();
        let row = |number: usize| {
            let name = format!("c{number:05}");
            let value = match bad {
                Some(bad) if bad == number => "{}".to_owned(),
                _ => stored_cluster(&name),
            };
            Write {
                key: format!("123456789012/eu-north-1/ecs/cluster/{name}"),
                value: Some(value.into_bytes().into()),
            }
        };
        let batch = Batch { seq: 1, writes: (0..clusters).map(row).collect() };
        backend.append(Fence(0), &[batch]).unwrap();
        backend
    }

    fn stored_cluster(name: &str) -> String {
        let cluster = Cluster::new(name.parse().unwrap(), Timestamp::EPOCH);
        String::from_utf8(gantry_store::encode(&cluster).into()).unwrap()
    }

    #[test]
    fn every_row_is_loaded_whatever_their_number() {
        for clusters in [0, 1, ROWS_PER_CHUNK, ROWS_PER_CHUNK + 1, ROWS_PER_CHUNK * READERS_MAX * 3 + 7] {
            let (state, last_seq) = load(&mut store(clusters, None)).unwrap();
            let loaded: usize = state.scopes().map(|(_, state)| state.ecs.clusters.len()).sum();
            assert_eq!((loaded, last_seq), (clusters, 1));
        }
    }

    #[test]
    fn a_bad_row_stops_it_and_is_named() {
        let clusters = ROWS_PER_CHUNK * READERS_MAX * 40;
        for bad in [0, 700, clusters - 1] {
            let error = load(&mut store(clusters, Some(bad))).err().unwrap();
            assert!(error.to_string().contains(&format!("c{bad:05}")), "{error}");
        }
    }
}
