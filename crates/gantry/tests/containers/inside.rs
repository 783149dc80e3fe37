//! What a container's program finds around it, told by a program of our own: this very test binary, bound into the
//! container and asked for one test that tests leave out.

use super::{Bench, is_root, places_in};
use gantry_agent::runtime::logs::Reader;
use gantry_agent::runtime::native::NativeRuntime;
use gantry_agent::runtime::{BindMount, ContainerConfig, NetworkNamespace, Runtime};
use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::time::Duration;

const PROBE: &str = "/usr/bin/probe";
/// More than pipes hold, and several reads of the shim.
const LINES: usize = 20_000;
/// Lines over half a second.
pub const TALK_LINES: usize = 100;

/// A container whose program is [`program`], told to do `task`.
pub fn probe(bench: &Bench, id: &str, task: &str) -> ContainerConfig {
    let arguments = [PROBE, "--exact", "inside::program", "--ignored", "--nocapture", "--test-threads=1"];
    let mut config = bench.config(id, &arguments);
    config.env.push(format!("PROBE={task}"));
    config.mounts.push(BindMount {
        source: std::env::current_exe().unwrap(),
        target: PROBE.to_owned(),
        read_only: true,
    });
    config
}

pub fn outcome<T>(result: io::Result<T>) -> String {
    match result {
        Ok(_) => "done".to_owned(),
        Err(error) => error.raw_os_error().map_or_else(|| error.to_string(), |number| number.to_string()),
    }
}

pub fn say(name: &str, value: impl std::fmt::Display) {
    println!("\n{name}={value}");
}

/// Makes a device node and opens it; both are the host's to allow.
fn device(path: &str, kind: libc::mode_t, major: u32, minor: u32) -> String {
    let name = CString::new(path).unwrap();
    // SAFETY: the name lives until the call returns.
    if unsafe { libc::mknod(name.as_ptr(), kind | 0o600, libc::makedev(major, minor)) } != 0 {
        return outcome::<()>(Err(io::Error::last_os_error()));
    }
    outcome(File::open(path))
}

fn look() {
    // Of this thread: the first one blocks signals while it makes another.
    let status = fs::read_to_string("/proc/thread-self/status").unwrap();
    let of = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim_start_matches(':').split_whitespace().collect::<Vec<_>>().join(" ")
    };
    say("uid", of("Uid"));
    say("gid", of("Gid"));
    say("umask", of("Umask"));
    say("cwd", std::env::current_dir().unwrap().display());
    for name in ["GREETING", "HOME", "HOSTNAME"] {
        say(name, std::env::var(name).unwrap_or_default());
    }
    say("root mode", format!("{:o}", fs::metadata("/").unwrap().permissions().mode() & 0o7777));
    say(
        "hosts",
        fs::read_to_string("/etc/hosts").map_or_else(|e| e.to_string(), |text| text.trim().to_owned()),
    );
    for (name, bytes) in [("write hosts", 1), ("fill hosts", 2 << 20)] {
        let text = vec![b'\n'; bytes];
        let hosts = File::options().append(true).open("/etc/hosts");
        say(name, outcome(hosts.and_then(|mut file| file.write_all(&text))));
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let root = mounts.lines().find(|line| line.split(' ').nth(4) == Some("/")).unwrap();
    say("root syncs", !root.contains("volatile"));
    say("write /", outcome(fs::write("/written", "x")));
    say("write stdout", outcome(File::options().write(true).open("/dev/stdout")));
    say("write stderr", outcome(File::options().append(true).open("/dev/stderr")));
    say("write /proc/sys", outcome(File::options().write(true).open("/proc/sys/kernel/hostname")));
    say("make group", outcome(fs::create_dir("/sys/fs/cgroup/mine")));
    for hierarchy in ["", "memory/", "devices/", "unified/", "systemd/"] {
        let file = format!("/sys/fs/cgroup/{hierarchy}cgroup.procs");
        say(&format!("group {hierarchy}"), outcome(File::options().write(true).open(file)));
    }
    say("write /sys", outcome(File::options().write(true).open("/sys/kernel/uevent_helper")));
    say("blocked signals", of("SigBlk"));
    for masked in ["/proc/kcore", "/proc/keys", "/proc/timer_list"] {
        say(masked, fs::read(masked).map_or_else(|e| outcome::<()>(Err(e)), |bytes| bytes.len().to_string()));
    }
    say("/sys/firmware", fs::read_dir("/sys/firmware").map_or(0, Iterator::count));
    for (place, denial) in [("/dev/", "by group"), ("/", "by mount")] {
        say(&format!("serial port {denial}"), device(&format!("{place}serial"), libc::S_IFCHR, 4, 64));
        say(&format!("disk {denial}"), device(&format!("{place}disk"), libc::S_IFBLK, 254, 0));
    }
    say("null", outcome(File::options().write(true).open("/dev/null")));
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let numbers = processes.filter(|entry| entry.file_name().to_str().unwrap().parse::<u32>().is_ok());
    say("processes", numbers.count());
    let interfaces = fs::read_to_string("/proc/net/dev").unwrap();
    say("interfaces", interfaces.lines().filter(|line| line.contains(':')).count());
}

/// Tells what terminal it has, then what becomes of its window, until a line is typed.
fn window() {
    let size = || {
        // SAFETY: a structure of numbers, which the call fills.
        let mut size: libc::winsize = unsafe { std::mem::zeroed() };
        // SAFETY: the structure lives until the call returns.
        let done = unsafe { libc::ioctl(0, libc::TIOCGWINSZ, std::ptr::from_mut(&mut size)) };
        if done == 0 { format!("{}x{}", size.ws_row, size.ws_col) } else { "no terminal".to_owned() }
    };
    say("window", size());
    let mut line = String::new();
    io::stdin().read_line(&mut line).unwrap();
    say("window then", size());
    say("typed", line.trim());
    // SAFETY: takes no arguments of ours.
    say("foreground", unsafe { libc::tcgetpgrp(0) == libc::getpgrp() });
    say("console", outcome(File::options().write(true).open("/dev/console")));
    say("own terminal", outcome(File::open("/dev/tty")));
}

fn eat() -> ! {
    let mut eaten = Vec::new();
    loop {
        // Written to, or the kernel gives no memory.
        eaten.push(std::hint::black_box(vec![1_u8; 1 << 20]));
    }
}

/// The program of the containers in these tests; by itself no test.
#[test]
#[ignore = "runs in containers"]
fn program() {
    let Ok(task) = std::env::var("PROBE") else { return };
    match task.as_str() {
        "look" => look(),
        "open" => {
            for path in std::env::var("OPEN").unwrap().split(':') {
                say(path, outcome(File::options().read(true).write(true).open(path)));
            }
        }
        "eat" => eat(),
        "eat later" => {
            std::thread::sleep(Duration::from_millis(700));
            eat()
        }
        "count" => {
            let mut out = io::stdout().lock();
            writeln!(out).unwrap();
            for number in 0..LINES {
                writeln!(out, "n={number}").unwrap();
            }
        }
        "talk" => {
            for number in 0..TALK_LINES {
                println!("\nt={number}");
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        "echo" => {
            let text = io::read_to_string(io::stdin()).unwrap();
            say("heard", text.trim());
            eprintln!("complaint");
            std::process::exit(5)
        }
        "spy" => super::escapes::spy(),
        "overwrite" => super::escapes::overwrite(),
        "walk" => say("top", super::escapes::walk_up()),
        "walk from outside" => {
            let place = std::env::var("PLACE").unwrap();
            nix::unistd::chroot(place.as_str()).unwrap();
            say("top", super::escapes::walk_up());
        }
        "devices" => super::escapes::devices(),
        "bomb" => super::escapes::bomb(),
        "read" => {
            for path in std::env::var("OPEN").unwrap().split(':') {
                say(
                    path,
                    fs::read_to_string(path).map_or_else(|e| e.to_string(), |text| text.trim().to_owned()),
                );
            }
        }
        "i386" => super::escapes::old_calls(),
        "put" => say("put", outcome(fs::write("/dev/shm/there", "x"))),
        "window" => window(),
        "fork" => {
            // In the background, as servers do that leave their starter.
            let child = std::process::Command::new("/proc/self/exe")
                .args(std::env::args().skip(1))
                .env("PROBE", "sleep")
                .spawn();
            say("child", child.unwrap().id());
            std::thread::sleep(Duration::from_secs(600));
        }
        "orphan" => {
            // SAFETY: neither copy does more than to wait and end.
            unsafe {
                if libc::fork() == 0 {
                    if libc::fork() == 0 {
                        libc::usleep(50_000);
                    }
                    libc::_exit(0);
                }
                libc::wait(std::ptr::null_mut());
            }
            std::thread::sleep(Duration::from_millis(300));
            let processes = fs::read_dir("/proc").unwrap().flatten();
            let stats = processes.filter_map(|entry| fs::read_to_string(entry.path().join("stat")).ok());
            let stats: Vec<String> = stats.filter(|stat| !stat.contains("self")).collect();
            say("zombies", stats.iter().filter(|stat| stat.contains(") Z ")).count());
            say("pid", std::process::id());
            say("first", fs::read_to_string("/proc/1/comm").unwrap().trim());
        }
        "sleep" => std::thread::sleep(Duration::from_secs(600)),
        other => panic!("no task {other}"),
    }
    std::process::exit(0)
}

/// What a program that looks around finds.
pub async fn seen(bench: &Bench, config: ContainerConfig) -> BTreeMap<String, String> {
    let (exit, lines) = bench.end_of(config).await;
    assert_eq!(exit.code, Some(0), "{lines:?}");
    lines.iter().filter_map(|line| line.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
}

pub fn number(errno: i32) -> String {
    errno.to_string()
}

#[tokio::test]
async fn a_program_finds_what_it_was_given() {
    if !is_root() {
        return;
    }
    let bench = Bench::new("given");
    let mut config = ContainerConfig { cwd: "/srv/app/new".to_owned(), ..probe(&bench, "root", "look") };
    config.env.push("GREETING=good day".to_owned());
    let seen_by_root = seen(&bench, config).await;
    let expected = [
        ("uid", "0 0 0 0"),
        ("gid", "0 0 0 0"),
        ("umask", "0022"),
        // The shim waits for signals without blocking any.
        ("blocked signals", "0000000000000000"),
        // Docker makes a working directory that the image does not have.
        ("cwd", "/srv/app/new"),
        ("GREETING", "good day"),
        // As the image says.
        ("HOME", "/"),
        ("HOSTNAME", "bench"),
        ("root mode", "755"),
        // The end of a container waits for nobody's writes to the disk.
        ("root syncs", "false"),
        ("hosts", "127.0.0.1 localhost"),
        ("write /", "done"),
        ("write stdout", "done"),
        ("write stderr", "done"),
        ("null", "done"),
        ("processes", "1"),
        ("interfaces", "1"),
    ];
    for (name, value) in expected {
        assert_eq!(seen_by_root[name], value, "{name}");
    }
}

#[tokio::test]
async fn a_user_of_no_rights_can_still_write_to_its_outputs() {
    if !is_root() {
        return;
    }
    let bench = Bench::new("nobody");
    let config = ContainerConfig { user: "65534:65534".to_owned(), ..probe(&bench, "nobody", "look") };
    let seen = seen(&bench, config).await;
    assert_eq!((&*seen["uid"], &*seen["gid"]), ("65534 65534 65534 65534", "65534 65534 65534 65534"));
    // Servers that log to /dev/stdout open it anew.
    assert_eq!((&*seen["write stdout"], &*seen["write stderr"]), ("done", "done"));
    assert_eq!(seen["hosts"], "127.0.0.1 localhost");
    assert_eq!(seen["write /"], number(libc::EACCES));
}

#[tokio::test]
async fn the_agents_mask_is_not_the_containers() {
    if !is_root() {
        return;
    }
    let mut bench = Bench::new("mask");
    let program = bench.directory.path().join("masked");
    let script = format!("#!/bin/sh\numask 077\nexec {} \"$@\"\n", env!("CARGO_BIN_EXE_gantry"));
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).unwrap();
    bench.runtime = NativeRuntime::open(places_in(&bench.directory), &program).unwrap();
    let config = ContainerConfig { user: "65534".to_owned(), ..probe(&bench, "masked", "look") };
    let seen = seen(&bench, config).await;
    assert_eq!((&*seen["umask"], &*seen["root mode"]), ("0022", "755"));
}

/// Neither the host's devices and settings nor any control group can be written, not even the container's own.
fn on_host_untouched(seen: &BTreeMap<String, String>) {
    let refusals = [libc::EROFS, libc::ENOENT].map(number);
    let files = seen.iter().filter(|(name, _)| name.starts_with("group ") || *name == "write /sys");
    for (name, value) in files {
        assert!(refusals.contains(value), "{name}: {value}");
    }
    assert_eq!(seen["make group"], number(libc::EROFS));
}

#[tokio::test]
async fn the_hosts_network_does_not_give_the_host() {
    if !is_root() {
        return;
    }
    let bench = Bench::new("hostnet");
    let config = ContainerConfig { network: NetworkNamespace::Host, ..probe(&bench, "hostnet", "look") };
    let seen = seen(&bench, config).await;
    on_host_untouched(&seen);
    assert_eq!(seen["disk by group"], number(libc::EPERM));
}

#[tokio::test]
async fn the_host_is_out_of_reach() {
    if !is_root() {
        return;
    }
    let bench = Bench::new("reach");
    let usual = seen(&bench, probe(&bench, "usual", "look")).await;
    for device in ["serial port", "disk"] {
        assert_eq!(usual[&format!("{device} by group")], number(libc::EPERM), "{device}");
        let by_mount = &usual[&format!("{device} by mount")];
        assert!([libc::EACCES, libc::EPERM].map(number).contains(by_mount), "{device}: {by_mount}");
    }
    assert_eq!(usual["write /proc/sys"], number(libc::EROFS));
    on_host_untouched(&usual);
    // It is in memory, of which a container cannot have the host's.
    assert_eq!((&*usual["write hosts"], &usual["fill hosts"]), ("done", &number(libc::ENOSPC)));
    for masked in ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"] {
        // A path that the kernel does not have needs no mask.
        let unknown = number(libc::ENOENT);
        assert!(usual[masked] == "0" || usual[masked] == unknown, "{masked}: {}", usual[masked]);
    }
    let sealed = ContainerConfig { read_only_root: true, ..probe(&bench, "sealed", "look") };
    let sealed = seen(&bench, sealed).await;
    assert_eq!(sealed["write /"], number(libc::EROFS));
    assert_eq!(sealed["hosts"], "127.0.0.1 localhost");
    assert_eq!(sealed["write hosts"], number(libc::EROFS));
}

#[tokio::test]
async fn a_volume_gives_its_files_and_no_devices() {
    if !is_root() {
        return;
    }
    let bench = Bench::new("volume");
    let files = bench.directory.path().join("files");
    fs::create_dir(&files).unwrap();
    fs::write(files.join("file"), "x").unwrap();
    let disks = fs::read_dir("/sys/class/block").unwrap().flatten();
    let disk =
        disks.map(|disk| disk.file_name()).find(|name| std::path::Path::new("/dev").join(name).exists());
    let disk = format!("/host/dev/{}", disk.unwrap().to_str().unwrap());
    let mut config = probe(&bench, "volume", "open");
    let volume = |source: &std::path::Path, target: &str, read_only| BindMount {
        source: source.to_owned(),
        target: target.to_owned(),
        read_only,
    };
    config.mounts.extend([
        volume(&files, "/files", false),
        volume(&files, "/sealed", true),
        // The mounts of the host come along.
        volume("/".as_ref(), "/host", true),
    ]);
    config.env.push(format!("OPEN=/files/file:/sealed/file:{disk}"));
    let seen = seen(&bench, config).await;
    assert_eq!(seen["/files/file"], "done");
    assert_eq!(seen["/sealed/file"], number(libc::EROFS));
    let refused = &seen[&disk];
    assert!([libc::EACCES, libc::EPERM].map(number).contains(refused), "{disk}: {refused}");
}

#[tokio::test]
async fn a_program_that_eats_its_memory_is_told_apart_from_a_killed_one() {
    if !is_root() {
        return;
    }
    let bench = Bench::new("memory");
    let limit = Some(32 << 20);
    let (exit, _) =
        bench.end_of(ContainerConfig { memory_limit: limit, ..probe(&bench, "eat", "eat") }).await;
    assert_eq!((exit.code, exit.out_of_memory), (Some(137), true));

    let config = probe(&bench, "killed", "sleep");
    let id = config.id.clone();
    bench.runtime.run(config).await.unwrap();
    bench.runtime.signal(&id, libc::SIGKILL).await.unwrap();
    let exit = bench.runtime.wait(&id).await.unwrap();
    assert_eq!((exit.code, exit.out_of_memory), (Some(137), false));
}

#[tokio::test]
async fn no_line_is_lost_or_out_of_order() {
    if !is_root() {
        return;
    }
    let bench = Bench::new("order");
    let config = probe(&bench, "count", "count");
    let log = config.log.path.clone();
    let (exit, _) = bench.end_of(config).await;
    assert_eq!(exit.code, Some(0));
    let mut reader = Reader::open(&log);
    let lines = std::iter::from_fn(|| reader.read().unwrap());
    let numbers: Vec<usize> =
        lines.filter_map(|line| line.text.strip_prefix("n=").and_then(|n| n.parse().ok())).collect();
    assert_eq!(numbers, (0..LINES).collect::<Vec<_>>());
    assert_eq!(fs::metadata(&log).unwrap().mode() & 0o007, 0, "others cannot read what programs wrote");
}
