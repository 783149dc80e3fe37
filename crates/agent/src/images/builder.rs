//! Makes an image out of files: one layer, its configuration and manifest, into the store or an archive.

use super::config::{
    ANNOTATION_IMAGE_NAME, ConfigDocument, Descriptor, Index, Manifest, OCI_CONFIG, OCI_INDEX, OCI_LAYER_TAR,
    OCI_MANIFEST, Platform, RawConfig, RootFs,
};
use super::digest::Digest;
use super::reference::Reference;
use super::store::{ImageRecord, ImageStore, Ingest, LayerRecord, LocalImage, Source, StoreError};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use tar::{EntryType, Header};

/// Why an image could not be made.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error("reading {path} failed")]
    Read { path: PathBuf, source: io::Error },
    #[error("writing the image failed")]
    Write(#[source] io::Error),
    #[error("the image's documents cannot be written")]
    Document(#[source] serde_json::Error),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What a file in the image holds.
#[derive(Clone, Debug)]
pub enum FileContent {
    Bytes(Vec<u8>),
    /// The content of a file on this machine when the image is made.
    CopyOf(PathBuf),
    Symlink(String),
    Directory,
}

/// An image in the making. Everything in it belongs to root and is dated 1970, so that the same content gives the same
/// digest.
#[derive(Clone, Debug, Default)]
pub struct ImageBuilder {
    /// By path without leading slash; parents come before their children in this order.
    files: BTreeMap<String, (u32, FileContent)>,
    config: RawConfig,
}

impl ImageBuilder {
    pub fn new() -> ImageBuilder {
        ImageBuilder::default()
    }

    /// Puts a file at `path` with the permission bits `mode`. Missing parents are made.
    pub fn file(mut self, path: &str, mode: u32, content: FileContent) -> Self {
        let path = path.trim_matches('/').to_owned();
        for (slash, _) in path.match_indices('/') {
            self.files.entry(path[..slash].to_owned()).or_insert((0o755, FileContent::Directory));
        }
        self.files.insert(path, (mode, content));
        self
    }

    /// Takes over a directory tree of this machine: files, directories and symbolic links.
    pub fn tree(mut self, root: &Path) -> Result<Self, BuildError> {
        use std::os::unix::fs::PermissionsExt as _;
        let mut pending = vec![PathBuf::new()];
        while let Some(below) = pending.pop() {
            let directory = root.join(&below);
            let failed = |source| BuildError::Read { path: directory.clone(), source };
            for entry in std::fs::read_dir(&directory).map_err(failed)? {
                let entry = entry.map_err(failed)?;
                let metadata = entry.metadata().map_err(failed)?;
                let path = below.join(entry.file_name());
                let content = if metadata.is_dir() {
                    pending.push(path.clone());
                    FileContent::Directory
                } else if metadata.is_symlink() {
                    let target = std::fs::read_link(entry.path()).map_err(failed)?;
                    FileContent::Symlink(target.to_string_lossy().into_owned())
                } else if metadata.is_file() {
                    FileContent::CopyOf(entry.path())
                } else {
                    continue;
                };
                self = self.file(&path.to_string_lossy(), metadata.permissions().mode() & 0o7777, content);
            }
        }
        Ok(self)
    }

    pub fn entrypoint<S: Into<String>>(mut self, words: impl IntoIterator<Item = S>) -> Self {
        self.config.entrypoint = Some(words.into_iter().map(Into::into).collect());
        self
    }

    pub fn cmd<S: Into<String>>(mut self, words: impl IntoIterator<Item = S>) -> Self {
        self.config.cmd = Some(words.into_iter().map(Into::into).collect());
        self
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.config.env.get_or_insert_default().push(format!("{name}={value}"));
        self
    }

    pub fn working_dir(mut self, path: &str) -> Self {
        self.config.working_dir = Some(path.to_owned());
        self
    }

    pub fn user(mut self, user: &str) -> Self {
        self.config.user = Some(user.to_owned());
        self
    }

    pub fn stop_signal(mut self, signal: &str) -> Self {
        self.config.stop_signal = Some(signal.to_owned());
        self
    }

    /// Declares a port such as `80/tcp`.
    pub fn expose(mut self, port: &str) -> Self {
        let none = serde_json::Value::Object(serde_json::Map::new());
        self.config.exposed_ports.get_or_insert_default().insert(port.to_owned(), none);
        self
    }

    pub fn label(mut self, name: &str, value: &str) -> Self {
        self.config.labels.get_or_insert_default().insert(name.to_owned(), value.to_owned());
        self
    }

    pub(super) fn config(&self) -> &RawConfig {
        &self.config
    }

    /// Writes the layer's tar stream.
    pub fn write_layer(&self, writer: impl Write) -> Result<(), BuildError> {
        let mut builder = tar::Builder::new(writer);
        for (path, (mode, content)) in &self.files {
            let mut header = Header::new_gnu();
            header.set_mode(*mode);
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(0);
            header.set_size(0);
            let written = match content {
                FileContent::Bytes(bytes) => {
                    header.set_size(bytes.len() as u64);
                    builder.append_data(&mut header, path, bytes.as_slice())
                }
                FileContent::CopyOf(from) => {
                    let failed = |source| BuildError::Read { path: from.clone(), source };
                    let file = File::open(from).map_err(failed)?;
                    header.set_size(file.metadata().map_err(failed)?.len());
                    builder.append_data(&mut header, path, file)
                }
                FileContent::Symlink(target) => {
                    header.set_entry_type(EntryType::Symlink);
                    builder.append_link(&mut header, path, target)
                }
                FileContent::Directory => {
                    header.set_entry_type(EntryType::Directory);
                    builder.append_data(&mut header, format!("{path}/"), io::empty())
                }
            };
            written.map_err(BuildError::Write)?;
        }
        builder.finish().map_err(BuildError::Write)
    }

    /// Makes the image and keeps it in the store under each of `names`, which all mean it from then on.
    pub fn build_into(
        &self,
        store: &ImageStore,
        names: &[Reference],
        source: Source,
    ) -> Result<Vec<LocalImage>, BuildError> {
        let ingest = store.ingest()?;
        let layer = self.layer_into(store, &ingest)?;
        self.build_on(layer, store, &ingest, names, source)
    }

    /// Makes the layer alone, for several images that differ in their configuration only.
    pub fn layer_into(&self, store: &ImageStore, ingest: &Ingest) -> Result<BuiltLayer, BuildError> {
        let layer = self.spool_layer(store)?;
        let unpacked = store.add_layer(layer.content.reader()?, Some(&layer.digest), ingest)?;
        Ok(BuiltLayer { diff_id: layer.digest, packed: layer.bytes, bytes: unpacked.bytes })
    }

    /// Like [`build_into`](Self::build_into), with this builder's configuration and a layer that is in the store.
    pub fn build_on(
        &self,
        layer: BuiltLayer,
        store: &ImageStore,
        ingest: &Ingest,
        names: &[Reference],
        source: Source,
    ) -> Result<Vec<LocalImage>, BuildError> {
        let documents = self.documents(layer.diff_id, layer.packed)?;
        let config_digest = store.add_blob(&documents.config_bytes, ingest)?;
        let digest = store.add_blob(&documents.manifest_bytes, ingest)?;
        let mut images = Vec::new();
        for name in names {
            let record = ImageRecord {
                name: name.clone(),
                digest,
                manifest_digest: digest,
                config_digest,
                config: documents.config.clone().into(),
                layers: vec![LayerRecord { diff_id: layer.diff_id, bytes: layer.bytes }],
                source,
                stored_at: 0,
            };
            store.commit(record, ingest)?;
            images.extend(store.resolve(name)?);
        }
        Ok(images)
    }

    /// Writes an archive that `docker load` reads and that is an OCI layout at the same time. The layer goes through
    /// the store's temporary space.
    pub fn write_archive(
        &self,
        store: &ImageStore,
        name: &Reference,
        writer: impl Write,
    ) -> Result<(), BuildError> {
        let layer = self.spool_layer(store)?;
        let documents = self.documents(layer.digest, layer.bytes)?;
        let (manifest, config) = (Digest::of(&documents.manifest_bytes), Digest::of(&documents.config_bytes));
        let blob = |digest: &Digest| format!("blobs/sha256/{}", digest.hex());
        let index = Index {
            schema_version: 2,
            media_type: Some(OCI_INDEX.to_owned()),
            manifests: vec![Descriptor {
                media_type: OCI_MANIFEST.to_owned(),
                digest: manifest,
                size: documents.manifest_bytes.len() as u64,
                platform: None,
                annotations: Some([(ANNOTATION_IMAGE_NAME.to_owned(), name.to_string())].into()),
            }],
        };
        let docker = serde_json::json!([{
            "Config": blob(&config), "RepoTags": [name.familiar()], "Layers": [blob(&layer.digest)],
        }]);
        let mut builder = tar::Builder::new(writer);
        let mut put = |path: &str, size: u64, content: &mut dyn io::Read| {
            let mut header = Header::new_gnu();
            header.set_mode(0o644);
            header.set_mtime(0);
            header.set_size(size);
            builder.append_data(&mut header, path, content).map_err(BuildError::Write)
        };
        put(&blob(&layer.digest), layer.bytes, &mut layer.content.reader()?)?;
        let documents = [
            (blob(&config), documents.config_bytes),
            (blob(&manifest), documents.manifest_bytes),
            ("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()),
            ("index.json".to_owned(), json(&index)?),
            ("manifest.json".to_owned(), json(&docker)?),
        ];
        for (path, bytes) in &documents {
            put(path, bytes.len() as u64, &mut bytes.as_slice())?;
        }
        builder.finish().map_err(BuildError::Write)
    }

    fn spool_layer(&self, store: &ImageStore) -> Result<SpooledLayer, BuildError> {
        let mut scratch = store.scratch()?;
        self.write_layer(&mut scratch)?;
        let bytes = scratch.bytes();
        let (digest, content) = scratch.finish()?;
        Ok(SpooledLayer { digest, bytes, content })
    }

    fn documents(&self, diff_id: Digest, bytes: u64) -> Result<Documents, BuildError> {
        let Platform { os, architecture, .. } = Platform::host();
        let rootfs = RootFs { kind: "layers".to_owned(), diff_ids: vec![diff_id] };
        let config = ConfigDocument { architecture, os, config: Some(self.config.clone()), rootfs };
        let config_bytes = json(&config)?;
        let descriptor = |media_type: &str, digest, size| Descriptor {
            media_type: media_type.to_owned(),
            digest,
            size,
            platform: None,
            annotations: None,
        };
        let manifest = Manifest {
            schema_version: 2,
            media_type: Some(OCI_MANIFEST.to_owned()),
            config: descriptor(OCI_CONFIG, Digest::of(&config_bytes), config_bytes.len() as u64),
            layers: vec![descriptor(OCI_LAYER_TAR, diff_id, bytes)],
        };
        Ok(Documents { manifest_bytes: json(&manifest)?, config, config_bytes })
    }
}

/// A layer that was made here and lies in the store.
#[derive(Clone, Copy, Debug)]
pub struct BuiltLayer {
    diff_id: Digest,
    /// Bytes of the tar stream.
    packed: u64,
    /// Bytes of file content.
    bytes: u64,
}

struct SpooledLayer {
    digest: Digest,
    bytes: u64,
    content: super::scratch::Spooled,
}

struct Documents {
    config: ConfigDocument,
    config_bytes: Vec<u8>,
    manifest_bytes: Vec<u8>,
}

fn json(document: &impl Serialize) -> Result<Vec<u8>, BuildError> {
    serde_json::to_vec(document).map_err(BuildError::Document)
}
