//! Time for the balancer: the wall clock, and a watch that ends waits without a timer's cost for each.

use gantry_decide::time::Timestamp;
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Poll, Waker};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::{Instant, Sleep, sleep_until};

/// The wall clock.
pub fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// A wait took longer than it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimedOut;

/// One timer for all waits of a connection, one after the other. Waits mostly end early; so the timer is left where it
/// stands, and when it fires it looks how long the wait has really been idle.
#[derive(Debug)]
pub struct Watch {
    last: Cell<Instant>,
    sleep: RefCell<Pin<Box<Sleep>>>,
    /// Whom the timer wakes as it stands. It need not be told at each wait.
    woken: RefCell<Option<Waker>>,
}

impl Watch {
    /// A watch for waits of mostly `limit`.
    pub fn new(limit: Duration) -> Watch {
        let now = Instant::now();
        let sleep = Box::pin(sleep_until(now + limit));
        Watch { last: Cell::new(now), sleep: RefCell::new(sleep), woken: RefCell::default() }
    }

    /// Something moved: the limit counts from here.
    pub fn touch(&self) {
        self.last.set(Instant::now());
    }

    /// Drives `work` until it is done, or until `limit` has passed without a [`touch`](Watch::touch).
    ///
    /// # Errors
    /// When it took too long; `work` is dropped.
    pub async fn guard<F: Future>(&self, limit: Duration, work: F) -> Result<F::Output, TimedOut> {
        self.touch();
        let mut work = pin!(work);
        let mut armed = false;
        std::future::poll_fn(|context| {
            if let Poll::Ready(output) = work.as_mut().poll(context) {
                return Poll::Ready(Ok(output));
            }
            let mut sleep = self.sleep.borrow_mut();
            if !armed {
                armed = true;
                let deadline = self.last.get() + limit;
                if deadline < sleep.deadline() {
                    sleep.as_mut().reset(deadline);
                    self.woken.take();
                }
            }
            let mut woken = self.woken.borrow_mut();
            let told = woken.as_ref().is_some_and(|woken| woken.will_wake(context.waker()));
            if told && !sleep.is_elapsed() {
                return Poll::Pending;
            }
            while sleep.as_mut().poll(context).is_ready() {
                let deadline = self.last.get() + limit;
                if deadline <= Instant::now() {
                    return Poll::Ready(Err(TimedOut));
                }
                sleep.as_mut().reset(deadline);
            }
            woken.get_or_insert_with(|| context.waker().clone()).clone_from(context.waker());
            Poll::Pending
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_wait_ends_when_nothing_moves() {
        let watch = Watch::new(Duration::from_secs(60));
        assert_eq!(watch.guard(Duration::from_secs(60), std::future::ready(3)).await, Ok(3));
        let begun = Instant::now();
        let forever = std::future::pending::<()>();
        assert_eq!(watch.guard(Duration::from_secs(5), forever).await, Err(TimedOut));
        assert_eq!(begun.elapsed().as_secs(), 5);
        let moving = async {
            for _ in 0..10 {
                tokio::time::sleep(Duration::from_secs(4)).await;
                watch.touch();
            }
            std::future::pending::<()>().await;
        };
        assert_eq!(watch.guard(Duration::from_secs(5), moving).await, Err(TimedOut));
        assert_eq!(begun.elapsed().as_secs(), 50);
        // The timer of a wait that ended early serves the next one, whoever it is that waits.
        let soon = tokio::time::sleep(Duration::from_secs(1));
        assert_eq!(watch.guard(Duration::from_secs(7), soon).await, Ok(()));
        let watch = std::rc::Rc::new(watch);
        let other = async move { watch.guard(Duration::from_secs(7), std::future::pending::<()>()).await };
        let local = tokio::task::LocalSet::new();
        let other = local.spawn_local(other);
        assert_eq!(local.run_until(other).await.ok(), Some(Err(TimedOut)));
        assert_eq!(begun.elapsed().as_secs(), 58);
    }
}
