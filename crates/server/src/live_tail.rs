//! Sessions of StartLiveTail: what groups take is told to who listens, once a second, as a stream of events over HTTP.

use crate::cell::Shared;
use crate::logs::Tap;
use crate::os;
use gantry_control::services::logs::links::LiveTail;
use gantry_control::tx::View;
use gantry_decide::ids::Scope;
use gantry_wire::{ApiError, event_stream};
use hyper::body::Bytes;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

/// Between two looks at what came. What comes meanwhile waits in bounded room.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Looks between two updates: AWS sends one a second.
const LOOKS: u32 = 10;
/// How long a session lasts: AWS's limit.
const SESSION_MAX: Duration = Duration::from_secs(3 * 3600);
/// Updates that wait for a client that reads slowly, as on AWS. More are left out, and the next one says so.
const UPDATES_MAX: usize = 10;

/// Begins a session; its messages, until nobody takes them any more or the server ends.
pub fn begin(tail: LiveTail, tap: Arc<Tap>, scope: Scope, shared: Arc<Shared>) -> mpsc::Receiver<Bytes> {
    let (messages, stream) = mpsc::channel(UPDATES_MAX);
    tokio::spawn(run(tail, tap, scope, shared, messages));
    stream
}

async fn run(
    mut tail: LiveTail,
    tap: Arc<Tap>,
    scope: Scope,
    shared: Arc<Shared>,
    messages: mpsc::Sender<Bytes>,
) {
    let (name, start) = tail.start();
    // There is room for these two.
    let _ = messages.try_send(event_stream::initial_response().into());
    let _ = messages.try_send(event_stream::event(name, &start).into());
    let mut ending = shared.ending();
    let over = Instant::now() + SESSION_MAX;
    let mut looks = interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut looked, mut left_out) = (0, false);
    loop {
        tokio::select! {
            _ = looks.tick() => {}
            () = messages.closed() => return,
            _ = ending.changed() => return,
            () = sleep_until(over) => {
                let error = ApiError::new("SessionTimeoutException", "The session has lasted for three hours.");
                // Who reads so slowly that there is no room sees the end all the same.
                let _ = messages.try_send(event_stream::exception(&error).into());
                return;
            }
        }
        let (events, missed) = tap.take();
        {
            let state = shared.published().snapshot(&scope);
            tail.take(View { scope: &scope, state: &state, now: os::now() }, events, missed || left_out);
        }
        left_out = false;
        looked += 1;
        if looked == LOOKS {
            looked = 0;
            let (name, update) = tail.update();
            match messages.try_send(event_stream::event(name, &update).into()) {
                Ok(()) => {}
                Err(TrySendError::Full(_)) => left_out = true,
                Err(TrySendError::Closed(_)) => return,
            }
        }
    }
}
