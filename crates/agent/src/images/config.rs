//! The documents of an image: index, manifest and configuration, in the subset that running it needs.
//!
//! OCI and Docker spell some of them differently; both are read. What is not known is ignored.

use super::digest::Digest;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
#[cfg(test)]
pub const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
pub const OCI_LAYER_TAR: &str = "application/vnd.oci.image.layer.v1.tar";

/// The annotation under which OCI archives carry an image's full name.
pub const ANNOTATION_IMAGE_NAME: &str = "io.containerd.image.name";
/// The annotation under which OCI archives carry a tag or a name.
pub const ANNOTATION_REF_NAME: &str = "org.opencontainers.image.ref.name";

/// Overlay's own bound is 500 lower directories; Docker stops at 127. More is refused before anything is fetched.
pub const MAX_LAYERS: usize = 128;

/// A pointer to content by digest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    #[serde(default)]
    pub media_type: String,
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<BTreeMap<String, String>>,
}

/// What an image runs on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Platform {
    pub os: String,
    pub architecture: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

impl Platform {
    /// This machine, in Go's names as images use them.
    pub fn host() -> Platform {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        Platform { os: "linux".to_owned(), architecture: architecture.to_owned(), variant: None }
    }

    /// Whether what is made for `self` runs on `host`.
    pub fn runs_on(&self, host: &Platform) -> bool {
        // The only variant of arm64 in use is v8, and amd64's v2 and v3 are requests for newer CPUs: take the plain one.
        let variant_ok = match self.variant.as_deref() {
            None | Some("") => true,
            Some(variant) => self.architecture == "arm64" && variant == "v8",
        };
        self.os == host.os && self.architecture == host.architecture && variant_ok
    }
}

/// Manifests for several platforms under one name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    pub schema_version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    pub manifests: Vec<Descriptor>,
}

impl Index {
    /// The entry to run on `host`. An entry without a platform (a single-image archive) is the last resort.
    pub fn select(&self, host: &Platform) -> Option<&Descriptor> {
        let fitting = self.manifests.iter().find(|m| m.platform.as_ref().is_some_and(|p| p.runs_on(host)));
        fitting.or_else(|| self.manifests.iter().find(|m| m.platform.is_none()))
    }
}

/// One image: its configuration and its layers, lowest first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    pub schema_version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    pub config: Descriptor,
    pub layers: Vec<Descriptor>,
}

/// A registry's answer to "which manifest": told apart by what it holds, since the media type may be missing.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(untagged)]
pub enum ManifestDocument {
    Index(Index),
    Image(Manifest),
}

/// The configuration document as it lies in the registry.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConfigDocument {
    #[serde(default)]
    pub architecture: String,
    #[serde(default)]
    pub os: String,
    #[serde(default)]
    pub config: Option<RawConfig>,
    pub rootfs: RootFs,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RootFs {
    #[serde(rename = "type", default)]
    pub kind: String,
    /// Digests of the unpacked layers' tar streams, lowest first.
    #[serde(default)]
    pub diff_ids: Vec<Digest>,
}

/// `config` of the configuration document. Every list may be `null` in the wild.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct RawConfig {
    pub user: Option<String>,
    pub exposed_ports: Option<BTreeMap<String, serde_json::Value>>,
    pub env: Option<Vec<String>>,
    pub entrypoint: Option<Vec<String>>,
    pub cmd: Option<Vec<String>>,
    pub volumes: Option<BTreeMap<String, serde_json::Value>>,
    pub working_dir: Option<String>,
    pub labels: Option<BTreeMap<String, String>>,
    pub stop_signal: Option<String>,
    pub healthcheck: Option<RawHealthcheck>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct RawHealthcheck {
    pub test: Option<Vec<String>>,
    /// Nanoseconds, as all the times here.
    pub interval: Option<i64>,
    pub timeout: Option<i64>,
    pub start_period: Option<i64>,
    pub retries: Option<i64>,
}

/// How an image wants to be run; what a task definition leaves open is taken from here.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageConfig {
    pub architecture: String,
    pub entrypoint: Vec<String>,
    pub cmd: Vec<String>,
    /// `NAME=value`, in the image's order.
    pub env: Vec<String>,
    /// Absolute; empty means `/`.
    pub working_dir: String,
    /// `user[:group]`, each a name or a number; empty means root.
    pub user: String,
    /// A signal's name or number; none means SIGTERM.
    pub stop_signal: Option<String>,
    /// `80/tcp`.
    pub exposed_ports: Vec<String>,
    /// Mount points for which the image asks for a fresh volume.
    pub volumes: Vec<String>,
    pub labels: BTreeMap<String, String>,
    /// The image's own health check. ECS ignores it; the stock agent does too.
    pub healthcheck: Option<RawHealthcheck>,
}

impl From<ConfigDocument> for ImageConfig {
    fn from(document: ConfigDocument) -> Self {
        let config = document.config.unwrap_or_default().into();
        ImageConfig { architecture: document.architecture, ..config }
    }
}

impl From<RawConfig> for ImageConfig {
    fn from(raw: RawConfig) -> Self {
        ImageConfig {
            architecture: String::new(),
            entrypoint: raw.entrypoint.unwrap_or_default(),
            cmd: raw.cmd.unwrap_or_default(),
            env: raw.env.unwrap_or_default(),
            working_dir: raw.working_dir.unwrap_or_default(),
            user: raw.user.unwrap_or_default(),
            stop_signal: raw.stop_signal.filter(|s| !s.is_empty()),
            exposed_ports: raw.exposed_ports.unwrap_or_default().into_keys().collect(),
            volumes: raw.volumes.unwrap_or_default().into_keys().collect(),
            labels: raw.labels.unwrap_or_default(),
            healthcheck: raw.healthcheck,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_docker_config_is_read_with_its_nulls() {
        let text = r#"{"architecture":"amd64","os":"linux","created":"2026-01-01T00:00:00Z","history":[],
          "config":{"Hostname":"","User":"101:101","ExposedPorts":{"80/tcp":{}},"Env":["A=1"],"Cmd":null,
          "Entrypoint":["/run"],"Volumes":null,"WorkingDir":"/srv","Labels":null,"StopSignal":"SIGQUIT","OnBuild":null},
          "rootfs":{"type":"layers","diff_ids":[]}}"#;
        let config: ImageConfig = serde_json::from_str::<ConfigDocument>(text).unwrap().into();
        assert_eq!(config.entrypoint, ["/run"]);
        assert!(config.cmd.is_empty());
        assert_eq!((config.user.as_str(), config.working_dir.as_str()), ("101:101", "/srv"));
        assert_eq!(config.stop_signal.as_deref(), Some("SIGQUIT"));
        assert_eq!(config.exposed_ports, ["80/tcp"]);
    }

    #[test]
    fn the_host_takes_its_own_entry_of_an_index() {
        let entry = |arch: &str, variant: Option<&str>, what: &str| Descriptor {
            media_type: OCI_MANIFEST.into(),
            digest: Digest::of(what.as_bytes()),
            size: 1,
            platform: Some(Platform {
                os: "linux".into(),
                architecture: arch.into(),
                variant: variant.map(Into::into),
            }),
            annotations: None,
        };
        let manifests = vec![
            entry("unknown", None, "attestation"),
            entry("amd64", Some("v3"), "new cpus"),
            entry("amd64", None, "amd64"),
            entry("arm64", Some("v8"), "arm64"),
        ];
        let index = Index { schema_version: 2, media_type: None, manifests };
        let host = |arch: &str| Platform { os: "linux".into(), architecture: arch.into(), variant: None };
        assert_eq!(index.select(&host("amd64")).unwrap().digest, Digest::of(b"amd64"));
        assert_eq!(index.select(&host("arm64")).unwrap().digest, Digest::of(b"arm64"));
        assert!(index.select(&host("riscv64")).is_none());
    }
}
