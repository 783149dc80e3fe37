//! The store's promises: whole or absent, shared, collected only when nobody needs it.
#![allow(clippy::unwrap_used)]

use super::super::builder::{FileContent, ImageBuilder};
use super::super::holds::Holds;
use super::*;

fn image(content: &str) -> ImageBuilder {
    ImageBuilder::new()
        .file("/etc/app/motd", 0o644, FileContent::Bytes(content.into()))
        .file("/bin/app", 0o755, FileContent::Symlink("../etc/app/motd".into()))
        .entrypoint(["/bin/app"])
        .env("A", "1")
        .expose("80/tcp")
}

fn store() -> (tempfile::TempDir, ImageStore) {
    let dir = tempfile::tempdir().unwrap();
    let store = ImageStore::open(dir.path().join("images")).unwrap();
    (dir, store)
}

fn name(text: &str) -> Reference {
    text.parse().unwrap()
}

#[test]
fn an_image_resolves_to_directories_and_a_configuration() {
    let (_dir, store) = store();
    assert_eq!(store.resolve(&name("app")).unwrap(), None);
    let built = image("hello").build_into(&store, &[name("app"), name("app:2")], Source::Loaded).unwrap();
    let local = store.resolve(&name("app")).unwrap().unwrap();
    assert_eq!(local, built[0]);
    assert_eq!(fs::read_to_string(local.layers[0].join("etc/app/motd")).unwrap(), "hello");
    assert_eq!(local.config.entrypoint, ["/bin/app"]);
    assert_eq!(local.config.env, ["A=1"]);
    assert_eq!(store.resolve(&name("app:2")).unwrap().unwrap().layers, local.layers);
    assert_eq!(
        store.list().unwrap().iter().map(|r| r.name.familiar()).collect::<Vec<_>>(),
        ["app:2", "app:latest"]
    );
    // The same content again gives the same image, and another process sees it.
    let again = image("hello").build_into(&store, &[name("app")], Source::Loaded).unwrap();
    assert_eq!(again[0].digest, local.digest);
    assert_eq!(ImageStore::open(store.root()).unwrap().resolve(&name("app")).unwrap().unwrap(), local);
}

#[test]
fn a_layer_that_an_image_has_twice_is_stacked_once() {
    let (_dir, store) = store();
    image("hello").build_into(&store, &[name("app")], Source::Loaded).unwrap();
    let mut record = store.record(&name("app")).unwrap().unwrap();
    let other = image("other").build_into(&store, &[name("other")], Source::Loaded).unwrap().remove(0);
    let other_layer = store.record(&other.name).unwrap().unwrap().layers[0];
    let own = record.layers[0];
    record.layers = vec![own, other_layer, own];
    store.commit(record.clone(), &store.ingest().unwrap()).unwrap();
    let stacked = [own, other_layer].map(|layer| store.layer_path(&layer.diff_id));
    assert_eq!(store.resolve(&record.name).unwrap().unwrap().layers, stacked);
}

#[test]
fn what_no_name_needs_is_collected_unless_it_is_held() {
    let (_dir, store) = store();
    let collect = || store.collector().unwrap().map(|collector| collector.collect().unwrap());
    let old = image("old").build_into(&store, &[name("app")], Source::Loaded).unwrap().remove(0);
    let holds = Holds::open(&store, "one").unwrap();
    let ingest = store.ingest().unwrap();
    assert!(holds.take(&store, &old, "task", 1, &ingest).unwrap());
    assert!(collect().is_none(), "somebody adds");
    drop(ingest);
    image("new").build_into(&store, &[name("app")], Source::Loaded).unwrap();
    assert_eq!(collect(), Some(Collected { layers: 0, blobs: 1 }));
    assert!(old.layers[0].is_dir());
    // Nor does another agent's round take it, while the first one is away, nor its own before it knows its tasks again.
    drop(holds);
    let other = Holds::open(&store, "two").unwrap();
    other.write_back(&store, |_| false).unwrap();
    assert_eq!(collect(), Some(Collected::default()));
    let again = Holds::open(&store, "one").unwrap();
    again.write_back(&store, |_| false).unwrap();
    again.settle(&[("task".to_owned(), old.config_digest)]);
    again.write_back(&store, |_| false).unwrap();
    assert_eq!(collect(), Some(Collected::default()));
    again.release("task", 2);
    again.write_back(&store, |_| false).unwrap();
    assert_eq!(collect(), Some(Collected { layers: 1, blobs: 1 }));
    assert!(!old.layers[0].exists());
    let ingest = store.ingest().unwrap();
    assert!(!again.take(&store, &old, "late", 3, &ingest).unwrap());
    drop(ingest);
    assert!(store.resolve(&name("app")).unwrap().is_some());
    assert!(store.remove(&name("app")).unwrap());
    assert!(!store.remove(&name("app")).unwrap());
    assert_eq!(collect(), Some(Collected { layers: 1, blobs: 2 }));
    again.write_back(&store, |image| *image == old.config_digest).unwrap();
    assert!(store.all_holds().unwrap().is_empty());
}

#[test]
fn what_a_crash_left_is_removed_and_a_missing_layer_makes_the_image_absent() {
    let (_dir, store) = store();
    let local = image("x").build_into(&store, &[name("app")], Source::Loaded).unwrap().remove(0);
    let root = store.root().to_owned();
    fs::create_dir_all(root.join("tmp/1-2-3/half/a/layer")).unwrap();
    fs::write(root.join("tmp/1-2-4"), "half a blob").unwrap();
    // Somebody else has the store open: what is in tmp may be theirs.
    drop(ImageStore::open(&root).unwrap());
    assert!(root.join("tmp/1-2-3").exists());
    drop(store);
    let store = ImageStore::open(&root).unwrap();
    assert_eq!(fs::read_dir(root.join("tmp")).unwrap().count(), 0);
    fs::remove_dir_all(&local.layers[0]).unwrap();
    assert_eq!(store.resolve(&name("app")).unwrap(), None);
}

#[test]
fn content_with_another_digest_is_not_kept() {
    let (_dir, store) = store();
    let ingest = store.ingest().unwrap();
    let mut layer = Vec::new();
    image("x").write_layer(&mut layer).unwrap();
    let expected = Digest::of(b"something else");
    let error = store.add_layer(layer.as_slice(), Some(&expected), &ingest).unwrap_err();
    assert!(matches!(error, StoreError::WrongDigest { .. }), "{error}");
    assert_eq!(fs::read_dir(store.root().join("layers")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(store.root().join("tmp")).unwrap().count(), 0);
    let blob = store.add_blob(b"document", &ingest).unwrap();
    assert_eq!(store.blob(&blob).unwrap().unwrap(), b"document");
    fs::write(store.root().join("blobs/sha256").join(blob.hex()), "damaged").unwrap();
    assert_eq!(store.blob(&blob).unwrap(), None);
}

#[test]
fn many_at_once_make_one_layer() {
    let (_dir, store) = store();
    let mut layer = Vec::new();
    image("x").write_layer(&mut layer).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let ingest = store.ingest().unwrap();
                store.add_layer(layer.as_slice(), None, &ingest).unwrap();
            });
        }
    });
    assert_eq!(fs::read_dir(store.root().join("layers")).unwrap().count(), 1);
    assert_eq!(fs::read_dir(store.root().join("tmp")).unwrap().count(), 0);
}

#[test]
fn foreign_layouts_and_records_are_refused() {
    let (_dir, store) = store();
    image("x").build_into(&store, &[name("app")], Source::Loaded).unwrap();
    fs::write(store.record_path(&name("app")), "{").unwrap();
    assert!(matches!(store.resolve(&name("app")), Err(StoreError::Record { .. })));
    // As another agent that begins at the same time has it for a moment.
    fs::write(store.root().join("VERSION"), "").unwrap();
    assert!(ImageStore::open(store.root()).is_ok());
    fs::write(store.root().join("VERSION"), "99").unwrap();
    assert!(matches!(ImageStore::open(store.root()), Err(StoreError::Version { .. })));
}
