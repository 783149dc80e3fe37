//! What balancers tell of their targets, on its way to the writer. Who tells must not wait, and nothing of it may be lost:
//! of each target the last word is kept, so that what waits is no more than there are targets.

use crate::writer::Inbox;
use gantry_control::engine::Input;
pub use gantry_control::routing::TargetNews;
use gantry_decide::routing::config::{TargetGroupArn, TargetKey};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::Notify;

/// See the module.
#[derive(Default)]
pub struct Mailbox {
    waiting: Mutex<BTreeMap<(TargetGroupArn, TargetKey), TargetNews>>,
    arrived: Notify,
}

impl Mailbox {
    /// Takes news of a target, in place of what waits of it.
    pub fn put(&self, news: TargetNews) {
        let target = match &news {
            TargetNews::Health(report) => (report.group.clone(), report.target.clone()),
            TargetNews::Drained { group, target } => (group.clone(), target.clone()),
        };
        self.waiting.lock().insert(target, news);
        self.arrived.notify_one();
    }
}

/// Empties a mailbox into the writer's, until the writer has ended.
pub async fn carry(mailbox: Arc<Mailbox>, inbox: Inbox<Input>) {
    loop {
        let news = std::mem::take(&mut *mailbox.waiting.lock());
        if news.is_empty() {
            mailbox.arrived.notified().await;
        }
        for news in news.into_values() {
            if inbox.hand_over(Input::Target(news)).await.is_err() {
                return;
            }
        }
    }
}
