//! Fetches images before a task needs them: one at a time, one layer at a time, never while a task waits for an image, and
//! only where the disk has room to spare.

use super::pull::Images;
use super::reference::Reference;
use super::store::{ImageRecord, StoreError};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::PoisonError;
use std::time::Duration;
use tokio::sync::Notify;

/// Services whose images are remembered, and images of one service; what is beyond is fetched when it is needed.
const SERVICES_MAX: usize = 1000;
const IMAGES_MAX: usize = 20;
/// Between two looks whether tasks still wait for images of their own.
const YIELD: Duration = Duration::from_millis(200);

/// What services are going to need, as the control plane told it.
#[derive(Default)]
pub(super) struct Wishes {
    services: BTreeMap<String, BTreeSet<Reference>>,
    /// To fetch, in turn.
    queue: Vec<Reference>,
    /// Whether the control plane has told anything since the agent began.
    heard: bool,
}

/// The wishes, and a bell for who fulfils them.
#[derive(Default)]
pub(super) struct Wanted {
    pub(super) wishes: std::sync::Mutex<Wishes>,
    bell: Notify,
}

impl Wanted {
    /// Images that services are going to need; none before anything is known of them.
    pub(super) fn all(&self) -> Option<BTreeSet<Reference>> {
        let wishes = self.wishes.lock().unwrap_or_else(PoisonError::into_inner);
        wishes.heard.then(|| wishes.services.values().flatten().cloned().collect())
    }
}

impl Images {
    /// A service is going to need these images; none if it needs no more.
    pub fn want(&self, service: String, images: &[String]) {
        let images: BTreeSet<Reference> =
            images.iter().take(IMAGES_MAX).filter_map(|image| image.parse().ok()).collect();
        let wanted = self.wanted();
        let mut wishes = wanted.wishes.lock().unwrap_or_else(PoisonError::into_inner);
        wishes.heard = true;
        if images.is_empty() {
            wishes.services.remove(&service);
            return;
        }
        if wishes.services.len() >= SERVICES_MAX && !wishes.services.contains_key(&service) {
            return;
        }
        for image in &images {
            if !wishes.queue.contains(image) {
                wishes.queue.push(image.clone());
            }
        }
        wishes.services.insert(service, images);
        wanted.bell.notify_one();
    }

    /// Fetches what is wanted, for as long as the agent lives. What cannot be had is left to the task that needs it.
    pub async fn keep_fetching(self) {
        loop {
            let Some(image) = self.next_wish() else {
                self.wanted().bell.notified().await;
                continue;
            };
            while !self.under_way().is_empty() {
                tokio::time::sleep(YIELD).await;
            }
            let fetched = self.fetch_ahead(&image).await;
            self.note_wanted().await;
            match fetched {
                Ok(true) => tracing::info!(%image, "an image was fetched ahead of its tasks"),
                Ok(false) => {}
                Err(error) => tracing::warn!(%image, %error, "an image cannot be fetched ahead of its tasks"),
            }
        }
    }

    async fn note_wanted(&self) {
        let images = self.clone();
        let noted = tokio::task::spawn_blocking(move || images.keep_wanted(&images.store().list()?));
        if let Ok(Err(error)) = noted.await {
            tracing::warn!(%error, "images that services want are not marked");
        }
    }

    /// Marks the images that services are going to need, for every agent that shares the store. Blocks.
    pub(super) fn keep_wanted(&self, records: &[ImageRecord]) -> Result<(), StoreError> {
        let Some(wanted) = self.wanted().all() else { return Ok(()) };
        let layers = |record: &ImageRecord| record.layers.iter().map(|layer| layer.diff_id.hex()).collect();
        let wanted: BTreeMap<_, _> = records
            .iter()
            .filter(|record| wanted.contains(&record.name))
            .map(|record| (record.config_digest, layers(record)))
            .collect();
        self.holds().want(self.store(), &wanted)
    }

    /// The next image of the queue that some service still wants.
    fn next_wish(&self) -> Option<Reference> {
        let mut wishes = self.wanted().wishes.lock().unwrap_or_else(PoisonError::into_inner);
        while !wishes.queue.is_empty() {
            let image = wishes.queue.remove(0);
            if wishes.services.values().any(|images| images.contains(&image)) {
                return Some(image);
            }
        }
        None
    }
}
