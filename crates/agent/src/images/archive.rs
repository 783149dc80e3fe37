//! Loads images from archives: what `docker save` writes, and OCI image layouts, packed or not.
//!
//! Such an archive may say what it holds at its end only, and may come from a pipe. So every member goes to the
//! store's temporary space first; the whole of it is bounded.

use super::config::{
    ANNOTATION_IMAGE_NAME, ANNOTATION_REF_NAME, ConfigDocument, Descriptor, Index, MAX_LAYERS, Manifest,
    ManifestDocument, OCI_CONFIG, OCI_LAYER_TAR, OCI_MANIFEST, Platform,
};
use super::digest::Digest;
use super::reference::{InvalidReference, Reference};
use super::scratch::Spooled;
use super::store::{ImageRecord, ImageStore, Ingest, LayerRecord, Source, StoreError};
use super::tarstream::{Kind, TarError, TarStream, from_io};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read};

/// Members of an archive: an image has two or three a layer.
const MAX_MEMBERS: usize = 10_000;
/// Temporary bytes that one archive may take.
const MAX_BYTES: u64 = 128 << 30;
/// A manifest, index or configuration.
const MAX_DOCUMENT: u64 = 8 << 20;
/// Links from member to member; old `docker save` links equal layers once.
const MAX_LINKS: usize = 8;

/// Why an archive could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    #[error("reading the archive failed")]
    Read(#[source] io::Error),
    #[error(transparent)]
    Tar(#[from] TarError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the archive has more than {MAX_MEMBERS} members")]
    TooManyMembers,
    #[error("the archive has neither manifest.json nor index.json: it is not an image archive")]
    NotAnImage,
    #[error("the archive lacks its member '{0}'")]
    Missing(String),
    #[error("'{member}' in the archive is not what it should be")]
    Document { member: String, source: serde_json::Error },
    #[error("'{member}' in the archive has digest {found}")]
    WrongDigest { member: String, found: Digest },
    #[error("image {name} has {layers} layers and {diff_ids} diff ids")]
    Layers { name: String, layers: usize, diff_ids: usize },
    #[error("image {0} has more than {MAX_LAYERS} layers")]
    TooManyLayers(String),
    #[error("the archive names its image wrongly")]
    Name(#[from] InvalidReference),
    #[error("no image in the archive has a name; tag it before saving it")]
    Nameless,
    #[error("no image in the archive runs on {0}")]
    Platform(String),
}

/// Loads all images of the archive that run on this machine, and returns their names.
pub fn load(store: &ImageStore, reader: impl Read) -> Result<Vec<Reference>, ArchiveError> {
    let ingest = store.ingest()?;
    let mut reader = BufReader::with_capacity(128 << 10, reader);
    let magic = reader.fill_buf().map_err(ArchiveError::Read)?;
    let plain: Box<dyn Read> = if magic.starts_with(&[0x1f, 0x8b]) {
        Box::new(flate2::bufread::MultiGzDecoder::new(reader))
    } else if magic.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        Box::new(zstd::stream::read::Decoder::with_buffer(reader).map_err(ArchiveError::Read)?)
    } else {
        Box::new(reader)
    };
    let members = Members::spool(store, plain)?;
    let images = if members.find("manifest.json").is_some() {
        docker_images(&members)?
    } else if members.find("index.json").is_some() {
        oci_images(&members)?
    } else {
        return Err(ArchiveError::NotAnImage);
    };
    let mut names = Vec::new();
    for image in &images {
        image.keep(store, &members, &ingest, &mut names)?;
    }
    if names.is_empty() {
        return Err(ArchiveError::Nameless);
    }
    Ok(names)
}

/// The archive's members in temporary files.
struct Members {
    files: BTreeMap<String, (Digest, u64, Spooled)>,
    links: BTreeMap<String, String>,
}

impl Members {
    fn spool(store: &ImageStore, reader: impl Read) -> Result<Members, ArchiveError> {
        let mut members = Members { files: BTreeMap::new(), links: BTreeMap::new() };
        let mut stream = TarStream::new(BufReader::with_capacity(128 << 10, reader));
        let mut total = 0_u64;
        let mut buffer = vec![0; 128 << 10];
        while let Some(entry) = stream.next_entry()? {
            if members.files.len() + members.links.len() == MAX_MEMBERS {
                return Err(ArchiveError::TooManyMembers);
            }
            let Some(path) = normal("", &entry.path) else { continue };
            match entry.kind {
                Kind::File => {
                    total = total.saturating_add(entry.size);
                    if total > MAX_BYTES {
                        return Err(StoreError::TooLarge { limit: MAX_BYTES }.into());
                    }
                    let mut scratch = store.scratch()?;
                    let mut content = stream.content();
                    loop {
                        let n = content.read(&mut buffer).map_err(from_io)?;
                        if n == 0 {
                            break;
                        }
                        scratch.append(&buffer[..n], entry.size)?;
                    }
                    let (digest, spooled) = scratch.finish()?;
                    members.files.insert(path, (digest, entry.size, spooled));
                }
                // Relative to the link's directory if symbolic, to the archive's root if hard.
                Kind::Symlink => {
                    let directory = path.rsplit_once('/').map_or("", |(d, _)| d).to_owned();
                    if let Some(target) = normal(&directory, &entry.link) {
                        members.links.insert(path, target);
                    }
                }
                Kind::Hardlink => {
                    if let Some(target) = normal("", &entry.link) {
                        members.links.insert(path, target);
                    }
                }
                _ => {}
            }
        }
        Ok(members)
    }

    /// A member by name. Links are resolved among the members only: nothing here touches the file system.
    fn find(&self, name: &str) -> Option<&(Digest, u64, Spooled)> {
        let mut name = normal("", name.as_bytes())?;
        for _ in 0..MAX_LINKS {
            match self.links.get(&name) {
                Some(target) => name.clone_from(target),
                None => return self.files.get(&name),
            }
        }
        None
    }

    fn get(&self, name: &str) -> Result<&(Digest, u64, Spooled), ArchiveError> {
        self.find(name).ok_or_else(|| ArchiveError::Missing(name.chars().take(256).collect()))
    }

    fn document<T: DeserializeOwned>(&self, name: &str) -> Result<(Vec<u8>, T), ArchiveError> {
        let bytes = self.get(name)?.2.read(MAX_DOCUMENT)?;
        let document = serde_json::from_slice(&bytes)
            .map_err(|source| ArchiveError::Document { member: name.chars().take(256).collect(), source })?;
        Ok((bytes, document))
    }

    /// A member of an OCI layout: its content has the digest that its name says.
    fn blob(&self, digest: &Digest) -> Result<String, ArchiveError> {
        let name = blob_name(digest);
        let found = self.get(&name)?.0;
        if found == *digest { Ok(name) } else { Err(ArchiveError::WrongDigest { member: name, found }) }
    }
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// A member's name without `.` and `..`; none if it climbs out of the archive or is not text.
fn normal(directory: &str, path: &[u8]) -> Option<String> {
    let path = std::str::from_utf8(path).ok()?;
    let mut parts: Vec<&str> = Vec::new();
    let start = if path.starts_with('/') { "" } else { directory };
    for part in start.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    (!parts.is_empty()).then(|| parts.join("/"))
}

/// An image found in an archive, all in terms of members.
struct Found {
    names: Vec<Reference>,
    config: String,
    layers: Vec<String>,
    /// The manifest's bytes, if the archive has one.
    manifest: Option<Vec<u8>>,
}

fn docker_images(members: &Members) -> Result<Vec<Found>, ArchiveError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Item {
        config: String,
        #[serde(default)]
        repo_tags: Option<Vec<String>>,
        #[serde(default)]
        layers: Option<Vec<String>>,
    }
    let (_, items): (_, Vec<Item>) = members.document("manifest.json")?;
    let found = items.into_iter().map(|item| {
        let names = item.repo_tags.unwrap_or_default().iter().map(|t| t.parse()).collect::<Result<_, _>>()?;
        Ok(Found { names, config: item.config, layers: item.layers.unwrap_or_default(), manifest: None })
    });
    found.collect()
}

fn oci_images(members: &Members) -> Result<Vec<Found>, ArchiveError> {
    let host = Platform::host();
    let (_, index): (_, Index) = members.document("index.json")?;
    let mut images = Vec::new();
    for descriptor in &index.manifests {
        let annotation = |name: &str| descriptor.annotations.as_ref().and_then(|a| a.get(name));
        let name = annotation(ANNOTATION_IMAGE_NAME).or_else(|| annotation(ANNOTATION_REF_NAME));
        let Some(name) = name else { continue };
        let foreign = descriptor.platform.as_ref().is_some_and(|p| !p.runs_on(&host));
        if foreign {
            continue;
        }
        images.push(oci_image(members, descriptor, name.parse()?, &host)?);
    }
    if images.is_empty()
        && !index.manifests.is_empty()
        && index.manifests.iter().all(|m| m.annotations.is_some())
    {
        return Err(ArchiveError::Platform(format!("{}/{}", host.os, host.architecture)));
    }
    Ok(images)
}

fn oci_image(
    members: &Members,
    top: &Descriptor,
    name: Reference,
    host: &Platform,
) -> Result<Found, ArchiveError> {
    let (mut bytes, mut document): (_, ManifestDocument) = members.document(&members.blob(&top.digest)?)?;
    if let ManifestDocument::Index(index) = &document {
        let none = || ArchiveError::Platform(format!("{}/{}", host.os, host.architecture));
        let chosen = index.select(host).ok_or_else(none)?;
        (bytes, document) = members.document(&members.blob(&chosen.digest)?)?;
    }
    let ManifestDocument::Image(manifest) = document else { return Err(ArchiveError::NotAnImage) };
    let layers = manifest.layers.iter().map(|l| members.blob(&l.digest)).collect::<Result<_, _>>()?;
    Ok(Found {
        names: vec![name],
        config: members.blob(&manifest.config.digest)?,
        layers,
        manifest: Some(bytes),
    })
}

impl Found {
    fn keep(
        &self,
        store: &ImageStore,
        members: &Members,
        ingest: &Ingest,
        names: &mut Vec<Reference>,
    ) -> Result<(), ArchiveError> {
        let (config_bytes, config): (_, ConfigDocument) = members.document(&self.config)?;
        let shown = || self.names.first().map_or_else(String::new, Reference::to_string);
        let diff_ids = &config.rootfs.diff_ids;
        if diff_ids.len() != self.layers.len() {
            let (layers, diff_ids) = (self.layers.len(), diff_ids.len());
            return Err(ArchiveError::Layers { name: shown(), layers, diff_ids });
        }
        if diff_ids.len() > MAX_LAYERS {
            return Err(ArchiveError::TooManyLayers(shown()));
        }
        let host = Platform::host();
        if !config.architecture.is_empty() && config.architecture != host.architecture {
            return Err(ArchiveError::Platform(format!("{}/{}", host.os, host.architecture)));
        }
        let known = store.layer_sizes()?;
        let mut layers = Vec::new();
        let mut descriptors = Vec::new();
        for (member, diff_id) in self.layers.iter().zip(diff_ids) {
            let (digest, size, content) = members.get(member)?;
            let bytes = match known.get(diff_id).filter(|_| store.has_layer(diff_id)) {
                Some(bytes) => *bytes,
                None => store.add_layer(content.reader()?, Some(diff_id), ingest)?.bytes,
            };
            layers.push(LayerRecord { diff_id: *diff_id, bytes });
            descriptors.push(descriptor(OCI_LAYER_TAR, *digest, *size));
        }
        let config_digest = store.add_blob(&config_bytes, ingest)?;
        let manifest = match &self.manifest {
            Some(bytes) => bytes.clone(),
            // `docker save` leaves the manifest out: ours says the same of the same content on every machine.
            None => {
                let manifest = Manifest {
                    schema_version: 2,
                    media_type: Some(OCI_MANIFEST.to_owned()),
                    config: descriptor(OCI_CONFIG, config_digest, config_bytes.len() as u64),
                    layers: descriptors,
                };
                let unwritable = |source| ArchiveError::Document { member: "manifest".to_owned(), source };
                serde_json::to_vec(&manifest).map_err(unwritable)?
            }
        };
        let digest = store.add_blob(&manifest, ingest)?;
        for name in &self.names {
            let record = ImageRecord {
                name: name.clone(),
                digest,
                manifest_digest: digest,
                config_digest,
                config: config.clone().into(),
                layers: layers.clone(),
                source: Source::Loaded,
                stored_at: 0,
            };
            store.commit(record, ingest)?;
            names.push(name.clone());
        }
        Ok(())
    }
}

fn descriptor(media_type: &str, digest: Digest, size: u64) -> Descriptor {
    Descriptor { media_type: media_type.to_owned(), digest, size, platform: None, annotations: None }
}

#[cfg(test)]
#[path = "archive_tests.rs"]
mod tests;
