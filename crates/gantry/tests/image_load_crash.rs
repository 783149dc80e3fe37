//! `gantry image load`, killed at any instant: what the store shows afterwards is whole, and the next load succeeds.
#![allow(clippy::unwrap_used)]

use gantry_agent::images::{FileContent, ImageBuilder, ImageStore, Reference};
use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

/// Kills spread over the time that one load takes. More are worth it only after changes to the store.
const KILLS: u32 = 20;
const FILES: usize = 400;

fn load(archive: &Path, data: &Path) -> Child {
    Command::new(env!("CARGO_BIN_EXE_gantry"))
        .args(["image", "load"])
        .arg(archive)
        .arg("--data-dir")
        .arg(data)
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

fn content(number: usize) -> Vec<u8> {
    format!("file {number}\n").repeat(200).into_bytes()
}

/// Every layer that lies under its final name is complete; whether the image is there.
fn check(store: &ImageStore, name: &Reference) -> bool {
    assert_eq!(fs::read_dir(store.root().join("tmp")).unwrap().count(), 0);
    for layer in fs::read_dir(store.root().join("layers")).unwrap() {
        let layer = layer.unwrap().path();
        for number in 0..FILES {
            assert_eq!(fs::read(layer.join(format!("data/{number}"))).unwrap(), content(number));
        }
    }
    let listed = store.list().unwrap();
    let resolved = store.resolve(name).unwrap();
    assert_eq!(listed.len(), usize::from(resolved.is_some()));
    resolved.is_some()
}

#[test]
fn a_load_that_is_killed_leaves_nothing_half_made() {
    let dir = tempfile::tempdir().unwrap();
    let (archive, name) = (dir.path().join("app.tar"), "app:1".parse().unwrap());
    let elsewhere = ImageStore::open(dir.path().join("elsewhere")).unwrap();
    let files = (0..FILES).fold(ImageBuilder::new(), |image, number| {
        image.file(&format!("data/{number}"), 0o644, FileContent::Bytes(content(number)))
    });
    files.write_archive(&elsewhere, &name, File::create(&archive).unwrap()).unwrap();
    let started = Instant::now();
    assert!(load(&archive, &dir.path().join("undisturbed")).wait().unwrap().success());
    let whole = started.elapsed();
    for kill in 0..KILLS {
        let data = dir.path().join(format!("data{}", kill % 4));
        let mut child = load(&archive, &data);
        std::thread::sleep(whole * kill / KILLS);
        child.kill().unwrap();
        let finished = child.wait().unwrap().success();
        // The child may have been killed before it made anything.
        fs::create_dir_all(data.join("images")).unwrap();
        let there = check(&ImageStore::open(data.join("images")).unwrap(), &name);
        assert!(there || !finished, "a load that was reported as done is gone");
    }
    let last = dir.path().join("data0");
    assert!(load(&archive, &last).wait().unwrap().success());
    assert!(check(&ImageStore::open(last.join("images")).unwrap(), &name));
}
