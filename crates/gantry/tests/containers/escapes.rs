//! Published ways out of containers, tried from inside. Each has a control that shows that the attempt would be seen if it
//! got through.

use super::beside::{all_of, request};
use super::inside::{number, outcome, probe, say, seen};
use super::{Bench, is_root};
use gantry_agent::runtime::capabilities::Capabilities;
use gantry_agent::runtime::{BindMount, ContainerConfig, Namespace, NetworkNamespace, Runtime};
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// More descriptors than any process of ours has.
const DESCRIPTORS: i32 = 24;

fn volume(source: &Path, target: &str) -> BindMount {
    BindMount { source: source.to_owned(), target: target.to_owned(), read_only: false }
}

/// With capabilities that a definition can add.
fn with(names: &[&str]) -> Capabilities {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    Capabilities::new(&names, &[]).unwrap()
}

/// Whether the working directory is below this process's root, and what is at its top otherwise.
pub fn walk_up() -> &'static str {
    let identity = |path: &Path| fs::metadata(path).map(|found| (found.dev(), found.ino())).unwrap();
    let mut path = PathBuf::from(".");
    loop {
        let above = path.join("..");
        if identity(&path) == identity(Path::new("/")) {
            return "root";
        }
        if identity(&path) == identity(&above) {
            return "elsewhere";
        }
        path = above;
    }
}

/// CVE-2024-21626: a descriptor of the host's that is still open when the working directory is entered.
#[tokio::test]
async fn the_working_directory_is_in_the_container() {
    if !is_root() {
        return;
    }
    let bench = Bench::new("cwd");
    let control = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "inside::program", "--ignored", "--nocapture"])
        .env("PROBE", "walk from outside")
        .env("PLACE", bench.directory.path())
        .current_dir("/")
        .output();
    let control = String::from_utf8(control.unwrap().stdout).unwrap();
    assert!(control.contains("top=elsewhere"), "{control}");

    let main = probe(&bench, "main", "sleep");
    bench.runtime.run(main.clone()).await.unwrap();
    let mut ran = 0;
    for fd in 0..DESCRIPTORS {
        for path in [format!("/proc/self/fd/{fd}"), format!("/proc/self/fd/{fd}/..")] {
            let config = ContainerConfig { cwd: path.clone(), ..probe(&bench, "walk", "walk") };
            let id = config.id.clone();
            if bench.runtime.run(config.clone()).await.is_ok() {
                bench.runtime.wait(&id).await.unwrap();
                let log = fs::read_to_string(&config.log.path).unwrap();
                assert!(log.contains("top=root"), "{path}: {log}");
                fs::remove_file(&config.log.path).unwrap();
                bench.runtime.remove(&id).await.unwrap();
                ran += 1;
            }
            let mut walk = request(&main, "walk");
            walk.cwd = Some(path.clone());
            if let Ok(exec) = bench.runtime.exec(&main.id, walk).await {
                assert_eq!(all_of(exec).await.0["top"], "root", "{path}");
                ran += 1;
            }
        }
    }
    println!("{ran} of {} were let in", DESCRIPTORS * 4);
}

/// Tries to write to the program of the container's first process.
pub fn overwrite() {
    let again = |path: &str| {
        let file = File::open(path)?;
        File::options().write(true).open(format!("/proc/self/fd/{}", file.as_raw_fd()))
    };
    for path in std::env::var("OPEN").unwrap().split(':') {
        say(path, outcome(again(path)));
        let writable = File::open(path).and_then(|file| {
            let way = format!("/proc/self/fd/{}", file.as_raw_fd());
            nix::unistd::access(way.as_str(), nix::unistd::AccessFlags::W_OK).map_err(io::Error::from)
        });
        say(&format!("later {path}"), outcome(writable));
    }
}

/// CVE-2019-5736: the runtime's own program, found by the container and written to.
#[tokio::test]
async fn the_agents_program_cannot_be_written() {
    if !is_root() {
        return;
    }
    let bench = Bench::new("program");
    let volumes = bench.directory.path().join("volume");
    fs::create_dir(&volumes).unwrap();
    fs::write(volumes.join("file"), "x").unwrap();
    let mut config = ContainerConfig {
        init: true,
        capabilities: with(&["SYS_PTRACE"]),
        ..probe(&bench, "overwrite", "overwrite")
    };
    config.mounts.push(volume(&volumes, "/volume"));
    config.env.push("OPEN=/proc/1/exe:/volume/file".to_owned());
    let found = seen(&bench, config.clone()).await;
    assert_eq!(
        (&*found["/volume/file"], &*found["later /volume/file"]),
        ("done", "done"),
        "the way itself works"
    );
    assert_eq!(found["/proc/1/exe"], number(libc::ETXTBSY));
    assert_eq!(found["later /proc/1/exe"], number(libc::EROFS), "not even when nobody runs it any more");
    let usual = ContainerConfig {
        id: "usual".to_owned().try_into().unwrap(),
        capabilities: Capabilities::default(),
        ..config
    };
    assert_eq!(seen(&bench, usual).await["/proc/1/exe"], number(libc::EACCES));
}

/// Looks into every process around for a file that only the host has, for a second and a half.
pub fn spy() {
    let marker = std::env::var("MARKER").unwrap();
    let start = Instant::now();
    let (mut found, mut looks) = (0, 0);
    while start.elapsed() < Duration::from_millis(1500) {
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let process = entry.path();
            let fds = fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
            let fds = fds.map(|fd| fd.path());
            for way in [process.join("root"), process.join("cwd")].into_iter().chain(fds) {
                looks += 1;
                found += usize::from(fs::metadata(way.join(marker.trim_start_matches('/'))).is_ok());
            }
        }
    }
    say("looks", looks);
    say("found", if found > 0 { "the host" } else { "nothing" });
}

/// CVE-2016-9962: a process that enters the container is looked into before it has left everything behind.
#[tokio::test]
async fn who_enters_a_container_brings_nothing_of_the_hosts() {
    if !is_root() {
        return;
    }
    let bench = Bench::new("enter");
    let marker = bench.directory.path().join("marker");
    fs::write(&marker, "x").unwrap();
    let spying = |id: &str| {
        let mut config = ContainerConfig { capabilities: with(&["SYS_PTRACE"]), ..probe(&bench, id, "spy") };
        config.env.push(format!("MARKER={}", marker.display()));
        config
    };
    let control = ContainerConfig { pid: Namespace::Host, ..spying("control") };
    assert_eq!(seen(&bench, control).await["found"], "the host");

    let spy = spying("spy");
    let (id, log) = (spy.id.clone(), spy.log.path.clone());
    bench.runtime.run(spy.clone()).await.unwrap();
    let mut entered = 0;
    while bench
        .runtime
        .list()
        .await
        .unwrap()
        .iter()
        .any(|(known, state)| *known == id && matches!(state, gantry_agent::runtime::State::Running(_)))
    {
        if let Ok(exec) = bench.runtime.exec(&id, request(&spy, "walk")).await {
            drop(exec);
            entered += 1;
        }
        let mate = ContainerConfig { pid: Namespace::Container(id.clone()), ..probe(&bench, "mate", "walk") };
        let mate_id = mate.id.clone();
        if bench.runtime.run(mate).await.is_ok() {
            entered += 1;
        }
        bench.runtime.remove(&mate_id).await.unwrap();
    }
    assert!(entered > 10, "{entered}");
    let log = fs::read_to_string(log).unwrap();
    assert!(log.contains("found=nothing"), "{entered} entered: {log}");
}

/// Makes a directory and a link to the host change places, all the time.
fn exchange(directory: &Path, stop: &Arc<AtomicBool>) -> std::thread::JoinHandle<()> {
    let (one, other, stop) = (directory.join("place"), directory.join("link"), Arc::clone(stop));
    std::thread::spawn(move || {
        while !stop.load(Ordering::Relaxed) {
            rustix::fs::renameat_with(
                rustix::fs::CWD,
                &one,
                rustix::fs::CWD,
                &other,
                rustix::fs::RenameFlags::EXCHANGE,
            )
            .unwrap();
        }
    })
}

/// CVE-2021-30465 and CVE-2017-1002101: the target of a mount is a link to the host, or becomes one between the look
/// and the mount.
#[tokio::test]
async fn links_in_volumes_lead_nowhere_on_the_host() {
    if !is_root() {
        return;
    }
    let bench = Bench::new("links");
    let [shared, host] = ["shared", "host"].map(|name| {
        let directory = bench.directory.path().join(name);
        fs::create_dir(&directory).unwrap();
        directory
    });
    fs::create_dir(shared.join("place")).unwrap();
    symlink(&host, shared.join("link")).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let exchanging = exchange(&shared, &stop);
    // A runtime that only looks at the path falls for it.
    let start = Instant::now();
    while !host.join("control").exists() {
        assert!(start.elapsed() < Duration::from_secs(10), "the link is never seen");
        let _ = fs::create_dir(shared.join("place/control"));
    }
    for round in 0..60 {
        let mut config = probe(&bench, &format!("race{round}"), "walk");
        config.mounts.push(volume(&shared, "/shared"));
        config.mounts.push(volume(&bench.directory.path().join("containers"), "/shared/place/made"));
        config.cwd = "/shared/link/cwd".to_owned();
        let id = config.id.clone();
        // Refused, or made inside.
        let _ = bench.runtime.run(config).await;
        bench.runtime.remove(&id).await.unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    exchanging.join().unwrap();
    let found: Vec<_> = fs::read_dir(&host).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(found, ["control"], "the host is as it was");
}

/// What is mounted at a link that leads to nothing yet is made inside, wherever on the host the link would lead.
#[tokio::test]
async fn links_to_nothing_are_followed_inside() {
    if !is_root() {
        return;
    }
    let bench = Bench::new("dangling");
    let [layer, host, shared] = ["layer", "host", "shared"].map(|name| {
        let directory = bench.directory.path().join(name);
        fs::create_dir(&directory).unwrap();
        directory
    });
    let outside = host.display();
    let places = [
        ("etc/resolv.conf", format!("../run/resolve/../../../../..{outside}/climbed")),
        ("etc/hosts", format!("{outside}/absolute")),
        ("etc/hostname", "first".to_owned()),
        ("etc/first", "/second".to_owned()),
        ("second", format!("/absent/../../../../{outside}/last")),
        ("data", "/absent/data".to_owned()),
        ("round", "/tmp/about".to_owned()),
        ("tmp/about", "../round".to_owned()),
    ];
    for (place, target) in &places {
        let place = layer.join(place);
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        symlink(target, place).unwrap();
    }
    fs::write(layer.join("etc/hosts"), "the host").unwrap();
    assert_eq!(fs::read_to_string(host.join("absolute")).unwrap(), "the host", "the way itself works");
    fs::remove_file(host.join("absolute")).unwrap();

    let files = ["/etc/resolv.conf", "/etc/hosts", "/etc/hostname", "/data/there"];
    let config = |id: &str, target: &str| {
        let mut config = probe(&bench, id, "read");
        config.layers.insert(0, layer.clone());
        config.env.push(format!("OPEN={}:/absent/data/there", files.join(":")));
        config.resolv_conf = "nameserver 10.9.9.9\n".to_owned();
        config.mounts.push(volume(&shared, target));
        config
    };
    fs::write(shared.join("there"), "by the volume").unwrap();
    let found = seen(&bench, config("inside", "/data")).await;
    assert_eq!(found[files[0]], "nameserver 10.9.9.9");
    let given = config("inside", "/data");
    assert_eq!((&*found[files[1]], &found[files[2]]), (given.hosts_file.trim(), &given.hostname));
    assert_eq!((&*found[files[3]], &*found["/absent/data/there"]), ("by the volume", "by the volume"));
    let endless = bench.runtime.run(config("endless", "/round")).await.unwrap_err().to_string();
    assert!(endless.contains("mounting"), "{endless}");
    assert_eq!(fs::read_dir(&host).unwrap().count(), 0, "the host is as it was");
}

/// CVE-2025-31133 and CVE-2025-52565: what is bound over the kernel's files, or what a terminal is bound to, is a link
/// of the container's.
#[tokio::test]
async fn masks_hold_whatever_dev_is() {
    if !is_root() {
        return;
    }
    let bench = Bench::new("masks");
    let dev = bench.directory.path().join("dev");
    fs::create_dir_all(dev.join("pts")).unwrap();
    for name in ["null", "console"] {
        symlink("/proc/sys/kernel/core_pattern", dev.join(name)).unwrap();
    }
    symlink("/proc/sys/kernel/core_pattern", dev.join("pts/0")).unwrap();
    let open = |id: &str| {
        let mut config = probe(&bench, id, "open");
        config.env.push("OPEN=/proc/sys/kernel/core_pattern:/proc/timer_list".to_owned());
        config
    };
    let control = ContainerConfig { privileged: true, ..open("control") };
    let control = seen(&bench, control).await;
    assert_eq!(control["/proc/sys/kernel/core_pattern"], "done");
    let mut linked = open("linked");
    linked.mounts.push(volume(&dev, "/dev"));
    let found = seen(&bench, linked.clone()).await;
    assert_eq!(found["/proc/sys/kernel/core_pattern"], number(libc::EROFS));
    // Masked files can be opened: it is the null device; a mask that is none could be written to.
    let of_null = ["done".to_owned(), number(libc::ENOENT), number(libc::EROFS)];
    assert!(of_null.contains(&found["/proc/timer_list"]), "{found:?}");
    let terminal = ContainerConfig { id: "terminal".to_owned().try_into().unwrap(), tty: true, ..linked };
    bench.runtime.run(terminal).await.unwrap_err();
}

/// CVE-2025-52881: writes to /proc that land in another file, for a parameter or a link in the image's place of /proc.
#[tokio::test]
async fn parameters_are_the_containers_own() {
    if !is_root() {
        return;
    }
    let bench = Bench::new("sysctl");
    let read = |path: &str| fs::read_to_string(path).unwrap().trim().to_owned();
    let (core, queue) = ("/proc/sys/kernel/core_pattern", "/proc/sys/net/core/somaxconn");
    let before = (read(core), read(queue));
    let config = |id: &str, name: &str, value: &str| {
        let mut config = probe(&bench, id, "read");
        config.sysctls.push((name.to_owned(), value.to_owned()));
        config.env.push(format!("OPEN={queue}"));
        config
    };
    // What is the container's is set, and only there.
    assert_eq!(seen(&bench, config("own", "net.core.somaxconn", "777")).await[queue], "777");
    for (name, network) in [
        ("kernel.core_pattern", NetworkNamespace::Isolated),
        ("kernel/core_pattern", NetworkNamespace::Isolated),
        ("net.core.somaxconn", NetworkNamespace::Host),
        ("net/../kernel/core_pattern", NetworkNamespace::Isolated),
        ("vm.overcommit_memory", NetworkNamespace::Isolated),
    ] {
        let config = ContainerConfig { network, ..config("hosts", name, "1") };
        let error = bench.runtime.run(config).await.unwrap_err().to_string();
        assert!(error.contains("sysctl"), "{name}: {error}");
    }
    // An image whose /proc leads elsewhere.
    let layer = bench.directory.path().join("layer");
    fs::create_dir(&layer).unwrap();
    symlink("/etc", layer.join("proc")).unwrap();
    let mut linked = config("linked", "net.core.somaxconn", "778");
    linked.layers.insert(0, layer);
    bench.runtime.run(linked).await.unwrap_err();
    assert_eq!((read(core), read(queue)), before, "the host's are as they were");
}

/// Mounts the kernel's own device directory, and opens a disk in it.
pub fn devices() {
    fs::create_dir("/all").unwrap();
    let flags = nix::mount::MsFlags::empty();
    let mounted = nix::mount::mount(Some("devtmpfs"), "/all", Some("devtmpfs"), flags, None::<&str>);
    say("mount", outcome(mounted.map_err(io::Error::from)));
    say("null", outcome(File::open("/all/null")));
    say("disk", outcome(File::open(format!("/all/{}", std::env::var("DISK").unwrap()))));
}

/// A device that is not on the container's list stays closed, however its node is come by.
#[tokio::test]
async fn an_administrator_inside_opens_no_disk() {
    if !is_root() {
        return;
    }
    let bench = Bench::new("disk");
    let disks = fs::read_dir("/sys/class/block").unwrap().flatten().map(|disk| disk.file_name());
    let disk = disks
        .map(|name| name.into_string().unwrap())
        .find(|name| File::open(Path::new("/dev").join(name)).is_ok());
    let Some(disk) = disk else { return eprintln!("skipped: this host has no disk that opens") };
    let look = |id: &str| {
        let mut config = probe(&bench, id, "devices");
        config.env.push(format!("DISK={disk}"));
        config
    };
    let control = seen(&bench, ContainerConfig { privileged: true, ..look("control") }).await;
    assert_eq!((&*control["mount"], &*control["disk"]), ("done", "done"));
    let found = seen(&bench, ContainerConfig { capabilities: with(&["SYS_ADMIN"]), ..look("admin") }).await;
    assert_eq!((&*found["mount"], &*found["null"]), ("done", "done"), "the way itself works");
    assert_eq!(found["disk"], number(libc::EPERM));
}

/// Starts threads until there are no more to be had.
pub fn bomb() {
    let mut threads = 0;
    while threads < 10_000 {
        let made = std::thread::Builder::new().stack_size(16 << 10).spawn(|| {
            std::thread::sleep(Duration::from_secs(600));
        });
        if let Err(error) = made {
            say("refused", outcome::<()>(Err(error)));
            break;
        }
        threads += 1;
    }
    say("threads", threads);
}

#[tokio::test]
async fn a_container_that_multiplies_is_stopped_at_its_limit() {
    if !is_root() {
        return;
    }
    let bench = Bench::new("bomb");
    let config = ContainerConfig { pids_limit: Some(64), ..probe(&bench, "bomb", "bomb") };
    let found = seen(&bench, config).await;
    assert_eq!(found["refused"], number(libc::EAGAIN));
    assert!(found["threads"].parse::<usize>().unwrap() < 64);
}

/// Calls as 32-bit programs make them: 64-bit programs can, too.
pub fn old_calls() {
    #[cfg(target_arch = "x86_64")]
    {
        let call = |number: i32| -> i32 {
            let result: i32;
            // SAFETY: calls without arguments that matter, of which none changes this process's memory.
            unsafe {
                std::arch::asm!(
                    "push rbx", "xor ebx, ebx", "int 0x80", "pop rbx",
                    inlateout("eax") number => result, in("ecx") 0, in("edx") 0,
                    out("r8") _, out("r9") _, out("r10") _, out("r11") _,
                );
            }
            result
        };
        // getpid, unshare
        say("getpid", call(20));
        say("unshare", call(310));
    }
}

#[cfg(target_arch = "x86_64")]
#[tokio::test]
async fn programs_of_32_bits_run_and_are_filtered() {
    if !is_root() {
        return;
    }
    let bench = Bench::new("i386");
    let found = seen(&bench, probe(&bench, "usual", "i386")).await;
    assert_eq!((&*found["getpid"], found["unshare"].clone()), ("1", (-libc::EPERM).to_string()));
    let control =
        seen(&bench, ContainerConfig { privileged: true, ..probe(&bench, "control", "i386") }).await;
    assert_eq!(control["unshare"], "0");
}
