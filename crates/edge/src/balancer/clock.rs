//! Time for the balancer: the wall clock, and a watch that ends waits without a timer's cost for each.

use gantry_decide::time::Timestamp;
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::{Pin, pin};
use std::task::Poll;
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
}

impl Watch {
    /// A watch for waits of mostly `limit`.
    pub fn new(limit: Duration) -> Watch {
        let now = Instant::now();
        Watch { last: Cell::new(now), sleep: RefCell::new(Box::pin(sleep_until(now + limit))) }
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
                }
            }
            while sleep.as_mut().poll(context).is_ready() {
                let deadline = self.last.get() + limit;
                if deadline <= Instant::now() {
                    return Poll::Ready(Err(TimedOut));
                }
                sleep.as_mut().reset(deadline);
            }
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
    }
}
