//! The native runtime with the real binary as its shim and a sample image as its program. Needs root.
#![allow(clippy::unwrap_used)]

mod beside;
mod escapes;
mod failures;
mod first;
mod inside;

use gantry_agent::images::{ImageStore, Reference};
use gantry_agent::runtime::capabilities::Capabilities;
use gantry_agent::runtime::logs::Reader;
use gantry_agent::runtime::native::{NativeRuntime, Places};
use gantry_agent::runtime::{
    ContainerConfig, ContainerId, LogFile, Namespace, NetworkNamespace, Runtime, RuntimeError, State, Step,
};
use gantry_decide::task_engine::Exit;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

/// Not root: the tests say so and pass over.
fn is_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        eprintln!("skipped: containers need root");
    }
    root
}

/// A runtime in a scratch directory, whose containers are removed at the end, also of a failed test.
struct Bench {
    directory: tempfile::TempDir,
    runtime: NativeRuntime,
    layers: Vec<PathBuf>,
    group: String,
}

fn places_in(directory: &tempfile::TempDir) -> Places {
    Places { containers: directory.path().join("containers"), written: directory.path().join("written") }
}

impl Bench {
    fn new(name: &str) -> Bench {
        let directory = tempfile::tempdir().unwrap();
        let gantry = env!("CARGO_BIN_EXE_gantry");
        let made =
            Command::new(gantry).args(["image", "samples", "--data-dir"]).arg(directory.path()).status();
        assert!(made.unwrap().success());
        let store = ImageStore::open(directory.path().join("images")).unwrap();
        let image = store.resolve(&"nginx".parse::<Reference>().unwrap()).unwrap().unwrap();
        let runtime = NativeRuntime::open(places_in(&directory), gantry.as_ref()).unwrap();
        let group = format!("/gantry/test-{name}-{}", std::process::id());
        Bench { directory, runtime, layers: image.layers, group }
    }

    fn config(&self, id: &str, args: &[&str]) -> ContainerConfig {
        ContainerConfig {
            id: ContainerId::try_from(id.to_owned()).unwrap(),
            layers: self.layers.clone(),
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            env: vec!["PATH=/usr/bin".to_owned()],
            cwd: "/".to_owned(),
            user: String::new(),
            hostname: "bench".to_owned(),
            domainname: String::new(),
            init: false,
            tty: false,
            stdin_open: false,
            hosts_file: "127.0.0.1 localhost\n".to_owned(),
            resolv_conf: String::new(),
            read_only_root: false,
            privileged: false,
            capabilities: Capabilities::default(),
            no_new_privileges: false,
            cpu_shares: Some(128),
            cpu_quota: None,
            memory_limit: Some(256 << 20),
            memory_reservation: None,
            memory_swap: None,
            memory_swappiness: None,
            pids_limit: None,
            rlimits: Vec::new(),
            sysctls: Vec::new(),
            mounts: Vec::new(),
            tmpfs: Vec::new(),
            devices: Vec::new(),
            shm_size: 64 << 20,
            network: NetworkNamespace::Isolated,
            pid: Namespace::Private,
            ipc: Namespace::Private,
            cgroup_parent: self.group.clone(),
            log: LogFile {
                path: self.directory.path().join(format!("logs/{id}.log")),
                max_bytes: 1 << 20,
                max_files: 2,
            },
            writable: None,
            engine: None,
        }
    }

    async fn end_of(&self, config: ContainerConfig) -> (Exit, Vec<String>) {
        let (id, log) = (config.id.clone(), config.log.path.clone());
        self.runtime.run(config).await.unwrap();
        let exit =
            tokio::time::timeout(Duration::from_secs(20), self.runtime.wait(&id)).await.unwrap().unwrap();
        let mut reader = Reader::open(&log);
        let lines = std::iter::from_fn(|| reader.read().unwrap()).map(|line| line.text).collect();
        (exit, lines)
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let runtime = self.runtime.clone();
        let clean = std::thread::spawn(move || {
            tokio::runtime::Runtime::new().unwrap().block_on(async {
                for (id, _) in runtime.list().await.unwrap() {
                    runtime.remove(&id).await.unwrap();
                }
                runtime.close().await;
            });
        });
        clean.join().unwrap();
        gantry_agent::runtime::cgroup::remove(&self.group);
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(self.directory.path().to_str().unwrap()), "mounts are left on the host");
    }
}

const SAMPLE: &str = "/usr/bin/sample";

#[tokio::test]
async fn a_batch_program_runs_to_its_end() {
    if !is_root() {
        return;
    }
    let bench = Bench::new("batch");
    let mut config = bench.config("batch", &["sample", "batch"]);
    config.env.extend(["JOB_SECONDS=0", "JOB_RANGES=2", "JOB_EXIT_CODE=7", "S3_BUCKET=b"].map(str::to_owned));
    let (exit, lines) = bench.end_of(config).await;
    assert_eq!((exit.code, exit.out_of_memory), (Some(7), false));
    assert!(lines[0].contains("working for bucket b"), "{lines:?}");
    assert_eq!(lines.last().unwrap(), "done");
}

#[tokio::test]
async fn the_program_has_what_docker_would_give_it_and_no_more() {
    if !is_root() {
        return;
    }
    let bench = Bench::new("privileges");
    let status = |config: ContainerConfig| async {
        let id = config.id.clone();
        let started = bench.runtime.run(config).await.unwrap();
        let of_process =
            |file: &str| std::fs::read_to_string(format!("/proc/{}/{file}", started.pid)).unwrap();
        let start = Instant::now();
        // Started means that nothing but the last steps before the program are left.
        while !of_process("cmdline").contains("sample") {
            assert!(start.elapsed() < Duration::from_secs(10), "the program is not executed");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let status = of_process("status");
        bench.runtime.remove(&id).await.unwrap();
        move |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap().trim_start_matches(':').trim().to_owned()
        }
    };
    let web = |id: &str| bench.config(id, &[SAMPLE, "web", "80"]);
    let usual = status(web("usual")).await;
    for set in ["CapEff", "CapBnd", "CapPrm"] {
        assert_eq!(usual(set), "00000000a80425fb", "{set}");
    }
    assert_eq!((usual("CapInh"), usual("CapAmb")), ("0".repeat(16), "0".repeat(16)));
    assert_eq!((usual("Seccomp"), usual("NoNewPrivs")), ("2".to_owned(), "0".to_owned()));

    let nobody = status(ContainerConfig { user: "nobody".to_owned(), ..web("nobody") }).await;
    assert_eq!(nobody("CapEff"), "0".repeat(16));
    assert_eq!(nobody("CapBnd"), "00000000a80425fb");
    assert_eq!(nobody("Uid"), "65534\t65534\t65534\t65534");
    assert_eq!(nobody("Seccomp"), "2");

    let none = Capabilities::new(&[], &["ALL".to_owned()]).unwrap();
    let bare = status(ContainerConfig { capabilities: none, no_new_privileges: true, ..web("bare") }).await;
    assert_eq!((bare("CapEff"), bare("CapBnd")), ("0".repeat(16), "0".repeat(16)));
    assert_eq!((bare("Seccomp"), bare("NoNewPrivs")), ("2".to_owned(), "1".to_owned()));

    let privileged = status(ContainerConfig { privileged: true, ..web("privileged") }).await;
    assert_eq!(privileged("Seccomp"), "0");
    assert_ne!(privileged("CapEff"), usual("CapEff"));
}

#[tokio::test]
async fn a_program_that_is_not_there_is_named() {
    if !is_root() {
        return;
    }
    let bench = Bench::new("missing");
    for (command, expected) in [
        ("no-such-program", "exec: \"no-such-program\": executable file not found in $PATH"),
        ("/no/such/program", "stat /no/such/program: no such file or directory"),
        ("/etc/passwd", "permission denied"),
    ] {
        let error = bench.runtime.run(bench.config("missing", &[command])).await.unwrap_err();
        let RuntimeError::Failed { text, .. } = &error else { panic!("{error:?}") };
        assert!(text.contains(expected), "{text}");
    }
    let config = ContainerConfig { user: "ghost".to_owned(), ..bench.config("ghost", &[SAMPLE]) };
    let error = bench.runtime.run(config).await.unwrap_err();
    assert!(
        matches!(&error, RuntimeError::Failed { step: Step::Create, text } if text.contains("unable to find user ghost"))
    );
    assert!(bench.runtime.list().await.unwrap().is_empty(), "nothing is left of what failed");
}

#[tokio::test]
async fn a_stopped_program_may_say_goodbye_and_a_killed_one_not() {
    if !is_root() {
        return;
    }
    let bench = Bench::new("stop");
    for (name, signal, code) in [("term", 15, 0), ("kill", 9, 137)] {
        let config = bench.config(name, &[SAMPLE, "web", "80"]);
        let (id, log) = (config.id.clone(), config.log.path.clone());
        bench.runtime.run(config).await.unwrap();
        let mut reader = Reader::open(&log);
        let start = Instant::now();
        while reader.read().unwrap().is_none() {
            assert!(start.elapsed() < Duration::from_secs(10), "the program says nothing");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        bench.runtime.signal(&id, signal).await.unwrap();
        assert_eq!(bench.runtime.wait(&id).await.unwrap().code, Some(code), "{name}");
    }
}

#[tokio::test]
async fn containers_outlive_who_started_them_and_their_shims() {
    if !is_root() {
        return;
    }
    let bench = Bench::new("adopt");
    let config = bench.config("web", &[SAMPLE, "web", "80"]);
    let id = config.id.clone();
    let started = bench.runtime.run(config).await.unwrap();
    // A new runtime on the same directory knows it.
    let next =
        NativeRuntime::open(places_in(&bench.directory), env!("CARGO_BIN_EXE_gantry").as_ref()).unwrap();
    assert_eq!(next.list().await.unwrap(), [(id.clone(), State::Running(started))]);
    // Even a shim that is shot takes nothing along.
    let state = std::fs::read(bench.directory.path().join("containers/web/state.json")).unwrap();
    let state: serde_json::Value = serde_json::from_slice(&state).unwrap();
    let shim = i32::try_from(state["shim"]["pid"].as_i64().unwrap()).unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(shim), nix::sys::signal::Signal::SIGKILL).unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(next.list().await.unwrap(), [(id.clone(), State::Running(started))]);
    next.signal(&id, 9).await.unwrap();
    let exit = next.wait(&id).await.unwrap();
    // Kernels before 6.15 tell nobody.
    assert_eq!(exit.code, (failures::release() >= (6, 15)).then_some(137));
    next.remove(&id).await.unwrap();
    assert!(next.list().await.unwrap().is_empty());
}

/// Prints how long a start takes: `cargo test -p gantry --test containers -- --ignored --nocapture`.
#[tokio::test]
#[ignore = "a measurement"]
async fn measure_starts() {
    let bench = Bench::new("measure");
    let mut times = Vec::new();
    for round in 0..30 {
        let config = bench.config(&format!("m{round}"), &[SAMPLE, "web", "80"]);
        let id = config.id.clone();
        let start = Instant::now();
        bench.runtime.run(config).await.unwrap();
        times.push(start.elapsed());
        bench.runtime.remove(&id).await.unwrap();
    }
    times.sort();
    println!("run: median {:?}, p95 {:?}, min {:?}", times[15], times[28], times[0]);
}
