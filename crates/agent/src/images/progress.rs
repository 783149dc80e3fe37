//! How pulls come along: for who asks, and now and then for the log.

use super::reference::Reference;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Between two lines of the log about one pull.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// A pull that is under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PullStatus {
    pub image: Reference,
    /// Layers of the image; 0 until its manifest is here.
    pub layers: usize,
    /// Those that can be run from.
    pub ready: usize,
    /// Packed bytes that have come, of those that had to.
    pub done: u64,
    pub total: u64,
}

#[derive(Default)]
struct Board {
    next: u64,
    pulls: BTreeMap<u64, (PullStatus, BTreeMap<usize, u64>)>,
}

/// All pulls under way; clones share them.
#[derive(Clone, Default)]
pub struct Progress(Arc<Mutex<Board>>);

impl Progress {
    pub fn under_way(&self) -> Vec<PullStatus> {
        self.0.lock().pulls.values().map(|(status, _)| status.clone()).collect()
    }

    pub fn begin(&self, image: &Reference) -> Tracked {
        let mut board = self.0.lock();
        board.next += 1;
        let id = board.next;
        let status = PullStatus { image: image.clone(), layers: 0, ready: 0, done: 0, total: 0 };
        board.pulls.insert(id, (status, BTreeMap::new()));
        let now = Instant::now();
        Tracked { progress: self.clone(), id, began: now, logged: Mutex::new(now) }
    }
}

/// One pull's place among those under way, until it is dropped.
pub struct Tracked {
    progress: Progress,
    id: u64,
    began: Instant,
    logged: Mutex<Instant>,
}

impl Tracked {
    /// The manifest is here: it names so many layers, of which `bytes` have to come.
    pub fn resolved(&self, layers: usize, bytes: u64) {
        self.update(|status, _| (status.layers, status.total) = (layers, bytes));
    }

    /// So much of a layer has come.
    pub fn layer_bytes(&self, layer: usize, done: u64) {
        self.update(|status, of_layers| {
            of_layers.insert(layer, done);
            status.done = of_layers.values().sum();
        });
        let mut logged = self.logged.lock();
        if logged.elapsed() >= LOG_EVERY {
            *logged = Instant::now();
            let seconds = self.began.elapsed().as_secs();
            if let Some(PullStatus { image, layers, ready, done, total }) = self.status() {
                tracing::info!(%image, done, total, ready, layers, seconds, "pulling an image");
            }
        }
    }

    /// A layer is unpacked, or was.
    pub fn layer_ready(&self) {
        self.update(|status, _| status.ready += 1);
    }

    pub fn status(&self) -> Option<PullStatus> {
        self.progress.0.lock().pulls.get(&self.id).map(|(status, _)| status.clone())
    }

    /// Since the pull began.
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    fn update(&self, change: impl FnOnce(&mut PullStatus, &mut BTreeMap<usize, u64>)) {
        if let Some((status, of_layers)) = self.progress.0.lock().pulls.get_mut(&self.id) {
            change(status, of_layers);
        }
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        self.progress.0.lock().pulls.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_pull_is_on_the_board_while_it_lasts() {
        let progress = Progress::default();
        let image: Reference = "app:1".parse().unwrap();
        let (one, other) = (progress.begin(&image), progress.begin(&image));
        one.resolved(2, 300);
        one.layer_bytes(0, 100);
        one.layer_bytes(1, 50);
        // A broken download that has to begin anew counts once.
        one.layer_bytes(1, 20);
        one.layer_ready();
        let expected = PullStatus { image, layers: 2, ready: 1, done: 120, total: 300 };
        assert_eq!(progress.under_way()[0], expected);
        drop(one);
        assert_eq!(progress.under_way().len(), 1);
        drop(other);
        assert!(progress.under_way().is_empty());
    }
}
