//! Archives as `docker save` and OCI tools write them, and as they should not be.
#![allow(clippy::unwrap_used)]

use super::super::builder::{FileContent, ImageBuilder};
use super::*;
use proptest::prelude::*;
use std::io::Write;

fn store() -> (tempfile::TempDir, ImageStore) {
    let dir = tempfile::tempdir().unwrap();
    let store = ImageStore::open(dir.path().join("images")).unwrap();
    (dir, store)
}

fn image() -> ImageBuilder {
    ImageBuilder::new().file("hello", 0o644, FileContent::Bytes(b"world".to_vec())).cmd(["/hello"])
}

fn saved(name: &str) -> Vec<u8> {
    let (_dir, store) = store();
    let mut archive = Vec::new();
    image().write_archive(&store, &name.parse().unwrap(), &mut archive).unwrap();
    archive
}

/// The archive with some members left out, renamed or changed.
fn rewritten(
    archive: &[u8],
    mut change: impl FnMut(String, Vec<u8>) -> Option<(String, Vec<u8>)>,
) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for entry in tar::Archive::new(archive).entries().unwrap() {
        let mut entry = entry.unwrap();
        let (path, mut bytes) = (entry.path().unwrap().to_string_lossy().into_owned(), Vec::new());
        entry.read_to_end(&mut bytes).unwrap();
        if let Some((path, bytes)) = change(path, bytes) {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            builder.append_data(&mut header, path, bytes.as_slice()).unwrap();
        }
    }
    builder.into_inner().unwrap()
}

fn without(archive: &[u8], member: &str) -> Vec<u8> {
    rewritten(archive, |path, bytes| (path != member).then_some((path, bytes)))
}

fn check_loads(archive: &[u8], name: &str) {
    let (_dir, store) = store();
    let names = load(&store, archive).unwrap();
    assert_eq!(names, [name.parse().unwrap()]);
    let local = store.resolve(&names[0]).unwrap().unwrap();
    assert_eq!(std::fs::read_to_string(local.layers[0].join("hello")).unwrap(), "world");
    assert_eq!(local.config.cmd, ["/hello"]);
    assert_eq!(local.source, Source::Loaded);
    assert_eq!(std::fs::read_dir(store.root().join("tmp")).unwrap().count(), 0);
}

#[test]
fn docker_and_oci_archives_load_packed_or_not() {
    let archive = saved("team/app:7");
    check_loads(&archive, "team/app:7");
    check_loads(&without(&archive, "manifest.json"), "team/app:7");
    check_loads(&without(&archive, "index.json"), "team/app:7");
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&archive).unwrap();
    check_loads(&gzip.finish().unwrap(), "team/app:7");
}

#[test]
fn the_old_docker_form_with_linked_layers_loads() {
    let archive = saved("app");
    let mut layer = Vec::new();
    image().write_layer(&mut layer).unwrap();
    let layer_name = blob_name(&Digest::of(&layer));
    let mut builder = tar::Builder::new(Vec::new());
    let old = rewritten(&archive, |path, bytes| match path.as_str() {
        "index.json" | "oci-layout" => None,
        p if p == layer_name => Some(("aaa/layer.tar".into(), bytes)),
        "manifest.json" => {
            let text = String::from_utf8(bytes).unwrap().replace(&layer_name, "bbb/layer.tar");
            Some((path, text.into_bytes()))
        }
        _ => Some((path, bytes)),
    });
    for entry in tar::Archive::new(old.as_slice()).entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut header = entry.header().clone();
        let path = entry.path().unwrap().into_owned();
        builder.append_data(&mut header, path, &mut entry).unwrap();
    }
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    builder.append_link(&mut header, "bbb/layer.tar", "../aaa/layer.tar").unwrap();
    check_loads(&builder.into_inner().unwrap(), "app");
}

#[test]
fn what_is_no_image_is_refused_and_leaves_nothing() {
    let archive = saved("app");
    let mut layer = Vec::new();
    image().write_layer(&mut layer).unwrap();
    let layer_name = blob_name(&Digest::of(&layer));
    let oci = without(&archive, "manifest.json");
    let broken = [
        layer.clone(),
        Vec::new(),
        b"not an archive".repeat(100),
        archive[..archive.len() / 3].to_vec(),
        without(&archive, &layer_name),
        without(&oci, &layer_name),
        rewritten(&oci, |p, b| if p == layer_name { Some((p, b"other".to_vec())) } else { Some((p, b)) }),
        rewritten(&archive, |p, b| if p == layer_name { Some((p, vec![0; 1024])) } else { Some((p, b)) }),
        rewritten(
            &archive,
            |p, b| if p == "manifest.json" { Some((p, b"[".to_vec())) } else { Some((p, b)) },
        ),
        rewritten(&archive, |p, b| match p.as_str() {
            "manifest.json" => {
                Some((p, String::from_utf8(b).unwrap().replace("app:latest", "../etc").into_bytes()))
            }
            _ => Some((p, b)),
        }),
    ];
    for (case, archive) in broken.iter().enumerate() {
        let (_dir, store) = store();
        assert!(load(&store, archive.as_slice()).is_err(), "case {case}");
        assert!(store.list().unwrap().is_empty(), "case {case}");
        assert_eq!(std::fs::read_dir(store.root().join("tmp")).unwrap().count(), 0, "case {case}");
    }
}

#[test]
fn member_names_stay_in_the_archive() {
    assert_eq!(normal("", b"./a//b/./c"), Some("a/b/c".into()));
    assert_eq!(normal("x/y", b"../z"), Some("x/z".into()));
    assert_eq!(normal("x", b"../../etc/passwd"), None);
    assert_eq!(normal("x", b"/abs"), Some("abs".into()));
    assert_eq!(normal("", b"."), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn damaged_archives_never_panic(at in 0_usize..6000, value in any::<u8>()) {
        let mut archive = saved("app");
        let at = at % archive.len();
        archive[at] = value;
        let (_dir, store) = store();
        let _ = load(&store, archive.as_slice());
    }
}
