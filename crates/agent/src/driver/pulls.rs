//! How pulls come along, for who asks why a task does not run yet: the control plane is told, by the second, of those that
//! tasks have waited for so long that it was told of their beginning. Nothing of it is kept there.

use super::Hands;
use crate::images::{PullStatus, Reference};
use crate::runtime::Runtime;
use gantry_api::acs;
use gantry_decide::task_engine::TaskArn;
use gantry_wire::envelope::seal;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::sleep;

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Pulls that are told of at once: more than anybody reads.
const TOLD_MAX: usize = 100;

/// The containers whose images are awaited.
#[derive(Default)]
pub struct Awaited(Mutex<BTreeMap<(TaskArn, String), Reference>>);

/// One of them, until it is dropped.
pub struct Awaiting<'a> {
    all: &'a Awaited,
    key: (TaskArn, String),
}

impl Awaited {
    pub fn begin(&self, task: &TaskArn, container: &str, image: &Reference) -> Awaiting<'_> {
        let key = (task.clone(), container.to_owned());
        self.0.lock().insert(key.clone(), image.clone());
        Awaiting { all: self, key }
    }

    /// What is told. `under_way` are the pulls that there are; of other images nothing has come yet.
    fn told(&self, under_way: &[PullStatus]) -> Vec<acs::PullStatus> {
        let bytes = |bytes: u64| i64::try_from(bytes).ok();
        let told = |((task, container), image): (&(TaskArn, String), &Reference)| {
            let status = under_way.iter().find(|status| status.image == *image);
            acs::PullStatus {
                task_arn: Some(task.0.clone()),
                container_name: Some(container.clone()),
                image: Some(image.familiar()),
                done_bytes: status.and_then(|status| bytes(status.done)),
                total_bytes: status.and_then(|status| bytes(status.total)),
            }
        };
        self.0.lock().iter().take(TOLD_MAX).map(told).collect()
    }
}

impl Drop for Awaiting<'_> {
    fn drop(&mut self) {
        self.all.0.lock().remove(&self.key);
    }
}

/// Tells of pulls as they come along, all of them each time, until nobody listens.
pub async fn tell<R: Runtime>(hands: Arc<Hands<R>>, acs: mpsc::Sender<String>) {
    let mut last = Vec::new();
    while !acs.is_closed() {
        sleep(LOOK_EVERY).await;
        let now = hands.awaited.told(&hands.images.under_way());
        // What finds no room is told a second later.
        if now != last
            && acs.try_send(seal("PullProgress", &acs::PullProgress { pulls: Some(now.clone()) })).is_ok()
        {
            last = now;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn who_waits_is_told_of_with_what_has_come() {
        let awaited = Awaited::default();
        let (image, other): (Reference, Reference) = ("app:1".parse().unwrap(), "db:2".parse().unwrap());
        let task = |number: u8| TaskArn(format!("task-{number}"));
        let first = awaited.begin(&task(1), "web", &image);
        let _second = awaited.begin(&task(2), "db", &other);
        let pull = PullStatus { image, layers: 3, ready: 1, done: 100, total: 400 };
        let told = |under_way: &[PullStatus]| {
            let all = awaited.told(under_way).into_iter();
            all.map(|one| (one.task_arn.unwrap(), one.done_bytes, one.total_bytes)).collect::<Vec<_>>()
        };
        let of = |number: u8, done, total| (task(number).0, done, total);
        assert_eq!(told(std::slice::from_ref(&pull)), [of(1, Some(100), Some(400)), of(2, None, None)]);
        drop(first);
        assert_eq!(told(&[pull]), [of(2, None, None)]);
    }
}
