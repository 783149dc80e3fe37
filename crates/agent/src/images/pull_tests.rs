//! Pulls from a small registry on loopback that can be told to misbehave.
#![allow(clippy::unwrap_used)]

use super::super::builder::{FileContent, ImageBuilder};
use super::super::config::{Index, OCI_CONFIG, OCI_INDEX, OCI_LAYER_GZIP, OCI_MANIFEST, RootFs};
use super::super::disk::DiskRules;
use super::super::janitor::{Because, Cleaned};
use super::*;
use base64::Engine as _;
use futures_util::StreamExt as _;
use http::{Request, Response};
use http_body_util::StreamBody;
use hyper::body::{Bytes, Frame, Incoming};
use hyper_util::rt::TokioIo;
use std::collections::BTreeMap;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};

#[derive(Default)]
struct Registry {
    /// Path below `/v2/` to content and media type.
    content: Mutex<BTreeMap<String, Vec<u8>>>,
    /// Every request's path, `Range` included.
    log: Mutex<Vec<String>>,
    auth: Auth,
    /// Asked first, with the path; what it answers is sent.
    script: Option<Script>,
    /// Blob answers that break off halfway before one comes whole.
    breaks: AtomicU32,
    /// Answers with 503 before the first good one.
    failures: AtomicU32,
    /// Resumption is not supported.
    no_ranges: bool,
    redirect: bool,
    address: Mutex<Option<SocketAddr>>,
}

type Script = Box<dyn Fn(&str) -> Option<Response<Body>> + Send + Sync>;

#[derive(Clone, Copy, Default, PartialEq)]
enum Auth {
    #[default]
    None,
    Basic,
    Token,
}

const BASIC: &str = "me:secret";

type Piece = Result<Frame<Bytes>, std::io::Error>;
type Body = StreamBody<futures_util::stream::BoxStream<'static, Piece>>;

/// The pieces with a pause between them, so that each one is sent before the next (perhaps a break) comes.
fn body(pieces: Vec<Piece>) -> Body {
    let pieces = futures_util::stream::iter(pieces.into_iter().enumerate());
    StreamBody::new(Box::pin(pieces.then(|(index, piece)| async move {
        if index > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        piece
    })))
}

fn whole(bytes: Vec<u8>) -> Body {
    body(vec![Ok(Frame::data(bytes.into()))])
}

impl Registry {
    async fn start(self) -> (Arc<Registry>, String) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let registry = Arc::new(self);
        *registry.address.lock().unwrap() = Some(address);
        let served = registry.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let registry = served.clone();
                tokio::spawn(async move {
                    let service = hyper::service::service_fn(move |request| {
                        let response = registry.answer(&request);
                        async move { Ok::<_, std::convert::Infallible>(response) }
                    });
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        (registry, address.to_string())
    }

    fn put(&self, path: &str, bytes: Vec<u8>) {
        self.content.lock().unwrap().insert(path.to_owned(), bytes);
    }

    fn requests(&self, part: &str) -> usize {
        self.log.lock().unwrap().iter().filter(|l| l.contains(part)).count()
    }

    fn answer(&self, request: &Request<Incoming>) -> Response<Body> {
        let header = |name: &str| request.headers().get(name).map(|v| v.to_str().unwrap().to_owned());
        let path = request.uri().path().to_owned();
        let range = header("range");
        self.log.lock().unwrap().push(format!("{path} {}", range.as_deref().unwrap_or("")));
        if let Some(answer) = self.script.as_ref().and_then(|script| script(&path)) {
            return answer;
        }
        let basic = format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(BASIC));
        let answer = |status: u16| Response::builder().status(status);
        if path == "/token" {
            let scoped = request.uri().query().unwrap().contains("scope=repository%3Ateam%2Fapp%3Apull");
            return match header("authorization") {
                Some(given) if given == basic && scoped => {
                    answer(200).body(whole(br#"{"token":"t0k"}"#.to_vec())).unwrap()
                }
                _ => answer(401).body(whole(Vec::new())).unwrap(),
            };
        }
        let host = self.address.lock().unwrap().unwrap();
        let redirected = path.starts_with("/cdn/");
        let expected = match self.auth {
            Auth::None => None,
            Auth::Basic => Some((basic, "Basic realm=\"here\"".to_owned())),
            Auth::Token => Some((
                "Bearer t0k".to_owned(),
                format!("Bearer realm=\"http://{host}/token\",service=\"test\""),
            )),
        };
        let refused = expected
            .filter(|(expected, _)| !redirected && header("authorization").as_ref() != Some(expected));
        if let Some((_, challenge)) = refused {
            let text = br#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}"#;
            let refusal =
                answer(401).header("www-authenticate", challenge).header("content-type", "application/json");
            return refusal.body(whole(text.to_vec())).unwrap();
        }
        if self.failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok() {
            return answer(503).body(whole(Vec::new())).unwrap();
        }
        let key = path.trim_start_matches("/v2/").trim_start_matches("/cdn/").to_owned();
        let Some(bytes) = self.content.lock().unwrap().get(&key).cloned() else {
            let text = br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#.to_vec();
            return answer(404).header("content-type", "application/json").body(whole(text)).unwrap();
        };
        if self.redirect && !redirected && path.contains("/blobs/") {
            return answer(307).header("location", format!("/cdn/{key}")).body(whole(Vec::new())).unwrap();
        }
        let from = match range.filter(|_| !self.no_ranges) {
            Some(range) => range.trim_start_matches("bytes=").trim_end_matches('-').parse::<usize>().unwrap(),
            None => 0,
        };
        let total = bytes.len();
        let rest = bytes[from..].to_vec();
        let response = if from > 0 {
            answer(206).header("content-range", format!("bytes {from}-{}/{total}", total - 1))
        } else {
            answer(200)
        };
        let breaks = path.contains("/blobs/") && rest.len() > 1000;
        if breaks
            && self.breaks.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok()
        {
            let half = rest[..rest.len() / 2].to_vec();
            let cut = Err(std::io::Error::other("cut"));
            return response
                .header("content-length", rest.len())
                .body(body(vec![Ok(Frame::data(half.into())), cut]))
                .unwrap();
        }
        response.header("content-length", rest.len()).body(whole(rest)).unwrap()
    }
}

struct Made {
    index: Digest,
    layer: Digest,
}

/// Puts an image of one incompressible layer under `team/app:1`, behind an index.
fn publish(registry: &Registry, architecture: &str) -> Made {
    let mut noise = vec![0; 300_000];
    let mut state = 1_u32;
    for byte in &mut noise {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *byte = (state >> 24) as u8;
    }
    let mut tar = Vec::new();
    ImageBuilder::new().file("data", 0o644, FileContent::Bytes(noise)).write_layer(&mut tar).unwrap();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&tar).unwrap();
    let layer = gzip.finish().unwrap();
    let config = serde_json::to_vec(&ConfigDocument {
        architecture: architecture.to_owned(),
        os: "linux".to_owned(),
        config: None,
        rootfs: RootFs { kind: "layers".to_owned(), diff_ids: vec![Digest::of(&tar)] },
    })
    .unwrap();
    let descriptor = |media_type: &str, bytes: &[u8]| Descriptor {
        media_type: media_type.to_owned(),
        digest: Digest::of(bytes),
        size: bytes.len() as u64,
        platform: None,
        annotations: None,
    };
    let manifest = serde_json::to_vec(&Manifest {
        schema_version: 2,
        media_type: None,
        config: descriptor(OCI_CONFIG, &config),
        layers: vec![descriptor(OCI_LAYER_GZIP, &layer)],
    })
    .unwrap();
    let mut entry = descriptor(OCI_MANIFEST, &manifest);
    entry.platform = Some(Platform { architecture: architecture.to_owned(), ..Platform::host() });
    let index = Index { schema_version: 2, media_type: Some(OCI_INDEX.to_owned()), manifests: vec![entry] };
    let index = serde_json::to_vec(&index).unwrap();
    let made = Made { index: Digest::of(&index), layer: Digest::of(&layer) };
    registry.put("team/app/manifests/1", index);
    registry.put(&format!("team/app/manifests/{}", Digest::of(&manifest)), manifest);
    registry.put(&format!("team/app/blobs/{}", Digest::of(&config)), config);
    registry.put(&format!("team/app/blobs/{}", made.layer), layer);
    made
}

struct Client {
    images: Images,
    name: Reference,
    _dir: tempfile::TempDir,
}

/// Impatient, and content with any disk.
fn settings() -> ImageSettings {
    let (backoff, inactivity) = (Duration::from_millis(1), Duration::from_millis(500));
    let pull = PullOptions { backoff, inactivity, ..PullOptions::default() };
    let disk = DiskRules { reserve: Some(0), ..DiskRules::default() };
    ImageSettings { pull, disk, ..ImageSettings::default() }
}

fn client(host: &str) -> Client {
    let dir = tempfile::tempdir().unwrap();
    let store = ImageStore::open(dir.path().join("images")).unwrap();
    let images = Images::new(store, "test", settings()).unwrap();
    Client { images, name: format!("{host}/team/app:1").parse().unwrap(), _dir: dir }
}

fn me() -> Option<RegistryAuth> {
    Some(RegistryAuth::Basic { username: "me".into(), password: "secret".into() })
}

fn host_architecture() -> String {
    Platform::host().architecture
}

#[tokio::test]
async fn an_image_is_pulled_and_known_by_what_its_name_means() {
    let (registry, host) = Registry::default().start().await;
    let made = publish(&registry, &host_architecture());
    let client = client(&host);
    let local = client.images.pull(&client.name, None).await.unwrap();
    assert_eq!((local.digest, local.source), (made.index, Source::Pulled));
    assert_eq!(std::fs::metadata(local.layers[0].join("data")).unwrap().len(), 300_000);
    assert!(client.images.under_way().is_empty());
}

#[tokio::test]
async fn who_asks_at_the_same_time_shares_one_download() {
    let (registry, host) = Registry::default().start().await;
    let made = publish(&registry, &host_architecture());
    let client = client(&host);
    let pulls = (0..10).map(|_| client.images.pull(&client.name, None));
    for result in futures_util::future::join_all(pulls).await {
        assert_eq!(result.unwrap().digest, made.index);
    }
    assert_eq!(registry.requests(&made.layer.to_string()), 1);
    // Later, the manifest is asked for again and the layer is not.
    client.images.pull(&client.name, None).await.unwrap();
    assert_eq!(registry.requests("manifests/1"), 2);
    assert_eq!(registry.requests(&made.layer.to_string()), 1);
}

#[tokio::test]
async fn registries_that_want_to_know_who_asks() {
    for auth in [Auth::Basic, Auth::Token] {
        let (registry, host) = Registry { auth, ..Registry::default() }.start().await;
        publish(&registry, &host_architecture());
        let client = client(&host);
        let refused = client.images.pull(&client.name, None).await.unwrap_err();
        let reason = refused.reason();
        assert!(reason.starts_with("CannotPullContainerError: failed to resolve ref "), "{reason}");
        assert!(reason.contains("pull access denied for team/app"), "{reason}");
        client.images.pull(&client.name, me()).await.unwrap();
    }
}

#[tokio::test]
async fn a_broken_download_goes_on_where_it_broke() {
    for (no_ranges, redirect) in [(false, false), (true, false), (false, true)] {
        let setup = Registry {
            breaks: AtomicU32::new(3),
            no_ranges,
            redirect,
            auth: Auth::Token,
            ..Registry::default()
        };
        let (registry, host) = setup.start().await;
        let made = publish(&registry, &host_architecture());
        let client = client(&host);
        client.images.pull(&client.name, me()).await.unwrap();
        let kind = if redirect { "/cdn/" } else { "/v2/" };
        let layer =
            |suffix: &str| registry.requests(&format!("{kind}team/app/blobs/{} {suffix}", made.layer));
        assert_eq!(layer(""), 4);
        assert_eq!(layer("bytes="), 3);
    }
}

#[tokio::test]
async fn passing_failures_are_ridden_out_and_lasting_ones_named() {
    let (registry, host) = Registry { failures: AtomicU32::new(2), ..Registry::default() }.start().await;
    publish(&registry, &host_architecture());
    let passing = client(&host);
    passing.images.pull(&passing.name, None).await.unwrap();
    let (registry, host) =
        Registry { failures: AtomicU32::new(u32::MAX), ..Registry::default() }.start().await;
    publish(&registry, &host_architecture());
    let lasting = client(&host);
    let reason = lasting.images.pull(&lasting.name, None).await.unwrap_err().reason();
    let expected =
        "CannotPullContainerError: pull image manifest has been retried 4 time(s): failed to resolve ref";
    assert!(reason.starts_with(expected) && reason.contains("503"), "{reason}");
    let nobody = client("127.0.0.1:1");
    let reason = nobody.images.pull(&nobody.name, None).await.unwrap_err().reason();
    assert!(reason.contains("refused"), "{reason}");
}

#[tokio::test]
async fn an_unknown_image_is_not_asked_for_twice() {
    let (registry, host) = Registry::default().start().await;
    let client = client(&host);
    let reason = client.images.pull(&client.name, None).await.unwrap_err().reason();
    let expected = format!(
        "CannotPullContainerError: failed to resolve ref {host}/team/app:1: manifest unknown: {host}/team/app:1: not found"
    );
    assert_eq!(reason, expected);
    assert_eq!(registry.requests("manifests"), 1);
}

#[tokio::test]
async fn content_that_is_not_what_was_promised_is_never_kept() {
    let (registry, host) = Registry::default().start().await;
    let made = publish(&registry, &host_architecture());
    let key = format!("team/app/blobs/{}", made.layer);
    let good = registry.content.lock().unwrap()[&key].clone();
    let mut flipped = good.clone();
    flipped[1000] ^= 1;
    let longer = [good.clone(), b"more".to_vec()].concat();
    for bad in [flipped, longer, good[..5000].to_vec()] {
        registry.put(&key, bad);
        let client = client(&host);
        let error = client.images.pull(&client.name, None).await.unwrap_err();
        assert!(
            error.reason().starts_with("CannotPullContainerError: ref pull has been retried 4 time(s)"),
            "{error}"
        );
        assert!(client.images.store().list().unwrap().is_empty());
        assert_eq!(std::fs::read_dir(client.images.store().root().join("layers")).unwrap().count(), 0);
        assert_eq!(std::fs::read_dir(client.images.store().root().join("tmp")).unwrap().count(), 0);
    }
}

#[tokio::test]
async fn a_registry_that_never_ends_is_left() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let store = ImageStore::open(dir.path().join("images")).unwrap();
    let pull = PullOptions { timeout: Duration::from_millis(50), ..PullOptions::default() };
    let images = Images::new(store, "test", ImageSettings { pull, ..ImageSettings::default() }).unwrap();
    let name = format!("{host}/team/app:1").parse().unwrap();
    let error = images.pull(&name, None).await.unwrap_err();
    assert!(matches!(*error, PullError::TooSlow { .. }), "{error}");
}

#[tokio::test]
async fn images_for_other_machines_are_refused() {
    let (registry, host) = Registry::default().start().await;
    publish(&registry, "s390x");
    let client = client(&host);
    let reason = client.images.pull(&client.name, None).await.unwrap_err().reason();
    assert!(reason.contains("image manifest does not match the host platform"), "{reason}");
}

#[tokio::test]
async fn the_cached_image_serves_when_the_registry_does_not() {
    let (registry, host) = Registry::default().start().await;
    let made = publish(&registry, &host_architecture());
    let client = client(&host);
    let ensure = |behavior| client.images.obtain(&client.name, behavior, None);
    ensure(PullBehavior::PreferCached).await.unwrap();
    registry.content.lock().unwrap().clear();
    assert_eq!(ensure(PullBehavior::Default).await.unwrap().digest, made.index);
    let asked = registry.requests("manifests/1");
    assert_eq!(asked, 2);
    ensure(PullBehavior::Once).await.unwrap();
    ensure(PullBehavior::PreferCached).await.unwrap();
    assert_eq!(registry.requests("manifests/1"), asked);
    assert!(matches!(*ensure(PullBehavior::Always).await.unwrap_err(), PullError::NotFound { .. }));
}

fn entries(images: &Images, directory: &str) -> usize {
    std::fs::read_dir(images.store().root().join(directory)).unwrap().count()
}

#[tokio::test]
async fn an_agent_that_died_goes_on_where_it_was() {
    let (registry, host) = Registry { breaks: AtomicU32::new(u32::MAX), ..Registry::default() }.start().await;
    let made = publish(&registry, &host_architecture());
    let Client { images, name, _dir } = client(&host);
    images.pull(&name, None).await.unwrap_err();
    let store = images.store().root().to_owned();
    drop(images);
    registry.breaks.store(0, Ordering::SeqCst);
    registry.log.lock().unwrap().clear();
    let images = Images::new(ImageStore::open(store).unwrap(), "test", settings()).unwrap();
    images.pull(&name, None).await.unwrap();
    assert_eq!(registry.requests(&made.layer.to_string()), 1);
    assert_eq!(registry.requests(&format!("{} bytes=", made.layer)), 1);
    assert_eq!(entries(&images, "partial"), 0);
}

#[tokio::test]
async fn a_registry_that_stalls_is_asked_again() {
    for path in ["/manifests/1", "/blobs/"] {
        let stalled = AtomicU32::new(0);
        let script: Script = Box::new(move |asked: &str| {
            let stalls = asked.contains(path) && stalled.fetch_add(1, Ordering::SeqCst) == 0;
            stalls.then(|| {
                let begun = futures_util::stream::once(async { Ok(Frame::data(Bytes::from_static(b"{"))) });
                let body = StreamBody::new(begun.chain(futures_util::stream::pending()).boxed());
                Response::builder().header("content-length", 5000).body(body).unwrap()
            })
        });
        let (registry, host) = Registry { script: Some(script), ..Registry::default() }.start().await;
        publish(&registry, &host_architecture());
        let client = client(&host);
        client.images.pull(&client.name, None).await.unwrap();
    }
}

#[tokio::test]
async fn what_never_ends_has_an_end_here() {
    fn endless() -> Response<Body> {
        let piece = || async { Some((Ok(Frame::data(Bytes::from(vec![b' '; 64 << 10]))), ())) };
        let body = StreamBody::new(futures_util::stream::unfold((), move |()| piece()).boxed());
        Response::builder().body(body).unwrap()
    }
    fn always(text: String) -> Script {
        Box::new(move |_| Some(Response::builder().body(whole(text.clone().into_bytes())).unwrap()))
    }
    let redirect = || {
        let answer = Response::builder().status(307).header("location", "/v2/team/app/manifests/1");
        answer.body(whole(Vec::new())).unwrap()
    };
    let digest = Digest::of(b"");
    let manifest = |size: u64, layers: usize| {
        let layer = format!(r#"{{"mediaType":"l","digest":"{digest}","size":1}}"#);
        let layers = vec![layer; layers].join(",");
        let config = format!(r#"{{"mediaType":"c","digest":"{digest}","size":{size}}}"#);
        always(format!(r#"{{"schemaVersion":2,"config":{config},"layers":[{layers}]}}"#))
    };
    let cases: Vec<(&str, Script)> = vec![
        ("the registry's answer is too long", Box::new(|_| Some(endless()))),
        ("the registry redirects too often", Box::new(move |_| Some(redirect()))),
        ("its schema is not supported", always("[1,".to_owned())),
        ("it has more than 128 layers", manifest(2, 129)),
        ("image configuration: it is too long", manifest(9_000_000, 0)),
    ];
    for (expected, script) in cases {
        let (_registry, host) = Registry { script: Some(script), ..Registry::default() }.start().await;
        let client = client(&host);
        let reason = client.images.pull(&client.name, None).await.unwrap_err().reason();
        assert!(reason.contains(expected), "{reason}");
        assert_eq!(entries(&client.images, "tmp") + entries(&client.images, "partial"), 0);
    }
    // A layer that goes on after its end.
    let script: Script = Box::new(|asked| asked.contains("/blobs/").then(endless));
    let (registry, host) = Registry { script: Some(script), ..Registry::default() }.start().await;
    publish(&registry, &host_architecture());
    let client = client(&host);
    let reason = client.images.pull(&client.name, None).await.unwrap_err().reason();
    assert!(reason.contains("the registry announced"), "{reason}");
}

#[tokio::test]
async fn a_disk_without_room_is_not_filled() {
    let (registry, host) = Registry::default().start().await;
    let made = publish(&registry, &host_architecture());
    let dir = tempfile::tempdir().unwrap();
    let store = ImageStore::open(dir.path().join("images")).unwrap();
    let disk = DiskRules { reserve: Some(u64::MAX / 2), ..DiskRules::default() };
    let images = Images::new(store, "test", ImageSettings { disk, ..settings() }).unwrap();
    let name = format!("{host}/team/app:1").parse().unwrap();
    let error = images.pull(&name, None).await.unwrap_err();
    assert!(matches!(*error, PullError::NoSpace(_)), "{error}");
    let reason = error.reason();
    let expected = "CannotPullContainerError: failed to register layer: no space left on device: ";
    assert!(reason.starts_with(expected), "{reason}");
    assert_eq!(registry.requests(&made.layer.to_string()), 0);
    for directory in ["tmp", "partial", "layers"] {
        assert_eq!(entries(&images, directory), 0);
    }
}

#[tokio::test]
async fn a_running_tasks_image_is_held_until_the_task_is_forgotten() {
    let (registry, host) = Registry::default().start().await;
    publish(&registry, &host_architecture());
    let Client { images, name, _dir } = client(&host);
    let local = images.ensure(&name, None, "task").await.unwrap();
    let all = Because::Disk(u64::MAX);
    assert!(images.clean(all).unwrap().names.is_empty());
    // Even with its name gone.
    assert!(images.store().remove(&name).unwrap());
    images.clean(all).unwrap();
    assert!(local.layers[0].is_dir());
    images.release("task");
    images.clean(all).unwrap();
    assert!(!local.layers[0].is_dir());
    assert_eq!(entries(&images, "holds/test"), 0);
    // And it comes back when it is needed.
    images.ensure(&name, None, "another").await.unwrap();
}

#[tokio::test]
async fn age_takes_what_is_old_and_unused_and_nothing_else() {
    let (registry, host) = Registry::default().start().await;
    publish(&registry, &host_architecture());
    let Client { images, name, _dir } = client(&host);
    images.ensure(&name, None, "task").await.unwrap();
    let (store, mut impatient) = (images.store().clone(), settings());
    impatient.cleanup.minimum_age = Duration::ZERO;
    let other = |settings: &ImageSettings| Images::new(store.clone(), "other", settings.clone()).unwrap();
    // In use, by another agent.
    assert!(other(&impatient).clean(Because::Age).unwrap().names.is_empty());
    images.release("task");
    // Young. The round finds that the task is gone.
    assert_eq!(images.clean(Because::Age).unwrap(), Cleaned::default());
    impatient.cleanup.excluded = [name.clone()].into();
    assert!(other(&impatient).clean(Because::Age).unwrap().names.is_empty());
    impatient.cleanup.excluded.clear();
    let ingest = store.ingest().unwrap();
    assert!(other(&impatient).clean(Because::Age).unwrap().busy);
    drop(ingest);
    let cleaned = other(&impatient).clean(Because::Age).unwrap();
    assert_eq!((cleaned.names, cleaned.layers), (vec![name], 1));
    assert!(store.list().unwrap().is_empty());
}

#[tokio::test]
async fn a_name_with_a_digest_is_what_the_tag_brought() {
    let (registry, host) = Registry::default().start().await;
    let made = publish(&registry, &host_architecture());
    let Client { images, name, _dir } = client(&host);
    images.pull(&name, None).await.unwrap();
    registry.content.lock().unwrap().clear();
    let pinned =
        |repository: &str, digest: &Digest| format!("{host}/{repository}:1@{digest}").parse().unwrap();
    let local = images.ensure(&pinned("team/app", &made.index), None, "task").await.unwrap();
    assert_eq!(local.digest, made.index);
    for other in [pinned("team/app", &Digest::of(b"")), pinned("team/other", &made.index)] {
        images.ensure(&other, None, "task").await.unwrap_err();
    }
}
