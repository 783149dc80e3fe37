//! Brings images into the store: behaviour, retries, parallel layers, and one fetch for all who want the same.

use super::auth::EngineAuth;
use super::config::{ConfigDocument, Descriptor, MAX_LAYERS, Manifest, ManifestDocument, Platform};
use super::digest::Digest;
use super::holds::Holds;
use super::janitor::{Because, now};
use super::policy::{Cached, OnFailure, PullBehavior, PullPlan, plan};
use super::prefetch::Wanted;
use super::progress::{Progress, PullStatus, Tracked};
use super::reference::Reference;
use super::registry::{PullError, RegistryAuth, Session};
use super::scratch::{Scratch, Spooled};
use super::settings::ImageSettings;
use super::store::{ImageRecord, ImageStore, Ingest, LayerRecord, LocalImage, Source, StoreError};
use super::transport::{Transport, Trust};
use crate::docker;
use futures_util::future::{BoxFuture, FutureExt, Shared, try_join_all};
use rand::RngExt;
use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{OnceCell, Semaphore};

/// Configurations are a few KiB; Docker bounds them at 4 MiB.
const MAX_CONFIG: u64 = 8 << 20;
/// A packed layer. The largest seen in public images are near 15 GiB.
const MAX_LAYER: u64 = 64 << 30;
/// The depth of an index in an index: attestations and build caches use two.
const MAX_INDEX_DEPTH: u32 = 3;
/// How many times its packed size an image takes while it is unpacked; most take less.
const UNPACKED_GUESS: u64 = 4;
/// The longest wait between tries.
const MAX_BACKOFF: Duration = Duration::from_secs(5);

/// How hard to try.
#[derive(Clone, Debug)]
pub struct PullOptions {
    /// Layers fetched and unpacked at once, over all pulls. Docker's default is 3 per image.
    pub parallel_layers: usize,
    /// Tries after the first for a manifest and for each layer.
    pub retries: u32,
    /// Wait before the second try; doubles with each, up to 5 s, and a random part of it is left off.
    pub backoff: Duration,
    /// What images must run on.
    pub platform: Platform,
    /// For a whole pull (`ECS_IMAGE_PULL_TIMEOUT`): a registry that trickles cannot hold it open for ever.
    pub timeout: Duration,
    /// Between two pieces of an answer (`ECS_IMAGE_PULL_INACTIVITY_TIMEOUT`); then the download is begun again where it
    /// stands.
    pub inactivity: Duration,
    /// Shown to registries where a task brings no credentials of its own.
    pub engine_auth: EngineAuth,
    pub trust: Trust,
}

impl Default for PullOptions {
    fn default() -> Self {
        PullOptions {
            parallel_layers: 4,
            retries: 4,
            backoff: Duration::from_millis(250),
            platform: Platform::host(),
            timeout: Duration::from_secs(2 * 3600),
            inactivity: Duration::from_secs(60),
            engine_auth: EngineAuth::default(),
            trust: Trust::default(),
        }
    }
}

type PullResult = Result<LocalImage, Arc<PullError>>;
type Running<K, T> = Mutex<HashMap<K, Shared<BoxFuture<'static, T>>>>;

/// The images of one agent. Clones share it.
#[derive(Clone)]
pub struct Images {
    inner: Arc<Inner>,
}

struct Inner {
    store: ImageStore,
    holds: Holds,
    settings: ImageSettings,
    /// Who keeps the images instead of the store, and pulls them.
    engine: Option<docker::Client>,
    wanted: Wanted,
    /// Made with the first pull.
    transport: OnceCell<Transport>,
    progress: Progress,
    slots: Semaphore,
    /// For layers that nobody waits for.
    slots_ahead: Semaphore,
    /// Pulls under way. Callers with other credentials start their own: nobody gets an image by another's rights.
    pulls: Running<(Reference, Option<RegistryAuth>), PullResult>,
    /// Held while a layer is being fetched, so that two images with a common base fetch it once.
    layers: Mutex<HashMap<Digest, Arc<tokio::sync::Mutex<()>>>>,
}

impl Images {
    /// Of the agent called `owner`. Touches no network: an agent that runs what it has never reads a certificate.
    ///
    /// # Errors
    /// When what the agent held before cannot be read.
    pub fn new(store: ImageStore, owner: &str, settings: ImageSettings) -> Result<Images, StoreError> {
        Images::kept_by(None, store, owner, settings)
    }

    /// Images that Docker keeps. The store stays as it is.
    ///
    /// # Errors
    /// As with [`new`](Images::new).
    pub fn of_docker(
        docker: docker::Client,
        store: ImageStore,
        owner: &str,
        settings: ImageSettings,
    ) -> Result<Images, StoreError> {
        Images::kept_by(Some(docker), store, owner, settings)
    }

    fn kept_by(
        engine: Option<docker::Client>,
        store: ImageStore,
        owner: &str,
        settings: ImageSettings,
    ) -> Result<Images, StoreError> {
        let inner = Inner {
            holds: Holds::open(&store, owner)?,
            store,
            engine,
            wanted: Wanted::default(),
            transport: OnceCell::new(),
            progress: Progress::default(),
            slots: Semaphore::new(settings.pull.parallel_layers.max(1)),
            slots_ahead: Semaphore::new(1),
            settings,
            pulls: Mutex::default(),
            layers: Mutex::default(),
        };
        Ok(Images { inner: Arc::new(inner) })
    }

    pub fn store(&self) -> &ImageStore {
        &self.inner.store
    }

    pub fn settings(&self) -> &ImageSettings {
        &self.inner.settings
    }

    pub(super) fn holds(&self) -> &Holds {
        &self.inner.holds
    }

    /// The pulls that are under way.
    pub fn under_way(&self) -> Vec<PullStatus> {
        self.inner.progress.under_way()
    }

    pub(super) fn wanted(&self) -> &Wanted {
        &self.inner.wanted
    }

    /// Fetches an image that nobody waits for, if it is not here; whether it was fetched.
    pub(super) async fn fetch_ahead(&self, name: &Reference) -> Result<bool, Arc<PullError>> {
        if self.cached(name).await.map_err(Arc::new)?.is_some() {
            return Ok(false);
        }
        self.pull_for(name, None, Urgency::Ahead).await.map(|_| true)
    }

    /// Makes the image ready to run, from the store or the registry as the pull behaviour says, and holds it for the task
    /// until that is [released](Images::release).
    pub async fn ensure(&self, name: &Reference, auth: Option<RegistryAuth>, task: &str) -> PullResult {
        let behavior = self.inner.settings.pull_behavior;
        // Twice: what was found may be given up before it is held.
        for _ in 0..2 {
            let image = self.obtain(name, behavior, auth.clone()).await?;
            if self.hold(&image, task).await.map_err(Arc::new)? {
                return Ok(image);
            }
        }
        Err(Arc::new(PullError::Interrupted))
    }

    async fn hold(&self, image: &LocalImage, task: &str) -> Result<bool, PullError> {
        if self.inner.engine.is_some() {
            // An engine keeps what its containers use by itself.
            return Ok(true);
        }
        if self.inner.holds.join(&image.config_digest, task, now()) {
            return Ok(true);
        }
        let (images, image, task) = (self.clone(), image.clone(), task.to_owned());
        let take = move || {
            let ingest = images.store().ingest()?;
            images.holds().take(images.store(), &image, &task, now(), &ingest)
        };
        blocking(take).await
    }

    /// Nothing of the task is left.
    pub fn release(&self, task: &str) {
        self.inner.holds.release(task, now());
    }

    /// Tells, once after a start, which images the containers are of that an earlier run left, by task. What it held
    /// otherwise is held no longer.
    pub fn settle(&self, found: &[(String, Digest)]) {
        self.inner.holds.settle(found);
    }

    /// Makes the image ready to run: from the store or the registry, as `behavior` says.
    async fn obtain(
        &self,
        name: &Reference,
        behavior: PullBehavior,
        auth: Option<RegistryAuth>,
    ) -> PullResult {
        let cached = self.cached(name).await.map_err(Arc::new)?;
        let facts = cached.as_ref().map(|c| Cached { source: c.source, pinned: name.digest().is_some() });
        match (plan(behavior, facts), cached) {
            (PullPlan::UseCached, Some(cached)) => Ok(cached),
            (PullPlan::Pull(OnFailure::UseCached), Some(cached)) => match self.pull(name, auth).await {
                Err(error) => {
                    tracing::warn!(image = %name, %error, "pull failed, the cached image is used");
                    Ok(cached)
                }
                pulled => pulled,
            },
            _ => self.pull(name, auth).await,
        }
    }

    /// Fetches the image from its registry, whatever is in the store. Who asks for the same image while a pull is under
    /// way gets that pull's result.
    pub async fn pull(&self, name: &Reference, auth: Option<RegistryAuth>) -> PullResult {
        self.pull_for(name, auth, Urgency::Awaited).await
    }

    async fn pull_for(&self, name: &Reference, auth: Option<RegistryAuth>, urgency: Urgency) -> PullResult {
        let auth = auth.or_else(|| self.inner.settings.pull.engine_auth.for_image(name).cloned());
        let key = (name.clone(), auth);
        let (running, joined) = {
            let mut pulls = self.inner.pulls.lock().unwrap_or_else(PoisonError::into_inner);
            let joined = pulls.contains_key(&key);
            let running = pulls.entry(key.clone()).or_insert_with(|| self.start(key.clone(), urgency));
            (running.clone(), joined)
        };
        match running.await {
            // One that nobody waited for makes no room for itself.
            Err(error) if joined && matches!(*error, PullError::NoSpace(_)) => self.start(key, urgency).await,
            result => result,
        }
    }

    /// Runs the pull in its own task: it goes on when the caller that started it goes away.
    fn start(
        &self,
        key: (Reference, Option<RegistryAuth>),
        urgency: Urgency,
    ) -> Shared<BoxFuture<'static, PullResult>> {
        let (images, inner) = (self.clone(), self.inner.clone());
        let task = tokio::spawn(async move {
            let entry = RunningEntry { inner: inner.clone(), key };
            let (name, auth) = entry.key.clone();
            let PullOptions { timeout: limit, inactivity, ref trust, .. } = inner.settings.pull;
            if let Some(engine) = &inner.engine {
                let tracked = inner.progress.begin(&name);
                let pull = docker::images::pull(engine, &name, auth.as_ref(), &inner.settings.pull, &tracked);
                return match tokio::time::timeout(limit, pull).await {
                    Ok(result) => result.map_err(|error| Arc::new(PullError::Docker(error))),
                    Err(_) => Err(Arc::new(PullError::TooSlow { limit })),
                };
            }
            let transport = inner.transport.get_or_try_init(async || Transport::new(trust)).await;
            let transport = transport.map_err(|error| Arc::new(PullError::Trust(error)))?.clone();
            let session = Session::new(transport, trust.clone(), name.clone(), auth, inactivity);
            let tracked = inner.progress.begin(&name);
            tracing::info!(image = %name, "an image is pulled");
            let pull = Pull { session, name, tracked, urgency, images: images.clone() };
            let mut result = pull.run_within(limit).await;
            if matches!(result, Err(PullError::NoSpace(_)))
                && urgency == Urgency::Awaited
                && pull.give_up_others().await
            {
                result = pull.run_within(limit).await;
                if matches!(result, Err(PullError::NoSpace(_))) {
                    pull.give_up_others().await;
                }
            }
            result.map_err(Arc::new)
        });
        // A join fails only if the pull panicked or the runtime ends.
        async move { task.await.unwrap_or_else(|_| Err(Arc::new(PullError::Interrupted))) }.boxed().shared()
    }

    /// The image that is here under a name.
    ///
    /// # Errors
    /// When the store, or the engine, cannot say.
    pub async fn cached(&self, name: &Reference) -> Result<Option<LocalImage>, PullError> {
        if let Some(engine) = &self.inner.engine {
            return docker::images::find(engine, name).await.map_err(PullError::Docker);
        }
        let (store, name) = (self.inner.store.clone(), name.clone());
        blocking(move || store.resolve(&name)).await
    }
}

/// Takes a pull off the list of those under way, however it ends.
struct RunningEntry {
    inner: Arc<Inner>,
    key: (Reference, Option<RegistryAuth>),
}

impl Drop for RunningEntry {
    fn drop(&mut self) {
        self.inner.pulls.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

/// Who waits for a pull.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Urgency {
    /// A task.
    Awaited,
    /// Nobody yet.
    Ahead,
}

/// One pull of one image.
struct Pull {
    images: Images,
    session: Session,
    name: Reference,
    tracked: Tracked,
    urgency: Urgency,
}

/// A layer to bring here.
struct Layer<'a> {
    /// Its place in the image.
    index: usize,
    blob: &'a Descriptor,
    diff_id: Digest,
}

/// What a name led to.
struct Resolved {
    /// The documents on the way, as they came: indexes, then this platform's manifest.
    documents: Vec<Vec<u8>>,
    manifest: Manifest,
}

impl Pull {
    async fn run_within(&self, limit: Duration) -> Result<LocalImage, PullError> {
        let result = tokio::time::timeout(limit, self.run()).await;
        result.unwrap_or(Err(PullError::TooSlow { limit }))
    }

    /// Once the disk turned out too full: removes the layers that have come, and images that nobody needs; whether there
    /// were any, so that another try is worth while.
    async fn give_up_others(&self) -> bool {
        let total = self.tracked.status().map_or(0, |status| status.total);
        let images = self.images.clone();
        let bytes = total.saturating_mul(UNPACKED_GUESS);
        match blocking(move || images.clean(Because::Disk(bytes))).await {
            Ok(cleaned) => !cleaned.names.is_empty(),
            Err(error) => {
                tracing::warn!(%error, "what has come of an image that did not fit stays for a while");
                false
            }
        }
    }

    async fn run(&self) -> Result<LocalImage, PullError> {
        let store = self.images.store().clone();
        let Resolved { documents, manifest } =
            self.retry("pull image manifest", || self.resolve_manifest()).await?;
        let digests: Vec<Digest> = documents.iter().map(|bytes| Digest::of(bytes)).collect();
        let (Some(digest), Some(manifest_digest)) = (digests.first().copied(), digests.last().copied())
        else {
            return Err(PullError::Interrupted);
        };
        if manifest.layers.len() > MAX_LAYERS {
            return Err(PullError::Protocol {
                what: "image manifest",
                reason: "it has more than 128 layers",
            });
        }
        let config_bytes = self.config(&manifest.config).await?;
        let config: ConfigDocument = serde_json::from_slice(&config_bytes)
            .map_err(|_| PullError::Protocol { what: "image configuration", reason: "it is not one" })?;
        if config.rootfs.diff_ids.len() != manifest.layers.len() {
            let reason = "it names another number of layers than the manifest";
            return Err(PullError::Protocol { what: "image configuration", reason });
        }
        let platform =
            Platform { os: config.os.clone(), architecture: config.architecture.clone(), variant: None };
        if !config.architecture.is_empty() && !platform.runs_on(&self.images.settings().pull.platform) {
            return Err(self.wrong_platform());
        }
        let layers = || manifest.layers.iter().zip(&config.rootfs.diff_ids);
        let missing: BTreeMap<&Digest, u64> = layers()
            .filter(|(_, diff_id)| !store.has_layer(diff_id))
            .map(|(blob, diff_id)| (diff_id, blob.size))
            .collect();
        let largest = missing.values().copied().max().unwrap_or(0);
        let bytes = missing.into_values().fold(0, u64::saturating_add);
        self.tracked.resolved(manifest.layers.len(), bytes);
        let images = self.images.clone();
        // Unpacked, a layer takes about what it takes packed or more, and both are here for a moment.
        let needed = bytes.saturating_add(largest);
        let urgency = self.urgency;
        blocking(move || match urgency {
            _ if needed == 0 => Ok(()),
            Urgency::Awaited => images.make_room_for(needed),
            Urgency::Ahead => images.spare_room_for(needed),
        })
        .await?;
        let (ingest, known) = {
            let store = store.clone();
            blocking(move || Ok((Arc::new(store.ingest()?), store.layer_sizes()?))).await?
        };
        let layers = layers().enumerate().map(|(index, (blob, diff_id))| {
            let layer = Layer { index, blob, diff_id: *diff_id };
            self.layer(layer, &known, &ingest)
        });
        let layers = try_join_all(layers).await?;
        let record = ImageRecord {
            name: self.name.clone(),
            digest,
            manifest_digest,
            config_digest: manifest.config.digest,
            config: config.into(),
            layers,
            source: Source::Pulled,
            stored_at: 0,
        };
        let name = self.name.clone();
        let local = blocking(move || {
            for document in &documents {
                store.add_blob(document, &ingest)?;
            }
            store.add_blob(&config_bytes, &ingest)?;
            store.commit(record, &ingest)?;
            store.resolve(&name)
        });
        let local = local.await?.ok_or(PullError::Interrupted)?;
        let seconds = self.tracked.elapsed().as_secs_f64();
        tracing::info!(image = %self.name, digest = %local.digest, bytes, seconds, "an image was pulled");
        Ok(local)
    }

    async fn resolve_manifest(&self) -> Result<Resolved, PullError> {
        let mut selector = self.name.selector();
        let mut documents = Vec::new();
        for _ in 0..MAX_INDEX_DEPTH {
            let bytes = self.session.manifest(&selector).await?;
            let document = serde_json::from_slice(&bytes).map_err(|_| PullError::Protocol {
                what: "image manifest",
                reason: "its schema is not supported",
            })?;
            match document {
                ManifestDocument::Image(manifest) => {
                    documents.push(bytes);
                    return Ok(Resolved { documents, manifest });
                }
                ManifestDocument::Index(index) => {
                    let chosen = index
                        .select(&self.images.settings().pull.platform)
                        .ok_or_else(|| self.wrong_platform())?;
                    selector = chosen.digest.to_string();
                    documents.push(bytes);
                }
            }
        }
        Err(PullError::Protocol { what: "image manifest", reason: "its indexes are nested too deeply" })
    }

    fn wrong_platform(&self) -> PullError {
        let Platform { os, architecture, .. } = &self.images.settings().pull.platform;
        PullError::Platform { image: Box::new(self.name.clone()), platform: format!("{os}/{architecture}") }
    }

    async fn config(&self, descriptor: &Descriptor) -> Result<Vec<u8>, PullError> {
        if descriptor.size > MAX_CONFIG {
            return Err(PullError::Protocol { what: "image configuration", reason: "it is too long" });
        }
        let (store, digest) = (self.images.store().clone(), descriptor.digest);
        if let Some(bytes) = blocking(move || store.blob(&digest)).await? {
            return Ok(bytes);
        }
        let spooled = self.fetch(descriptor, |_| {}).await?;
        blocking(move || spooled.read(MAX_CONFIG)).await
    }

    async fn layer(
        &self,
        Layer { index, blob, diff_id }: Layer<'_>,
        known: &BTreeMap<Digest, u64>,
        ingest: &Arc<Ingest>,
    ) -> Result<LayerRecord, PullError> {
        let lock = {
            let mut layers = self.images.inner.layers.lock().unwrap_or_else(PoisonError::into_inner);
            layers.retain(|_, lock| Arc::strong_count(lock) > 1);
            layers.entry(diff_id).or_default().clone()
        };
        let _guard = lock.lock().await;
        if self.images.store().has_layer(&diff_id) {
            self.tracked.layer_ready();
            // Another pull unpacked it a moment ago and has no record yet: the packed size is near enough for a list.
            let bytes = known.get(&diff_id).copied().unwrap_or(blob.size);
            return Ok(LayerRecord { diff_id, bytes });
        }
        if blob.size > MAX_LAYER {
            return Err(PullError::Protocol {
                what: "image manifest",
                reason: "it names a layer above 64 GiB",
            });
        }
        let slots = match self.urgency {
            Urgency::Awaited => &self.images.inner.slots,
            Urgency::Ahead => &self.images.inner.slots_ahead,
        };
        let _slot = slots.acquire().await.map_err(|_| PullError::Interrupted)?;
        let spooled = self.fetch(blob, |done| self.tracked.layer_bytes(index, done)).await?;
        let (images, ingest) = (self.images.clone(), ingest.clone());
        let unpacked = blocking(move || {
            let reader = images.watched(spooled.reader()?);
            images.store().add_layer(reader, Some(&diff_id), &ingest)
        });
        let unpacked = unpacked.await?;
        self.tracked.layer_ready();
        Ok(LayerRecord { diff_id, bytes: unpacked.bytes })
    }

    /// Downloads a blob, going on from where a broken connection left it.
    async fn fetch(&self, blob: &Descriptor, report: impl Fn(u64)) -> Result<Spooled, PullError> {
        let (store, Descriptor { digest, size, .. }) = (self.images.store().clone(), blob.clone());
        let mut scratch = blocking(move || store.partial(&digest, size)).await?;
        let mut tries = 0;
        loop {
            let result = match self.fetch_rest(blob, &mut scratch, &report).await {
                Ok(()) => {
                    let (found, spooled) = scratch.finish()?;
                    if found == blob.digest {
                        return Ok(spooled);
                    }
                    drop(spooled);
                    let store = self.images.store().clone();
                    scratch = blocking(move || store.partial(&digest, size)).await?;
                    Err(PullError::WrongDigest { expected: blob.digest, found })
                }
                Err(error) => Err::<(), _>(error),
            };
            if let Err(error) = result {
                if let PullError::NoSpace(_) = &error {
                    scratch.discard();
                    return Err(error);
                }
                self.wait_or_fail("ref pull", error, &mut tries).await?;
            }
        }
    }

    async fn fetch_rest(
        &self,
        blob: &Descriptor,
        scratch: &mut Scratch,
        report: &impl Fn(u64),
    ) -> Result<(), PullError> {
        if scratch.bytes() < blob.size || blob.size == 0 {
            let mut download = self.session.blob(&blob.digest, scratch.bytes()).await?;
            if download.offset == 0 {
                scratch.restart()?;
            }
            let mut reported = 0;
            while let Some(piece) = download.next().await? {
                // Writes go to the page cache: short enough to do between two reads.
                match scratch.append(&piece, blob.size) {
                    Err(StoreError::TooLarge { .. }) => {
                        scratch.restart()?;
                        let found = blob.size + 1;
                        return Err(PullError::WrongSize { digest: blob.digest, expected: blob.size, found });
                    }
                    other => other?,
                }
                let done = scratch.bytes();
                if done >> 20 > reported || done == blob.size {
                    reported = done >> 20;
                    report(done);
                    self.images.room_for(0)?;
                }
            }
        }
        if scratch.bytes() != blob.size {
            let found = scratch.bytes();
            return Err(PullError::WrongSize { digest: blob.digest, expected: blob.size, found });
        }
        Ok(())
    }

    async fn retry<T, F: Future<Output = Result<T, PullError>>>(
        &self,
        what: &'static str,
        work: impl Fn() -> F,
    ) -> Result<T, PullError> {
        let mut tries = 0;
        loop {
            match work().await {
                Ok(value) => return Ok(value),
                Err(error) => self.wait_or_fail(what, error, &mut tries).await?,
            }
        }
    }

    /// Waits before the next try, or gives the error up as final.
    async fn wait_or_fail(
        &self,
        what: &'static str,
        error: PullError,
        tries: &mut u32,
    ) -> Result<(), PullError> {
        let PullOptions { retries, backoff, .. } = self.images.settings().pull;
        if !error.is_transient() {
            return Err(error);
        }
        if *tries == retries {
            return Err(PullError::Retried { what, retries, source: Box::new(error) });
        }
        let wait = backoff.saturating_mul(1 << (*tries).min(16)).min(MAX_BACKOFF);
        *tries += 1;
        tracing::debug!(image = %self.name, %error, "trying again");
        // Half to all of it, so that agents that failed together do not come back together.
        let part: f64 = rand::rng().random_range(0.5..=1.0);
        tokio::time::sleep(wait.mul_f64(part)).await;
        Ok(())
    }
}

/// Runs store work, which touches the disk, where it may block.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, PullError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(PullError::from),
        Err(_) => Err(PullError::Interrupted),
    }
}

#[cfg(test)]
#[path = "pull_tests.rs"]
mod tests;
