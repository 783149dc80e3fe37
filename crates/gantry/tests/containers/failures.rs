//! What becomes of containers when something around them fails, and what is left behind.

use super::inside::probe;
use super::{Bench, is_root};
use gantry_agent::runtime::logs::Reader;
use gantry_agent::runtime::native::{NativeRuntime, Places};
use gantry_agent::runtime::{ContainerConfig, Runtime, RuntimeError, State};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

fn is_there(pid: i32) -> bool {
    // A process that nobody has waited for yet does nothing any more.
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, fields)| !fields.starts_with('Z'))
}

pub async fn until(what: &str, holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(10), "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The processes of a running container: its first, and its shim.
fn processes(bench: &Bench, id: &str) -> (i32, i32) {
    let state = fs::read(bench.directory.path().join("containers").join(id).join("state.json")).unwrap();
    let state: serde_json::Value = serde_json::from_slice(&state).unwrap();
    let pid = |name: &str| i32::try_from(state[name]["pid"].as_i64().unwrap()).unwrap();
    (pid("container"), pid("shim"))
}

/// The kernel's version.
pub fn release() -> (u32, u32) {
    let text = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = text.split(['.', '-']).map_while(|part| part.parse().ok());
    (numbers.next().unwrap(), numbers.next().unwrap())
}

/// The control groups with this path, in whatever hierarchy.
fn groups(path: &str) -> Vec<std::path::PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    let hierarchies = fs::read_dir(root).unwrap().flatten().map(|entry| entry.path());
    let groups = hierarchies.chain([root.to_owned()]).map(|root| root.join(path.trim_start_matches('/')));
    groups.filter(|group| group.exists()).collect()
}

#[tokio::test]
async fn nothing_is_left_of_a_removed_container() {
    if !is_root() {
        return;
    }
    let bench = Bench::new("left");
    for running in [true, false] {
        let config = probe(&bench, "gone", "sleep");
        let (id, group) = (config.id.clone(), format!("{}/gone", bench.group));
        bench.runtime.run(config).await.unwrap();
        let (container, shim) = processes(&bench, "gone");
        assert!(is_there(container) && is_there(shim) && !groups(&group).is_empty());
        if !running {
            bench.runtime.signal(&id, libc::SIGKILL).await.unwrap();
            bench.runtime.wait(&id).await.unwrap();
        }
        bench.runtime.remove(&id).await.unwrap();
        until("processes are left", || !is_there(container) && !is_there(shim)).await;
        assert_eq!(groups(&group), Vec::<std::path::PathBuf>::new());
        for place in ["containers", "written"] {
            assert!(!bench.directory.path().join(place).join("gone").exists(), "{place}");
        }
        // Once more is no error.
        bench.runtime.remove(&id).await.unwrap();
    }
}

#[tokio::test]
async fn what_containers_wrote_goes_with_the_hosts_start() {
    if !is_root() {
        return;
    }
    let bench = Bench::new("start");
    let config = probe(&bench, "stays", "sleep");
    let started = bench.runtime.run(config.clone()).await.unwrap();
    // Of a container whose directory was in memory.
    let written = bench.directory.path().join("written");
    fs::create_dir_all(written.join("gone/upper/var")).unwrap();
    assert_eq!(bench.runtime.list().await.unwrap(), [(config.id.clone(), State::Running(started))]);
    assert!(!written.join("gone").exists() && written.join("stays/upper").exists());
}

#[tokio::test]
async fn a_second_container_of_a_name_does_not_disturb_the_first() {
    if !is_root() {
        return;
    }
    let bench = Bench::new("twice");
    let config = probe(&bench, "one", "sleep");
    let started = bench.runtime.run(config.clone()).await.unwrap();
    let error = bench.runtime.run(config.clone()).await.unwrap_err();
    assert!(matches!(&error, RuntimeError::Exists(id) if *id == config.id), "{error:?}");
    assert_eq!(bench.runtime.list().await.unwrap(), [(config.id.clone(), State::Running(started))]);
    assert!(is_there(started.pid));
}

#[tokio::test]
async fn a_program_that_makes_no_shims_is_not_left_running() {
    if !is_root() {
        return;
    }
    let bench = Bench::new("nonsense");
    let program = bench.directory.path().join("shim");
    // What it closes here is the only thing that it was given.
    let script = "#!/bin/sh\necho $$ >> \"${0%/*}/pids\"\nexec <&-\nexec sleep 600\n";
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).unwrap();
    let odd = |name: &str| bench.directory.path().join("odd").join(name);
    let places = Places { containers: odd("containers"), written: odd("written") };
    let runtime = NativeRuntime::open(places, &program).unwrap();
    runtime.run(probe(&bench, "odd", "sleep")).await.unwrap_err();
    assert!(runtime.list().await.unwrap().is_empty());
    let pids = || fs::read_to_string(bench.directory.path().join("pids")).unwrap_or_default();
    until("the programs are left", || pids().lines().all(|pid| !is_there(pid.parse().unwrap()))).await;
    assert!(runtime.run(ContainerConfig { ..probe(&bench, "odd", "sleep") }).await.is_err(), "every time");
}

#[tokio::test]
async fn the_containers_directory_may_be_named_from_here() {
    if !is_root() {
        return;
    }
    let mut bench = Bench::new("relative");
    let here = std::env::current_dir().unwrap();
    let up = here.components().skip(1).map(|_| "..").collect::<std::path::PathBuf>();
    let root = up.join(bench.directory.path().strip_prefix("/").unwrap());
    assert!(root.is_relative());
    let places = Places { containers: root.join("containers"), written: root.join("written") };
    bench.runtime = NativeRuntime::open(places, env!("CARGO_BIN_EXE_gantry").as_ref()).unwrap();
    bench.runtime.run(probe(&bench, "relative", "sleep")).await.unwrap();
}

#[tokio::test]
async fn a_killed_spawner_is_replaced() {
    if !is_root() {
        return;
    }
    let bench = Bench::new("spawner");
    bench.runtime.run(probe(&bench, "one", "sleep")).await.unwrap();
    let parent = |pid: i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let (_, fields) = stat.rsplit_once(") ").unwrap();
        fields.split(' ').nth(1).unwrap().parse::<i32>().unwrap()
    };
    let (first, shim) = processes(&bench, "one");
    kill(Pid::from_raw(parent(shim)), Signal::SIGKILL).unwrap();
    until("the shim is the spawner's", || parent(shim) == 1).await;
    bench.runtime.run(probe(&bench, "two", "sleep")).await.unwrap();
    assert!(is_there(first) && is_there(shim), "the container before goes on");
}

#[tokio::test]
async fn output_is_kept_when_a_shim_was_killed() {
    if !is_root() {
        return;
    }
    let bench = Bench::new("resume");
    let config = probe(&bench, "talk", "talk");
    let (id, log) = (config.id.clone(), config.log.path.clone());
    let started = bench.runtime.run(config).await.unwrap();
    let (_, shim) = processes(&bench, "talk");
    let waiting = tokio::spawn({
        let (runtime, id) = (bench.runtime.clone(), id.clone());
        async move { runtime.wait(&id).await.unwrap() }
    });
    kill(Pid::from_raw(shim), Signal::SIGKILL).unwrap();
    // Who waits for the container sees it; so does who lists containers, at the agent's next start.
    until("there is no other shim", || processes(&bench, "talk").1 != shim).await;
    assert_eq!(bench.runtime.list().await.unwrap(), [(id.clone(), State::Running(started))]);
    let exit = tokio::time::timeout(Duration::from_secs(20), waiting).await.unwrap().unwrap();
    assert_eq!(exit.code, (release() >= (6, 15)).then_some(0));
    let mut reader = Reader::open(&log);
    let lines: Vec<String> = std::iter::from_fn(|| reader.read().unwrap()).map(|line| line.text).collect();
    for number in 0..super::inside::TALK_LINES {
        let line = format!("t={number}");
        assert_eq!(lines.iter().filter(|known| **known == line).count(), 1, "{line}");
    }
}

#[tokio::test]
async fn the_end_by_memory_is_known_without_the_shim_too() {
    if !is_root() {
        return;
    }
    let bench = Bench::new("shot");
    let config = ContainerConfig { memory_limit: Some(32 << 20), ..probe(&bench, "eat", "eat later") };
    let id = config.id.clone();
    bench.runtime.run(config).await.unwrap();
    let (_, shim) = processes(&bench, "eat");
    kill(Pid::from_raw(shim), Signal::SIGKILL).unwrap();
    let exit = bench.runtime.wait(&id).await.unwrap();
    assert!(exit.out_of_memory, "{exit:?}");
    // Kernels before 6.15 tell nobody.
    let told = release() >= (6, 15);
    assert_eq!(exit.code, told.then_some(137));
}

/// Prints how many containers this host can start at once:
/// `cargo test -p gantry --test containers -- --ignored --nocapture measure`.
#[tokio::test]
#[ignore = "a measurement"]
async fn measure_many_at_once() {
    const MANY: usize = 50;
    let bench = Bench::new("many");
    let begin = Instant::now();
    let all = (0..MANY).map(|number| {
        let config = bench.config(&format!("c{number}"), &[super::SAMPLE, "web", "80"]);
        let runtime = bench.runtime.clone();
        tokio::spawn(async move { runtime.run(config).await.unwrap() })
    });
    for started in all.collect::<Vec<_>>() {
        started.await.unwrap();
    }
    let taken = begin.elapsed();
    println!("{MANY} at once: {taken:?}, {:.0} a second", MANY as f64 / taken.as_secs_f64());
}
