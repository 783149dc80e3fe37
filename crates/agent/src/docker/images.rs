//! Images that Docker keeps: found, pulled and loaded there.

use super::api::{self, Progress};
use super::client::{Body, Client, DockerError, LOOK_MAX, REMOVE_MAX, quoted};
use crate::images::{Digest, ImageConfig, LocalImage, PullOptions, Reference, RegistryAuth, Source, Tracked};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use http::Method;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

/// How long Docker may say nothing of an archive: it unpacks a layer of some GiB meanwhile.
const SILENCE_MAX: Duration = Duration::from_secs(600);
/// Bytes of one line of what a pull says.
const LINE_MAX: usize = 1 << 20;
/// Layers of one image whose bytes are counted: Docker takes no more than 125.
const LAYERS_MAX: usize = 128;
/// The longest wait between two tries of a pull.
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// Bytes of an archive that are sent at once.
const CHUNK: usize = 256 << 10;
/// The label of the images that Gantry carries itself.
pub const SAMPLE_LABEL: &str = "gantry.sample.binary";

/// An image that is there.
///
/// # Errors
/// When Docker cannot say.
pub async fn find(client: &Client, name: &Reference) -> Result<Option<LocalImage>, DockerError> {
    let mut found = inspect(client, &name.familiar()).await?;
    if let (None, Some(digest)) = (&found, name.digest()) {
        // One that was never in a registry has no digest but its id.
        found = inspect(client, &digest.to_string()).await?;
    }
    Ok(found.and_then(|image| local(name, image)))
}

async fn inspect(client: &Client, name: &str) -> Result<Option<api::Image>, DockerError> {
    match client.get(&format!("images/{}/json", quoted(name)), LOOK_MAX).await {
        Ok(image) => Ok(Some(image)),
        Err(error) if error.is_absent() => Ok(None),
        Err(error) => Err(error),
    }
}

fn local(name: &Reference, image: api::Image) -> Option<LocalImage> {
    let id: Digest = image.id.parse().ok()?;
    let digests = image.repo_digests.unwrap_or_default();
    let of_name = |text: &String| {
        let found: Reference = text.parse().ok()?;
        (found.registry() == name.registry() && found.repository() == name.repository())
            .then(|| found.digest())?
    };
    let digest = digests.iter().find_map(of_name);
    let config = image.config.unwrap_or_default();
    let is_sample = config.labels.as_ref().is_some_and(|labels| labels.contains_key(SAMPLE_LABEL));
    let source = match digest {
        _ if is_sample => Source::Sample,
        Some(_) => Source::Pulled,
        None => Source::Loaded,
    };
    let config = ImageConfig { architecture: image.architecture, ..ImageConfig::from(config) };
    let digest = digest.unwrap_or(id);
    Some(LocalImage { name: name.clone(), digest, config_digest: id, config, source, layers: Vec::new() })
}

/// Has Docker pull an image, again when its registry is away for a moment.
///
/// # Errors
/// What Docker says against it.
pub async fn pull(
    client: &Client,
    name: &Reference,
    auth: Option<&RegistryAuth>,
    options: &PullOptions,
    tracked: &Tracked,
) -> Result<LocalImage, DockerError> {
    let mut pause = options.backoff;
    let mut tries = 0;
    while let Err(error) = pull_once(client, name, auth, options.inactivity, tracked).await {
        if tries == options.retries || !may_pass(&error) {
            return Err(error);
        }
        tracing::debug!(image = %name, %error, "a pull is tried again");
        tries += 1;
        sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
    let gone = || DockerError::Refused {
        status: http::StatusCode::NOT_FOUND,
        message: format!("image {name} went away as soon as it was pulled"),
    };
    find(client, name).await?.ok_or_else(gone)
}

/// Whether a pull that failed may succeed a moment later. Docker gives its registry's trouble as its own.
fn may_pass(error: &DockerError) -> bool {
    let text = error.to_string();
    let is_final =
        ["not found", "denied", "unauthorized", "no basic auth", "invalid reference", "manifest unknown"];
    error.is_transient() && !is_final.iter().any(|word| text.contains(word))
}

async fn pull_once(
    client: &Client,
    name: &Reference,
    auth: Option<&RegistryAuth>,
    inactivity: Duration,
    tracked: &Tracked,
) -> Result<(), DockerError> {
    let selector = name.selector();
    let path = format!("images/create?fromImage={}&tag={}", quoted(&name.name()), quoted(&selector));
    let auth = auth.map(|auth| {
        let document = match auth {
            RegistryAuth::Basic { username, password } => {
                serde_json::json!({"username": username, "password": password, "serveraddress": name.registry()})
            }
            RegistryAuth::Bearer(token) => {
                serde_json::json!({"registrytoken": token, "serveraddress": name.registry()})
            }
        };
        URL_SAFE.encode(document.to_string())
    });
    let headers: Vec<_> = auth.iter().map(|auth| ("x-registry-auth", auth.as_str())).collect();
    let open = client.open_with(Method::POST, &path, None, &headers);
    let silent = |_| DockerError::Timeout { doing: format!("pulling {name}"), after: inactivity };
    let answer = timeout(inactivity, open).await.map_err(silent)??;
    let mut layers = Layers::default();
    heed(answer.into_body(), inactivity, |said| layers.note(said, tracked)).await
}

/// The layers that a pull has spoken of: their numbers and sizes, by their ids.
#[derive(Default)]
struct Layers(BTreeMap<String, (usize, u64)>);

impl Layers {
    /// Docker tells of each layer as it comes to it; the total grows with what is known of them.
    fn note(&mut self, said: &Progress, tracked: &Tracked) {
        match said.status.as_str() {
            "Downloading" if said.detail.total > 0 && self.0.len() < LAYERS_MAX => {
                let next = self.0.len();
                let &mut (number, ref mut size) = self.0.entry(said.id.clone()).or_insert((next, 0));
                *size = said.detail.total;
                tracked.resolved(self.0.len(), self.0.values().map(|(_, size)| size).sum());
                tracked.layer_bytes(number, said.detail.current);
            }
            // The last bytes are not told of by themselves.
            "Download complete" => {
                if let Some((number, size)) = self.0.get(&said.id) {
                    tracked.layer_bytes(*number, *size);
                }
            }
            "Pull complete" => tracked.layer_ready(),
            _ => {}
        }
    }
}

/// Reads what an operation says to its end; the error that it tells.
async fn heed(
    mut body: Incoming,
    silence: Duration,
    mut said: impl FnMut(&Progress),
) -> Result<(), DockerError> {
    let doing = || "working on an image".to_owned();
    let mut buffer = Vec::new();
    let silent = |_| DockerError::Timeout { doing: doing(), after: silence };
    while let Some(frame) = timeout(silence, body.frame()).await.map_err(silent)? {
        let broken = |source: hyper::Error| DockerError::Broken { doing: doing(), source: source.into() };
        let Ok(data) = frame.map_err(broken)?.into_data() else { continue };
        buffer.extend_from_slice(&data);
        let whole = buffer.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        for line in buffer[..whole].split(|byte| *byte == b'\n') {
            let progress: Progress = serde_json::from_slice(line).unwrap_or_default();
            if let Some(message) = &progress.error {
                let message = message.clone();
                let status = http::StatusCode::INTERNAL_SERVER_ERROR;
                return Err(DockerError::Refused { status, message });
            }
            said(&progress);
        }
        buffer.drain(..whole);
        if buffer.len() > LINE_MAX {
            let source = "a line of what it says is too long".into();
            return Err(DockerError::Broken { doing: doing(), source });
        }
    }
    Ok(())
}

/// Every image that has a name, by each of its names.
///
/// # Errors
/// When Docker cannot say.
pub async fn list(client: &Client) -> Result<Vec<Listed>, DockerError> {
    let found: Vec<api::ListedImage> = client.get("images/json", LOOK_MAX).await?;
    let mut all = Vec::new();
    for image in found {
        let api::ListedImage { id, repo_tags, size, labels } = image;
        let is_sample = labels.is_some_and(|labels| labels.contains_key(SAMPLE_LABEL));
        for name in repo_tags.into_iter().flatten().filter(|name| !name.starts_with("<none>")) {
            all.push(Listed { name, id: id.clone(), bytes: size, is_sample });
        }
    }
    all.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(all)
}

/// An image under one of its names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    pub name: String,
    /// `sha256:` and hexadecimal digits.
    pub id: String,
    pub bytes: u64,
    pub is_sample: bool,
}

/// Takes a name of an image away, and the image with its last name. One that is not there is no error.
///
/// # Errors
/// When containers use it, or Docker does not do it.
pub async fn remove(client: &Client, name: &Reference) -> Result<(), DockerError> {
    let path = format!("images/{}", quoted(&name.familiar()));
    match client.order(Method::DELETE, &path, REMOVE_MAX).await {
        Err(error) if error.is_absent() => Ok(()),
        other => other,
    }
}

/// Loads an archive of images, as `docker load` does; what Docker says to it.
///
/// # Errors
/// When it cannot be read, or Docker does not take it.
pub async fn load(
    client: &Client,
    mut archive: impl Read + Send + 'static,
) -> Result<Vec<String>, DockerError> {
    let (sender, mut chunks) = mpsc::channel::<io::Result<Frame<Bytes>>>(4);
    let reading = tokio::task::spawn_blocking(move || {
        loop {
            let mut chunk = vec![0; CHUNK];
            let read = match archive.read(&mut chunk) {
                Ok(0) => return,
                Ok(length) => {
                    chunk.truncate(length);
                    Ok(Frame::data(Bytes::from(chunk)))
                }
                Err(error) => Err(error),
            };
            let failed = read.is_err();
            if sender.blocking_send(read).is_err() || failed {
                return;
            }
        }
    });
    let stream = futures_util::stream::poll_fn(move |context| chunks.poll_recv(context));
    let body: Body = BodyExt::boxed(StreamBody::new(stream));
    let path = "images/load?quiet=1";
    let answer = client.open(Method::POST, path, Some(("application/x-tar", body))).await?;
    let mut lines = Vec::new();
    heed(answer.into_body(), SILENCE_MAX, |said| {
        let line = said.stream.trim();
        if !line.is_empty() {
            lines.push(line.to_owned());
        }
    })
    .await?;
    // It has ended: Docker has read everything.
    let _ = reading.await;
    Ok(lines)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_docker_says_of_layers_is_how_far_a_pull_is() {
        let progress = crate::images::Progress::default();
        let tracked = progress.begin(&"app:1".parse().unwrap());
        let mut layers = Layers::default();
        for line in [
            r#"{"status":"Pulling fs layer","progressDetail":{},"id":"a"}"#,
            r#"{"status":"Already exists","progressDetail":{},"id":"z"}"#,
            r#"{"status":"Downloading","progressDetail":{"current":10,"total":100},"progress":"x","id":"a"}"#,
            r#"{"status":"Downloading","progressDetail":{"current":5,"total":300},"id":"b"}"#,
            r#"{"status":"Download complete","progressDetail":{},"id":"a"}"#,
            r#"{"status":"Extracting","progressDetail":{"current":1,"total":100},"id":"a"}"#,
            r#"{"status":"Pull complete","progressDetail":{},"id":"a"}"#,
        ] {
            layers.note(&serde_json::from_str(line).unwrap(), &tracked);
        }
        let status = tracked.status().unwrap();
        assert_eq!((status.done, status.total, status.layers, status.ready), (105, 400, 2, 1));
    }

    #[test]
    fn an_image_is_what_docker_says_it_is() {
        let id = format!("sha256:{}", "a".repeat(64));
        let digest = format!("sha256:{}", "b".repeat(64));
        let read = |digests: &str, labels: &str| -> LocalImage {
            let text = format!(
                r#"{{"Id":"{id}","RepoDigests":{digests},"Architecture":"amd64",
                    "Config":{{"Entrypoint":["/run"],"Cmd":null,"StopSignal":"SIGQUIT","Volumes":{{"/data":{{}}}},"Labels":{labels}}}}}"#
            );
            let image: api::Image = serde_json::from_str(&text).unwrap();
            local(&"team/app:1".parse().unwrap(), image).unwrap()
        };
        let pulled = read(&format!(r#"["other/app@{id}","team/app@{digest}"]"#), "null");
        assert_eq!((pulled.digest.to_string(), pulled.source), (digest, Source::Pulled));
        assert_eq!(pulled.config.entrypoint, ["/run"]);
        assert_eq!(
            (pulled.config.volumes.as_slice(), pulled.config.stop_signal.as_deref()),
            (&["/data".to_owned()][..], Some("SIGQUIT"))
        );
        let loaded = read("[]", "null");
        assert_eq!((loaded.digest.to_string(), loaded.source), (id.clone(), Source::Loaded));
        assert_eq!(read("null", r#"{"gantry.sample.binary":"x"}"#).source, Source::Sample);
    }
}
