//! The agent's lease: asked for on the connection to the control plane, written down for the guard, and what follows when
//! it is over. The rules are `gantry_decide::lease`'s; see there.
//!
//! The guard is a process of its own, so that tasks end in time when the agent is stopped or dead: see [`guard`].

pub mod guard;

use gantry_api::acs;
use gantry_decide::lease::Holder;
use gantry_wire::envelope::{Frame, seal};
use guard::Record;
use parking_lot::Mutex;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

/// How often a lease is asked for until the control plane says how often it wants to be asked.
const RENEW_FIRST: Duration = Duration::from_millis(200);
/// How long tasks whose lease is over have to be gone before the agent goes on. A launch that is under way ends sooner.
pub const SETTLE_MAX: Duration = Duration::from_secs(15);
/// How long an agent that leaves waits for a last lease.
const LEAVE_MAX: Duration = Duration::from_secs(1);

/// Where a lease stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Good,
    /// Tasks have to end; nothing is said to the control plane before they have.
    Over,
}

/// See the module. Clones are the same lease.
#[derive(Clone)]
pub struct Lease {
    shared: Arc<Mutex<Shared>>,
    state: watch::Sender<State>,
    granted: watch::Sender<u64>,
}

struct Shared {
    holder: Holder,
    record: Record,
    renew_every: Duration,
}

impl Lease {
    /// Takes up the lease of the agent of this name, and starts its guard. `has_tasks`: it was given tasks before.
    ///
    /// # Errors
    /// When the record cannot be written, or no process be started.
    pub fn open(name: &str, program: &Path, has_tasks: bool) -> io::Result<Lease> {
        let record = Record::resume(name, has_tasks)?;
        let mut holder = Holder::default();
        holder.resume(record.until()?);
        guard::start(name, program)?;
        let (state, _) = watch::channel(State::Good);
        let (granted, _) = watch::channel(0);
        let shared = Shared { holder, record, renew_every: RENEW_FIRST };
        Ok(Lease { shared: Arc::new(Mutex::new(shared)), state, granted })
    }

    /// A connection begins to be made. Waits while tasks of a lease that is over have yet to end.
    pub async fn dial(&self) {
        // An error means that nobody changes it any more.
        let _ = self.state.subscribe().wait_for(|state| *state == State::Good).await;
        self.shared.lock().holder.dial(guard::now());
    }

    /// Nothing listens where the control plane was.
    pub fn refused(&self) {
        let shared = &mut *self.shared.lock();
        shared.holder.refused(guard::now());
        shared.save();
    }

    pub fn renew_every(&self) -> Duration {
        self.shared.lock().renew_every
    }

    /// The next request.
    pub fn ask(&self, leaving: bool) -> String {
        let (number, held) = self.shared.lock().holder.ask(guard::now());
        let request = acs::LeaseRequest {
            number: i64::try_from(number).ok(),
            held_millis: i64::try_from(held.as_millis()).ok(),
            leaving: leaving.then_some(true),
        };
        seal("LeaseRequest", &request)
    }

    /// Takes an answer in. False for any other message.
    pub fn hears(&self, text: &str) -> bool {
        let Some(frame) = Frame::open(text).filter(|frame| frame.kind == "LeaseMessage") else {
            return false;
        };
        let Ok(message) = frame.message::<acs::LeaseMessage>() else { return true };
        let millis = |number: Option<i64>| {
            Duration::from_millis(number.and_then(|number| u64::try_from(number).ok()).unwrap_or(0))
        };
        let number = message.number.and_then(|number| u64::try_from(number).ok()).unwrap_or(0);
        let shared = &mut *self.shared.lock();
        let (length, absence) = (millis(message.length_millis), millis(message.absence_millis));
        shared.holder.granted(guard::now(), number, length, absence);
        shared.renew_every =
            millis(message.renew_millis).clamp(Duration::from_millis(20), length.max(RENEW_FIRST));
        shared.save();
        self.granted.send_replace(number);
        true
    }

    /// Resolves when the connection has to end, because the lease is over.
    pub async fn over(&self) {
        let _ = self.state.subscribe().wait_for(|state| *state == State::Over).await;
    }

    /// Whether the tasks have to end. From then on nothing is said to the control plane until they have.
    pub fn has_run_out(&self) -> bool {
        let shared = self.shared.lock();
        // What cannot be read says that the guard may have acted.
        let out = shared.record.is_fenced().unwrap_or(true) || shared.holder.is_over(guard::now());
        drop(shared);
        if out {
            self.state.send_replace(State::Over);
        }
        out
    }

    /// Resolves when the tasks have to end.
    pub async fn run_out(&self) {
        while !self.has_run_out() {
            let (left, every) = {
                let shared = self.shared.lock();
                (shared.holder.until().map(|_| shared.holder.left(guard::now())), shared.renew_every)
            };
            sleep(left.map_or(every, |left| left.min(every)).max(Duration::from_millis(1))).await;
        }
    }

    /// The tasks have ended, or as good as: the next lease is a new one.
    pub fn settled(&self) {
        let shared = &mut *self.shared.lock();
        shared.holder.fenced();
        if let Err(error) = shared.record.clear() {
            tracing::error!(%error, "the lease cannot be written down");
        }
        self.state.send_replace(State::Good);
    }

    /// The agent goes, and its tasks stay: asks for the time that it takes to come back, and waits for it for a moment.
    pub async fn leave(&self, say: impl FnOnce(String)) {
        let mut granted = self.granted.subscribe();
        let request = self.ask(true);
        let number = self.shared.lock().holder.last_asked();
        say(request);
        let _ = timeout(LEAVE_MAX, granted.wait_for(|heard| *heard == number)).await;
    }
}

impl Shared {
    fn save(&mut self) {
        if let Err(error) = self.record.set_until(self.holder.until().unwrap_or_default()) {
            tracing::error!(%error, "the lease cannot be written down");
        }
    }
}
