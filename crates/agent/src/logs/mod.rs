//! Log drivers: where the output of containers goes.
//!
//! Every container's output is written to files of this host by its shim, which no agent and no server can hold up.
//! The driver `awslogs` follows these files and sends what they hold to CloudWatch Logs. How far it is, is stored there
//! together with the events, so that neither a lost answer nor a restart of either side loses or repeats anything.
//! `syslog` and `fluentd` follow them alike; how far those are, only a file beside the log knows.

mod address;
mod assemble;
mod awslogs;
mod fluentd;
mod local;
mod options;
mod ship;
mod syslog;
mod tail;

pub use address::Address;
pub use fluentd::Fluentd;
pub use options::{Awslogs, LogDriver, Multiline, OptionError, Writer};

use crate::client::{Client, ClientError};
use awslogs::AwslogsSink;
use fluentd::FluentdReceiver;
use local::LocalSink;
use parking_lot::Mutex;
use ship::ship;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use syslog::SyslogReceiver;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// How long the removal of a stopped task's remains waits for its logs to be sent.
const FORGET_MAX: Duration = Duration::from_secs(30);
/// How long a log router's stop waits for the last lines of those that log through it: well within the 30 s that it has
/// itself before it is killed.
const SETTLE_MAX: Duration = Duration::from_secs(5);
const SETTLE_LOOK: Duration = Duration::from_millis(20);
/// How long the agent's end waits for logs to be sent, where their files go with it.
const END_MAX: Duration = Duration::from_secs(5);

/// What a container's log is to be followed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    /// What was written and what will be.
    Follow,
    /// What was written: the container has ended.
    Finish,
}

struct Following {
    wish: watch::Sender<Wish>,
    work: JoinHandle<()>,
}

/// Task, as its directory is named, and container.
type Key = (String, String);

/// The logs that are being sent. Cheap to clone.
#[derive(Clone)]
pub struct Shipping {
    client: Client,
    followed: Arc<Mutex<BTreeMap<Key, Following>>>,
}

impl Shipping {
    pub fn new(client: Client) -> Shipping {
        Shipping { client, followed: Arc::default() }
    }

    /// Makes the stream that a container's output goes to, and its group if that is wanted.
    ///
    /// # Errors
    /// What the control plane says against it. That it cannot be reached is none: it is tried again when there is
    /// something to send.
    pub async fn prepare(&self, to: &Awslogs) -> Result<(), ClientError> {
        match awslogs::prepare(&self.client.in_region(&to.region), to).await {
            Err(error) if error.is_transient() => Ok(()),
            other => other,
        }
    }

    /// Follows the log of a container that runs, or has run. Being followed already is no error.
    pub fn follow(&self, task: String, container: String, log: PathBuf, driver: LogDriver) {
        if !matches!(driver, LogDriver::File { .. } | LogDriver::None | LogDriver::Engine) {
            self.follow_once(task, container, log, std::future::ready(driver));
        }
    }

    /// The same, as soon as it is known where it goes.
    pub fn follow_once(
        &self,
        task: String,
        container: String,
        log: PathBuf,
        driver: impl Future<Output = LogDriver> + Send + 'static,
    ) {
        let mut followed = self.followed.lock();
        let key = (task, container);
        if let Some(following) = followed.get(&key)
            && !following.work.is_finished()
        {
            following.wish.send_replace(Wish::Follow);
            return;
        }
        let (wish, wished) = watch::channel(Wish::Follow);
        let (client, container) = (self.client.clone(), key.1.clone());
        let work = tokio::spawn(async move { send(client, driver.await, &container, log, wished).await });
        followed.insert(key, Following { wish, work });
    }

    /// A container has ended: its log is sent to its end.
    pub fn ended(&self, task: &str, container: &str) {
        let key = (task.to_owned(), container.to_owned());
        if let Some(following) = self.followed.lock().get(&key) {
            following.wish.send_replace(Wish::Finish);
        }
    }

    /// Waits until the logs of a task's containers that have ended are sent, but not for long: who takes them is about to
    /// be stopped.
    pub async fn settle(&self, task: &str) {
        let deadline = tokio::time::Instant::now() + SETTLE_MAX;
        let waits = || {
            let followed = self.followed.lock();
            let mut of_task = followed.iter().filter(|((of, _), _)| of == task);
            of_task.any(|(_, following)| {
                *following.wish.borrow() == Wish::Finish && !following.work.is_finished()
            })
        };
        while waits() && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(SETTLE_LOOK).await;
        }
    }

    /// Waits until a task's logs are sent, but not for ever: their files are about to be removed.
    pub async fn forget(&self, task: &str) {
        let of_task = {
            let mut followed = self.followed.lock();
            let keys: Vec<Key> = followed.keys().filter(|(of, _)| of == task).cloned().collect();
            keys.into_iter()
                .filter_map(|key| Some((key.1.clone(), followed.remove(&key)?)))
                .collect::<Vec<_>>()
        };
        finish(of_task, FORGET_MAX).await;
    }

    /// Waits until all logs are sent, but not for long.
    pub async fn finish(&self) {
        let all = std::mem::take(&mut *self.followed.lock());
        finish(all.into_iter().map(|((_, container), following)| (container, following)), END_MAX).await;
    }
}

/// Sends a container's log to where its driver says, to its end.
async fn send(
    client: Client,
    driver: LogDriver,
    container: &str,
    log: PathBuf,
    wished: watch::Receiver<Wish>,
) {
    match driver {
        LogDriver::File { .. } | LogDriver::None | LogDriver::Engine => {}
        LogDriver::Awslogs(to) => {
            let multiline = to.multiline.clone();
            let sink = AwslogsSink::new(client.in_region(&to.region), to);
            ship(sink, log, multiline, wished).await;
        }
        LogDriver::Syslog(to) => {
            let sink = LocalSink::new(SyslogReceiver::new(to), &log, format!("syslog:{container}"));
            ship(sink, log, None, wished).await;
        }
        LogDriver::Fluentd(to) => {
            let sink = LocalSink::new(FluentdReceiver::new(to), &log, format!("fluentd:{container}"));
            ship(sink, log, None, wished).await;
        }
    }
}

async fn finish(followed: impl IntoIterator<Item = (String, Following)>, within: Duration) {
    let followed: Vec<_> = followed.into_iter().collect();
    for (_, following) in &followed {
        following.wish.send_replace(Wish::Finish);
    }
    let deadline = tokio::time::Instant::now() + within;
    for (container, Following { mut work, .. }) in followed {
        let left = deadline.saturating_duration_since(tokio::time::Instant::now());
        if timeout(left, &mut work).await.is_err() {
            tracing::warn!(container, "the end of a container's log is lost: it could not be sent in time");
            work.abort();
        }
    }
}
