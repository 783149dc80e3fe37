//! The writer loop: the one thread that steps the control plane. It gathers what arrived, steps, hands batches to the
//! [`Committer`] and effects to its performer, and sleeps until something arrives or the machine wants to be woken.
//!
//! The loop knows no services: it drives any [`Machine`], in production the control engine.

use crate::committer::{Backlog, Committer, Notice};
use crate::os::now;
use gantry_decide::time::Timestamp;
use gantry_store::{Backend, BackendError, Batch, Fence};
use parking_lot::Mutex;
use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError};

/// Inputs that may wait. A step takes some microseconds an input, so the last of so many waits a few tens of
/// milliseconds; callers beyond are told to slow down.
pub const INPUTS_MAX: usize = 4096;
/// Inputs of one step, calm ones among them: bounds how long a step lasts and how large its batch becomes.
pub const INPUTS_PER_STEP_MAX: usize = 256;
/// Fewer calm inputs than these wait without waking the loop; see [`Inbox::hand_over_calmly`]. A step takes all of them,
/// and has room for what woke it.
pub const CALM_MAX: usize = INPUTS_PER_STEP_MAX;
/// The longest sleep, whatever the machine wishes: a clock that was set back must not delay everything for hours.
const SLEEP_MAX: Duration = Duration::from_secs(1);

/// What the loop drives: a sans-IO state machine.
pub trait Machine: Send + 'static {
    type Input: Send + 'static;
    type Effect;

    /// Applies inputs in order.
    fn step(&mut self, now: Timestamp, inputs: Vec<Self::Input>) -> Vec<Step<Self::Effect>>;
    /// The batch of this number, and all before it, are on disk.
    fn durable(seq: u64) -> Self::Input;
    /// Time has passed.
    fn tick() -> Self::Input;
}

/// What a step asks for.
#[derive(Debug)]
pub enum Step<E> {
    /// Make durable; answered by [`Machine::durable`].
    Persist(Batch),
    /// Step with [`Machine::tick`] then at the latest. Replaces earlier wishes.
    WakeAt(Timestamp),
    /// Everything else, in order.
    Perform(E),
}

/// Why the loop ended before it was told to. The process must stop: what it would say next might not be true.
#[derive(Debug, thiserror::Error)]
pub enum Fatal {
    #[error("the store failed")]
    Store(#[source] BackendError),
    #[error("the control plane broke an invariant: {message}")]
    Panicked { message: String },
}

/// An input that was not taken: too much waits already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    #[error("too many requests wait; try again")]
    Full,
    #[error("the server is stopping")]
    Stopped,
}

enum Event<I> {
    Input(I, OwnedSemaphorePermit),
    Committed(Notice),
    Stop,
}

/// Hands inputs to the loop. Cheap to clone.
pub struct Inbox<I> {
    events: Sender<Event<I>>,
    /// What waits for the next step without asking for one.
    calm: Arc<Mutex<Vec<I>>>,
    room: Arc<Semaphore>,
    backlog: Backlog,
}

impl<I> Clone for Inbox<I> {
    fn clone(&self) -> Self {
        Inbox {
            events: self.events.clone(),
            calm: Arc::clone(&self.calm),
            room: Arc::clone(&self.room),
            backlog: self.backlog.clone(),
        }
    }
}

impl<I> Inbox<I> {
    /// Hands over an input now or not at all: for API calls, whose callers can be told to try again.
    ///
    /// # Errors
    /// When too much waits, in memory or for the disk, or the loop has ended.
    pub fn offer(&self, input: I) -> Result<(), Rejected> {
        if self.backlog.is_full() {
            return Err(Rejected::Full);
        }
        match Arc::clone(&self.room).try_acquire_owned() {
            Ok(permit) => self.events.send(Event::Input(input, permit)).map_err(|_| Rejected::Stopped),
            Err(TryAcquireError::NoPermits) => Err(Rejected::Full),
            Err(TryAcquireError::Closed) => Err(Rejected::Stopped),
        }
    }

    /// Waits until there is room: for agents' messages, which slows the agent down.
    ///
    /// # Errors
    /// When the loop has ended.
    pub async fn hand_over(&self, input: I) -> Result<(), Rejected> {
        let permit = Arc::clone(&self.room).acquire_owned().await.map_err(|_| Rejected::Stopped)?;
        self.events.send(Event::Input(input, permit)).map_err(|_| Rejected::Stopped)
    }

    /// Hands over an input on whose effect nobody waits, such as an acknowledgment: the next step takes it, and one
    /// comes within [`SLEEP_MAX`]. It is taken before all that is handed over later; what was handed over earlier may
    /// come after it. Waking the loop for each would cost more than the steps do.
    ///
    /// # Errors
    /// When the loop has ended.
    pub async fn hand_over_calmly(&self, input: I) -> Result<(), Rejected> {
        let too_many = {
            let mut calm = self.calm.lock();
            calm.push(input);
            if calm.len() < CALM_MAX {
                return Ok(());
            }
            std::mem::take(&mut *calm)
        };
        for input in too_many {
            self.hand_over(input).await?;
        }
        Ok(())
    }
}

/// The running loop.
pub struct Writer<I: Send + 'static> {
    inbox: Inbox<I>,
    thread: Option<JoinHandle<Result<(), Fatal>>>,
}

impl<I: Send + 'static> Writer<I> {
    /// Starts the loop and the commit thread. `perform` is called on the loop's thread and must not wait.
    /// `on_fatal` is called on it once, last, if the loop ends by itself.
    ///
    /// # Errors
    /// When a thread cannot be made.
    pub fn start<M: Machine<Input = I>>(
        machine: M,
        backend: Box<dyn Backend>,
        fence: Fence,
        perform: impl FnMut(M::Effect) + Send + 'static,
        on_fatal: impl FnOnce(&Fatal) + Send + 'static,
    ) -> io::Result<Writer<I>> {
        let (events, arriving) = mpsc::channel();
        let room = Arc::new(Semaphore::new(INPUTS_MAX));
        let notices = events.clone();
        // Once the loop has ended nobody needs to know.
        let notify = move |notice| drop(notices.send(Event::Committed(notice)));
        let committer = Committer::start(backend, fence, notify)?;
        let calm = Arc::new(Mutex::new(Vec::new()));
        let backlog = committer.backlog();
        let inbox = Inbox { events, calm: Arc::clone(&calm), room: Arc::clone(&room), backlog };
        let thread = std::thread::Builder::new().name("writer".to_owned()).spawn(move || {
            let result = run(machine, &arriving, &calm, &committer, perform);
            room.close();
            // Lets go of the store before anyone is told that the loop has ended.
            drop(committer);
            if let Err(fatal) = &result {
                tracing::error!(error = fatal as &dyn std::error::Error, "the writer stops");
                on_fatal(fatal);
            }
            result
        })?;
        Ok(Writer { inbox, thread: Some(thread) })
    }

    pub fn inbox(&self) -> Inbox<I> {
        self.inbox.clone()
    }

    /// Takes in what was handed over before, waits until all of it is durable and its effects are performed, and ends.
    ///
    /// # Errors
    /// When the loop had ended by itself.
    pub fn stop(mut self) -> Result<(), Fatal> {
        self.end()
    }

    fn end(&mut self) -> Result<(), Fatal> {
        // Refused if the loop has ended already; then there is a result to collect.
        let _ = self.inbox.events.send(Event::Stop);
        match self.thread.take().map(JoinHandle::join) {
            None => Ok(()),
            Some(Ok(result)) => result,
            Some(Err(panic)) => Err(Fatal::Panicked { message: panic_message(panic.as_ref()) }),
        }
    }
}

impl<I: Send + 'static> Drop for Writer<I> {
    fn drop(&mut self) {
        // The loop has logged its error.
        let _ = self.end();
    }
}

fn run<M: Machine>(
    mut machine: M,
    arriving: &Receiver<Event<M::Input>>,
    calm: &Mutex<Vec<M::Input>>,
    committer: &Committer,
    mut perform: impl FnMut(M::Effect),
) -> Result<(), Fatal> {
    // At once: what was loaded may need action.
    let mut wake = Timestamp::EPOCH;
    let (mut persisted, mut durable) = (0, 0);
    let mut stopping = false;
    loop {
        let mut next = match arriving.recv_timeout(sleep(now(), wake)) {
            Ok(event) => Some(event),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        };
        let mut inputs = std::mem::take(&mut *calm.lock());
        while let Some(event) = next {
            match event {
                Event::Input(input, permit) => {
                    drop(permit);
                    inputs.push(input);
                }
                Event::Committed(Notice::Durable(seq)) => {
                    durable = seq;
                    inputs.push(M::durable(seq));
                }
                Event::Committed(Notice::Failed(error)) => return Err(Fatal::Store(error)),
                Event::Stop => stopping = true,
            }
            next = if inputs.len() < INPUTS_PER_STEP_MAX { arriving.try_recv().ok() } else { None };
        }
        let now = now();
        if now >= wake {
            wake = Timestamp::NEVER;
            inputs.push(M::tick());
        }
        if !inputs.is_empty() {
            // A panic may have left the machine half-changed: it is not stepped again.
            let steps = catch_unwind(AssertUnwindSafe(|| machine.step(now, inputs)))
                .map_err(|panic| Fatal::Panicked { message: panic_message(panic.as_ref()) })?;
            for step in steps {
                match step {
                    Step::Persist(batch) => {
                        persisted = batch.seq;
                        committer.persist(batch);
                    }
                    Step::WakeAt(at) => wake = at,
                    Step::Perform(effect) => perform(effect),
                }
            }
        }
        if stopping && durable >= persisted {
            return Ok(());
        }
    }
}

fn sleep(now: Timestamp, wake: Timestamp) -> Duration {
    wake.since(now).min(SLEEP_MAX)
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message").to_owned()
}

#[cfg(test)]
mod tests;
