//! Brings images into the store: behaviour, retries, parallel layers, and one fetch for all who want the same.

use super::auth::EngineAuth;
use super::config::{ConfigDocument, Descriptor, MAX_LAYERS, Manifest, ManifestDocument, Platform};
use super::digest::Digest;
use super::policy::{Cached, OnFailure, PullBehavior, PullPlan, plan};
use super::reference::Reference;
use super::registry::{PullError, RegistryAuth, Session};
use super::store::{
    ImageRecord, ImageStore, Ingest, LayerRecord, LocalImage, Scratch, Source, Spooled, StoreError,
};
use super::transport::{Transport, Trust};
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

/// How a pull comes along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The manifest is known.
    Resolved { digest: Digest, layers: usize, bytes: u64 },
    /// A layer was here already.
    LayerPresent { layer: Digest },
    /// `done` of `total` packed bytes are here. Called at most once per MiB and layer.
    LayerBytes { layer: Digest, done: u64, total: u64 },
    /// A layer is unpacked.
    LayerReady { layer: Digest },
}

/// Gets told about progress; must return quickly.
pub type ProgressSink = Arc<dyn Fn(Progress) + Send + Sync>;

type PullResult = Result<LocalImage, Arc<PullError>>;
type Running<K, T> = Mutex<HashMap<K, Shared<BoxFuture<'static, T>>>>;

/// The images of one agent. Clones share it.
#[derive(Clone)]
pub struct Images {
    inner: Arc<Inner>,
}

struct Inner {
    store: ImageStore,
    /// Made with the first pull.
    transport: OnceCell<Transport>,
    options: PullOptions,
    slots: Semaphore,
    /// Pulls under way. Callers with other credentials start their own: nobody gets an image by another's rights.
    pulls: Running<(Reference, Option<RegistryAuth>), PullResult>,
    /// Held while a layer is being fetched, so that two images with a common base fetch it once.
    layers: Mutex<HashMap<Digest, Arc<tokio::sync::Mutex<()>>>>,
}

impl Images {
    /// Touches neither disk nor network: an agent that runs what it has never reads a certificate.
    pub fn new(store: ImageStore, options: PullOptions) -> Images {
        let inner = Inner {
            store,
            transport: OnceCell::new(),
            slots: Semaphore::new(options.parallel_layers.max(1)),
            options,
            pulls: Mutex::default(),
            layers: Mutex::default(),
        };
        Images { inner: Arc::new(inner) }
    }

    pub fn store(&self) -> &ImageStore {
        &self.inner.store
    }

    /// Makes the image ready to run: from the store or the registry, as `behavior` says.
    pub async fn ensure(
        &self,
        name: &Reference,
        behavior: PullBehavior,
        auth: Option<RegistryAuth>,
        progress: Option<ProgressSink>,
    ) -> PullResult {
        let cached = self.cached(name).await.map_err(Arc::new)?;
        let facts = cached.as_ref().map(|c| Cached { source: c.source, pinned: name.digest().is_some() });
        match (plan(behavior, facts), cached) {
            (PullPlan::UseCached, Some(cached)) => Ok(cached),
            (PullPlan::Pull(OnFailure::UseCached), Some(cached)) => {
                match self.pull(name, auth, progress).await {
                    Err(error) => {
                        tracing::warn!(image = %name, %error, "pull failed, the cached image is used");
                        Ok(cached)
                    }
                    pulled => pulled,
                }
            }
            _ => self.pull(name, auth, progress).await,
        }
    }

    /// Fetches the image from its registry, whatever is in the store. Who asks for the same image while a pull is under
    /// way gets that pull's result.
    pub async fn pull(
        &self,
        name: &Reference,
        auth: Option<RegistryAuth>,
        progress: Option<ProgressSink>,
    ) -> PullResult {
        let auth = auth.or_else(|| self.inner.options.engine_auth.for_image(name).cloned());
        let key = (name.clone(), auth);
        let running = {
            let mut pulls = self.inner.pulls.lock().unwrap_or_else(PoisonError::into_inner);
            pulls.entry(key.clone()).or_insert_with(|| self.start(key.clone(), progress)).clone()
        };
        running.await
    }

    /// Runs the pull in its own task: it goes on when the caller that started it goes away.
    fn start(
        &self,
        key: (Reference, Option<RegistryAuth>),
        progress: Option<ProgressSink>,
    ) -> Shared<BoxFuture<'static, PullResult>> {
        let inner = self.inner.clone();
        let task = tokio::spawn(async move {
            let entry = RunningEntry { inner: inner.clone(), key };
            let (name, auth) = entry.key.clone();
            let PullOptions { timeout: limit, inactivity, ref trust, .. } = inner.options;
            let transport = inner.transport.get_or_try_init(async || Transport::new(trust)).await;
            let transport = transport.map_err(|error| Arc::new(PullError::Trust(error)))?.clone();
            let session = Session::new(transport, trust.clone(), name.clone(), auth, inactivity);
            let pull = Pull { session, name, progress, inner };
            match tokio::time::timeout(limit, pull.run()).await {
                Ok(result) => result.map_err(Arc::new),
                Err(_) => Err(Arc::new(PullError::TooSlow { limit })),
            }
        });
        // A join fails only if the pull panicked or the runtime ends.
        async move { task.await.unwrap_or_else(|_| Err(Arc::new(PullError::Interrupted))) }.boxed().shared()
    }

    async fn cached(&self, name: &Reference) -> Result<Option<LocalImage>, PullError> {
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

/// One pull of one image.
struct Pull {
    inner: Arc<Inner>,
    session: Session,
    name: Reference,
    progress: Option<ProgressSink>,
}

/// What a name led to.
struct Resolved {
    /// The documents on the way, as they came: indexes, then this platform's manifest.
    documents: Vec<Vec<u8>>,
    manifest: Manifest,
}

impl Pull {
    async fn run(self) -> Result<LocalImage, PullError> {
        let store = self.inner.store.clone();
        let ingest = {
            let store = store.clone();
            Arc::new(blocking(move || store.ingest()).await?)
        };
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
        self.tell(Progress::Resolved {
            digest,
            layers: manifest.layers.len(),
            bytes: manifest.layers.iter().map(|l| l.size).fold(0, u64::saturating_add),
        });
        let config_bytes = self.config(&manifest.config).await?;
        let config: ConfigDocument = serde_json::from_slice(&config_bytes)
            .map_err(|_| PullError::Protocol { what: "image configuration", reason: "it is not one" })?;
        if config.rootfs.diff_ids.len() != manifest.layers.len() {
            let reason = "it names another number of layers than the manifest";
            return Err(PullError::Protocol { what: "image configuration", reason });
        }
        let platform =
            Platform { os: config.os.clone(), architecture: config.architecture.clone(), variant: None };
        if !config.architecture.is_empty() && !platform.runs_on(&self.inner.options.platform) {
            return Err(self.wrong_platform());
        }
        let known = {
            let store = store.clone();
            blocking(move || store.layer_sizes()).await?
        };
        let layers = manifest.layers.iter().zip(&config.rootfs.diff_ids);
        let layers =
            try_join_all(layers.map(|(blob, diff_id)| self.layer(blob, *diff_id, &known, &ingest))).await?;
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
        local.await?.ok_or(PullError::Interrupted)
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
                    let chosen =
                        index.select(&self.inner.options.platform).ok_or_else(|| self.wrong_platform())?;
                    selector = chosen.digest.to_string();
                    documents.push(bytes);
                }
            }
        }
        Err(PullError::Protocol { what: "image manifest", reason: "its indexes are nested too deeply" })
    }

    fn wrong_platform(&self) -> PullError {
        let Platform { os, architecture, .. } = &self.inner.options.platform;
        PullError::Platform { image: Box::new(self.name.clone()), platform: format!("{os}/{architecture}") }
    }

    async fn config(&self, descriptor: &Descriptor) -> Result<Vec<u8>, PullError> {
        if descriptor.size > MAX_CONFIG {
            return Err(PullError::Protocol { what: "image configuration", reason: "it is too long" });
        }
        let (store, digest) = (self.inner.store.clone(), descriptor.digest);
        if let Some(bytes) = blocking(move || store.blob(&digest)).await? {
            return Ok(bytes);
        }
        let spooled = self.fetch(descriptor, |_| {}).await?;
        blocking(move || spooled.read(MAX_CONFIG)).await
    }

    async fn layer(
        &self,
        blob: &Descriptor,
        diff_id: Digest,
        known: &BTreeMap<Digest, u64>,
        ingest: &Arc<Ingest>,
    ) -> Result<LayerRecord, PullError> {
        let lock = {
            let mut layers = self.inner.layers.lock().unwrap_or_else(PoisonError::into_inner);
            layers.retain(|_, lock| Arc::strong_count(lock) > 1);
            layers.entry(diff_id).or_default().clone()
        };
        let _guard = lock.lock().await;
        if self.inner.store.has_layer(&diff_id) {
            self.tell(Progress::LayerPresent { layer: blob.digest });
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
        let _slot = self.inner.slots.acquire().await.map_err(|_| PullError::Interrupted)?;
        let (layer, total) = (blob.digest, blob.size);
        let spooled = self.fetch(blob, |done| self.tell(Progress::LayerBytes { layer, done, total })).await?;
        let (store, ingest) = (self.inner.store.clone(), ingest.clone());
        let unpacked = blocking(move || store.add_layer(spooled.reader()?, Some(&diff_id), &ingest)).await?;
        self.tell(Progress::LayerReady { layer });
        Ok(LayerRecord { diff_id, bytes: unpacked.bytes })
    }

    /// Downloads a blob, going on from where a broken connection left it.
    async fn fetch(&self, blob: &Descriptor, report: impl Fn(u64)) -> Result<Spooled, PullError> {
        let store = self.inner.store.clone();
        let mut scratch = blocking(move || store.scratch()).await?;
        let mut tries = 0;
        loop {
            let result = match self.fetch_rest(blob, &mut scratch, &report).await {
                Ok(()) => {
                    let (found, spooled) = scratch.finish()?;
                    if found == blob.digest {
                        return Ok(spooled);
                    }
                    let store = self.inner.store.clone();
                    scratch = blocking(move || store.scratch()).await?;
                    Err(PullError::WrongDigest { expected: blob.digest, found })
                }
                Err(error) => Err::<(), _>(error),
            };
            if let Err(error) = result {
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
        let PullOptions { retries, backoff, .. } = self.inner.options;
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

    fn tell(&self, progress: Progress) {
        if let Some(sink) = &self.progress {
            sink(progress);
        }
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
