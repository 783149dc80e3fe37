//! Sample images that Gantry carries, so that a first look needs no network: they have the names that tutorials use, for
//! a web server, an API with a cache, a batch job. Made from a small program (`sample/`) and the shared libraries that it
//! needs, which Gantry's own binary needs too.

use gantry_agent::docker::{self, DockerError};
use gantry_agent::images::{
    BuildError, FileContent, ImageBuilder, ImageStore, Reference, Source, StoreError, write_bundle,
};
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Says which binary an image was made from, so that a restart has nothing to do and an upgrade everything.
const LABEL: &str = docker::images::SAMPLE_LABEL;
/// Built by `build.rs`.
static PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/sample"));
/// Where it lies in the images.
const PATH: &str = "/usr/bin/sample";
/// A program interpreter's path; longer ones are not ours.
const MAX_INTERPRETER: u64 = 256;

/// What an image stands for: the names that common tutorials use, and what runs under them.
struct Sample {
    name: &'static str,
    program: &'static [&'static str],
    port: Option<&'static str>,
}

const SAMPLES: [Sample; 5] = [
    Sample { name: "nginx:latest", program: &["web", "80"], port: Some("80/tcp") },
    Sample { name: "my-api:latest", program: &["web", "3000"], port: Some("3000/tcp") },
    Sample { name: "redis:alpine", program: &["kv"], port: Some("6379/tcp") },
    Sample { name: "fluent/fluent-bit:latest", program: &["router"], port: None },
    Sample { name: "my-batch-job:latest", program: &["batch"], port: None },
];

/// Why the sample images could not be made.
#[derive(Debug, thiserror::Error)]
pub enum SampleError {
    #[error("reading this program's own file {path} failed")]
    Binary { path: PathBuf, source: io::Error },
    #[error("the program interpreter {path} could not list the shared libraries")]
    Libraries { path: PathBuf, source: io::Error },
    #[error("a pipe cannot be made")]
    Pipe(#[source] io::Error),
    #[error(transparent)]
    Docker(#[from] DockerError),
    #[error(transparent)]
    Build(#[from] BuildError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Makes the sample images known under their names, where the operator has no image of that name. Made once for a
/// binary: from then on this takes well under a millisecond.
pub fn register(store: &ImageStore) -> Result<(), SampleError> {
    // The link is opened, not read: it works for a binary that was replaced while it runs.
    let binary = PathBuf::from("/proc/self/exe");
    let identity =
        identity(&binary).map_err(|source| SampleError::Binary { path: binary.clone(), source })?;
    let mut missing = Vec::new();
    for sample in &SAMPLES {
        let name = name(sample);
        match store.record(&name)? {
            Some(record) if record.source != Source::Sample => {}
            Some(record)
                if record.config.labels.get(LABEL) == Some(&identity) && store.resolve(&name)?.is_some() => {}
            _ => missing.push((sample, name)),
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let files = files(&binary)?;
    let ingest = store.ingest()?;
    let layer = files.layer_into(store, &ingest)?;
    for (sample, name) in missing {
        configured(sample, &identity).build_on(layer, store, &ingest, &[name], Source::Sample)?;
    }
    Ok(())
}

/// The same for images that Docker keeps.
pub async fn register_in_docker(docker: &docker::Client) -> Result<(), SampleError> {
    let binary = PathBuf::from("/proc/self/exe");
    let identity =
        identity(&binary).map_err(|source| SampleError::Binary { path: binary.clone(), source })?;
    let mut missing = Vec::new();
    for sample in &SAMPLES {
        let name = name(sample);
        match docker::images::find(docker, &name).await? {
            Some(image) if image.source != Source::Sample => {}
            Some(image) if image.config.labels.get(LABEL) == Some(&identity) => {}
            _ => missing.push((name, configured(sample, &identity))),
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let files = files(&binary)?;
    let (reader, writer) = io::pipe().map_err(SampleError::Pipe)?;
    let writing = tokio::task::spawn_blocking(move || write_bundle(&files, &missing, writer));
    let loaded = docker::images::load(docker, reader).await;
    // What went wrong first is why the archive was cut short.
    writing.await.unwrap_or_else(|error| Err(BuildError::Write(io::Error::other(error))))?;
    loaded.map(drop).map_err(SampleError::Docker)
}

/// The same for images that Docker keeps.
pub async fn withdraw_from_docker(docker: &docker::Client) -> Result<(), SampleError> {
    for sample in &SAMPLES {
        let name = name(sample);
        if docker::images::find(docker, &name).await?.is_some_and(|image| image.source == Source::Sample) {
            docker::images::remove(docker, &name).await?;
        }
    }
    Ok(())
}

/// An image without its files.
fn configured(sample: &Sample, identity: &str) -> ImageBuilder {
    let image = ImageBuilder::new()
        .entrypoint([PATH])
        .cmd(sample.program.iter().copied())
        .env("PATH", "/usr/bin:/bin")
        .label(LABEL, identity);
    match sample.port {
        Some(port) => image.expose(port),
        None => image,
    }
}

/// Takes the sample images' names away again, so that their registries are asked.
pub fn withdraw(store: &ImageStore) -> Result<(), SampleError> {
    for sample in &SAMPLES {
        let name = name(sample);
        if store.record(&name)?.is_some_and(|record| record.source == Source::Sample) {
            store.remove(&name)?;
        }
    }
    Ok(())
}

fn name(sample: &Sample) -> Reference {
    sample.name.parse().expect("the names in the table are references, a test parses them")
}

/// Version, size and time: changes with every build, and costs no reading.
fn identity(binary: &Path) -> io::Result<String> {
    let metadata = fs::metadata(binary)?;
    let (size, seconds, nanos) = (metadata.len(), metadata.mtime(), metadata.mtime_nsec());
    Ok(format!("{}-{size}-{seconds}.{nanos:09}", env!("CARGO_PKG_VERSION")))
}

/// The root file system: the program, its libraries, and what programs expect to find.
fn files(binary: &Path) -> Result<ImageBuilder, SampleError> {
    let text = |text: &str| FileContent::Bytes(text.as_bytes().to_vec());
    let link = |to: &str| FileContent::Symlink(to.to_owned());
    let mut image = ImageBuilder::new()
        .file(PATH, 0o755, FileContent::Bytes(PROGRAM.to_vec()))
        .file(
            "/etc/passwd",
            0o644,
            text("root:x:0:0:root:/:/bin/false\nnobody:x:65534:65534:nobody:/:/bin/false\n"),
        )
        .file("/etc/group", 0o644, text("root:x:0:\nnogroup:x:65534:\n"))
        .file("/etc/hosts", 0o644, text(""))
        .file("/etc/resolv.conf", 0o644, text(""))
        .file("/etc/hostname", 0o644, text(""))
        // One directory holds all libraries; every C library searches at least one of these names for it.
        .file("/usr/lib", 0o755, FileContent::Directory)
        .file("/usr/lib64", 0o777, link("lib"))
        .file("/lib", 0o777, link("usr/lib"))
        .file("/lib64", 0o777, link("usr/lib"))
        .file("/tmp", 0o1777, FileContent::Directory);
    for directory in ["/dev", "/proc", "/sys", "/run", "/var"] {
        image = image.file(directory, 0o755, FileContent::Directory);
    }
    for library in libraries(binary)? {
        if let Some(file) = library.file_name().and_then(|f| f.to_str()) {
            image = image.file(&format!("/usr/lib/{file}"), 0o755, FileContent::CopyOf(library.clone()));
        }
    }
    Ok(image)
}

/// The shared libraries that `binary` loads, the program interpreter included, under the names that it asks for.
/// None for a static binary.
fn libraries(binary: &Path) -> Result<Vec<PathBuf>, SampleError> {
    let unreadable = |source| SampleError::Binary { path: binary.to_owned(), source };
    let Some(interpreter) = interpreter(binary).map_err(unreadable)? else { return Ok(Vec::new()) };
    let failed = |source| SampleError::Libraries { path: interpreter.clone(), source };
    // The interpreter would take the link for its own file.
    let path = fs::read_link(binary).unwrap_or_else(|_| binary.to_owned());
    let output = Command::new(&interpreter).arg("--list").arg(&path).output().map_err(failed)?;
    if !output.status.success() {
        return Err(failed(io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned())));
    }
    let mut libraries = listed(&String::from_utf8_lossy(&output.stdout));
    libraries.push(interpreter);
    Ok(libraries)
}

/// The files in the interpreter's list: lines such as `libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x7f...)`.
fn listed(output: &str) -> Vec<PathBuf> {
    let paths = output.lines().filter_map(|line| line.split_once("=>")).filter_map(|(_, right)| {
        let path = right.rsplit_once(" (").map_or(right, |(path, _)| path).trim();
        path.starts_with('/').then(|| PathBuf::from(path))
    });
    paths.collect()
}

/// The path in the ELF file's PT_INTERP header, if it has one.
fn interpreter(binary: &Path) -> io::Result<Option<PathBuf>> {
    const PT_INTERP: u32 = 3;
    let bad = || io::Error::from(io::ErrorKind::InvalidData);
    let mut file = File::open(binary)?;
    let mut header = [0; 64];
    file.read_exact(&mut header)?;
    // 64 bits, little endian: what every platform of ours has.
    if !header.starts_with(b"\x7fELF\x02\x01") {
        return Err(bad());
    }
    let u16_at = |bytes: &[u8], at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
    let u64_at = |bytes: &[u8], at: usize| {
        let mut number = [0; 8];
        number.copy_from_slice(&bytes[at..at + 8]);
        u64::from_le_bytes(number)
    };
    let (offset, size, count) = (u64_at(&header, 32), u16_at(&header, 54), u16_at(&header, 56));
    if size < 56 {
        return Err(bad());
    }
    for index in 0..u64::from(count) {
        let mut entry = [0; 56];
        file.seek(SeekFrom::Start(offset.saturating_add(index * u64::from(size))))?;
        file.read_exact(&mut entry)?;
        if u32::from_le_bytes([entry[0], entry[1], entry[2], entry[3]]) != PT_INTERP {
            continue;
        }
        let length = u64_at(&entry, 32);
        if length > MAX_INTERPRETER {
            return Err(bad());
        }
        file.seek(SeekFrom::Start(u64_at(&entry, 8)))?;
        let mut path = Vec::new();
        file.take(length).read_to_end(&mut path)?;
        let path = String::from_utf8(path).map_err(|_| bad())?;
        return Ok(Some(PathBuf::from(path.trim_end_matches('\0'))));
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_images_hold_what_their_program_needs_and_are_made_once() {
        let dir = tempfile::tempdir().unwrap();
        let store = ImageStore::open(dir.path().join("images")).unwrap();
        register(&store).unwrap();
        let web = store.resolve(&"nginx".parse().unwrap()).unwrap().unwrap();
        let kv = store.resolve(&"redis:alpine".parse().unwrap()).unwrap().unwrap();
        assert_eq!(web.layers, kv.layers);
        assert_eq!(web.config.entrypoint, ["/usr/bin/sample"]);
        assert_eq!((web.config.cmd, kv.config.cmd), (vec!["web".into(), "80".into()], vec!["kv".into()]));
        // It runs from its own files alone.
        let output = Command::new("chroot").arg(&web.layers[0]).arg(PATH).output().unwrap();
        assert!(output.stderr.starts_with(b"usage: sample web"), "{output:?}");
        let stored = store.record(&web.name).unwrap().unwrap().stored_at;
        register(&store).unwrap();
        assert_eq!(store.record(&web.name).unwrap().unwrap().stored_at, stored);
        withdraw(&store).unwrap();
        assert!(store.list().unwrap().is_empty());
    }

    #[test]
    fn an_image_of_the_operator_keeps_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let store = ImageStore::open(dir.path().join("images")).unwrap();
        let name: Reference = "my-api".parse().unwrap();
        let own = ImageBuilder::new().file("mine", 0o644, FileContent::Bytes(Vec::new()));
        own.build_into(&store, std::slice::from_ref(&name), Source::Loaded).unwrap();
        register(&store).unwrap();
        withdraw(&store).unwrap();
        assert_eq!(store.record(&name).unwrap().unwrap().source, Source::Loaded);
        assert_eq!(store.list().unwrap().len(), 1);
    }

    #[test]
    fn the_interpreters_list_is_read() {
        let output = "\tlinux-vdso.so.1 (0x00007ffc)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\
                      \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n\tlibx.so => not found\n";
        assert_eq!(listed(output), [PathBuf::from("/lib/x86_64-linux-gnu/libc.so.6")]);
    }
}
