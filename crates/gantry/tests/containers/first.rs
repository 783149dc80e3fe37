//! The first process of a container: its init, its terminal, its input, and namespaces that it shares.

use super::inside::{probe, seen};
use super::{Bench, is_root};
use gantry_agent::runtime::{ContainerConfig, Namespace, Runtime};
use std::time::Duration;

#[tokio::test]
async fn an_init_collects_orphans_and_ends_as_the_program_does() {
    if !is_root() {
        return;
    }
    let bench = Bench::new("init");
    let with = ContainerConfig { init: true, ..probe(&bench, "with", "orphan") };
    let with = seen(&bench, with).await;
    assert_eq!((&*with["first"], &*with["zombies"], &*with["pid"]), ("init", "0", "2"));
    let without = seen(&bench, probe(&bench, "without", "orphan")).await;
    assert_eq!((&*without["zombies"], &*without["pid"]), ("1", "1"));
    let echo = ContainerConfig { init: true, ..probe(&bench, "echo", "echo") };
    assert_eq!(bench.end_of(echo).await.0.code, Some(5));
}

#[tokio::test]
async fn an_init_passes_signals_on() {
    if !is_root() {
        return;
    }
    let bench = Bench::new("pass");
    let config = ContainerConfig { init: true, ..probe(&bench, "sleep", "sleep") };
    let id = config.id.clone();
    let started = bench.runtime.run(config).await.unwrap();
    let open: Vec<_> = std::fs::read_dir(format!("/proc/{}/fd", started.pid)).unwrap().flatten().collect();
    assert_eq!(open.len(), 3, "the first process holds nothing of the host's: {open:?}");
    bench.runtime.signal(&id, libc::SIGTERM).await.unwrap();
    let exit = tokio::time::timeout(Duration::from_secs(20), bench.runtime.wait(&id)).await.unwrap().unwrap();
    // A program that is the first process itself would not have heard it.
    assert_eq!(exit.code, Some(128 + libc::SIGTERM));
}

#[tokio::test]
async fn real_time_signals_end_containers_like_any_other() {
    if !is_root() {
        return;
    }
    let bench = Bench::new("rt");
    for init in [false, true] {
        // Without an init a program that is the first process hears only what it listens to, and this one to nothing.
        let host = if init { Namespace::Private } else { Namespace::Host };
        let config =
            ContainerConfig { init, pid: host, ..probe(&bench, &format!("rt{}", u8::from(init)), "sleep") };
        let id = config.id.clone();
        bench.runtime.run(config).await.unwrap();
        bench.runtime.signal(&id, 37).await.unwrap();
        let exit = tokio::time::timeout(Duration::from_secs(20), bench.runtime.wait(&id)).await;
        assert_eq!(exit.unwrap().unwrap().code, Some(128 + 37), "init: {init}");
    }
}

#[tokio::test]
async fn a_container_may_have_a_terminal() {
    if !is_root() {
        return;
    }
    let bench = Bench::new("tty");
    for init in [false, true] {
        let id = format!("tty{}", u8::from(init));
        let config = ContainerConfig { tty: true, init, ..probe(&bench, &id, "look") };
        let looked = seen(&bench, config).await;
        // Terminals end lines with two characters, as they do in Docker's logs.
        assert_eq!((&*looked["write stdout"], &*looked["null"]), ("done\r", "done\r"));
        let config = ContainerConfig { tty: true, init, ..probe(&bench, &format!("{id}w"), "window") };
        let id = config.id.clone();
        bench.runtime.run(config.clone()).await.unwrap();
        // Nobody types.
        let waited = tokio::time::timeout(Duration::from_millis(300), bench.runtime.wait(&id)).await;
        assert!(waited.is_err(), "it waits for input");
        bench.runtime.signal(&id, libc::SIGKILL).await.unwrap();
        assert_eq!(bench.runtime.wait(&id).await.unwrap().code, Some(137));
        let log = std::fs::read_to_string(&config.log.path).unwrap();
        assert!(log.contains("window=24x80"), "{log}");
    }
}

#[tokio::test]
async fn input_is_at_its_end_unless_it_is_to_stay_open() {
    if !is_root() {
        return;
    }
    let bench = Bench::new("stdin");
    let (exit, _) = bench.end_of(probe(&bench, "closed", "echo")).await;
    assert_eq!(exit.code, Some(5));
    let config = ContainerConfig { stdin_open: true, ..probe(&bench, "open", "echo") };
    let id = config.id.clone();
    bench.runtime.run(config).await.unwrap();
    let waited = tokio::time::timeout(Duration::from_millis(300), bench.runtime.wait(&id)).await;
    assert!(waited.is_err(), "it waits for input");
}

#[tokio::test]
async fn containers_of_a_task_can_share_processes_and_memory() {
    if !is_root() {
        return;
    }
    let bench = Bench::new("share");
    let first = ContainerConfig { init: true, args: Vec::new(), ..probe(&bench, "pause", "sleep") };
    let id = first.id.clone();
    bench.runtime.run(first).await.unwrap();
    let of = || Namespace::Container(id.clone());
    let look = |name: &str| probe(&bench, name, "look");
    let alone = seen(&bench, look("alone")).await;
    assert_eq!(alone["processes"], "1");
    let shared = seen(&bench, ContainerConfig { pid: of(), ipc: of(), ..look("shared") }).await;
    assert_eq!(shared["processes"], "2");
    // What one puts there the other finds.
    let share = |name: &str, task: &str| ContainerConfig { ipc: of(), ..probe(&bench, name, task) };
    let mut touch = share("touch", "open");
    touch.env.push("OPEN=/dev/shm/there".to_owned());
    let before = seen(&bench, touch.clone()).await;
    assert_eq!(before["/dev/shm/there"], super::inside::number(libc::ENOENT));
    assert_eq!(seen(&bench, share("put", "put")).await["put"], "done");
    touch.id = "touch2".to_owned().try_into().unwrap();
    assert_eq!(seen(&bench, touch).await["/dev/shm/there"], "done");
    let host = seen(&bench, ContainerConfig { pid: Namespace::Host, ..look("host") }).await;
    assert!(host["processes"].parse::<usize>().unwrap() > 3);

    bench.runtime.signal(&id, libc::SIGTERM).await.unwrap();
    assert_eq!(bench.runtime.wait(&id).await.unwrap().code, Some(0), "a pause ends when it is asked to");
    let error = bench.runtime.run(ContainerConfig { pid: of(), ..look("late") }).await.unwrap_err();
    assert!(error.to_string().contains("container pause is not running"), "{error}");
}
