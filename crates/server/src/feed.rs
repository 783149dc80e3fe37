//! Writes the feed: a thread that compares the published state with the one it saw before, now and then, and appends
//! what happened to the store of log events. No request waits for it, and no writer does anything for it.
//!
//! What the store does not take is offered again. After a crash, what happened since the last append is found out from
//! the times in the tables; a change that has no time there, such as an instance's draining, is lost with the half second
//! before the crash.

use crate::cell::Shared;
use crate::logs::LogStore;
use crate::os;
use gantry_control::bulk::logs::{Answer, Append, Request};
use gantry_control::feed::{self, FeedEvent};
use gantry_control::state::State;
use gantry_decide::ids::Scope;
use gantry_decide::time::Timestamp;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

/// Between two looks: what who follows the feed waits for. Each look costs what changed meanwhile, and one sync.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// The running thread. Dropping it ends it without a last look.
pub struct FeedWriter {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What the thread knows.
struct Writing {
    shared: Arc<Shared>,
    store: Arc<LogStore>,
    /// As it was told of last, and when it was the newest still.
    seen: Arc<State>,
    seen_at: Timestamp,
    /// Found, and not taken by the store yet. Nothing more is looked for before it is.
    waiting: Vec<Append>,
}

impl FeedWriter {
    /// Starts at the state as it is published now.
    ///
    /// # Errors
    /// When a thread cannot be made.
    pub fn start(shared: Arc<Shared>, store: Arc<LogStore>) -> io::Result<FeedWriter> {
        let (stop, stopped) = mpsc::channel();
        let thread = std::thread::Builder::new().name("feed".to_owned()).spawn(move || {
            let seen = shared.published();
            let mut writing = Writing { shared, store, seen, seen_at: os::now(), waiting: Vec::new() };
            writing.catch_up();
            writing.run(&stopped);
        })?;
        Ok(FeedWriter { stop: Some(stop), thread: Some(thread) })
    }

    /// Takes a last look, and ends.
    pub fn stop(mut self) {
        if let Some(stop) = &self.stop {
            // The thread has ended by itself only if it panicked, which is seen below.
            let _ = stop.send(());
        }
        self.end();
    }

    fn end(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that writes the feed panicked");
        }
    }
}

impl Drop for FeedWriter {
    fn drop(&mut self) {
        self.end();
    }
}

impl Writing {
    fn run(&mut self, stopped: &Receiver<()>) {
        loop {
            match stopped.recv_timeout(LOOK_EVERY) {
                Err(RecvTimeoutError::Timeout) => self.look(),
                Ok(()) => return self.look(),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Tells what happened since the state that was seen before.
    fn look(&mut self) {
        if self.waiting.is_empty() {
            let (now, published) = (os::now(), self.shared.published());
            if !Arc::ptr_eq(&self.seen, &published) {
                self.waiting = feed::appends(feed::between(&self.seen, &published, self.seen_at, now), now);
                self.seen = published;
            }
            self.seen_at = now;
        }
        self.append();
    }

    /// Tells what the tables know of the time since the last append of the run before.
    fn catch_up(&mut self) {
        let mut told: BTreeMap<(Scope, String), Option<Timestamp>> = BTreeMap::new();
        let mut is_news = |scope: &Scope, event: &FeedEvent| {
            let key = (scope.clone(), event.cluster().to_string());
            let last = told.entry(key).or_insert_with(|| last_told(&self.store, scope, event));
            // Where nothing was ever told, the past stays untold.
            last.is_some_and(|last| event.at > last)
        };
        let mut events = feed::between(&State::default(), &self.seen, self.seen_at, self.seen_at);
        events.retain(|(scope, event)| is_news(scope, event));
        self.waiting = feed::appends(events, self.seen_at);
        self.append();
    }

    /// Hands over what waits, and keeps what is refused.
    fn append(&mut self) {
        let (results, answers) = mpsc::channel();
        for (index, append) in self.waiting.iter().enumerate() {
            let results = results.clone();
            let done = move |answer: Result<Answer, _>| drop(results.send((index, answer)));
            self.store.append(append.clone(), Box::new(done));
        }
        drop(results);
        let mut refused = Vec::new();
        for (index, answer) in answers {
            if let Err(error) = answer {
                tracing::warn!(%error, "events of the feed wait for the store");
                refused.push(index);
            }
        }
        let mut index = 0;
        self.waiting.retain(|_| {
            index += 1;
            refused.contains(&(index - 1))
        });
    }
}

/// When events of the cluster of `event` were last appended.
fn last_told(store: &LogStore, scope: &Scope, event: &FeedEvent) -> Option<Timestamp> {
    let stream = feed::stream(event.cluster());
    let request = Request::Describe { group: feed::group(scope), streams: vec![stream] };
    match store.read(&request) {
        Ok(Answer::Streams(facts)) => facts.get(&stream).and_then(|facts| facts.last_ingestion),
        _ => None,
    }
}
