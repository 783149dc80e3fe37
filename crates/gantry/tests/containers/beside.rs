//! Programs run beside a container's own.

use super::failures::until;
use super::inside::{number, probe};
use super::{Bench, is_root};
use gantry_agent::runtime::exec::{Exec, ExecRequest};
use gantry_agent::runtime::{ContainerConfig, ContainerId, Runtime, RuntimeError, Step};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// The probe's program with another task: see [`probe`].
pub fn request(config: &ContainerConfig, task: &str) -> ExecRequest {
    ExecRequest {
        args: config.args.clone(),
        env: vec![format!("PROBE={task}")],
        cwd: None,
        user: None,
        tty: None,
    }
}

/// The processes of the container `main`.
fn members(bench: &Bench) -> Vec<String> {
    let group = std::path::Path::new("/sys/fs/cgroup");
    let controller = if group.join("cgroup.procs").exists() { group.to_owned() } else { group.join("pids") };
    let group = controller.join(format!("{}/main/cgroup.procs", bench.group.trim_start_matches('/')));
    std::fs::read_to_string(group).unwrap().lines().map(str::to_owned).collect()
}

async fn started(bench: &Bench, config: ContainerConfig) -> (ContainerId, ContainerConfig) {
    bench.runtime.run(config.clone()).await.unwrap();
    (config.id.clone(), config)
}

/// What it wrote to its outputs, and its exit code.
pub async fn all_of(mut exec: Exec) -> (BTreeMap<String, String>, String, i32) {
    exec.stdin.shutdown().await.unwrap();
    drop(exec.stdin);
    let (mut out, mut err) = (String::new(), String::new());
    exec.stdout.read_to_string(&mut out).await.unwrap();
    exec.stderr.read_to_string(&mut err).await.unwrap();
    let code = tokio::time::timeout(Duration::from_secs(20), exec.exit).await.unwrap().unwrap();
    let pairs = out.lines().filter_map(|line| line.trim().split_once('='));
    (pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).collect(), err, code)
}

#[tokio::test]
async fn a_program_beside_has_the_containers_view_and_rights() {
    if !is_root() {
        return;
    }
    let bench = Bench::new("beside");
    let (id, config) = started(&bench, probe(&bench, "main", "sleep")).await;
    let mut look = request(&config, "look");
    look.env.push("GREETING=good day".to_owned());
    look.cwd = Some("/tmp/made".to_owned());
    let (seen, _, code) = all_of(bench.runtime.exec(&id, look.clone()).await.unwrap()).await;
    assert_eq!(code, 0);
    let expected = [
        ("uid", "0 0 0 0"),
        ("cwd", "/tmp/made"),
        ("GREETING", "good day"),
        ("HOSTNAME", "bench"),
        // The container's own, and this one.
        ("processes", "2"),
        ("interfaces", "1"),
        ("hosts", "127.0.0.1 localhost"),
        ("blocked signals", "0000000000000000"),
        ("umask", "0022"),
        ("write stdout", "done"),
    ];
    for (name, value) in expected {
        assert_eq!(seen[name], value, "{name}");
    }
    assert_eq!(seen["write /proc/sys"], number(libc::EROFS));
    assert_eq!(seen["make group"], number(libc::EROFS));
    for device in ["serial port by group", "disk by group"] {
        assert_eq!(seen[device], number(libc::EPERM), "{device}: it is in the container's group");
    }
    look.user = Some("65534:65534".to_owned());
    look.cwd = None;
    let (seen, _, _) = all_of(bench.runtime.exec(&id, look).await.unwrap()).await;
    assert_eq!((&*seen["uid"], &*seen["cwd"]), ("65534 65534 65534 65534", "/"));
    assert_eq!((&*seen["write stdout"], &*seen["write stderr"]), ("done", "done"));
}

#[tokio::test]
async fn its_rights_are_taken_from_it_too() {
    if !is_root() {
        return;
    }
    let bench = Bench::new("rights");
    let (id, config) = started(&bench, probe(&bench, "main", "sleep")).await;
    let exec = bench.runtime.exec(&id, request(&config, "sleep")).await.unwrap();
    let members = members(&bench);
    assert_eq!(members.len(), 2, "the container's and the one beside it");
    for pid in members {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let of = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.trim_start_matches(':').trim().to_owned()
        };
        for set in ["CapEff", "CapBnd", "CapPrm"] {
            assert_eq!(of(set), "00000000a80425fb", "{set}");
        }
        assert_eq!((of("Seccomp"), of("NoNewPrivs"), of("CapAmb")), ("2".into(), "0".into(), "0".repeat(16)));
        // A program that starts opens its libraries for a moment.
        let open = || std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
        until("no descriptor of the host's is left", || open() == 3).await;
    }
    drop(exec);
}

#[tokio::test]
async fn input_and_outputs_are_apart_and_the_exit_code_comes() {
    if !is_root() {
        return;
    }
    let bench = Bench::new("pipes");
    let (id, config) = started(&bench, probe(&bench, "main", "sleep")).await;
    let mut exec = bench.runtime.exec(&id, request(&config, "echo")).await.unwrap();
    exec.stdin.write_all(b"how do you do").await.unwrap();
    let (seen, complaint, code) = all_of(exec).await;
    assert_eq!((&*seen["heard"], code), ("how do you do", 5));
    assert!(complaint.contains("complaint"));
}

#[tokio::test]
async fn a_terminal_is_one() {
    if !is_root() {
        return;
    }
    let bench = Bench::new("terminal");
    let (id, config) = started(&bench, probe(&bench, "main", "sleep")).await;
    let mut window = request(&config, "window");
    window.tty = Some((33, 99));
    window.user = Some("65534".to_owned());
    let mut exec = bench.runtime.exec(&id, window).await.unwrap();
    let mut text = String::new();
    let mut bytes = [0; 1024];
    while !text.contains("window=33x99") {
        let count = exec.stdout.read(&mut bytes).await.unwrap();
        assert!(count > 0, "{text}");
        text.push_str(&String::from_utf8_lossy(&bytes[..count]));
    }
    exec.terminal.as_ref().unwrap().resize(50, 120).unwrap();
    exec.stdin.write_all(b"hello\r").await.unwrap();
    exec.stdout.read_to_string(&mut text).await.unwrap();
    assert_eq!(exec.exit.await.unwrap(), 0, "{text}");
    for expected in ["window then=50x120", "typed=hello", "foreground=true", "own terminal=done"] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
}

#[tokio::test]
async fn ctrl_c_reaches_the_program() {
    if !is_root() {
        return;
    }
    // As the agent is started in the background of a shell.
    // SAFETY: sets no handler; nothing here waits for the signal.
    let usual = unsafe { libc::signal(libc::SIGINT, libc::SIG_IGN) };
    let bench = Bench::new("interrupt");
    let (id, config) = started(&bench, probe(&bench, "main", "sleep")).await;
    let mut sleep = request(&config, "sleep");
    sleep.tty = Some((24, 80));
    let mut exec = bench.runtime.exec(&id, sleep).await.unwrap();
    exec.stdin.write_all(b"\x03").await.unwrap();
    let code = tokio::time::timeout(Duration::from_secs(20), exec.exit).await.unwrap().unwrap();
    // SAFETY: as it was.
    unsafe { libc::signal(libc::SIGINT, usual) };
    assert_eq!(code, 128 + libc::SIGINT);
}

#[tokio::test]
async fn dropping_it_kills_what_it_started() {
    if !is_root() {
        return;
    }
    let bench = Bench::new("drop");
    let (id, config) = started(&bench, probe(&bench, "main", "sleep")).await;
    let mut exec = bench.runtime.exec(&id, request(&config, "fork")).await.unwrap();
    let mut text = String::new();
    let mut bytes = [0; 1024];
    while !text.contains("child=") {
        let count = exec.stdout.read(&mut bytes).await.unwrap();
        assert!(count > 0, "{text}");
        text.push_str(&String::from_utf8_lossy(&bytes[..count]));
    }
    let become_members = async |count: usize| {
        let start = Instant::now();
        while members(&bench).len() != count {
            assert!(
                start.elapsed() < Duration::from_secs(10),
                "{count} are to be there: {:?}",
                members(&bench)
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    become_members(3).await;
    drop(exec);
    become_members(1).await;
}

#[tokio::test]
async fn what_cannot_be_run_is_told() {
    if !is_root() {
        return;
    }
    let bench = Bench::new("cannot");
    let (id, config) = started(&bench, probe(&bench, "main", "sleep")).await;
    let missing = ExecRequest { args: vec!["no-such-program".to_owned()], ..request(&config, "") };
    let error = bench.runtime.exec(&id, missing).await.err().unwrap();
    let expected = "exec: \"no-such-program\": executable file not found in $PATH";
    assert!(
        matches!(&error, RuntimeError::Failed { step: Step::Start, text } if text == expected),
        "{error:?}"
    );
    let ghost = ExecRequest { user: Some("ghost".to_owned()), ..request(&config, "") };
    let error = bench.runtime.exec(&id, ghost).await.err().unwrap();
    assert!(error.to_string().contains("unable to find user ghost"), "{error}");
    let long = ExecRequest { env: vec![format!("A={}", "x".repeat(200_000))], ..request(&config, "") };
    assert!(bench.runtime.exec(&id, long).await.is_err());

    let other = ContainerId::try_from("other".to_owned()).unwrap();
    let error = bench.runtime.exec(&other, request(&config, "sleep")).await.err().unwrap();
    assert!(matches!(error, RuntimeError::Unknown(_)));
    bench.runtime.signal(&id, libc::SIGKILL).await.unwrap();
    bench.runtime.wait(&id).await.unwrap();
    let error = bench.runtime.exec(&id, request(&config, "sleep")).await.err().unwrap();
    assert!(matches!(error, RuntimeError::NotRunning(_)), "{error:?}");
}
