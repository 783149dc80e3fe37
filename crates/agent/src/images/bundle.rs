//! Writes images of one layer, which differ in their configuration, into an archive for `docker load`: the layer once.

use super::builder::{BuildError, ImageBuilder};
use super::config::{ConfigDocument, Platform, RootFs};
use super::digest::{Digest, Hashing};
use super::reference::Reference;
use serde::Serialize;
use std::io::{self, Write};
use tar::{Builder, Header};

const LAYER: &str = "layer.tar";
/// Tar's unit, to which a member is filled up.
const BLOCK: u64 = 512;

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Member<'a> {
    config: String,
    repo_tags: [String; 1],
    layers: [&'a str; 1],
}

/// Writes the archive: each image has the files of `layer` and the configuration of its own builder. The layer is made
/// twice, since what names it comes first.
///
/// # Errors
/// When a file cannot be read, or the archive not be written.
pub fn write_bundle(
    layer: &ImageBuilder,
    images: &[(Reference, ImageBuilder)],
    out: impl Write,
) -> Result<(), BuildError> {
    let mut hashing = Hashing::new(io::sink());
    layer.write_layer(&mut hashing)?;
    let length = hashing.passed();
    let diff_id = hashing.finish().1;
    let mut archive = Builder::new(out);
    let mut manifest = Vec::new();
    for (name, image) in images {
        let platform = Platform::host();
        let document = ConfigDocument {
            architecture: platform.architecture,
            os: platform.os,
            config: Some(image.config().clone()),
            rootfs: RootFs { kind: "layers".to_owned(), diff_ids: vec![diff_id] },
        };
        let bytes = serde_json::to_vec(&document).map_err(BuildError::Document)?;
        let config = format!("{}.json", Digest::of(&bytes).hex());
        add(&mut archive, &config, &bytes)?;
        manifest.push(Member { config, repo_tags: [name.familiar()], layers: [LAYER] });
    }
    let manifest = serde_json::to_vec(&manifest).map_err(BuildError::Document)?;
    add(&mut archive, "manifest.json", &manifest)?;
    let mut header = header(length);
    header.set_path(LAYER).map_err(BuildError::Write)?;
    header.set_cksum();
    archive.get_mut().write_all(header.as_bytes()).map_err(BuildError::Write)?;
    let mut counting = Hashing::new(archive.get_mut());
    layer.write_layer(&mut counting)?;
    if counting.passed() != length {
        return Err(BuildError::Write(io::Error::other("a file changed while it was read")));
    }
    let filling = vec![0; usize::try_from((BLOCK - length % BLOCK) % BLOCK).unwrap_or_default()];
    archive.get_mut().write_all(&filling).map_err(BuildError::Write)?;
    archive.finish().map_err(BuildError::Write)
}

fn header(length: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(length);
    header
}

fn add(archive: &mut Builder<impl Write>, path: &str, bytes: &[u8]) -> Result<(), BuildError> {
    archive.append_data(&mut header(bytes.len() as u64), path, bytes).map_err(BuildError::Write)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::images::{FileContent, ImageStore, load};

    #[test]
    fn images_come_out_as_they_went_in() {
        let directory = tempfile::tempdir().unwrap();
        let store = ImageStore::open(directory.path().join("images")).unwrap();
        let layer = ImageBuilder::new().file("etc/words", 0o644, FileContent::Bytes(vec![b'x'; 700]));
        let image = |name: &str, command: &str| -> (Reference, ImageBuilder) {
            (name.parse().unwrap(), ImageBuilder::new().cmd([command]).label("made", "here"))
        };
        let mut archive = Vec::new();
        write_bundle(&layer, &[image("team/one:1", "a"), image("two", "b")], &mut archive).unwrap();
        let names = load(&store, archive.as_slice()).unwrap();
        assert_eq!(names.iter().map(Reference::familiar).collect::<Vec<_>>(), ["team/one:1", "two:latest"]);
        let [one, two] = [0, 1].map(|index| store.resolve(&names[index]).unwrap().unwrap());
        assert_eq!(
            (one.config.cmd.as_slice(), two.config.cmd.as_slice()),
            (&["a".to_owned()][..], &["b".to_owned()][..])
        );
        assert_eq!(one.layers, two.layers);
        assert_eq!(std::fs::read(one.layers[0].join("etc/words")).unwrap().len(), 700);
    }
}
