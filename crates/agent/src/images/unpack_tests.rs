//! Layers as strangers might make them. Needs root, as unpacking does.
#![allow(clippy::unwrap_used)]

use super::*;
use proptest::prelude::*;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::PathBuf;
use tar::{EntryType, Header};

/// A layer archive whose paths and links are written as they are, without the checks of an honest writer.
#[derive(Default)]
struct Layer(Vec<u8>);

impl Layer {
    fn entry(mut self, path: &str, kind: EntryType, link: &str, mode: u32, content: &[u8]) -> Self {
        let mut header = Header::new_gnu();
        header.as_mut_bytes()[..100].fill(0);
        header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
        header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(7);
        header.set_gid(8);
        header.set_mtime(1_000_000_000);
        header.set_device_major(1).unwrap();
        header.set_device_minor(3).unwrap();
        header.set_size(content.len() as u64);
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn file(self, path: &str, content: &str) -> Self {
        self.entry(path, EntryType::Regular, "", 0o644, content.as_bytes())
    }

    fn dir(self, path: &str) -> Self {
        self.entry(path, EntryType::Directory, "", 0o755, b"")
    }

    fn symlink(self, path: &str, to: &str) -> Self {
        self.entry(path, EntryType::Symlink, to, 0o777, b"")
    }

    fn hardlink(self, path: &str, to: &str) -> Self {
        self.entry(path, EntryType::Link, to, 0o644, b"")
    }

    fn pax(mut self, records: &[(&str, &[u8])]) -> Self {
        let mut builder = tar::Builder::new(Vec::new());
        builder.append_pax_extensions(records.iter().copied()).unwrap();
        let mut bytes = builder.into_inner().unwrap();
        // Without the two blocks that end an archive.
        bytes.truncate(bytes.len() - 1024);
        self.0.extend(bytes);
        self
    }

    fn bytes(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

struct Place {
    _dir: tempfile::TempDir,
    outer: PathBuf,
    root: PathBuf,
}

impl Place {
    /// `outer/root` for the layer, and `outer/secret`, which no layer may touch.
    fn new() -> Place {
        let dir = tempfile::tempdir().unwrap();
        let outer = dir.path().to_owned();
        let root = outer.join("root");
        std::fs::create_dir(&root).unwrap();
        std::fs::write(outer.join("secret"), "untouched").unwrap();
        Place { _dir: dir, outer, root }
    }

    fn unpack(&self, layer: Layer) -> Result<Unpacked, LayerError> {
        unpack(layer.bytes().as_slice(), &self.root, &Limits::default())
    }

    fn check_outside(&self) {
        let mut names: Vec<_> =
            std::fs::read_dir(&self.outer).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["root", "secret"]);
        assert_eq!(std::fs::read_to_string(self.outer.join("secret")).unwrap(), "untouched");
        assert_eq!(std::fs::metadata(self.outer.join("secret")).unwrap().nlink(), 1);
    }

    fn read(&self, path: &str) -> String {
        std::fs::read_to_string(self.root.join(path)).unwrap()
    }
}

fn is_opaque(path: &Path) -> bool {
    let mut value = [0; 8];
    matches!(rustix::fs::lgetxattr(path, OVERLAY_OPAQUE, &mut value), Ok(1) if value[0] == b'y')
}

#[test]
fn an_honest_layer_comes_out_as_it_went_in() {
    let place = Place::new();
    let layer = Layer::default()
        .dir("./")
        .dir("bin/")
        .entry("bin/su", EntryType::Regular, "", 0o4755, b"#!")
        .symlink("bin/link", "/etc/passwd")
        .hardlink("bin/su2", "bin/su")
        .file("no/parent/listed", "x")
        .entry("pipe", EntryType::Fifo, "", 0o600, b"");
    let diff_id = Digest::of(&{
        let mut copy = layer.0.clone();
        copy.resize(copy.len() + 1024, 0);
        copy
    });
    let unpacked = place.unpack(layer).unwrap();
    assert_eq!((unpacked.diff_id, unpacked.entries, unpacked.bytes), (diff_id, 7, 3));
    let su = std::fs::metadata(place.root.join("bin/su")).unwrap();
    assert_eq!((su.permissions().mode() & 0o7777, su.uid(), su.gid(), su.nlink()), (0o4755, 7, 8, 2));
    assert_eq!(std::fs::metadata(place.root.join("bin")).unwrap().mtime(), 1_000_000_000);
    assert_eq!(std::fs::read_link(place.root.join("bin/link")).unwrap(), Path::new("/etc/passwd"));
    assert_eq!(place.read("no/parent/listed"), "x");
    assert!(std::fs::metadata(place.root.join("pipe")).unwrap().file_type().is_fifo());
}

#[test]
fn packed_layers_are_told_by_their_first_bytes() {
    let bytes = Layer::default().file("a", "hello").bytes();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&bytes).unwrap();
    for packed in [bytes.clone(), gzip.finish().unwrap(), zstd::encode_all(bytes.as_slice(), 1).unwrap()] {
        let place = Place::new();
        let unpacked = unpack(packed.as_slice(), &place.root, &Limits::default()).unwrap();
        assert_eq!(unpacked.diff_id, Digest::of(&bytes));
        assert_eq!(place.read("a"), "hello");
        let cut = unpack(&packed[..packed.len() / 2], &Place::new().root, &Limits::default());
        assert!(cut.is_err() || bytes == packed);
    }
}

#[test]
fn whiteouts_become_those_of_overlayfs() {
    let place = Place::new();
    place
        .unpack(
            Layer::default()
                .file("dir/.wh.gone", "")
                .file("opaque/.wh..wh..opq", "")
                .file("opaque/kept", "")
                .file(".wh..wh.plnk/1.2", "")
                // The whiteout is for lower layers; this layer's own file stays, in either order.
                .file("mine", "here")
                .file(".wh.mine", "")
                .file(".wh.replaced", "")
                .dir("replaced")
                .dir("later")
                .file(".wh.later", ""),
        )
        .unwrap();
    let gone = std::fs::symlink_metadata(place.root.join("dir/gone")).unwrap();
    assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
    for opaque in ["opaque", "replaced", "later"] {
        assert!(is_opaque(&place.root.join(opaque)), "{opaque}");
    }
    assert!(!is_opaque(&place.root.join("dir")));
    assert_eq!(place.read("mine"), "here");
    for bad in [".wh.", ".wh...", "a/.wh..."] {
        assert!(
            matches!(place.unpack(Layer::default().file(bad, "")), Err(LayerError::Hostile { .. })),
            "{bad}"
        );
    }
    place.check_outside();
}

#[test]
fn climbing_paths_are_refused_and_absolute_ones_stay_inside() {
    for bad in ["../secret", "a/../../secret", "..", "/../secret", "./.."] {
        let place = Place::new();
        let error = place.unpack(Layer::default().file(bad, "evil")).unwrap_err();
        assert!(matches!(error, LayerError::Hostile { .. }), "{bad}: {error}");
        place.check_outside();
    }
    let place = Place::new();
    place.unpack(Layer::default().file("/etc/evil", "x")).unwrap();
    assert_eq!(place.read("etc/evil"), "x");
}

#[test]
fn links_cannot_lead_writes_outside() {
    for target in ["..", "/", "../../../../..", "../root/.."] {
        let place = Place::new();
        let outer = place.outer.to_str().unwrap().trim_start_matches('/').to_owned();
        let _ = place.unpack(
            Layer::default()
                .symlink("out", target)
                .file("out/secret", "evil")
                .file(&format!("out/{outer}/secret"), "evil")
                .dir("out/newdir")
                .file("out/.wh.secret", ""),
        );
        place.check_outside();
    }
    // A link as the last part is replaced, not followed.
    let place = Place::new();
    let secret = place.outer.join("secret");
    place.unpack(Layer::default().symlink("l", secret.to_str().unwrap()).file("l", "inside")).unwrap();
    assert_eq!(place.read("l"), "inside");
    place.check_outside();
    // A directory entry over a link to a directory replaces the link.
    let place = Place::new();
    place.unpack(Layer::default().symlink("d", "..").dir("d").file("d/x", "inside")).unwrap();
    assert_eq!(place.read("d/x"), "inside");
    place.check_outside();
}

#[test]
fn hard_links_reach_only_what_the_layer_has() {
    let outside = Place::new();
    for target in ["../secret", "/etc/passwd", "missing", "up/secret", "dir", ""] {
        let layer = Layer::default().dir("dir").symlink("up", "..").hardlink("stolen", target);
        let error = outside.unpack(layer).unwrap_err();
        assert!(matches!(error, LayerError::Hostile { .. }), "{target}: {error}");
    }
    outside.check_outside();
    let place = Place::new();
    place.unpack(Layer::default().file("a", "x").hardlink("a", "a").hardlink("b", "/a")).unwrap();
    assert_eq!(place.read("b"), "x");
    // A hard link to a symbolic link to the outside, then written "through": replaced.
    let place = Place::new();
    let secret = place.outer.join("secret");
    let layer =
        Layer::default().symlink("l", secret.to_str().unwrap()).hardlink("h", "l").file("h", "inside");
    place.unpack(layer).unwrap();
    place.check_outside();
}

#[test]
fn devices_are_made_only_when_allowed() {
    let layer = || Layer::default().entry("null", EntryType::Char, "", 0o666, b"");
    let place = Place::new();
    assert_eq!(place.unpack(layer()).unwrap().devices_skipped, 1);
    assert!(!place.root.join("null").exists());
    let limits = Limits { devices: true, ..Limits::default() };
    unpack(layer().bytes().as_slice(), &place.root, &limits).unwrap();
    assert_eq!(std::fs::metadata(place.root.join("null")).unwrap().rdev(), rustix::fs::makedev(1, 3));
}

#[test]
fn only_harmless_attributes_are_kept() {
    let place = Place::new();
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let records: [(&str, &[u8]); 4] = [
        ("SCHILY.xattr.security.capability", &capability),
        ("SCHILY.xattr.user.note", b"kept"),
        ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
        ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
    ];
    place.unpack(Layer::default().pax(&records).file("f", "x").pax(&records[2..]).dir("d")).unwrap();
    let get = |path: &str, name: &str| {
        let mut value = [0; 64];
        rustix::fs::lgetxattr(place.root.join(path), name, &mut value).map(|n| value[..n].to_vec())
    };
    assert_eq!(get("f", "security.capability").unwrap(), capability);
    assert!(
        matches!(get("f", "user.note").as_deref(), Ok(b"kept") | Err(&Errno::OPNOTSUPP))
            || get("f", "user.note").is_err()
    );
    assert!(get("f", "trusted.overlay.redirect").is_err());
    assert!(!is_opaque(&place.root.join("d")));
}

#[test]
fn amounts_are_bounded() {
    let tight = Limits { entries: 3, bytes: 10_000, path: 50, devices: false };
    let check = |layer: Layer| unpack(layer.bytes().as_slice(), &Place::new().root, &tight);
    let many = (0..4).fold(Layer::default(), |l, i| l.dir(&format!("d{i}")));
    assert!(matches!(check(many), Err(LayerError::TooManyEntries(3))));
    let big = "x".repeat(6_000);
    assert!(check(Layer::default().file("a", &big)).is_ok());
    assert!(check(Layer::default().file("a", &big).file("b", &big)).is_err());
    assert!(matches!(check(Layer::default().file(&"p/".repeat(30), "")), Err(LayerError::Hostile { .. })));
    // A bomb: a few kilobytes that unpack to a gigabyte of zeros after the archive's end.
    let mut bomb = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::copy(&mut std::io::repeat(0).take(1 << 26), &mut bomb).unwrap();
    let bomb = bomb.finish().unwrap();
    assert!(unpack(bomb.as_slice(), &Place::new().root, &tight).is_err());
}

#[test]
fn later_entries_replace_earlier_ones_of_another_kind() {
    let place = Place::new();
    let layer = Layer::default()
        .dir("x")
        .file("x/deep/file", "1")
        .file("x", "now a file")
        .file("y", "2")
        .dir("y")
        .file("y/below", "3");
    place.unpack(layer).unwrap();
    assert_eq!(place.read("x"), "now a file");
    assert_eq!(place.read("y/below"), "3");
    assert!(matches!(place.unpack(Layer::default().file("x/below", "")), Err(LayerError::Write { .. })));
}

/// What a container sees of `layers`, the lowest first: every path in the merged tree. The mount is in a mount
/// namespace of a thread of its own and goes with it.
fn merged(layers: &[&Place]) -> Vec<String> {
    let lower: Vec<_> = layers.iter().rev().map(|p| p.root.to_str().unwrap().to_owned()).collect();
    let mount = tempfile::tempdir().unwrap();
    let see = || {
        use nix::mount::{MsFlags, mount as nix_mount};
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
        nix_mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
            .unwrap();
        let options = format!("lowerdir={}", lower.join(":"));
        let flags = MsFlags::MS_RDONLY;
        nix_mount(Some("overlay"), mount.path(), Some("overlay"), flags, Some(options.as_str())).unwrap();
        let mut seen = Vec::new();
        let mut pending = vec![mount.path().to_owned()];
        while let Some(directory) = pending.pop() {
            for entry in std::fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                seen.push(path.strip_prefix(mount.path()).unwrap().to_str().unwrap().to_owned());
                if path.is_dir() {
                    pending.push(path);
                }
            }
        }
        seen.sort();
        seen
    };
    std::thread::scope(|scope| scope.spawn(see).join().unwrap())
}

#[test]
fn overlayfs_hides_what_upper_layers_remove() {
    let (below, above) = (Place::new(), Place::new());
    let files = ["a", "dir/old", "dir/gone", "swept/old", "swapped/old", "kept"];
    below.unpack(files.iter().fold(Layer::default(), |layer, path| layer.file(path, "below"))).unwrap();
    let layer = Layer::default()
        .file(".wh.a", "")
        .file("dir/.wh.gone", "")
        .file("dir/new", "")
        .file("swept/new", "")
        .file("swept/.wh..wh..opq", "")
        .file(".wh.swapped", "")
        .dir("swapped")
        .file("swapped/new", "");
    above.unpack(layer).unwrap();
    let expected = ["dir", "dir/new", "dir/old", "kept", "swapped", "swapped/new", "swept", "swept/new"];
    assert_eq!(merged(&[&below, &above]), expected);
}

fn any_entry() -> impl Strategy<Value = (u8, String, String)> {
    let part =
        prop::sample::select(vec!["a", "b", "..", ".", ".wh.a", ".wh..wh..opq", "l", "secret", "root", ""]);
    let path = prop::collection::vec(part, 1..5).prop_map(|p| p.join("/"));
    let link =
        prop::sample::select(vec!["..", "/", "a", "a/b", "../..", "../secret", "l", "/l/..", "b/../..", "."]);
    (0_u8..6, path, link.prop_map(str::to_owned))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_archive_reaches_outside(entries in prop::collection::vec(any_entry(), 1..12)) {
        let place = Place::new();
        // One entry per layer as well: an error must not keep the rest from being tried.
        for (kind, path, link) in &entries {
            let layer = match kind {
                0 | 1 => Layer::default().file(path, "evil"),
                2 => Layer::default().dir(path),
                3 | 4 => Layer::default().symlink(path, link),
                _ => Layer::default().hardlink(path, link),
            };
            let _ = place.unpack(layer);
            place.check_outside();
        }
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..1500), magic in 0_usize..3) {
        let mut input = [&[][..], &[0x1f, 0x8b, 8, 0], &[0x28, 0xb5, 0x2f, 0xfd]][magic].to_vec();
        input.extend(bytes);
        let place = Place::new();
        let _ = unpack(input.as_slice(), &place.root, &Limits::default());
        place.check_outside();
    }
}
