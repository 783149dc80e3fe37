//! Containers without a container engine: a shim for each, which this module starts, finds again and cleans up after.
//!
//! The truth is in the containers' directories and in /proc; nothing here must be remembered across restarts.

use super::cgroup::{Hierarchies, Stats, TaskLimits};
use super::exec::{self, Exec, ExecRequest};
use super::process::{self, Process};
use super::shims::{Line, Shims};
use super::{ContainerConfig, ContainerId, Runtime, RuntimeError, Started, State};
use crate::shim::orders::{Order, Report, Running};
use crate::shim::{CONFIG_FILE, EXIT_FILE, STATE_FILE, UPPER, WORK};
use gantry_decide::task_engine::Exit;
use gantry_decide::time::Timestamp;
use serde::de::DeserializeOwned;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::io::unix::AsyncFd;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

/// How long a shim may take to start a container, on a busy machine with a slow disk.
pub(super) const START_MAX: Duration = Duration::from_secs(60);
/// Containers that are started at once. More take longer together: they wait for the same few locks of the kernel.
const STARTS_MAX: usize = 8;
/// One that takes longer, for a volume that hangs say, is no reason for others to wait.
const TURN_MAX: Duration = Duration::from_millis(500);
/// The shim writes down the end within milliseconds of it.
const EXIT_FILE_WAIT: Duration = Duration::from_secs(5);
const EXIT_FILE_LOOK: Duration = Duration::from_micros(500);
/// How long a killed process may take to go, when it is to be removed.
const KILL_WAIT: Duration = Duration::from_secs(10);
/// How often, and after how long, the group of killed processes is tried to be removed: half a second in all.
const GROUP_LOOKS: usize = 100;
const GROUP_LOOK: Duration = Duration::from_millis(5);
/// After a container could not be given another shim.
const RESUME_PAUSE: Duration = Duration::from_millis(200);
/// How long the parent of orphans may take to collect one.
const REAP_WAIT: Duration = Duration::from_secs(1);

/// Where containers are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// Their directories, small and of no use after a restart of the host: best in memory, where making a file takes a
    /// tenth of the time. No program of a container writes there.
    pub containers: PathBuf,
    /// What they write, but for their volumes.
    pub written: PathBuf,
}

impl Places {
    /// Those of an agent.
    pub fn of(agent: &str, data_dir: &Path) -> Places {
        let containers = Path::new(crate::storage::DIRECTORY).join(format!("{agent}.containers"));
        Places { containers, written: data_dir.join("containers") }
    }
}

/// Where containers are kept, and who makes their shims.
#[derive(Debug)]
struct Inner {
    places: Places,
    shims: Shims,
    /// Of this host, once they were looked for.
    hierarchies: OnceLock<Hierarchies>,
    /// Turns of containers that start.
    starts: Semaphore,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct NativeRuntime(Arc<Inner>);

impl NativeRuntime {
    /// Keeps containers in directories below these. `program` is started as `program shim` and makes all shims.
    ///
    /// # Errors
    /// When the directories cannot be made.
    pub fn open(mut places: Places, program: &Path) -> Result<NativeRuntime, RuntimeError> {
        for place in [&mut places.containers, &mut places.written] {
            // Shims work in another directory.
            *place = std::path::absolute(&*place)
                .map_err(RuntimeError::io("finding the containers' directory"))?;
            make_private(place).map_err(RuntimeError::io(format!("making {}", place.display())))?;
        }
        let starts = Semaphore::new(STARTS_MAX);
        let shims = Shims::new(program);
        Ok(NativeRuntime(Arc::new(Inner { places, shims, hierarchies: OnceLock::new(), starts })))
    }

    /// Starts what makes shims, so that the first container need not wait for it.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub async fn warm_up(&self) -> Result<(), RuntimeError> {
        self.0.shims.warm_up().await
    }

    fn directory(&self, id: &ContainerId) -> PathBuf {
        self.0.places.containers.join(id.as_str())
    }

    /// Where a container writes, unless its configuration says so.
    fn written(&self, id: &ContainerId) -> PathBuf {
        self.0.places.written.join(id.as_str())
    }

    fn hierarchies(&self) -> Result<&Hierarchies, RuntimeError> {
        if let Some(found) = self.0.hierarchies.get() {
            return Ok(found);
        }
        let found = Hierarchies::of_host().map_err(RuntimeError::io("looking for control groups"))?;
        Ok(self.0.hierarchies.get_or_init(|| found))
    }

    /// Takes the container's name on this host. A name is taken until the container is removed.
    fn claim(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        let directory = self.directory(id);
        fs::DirBuilder::new().mode(0o700).create(&directory).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => RuntimeError::Exists(id.clone()),
            _ => RuntimeError::io(format!("making {}", directory.display()))(error),
        })
    }

    fn prepare(&self, config: &ContainerConfig) -> io::Result<PathBuf> {
        let directory = self.directory(&config.id);
        let written = config.writable.clone().unwrap_or_else(|| self.written(&config.id));
        lead_to(&written, &directory)?;
        if let Some(parent) = config.log.path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(directory.join(CONFIG_FILE), serde_json::to_vec(config)?)?;
        Ok(directory)
    }

    /// Has a container made, and waits until its program runs.
    async fn start(&self, directory: &Path) -> Result<Running, RuntimeError> {
        // Never closed.
        let turn = self.0.starts.acquire().await;
        let mut line = self.0.shims.order(&Order::Run { directory: directory.to_owned() }, &[]).await?;
        let running = {
            let mut heard = std::pin::pin!(hear(&mut line));
            match timeout(TURN_MAX, &mut heard).await {
                Ok(running) => running,
                Err(_) => {
                    drop(turn);
                    heard.await
                }
            }
        };
        if matches!(
            running,
            Err(RuntimeError::Silent | RuntimeError::Timeout { .. } | RuntimeError::Io { .. })
        ) {
            // It may go on, and nobody else knows of it.
            line.kill();
        }
        running
    }

    /// Gives a container whose shim is gone another one.
    async fn resume(&self, id: &ContainerId) -> Result<Running, RuntimeError> {
        let order = Order::Resume { directory: self.directory(id) };
        hear(&mut self.0.shims.order(&order, &[]).await?).await
    }

    fn running(&self, id: &ContainerId) -> Option<Running> {
        read(&self.directory(id).join(STATE_FILE))
    }

    fn exit(&self, id: &ContainerId) -> Option<Exit> {
        read(&self.directory(id).join(EXIT_FILE))
    }

    /// What became of a container whose process is gone. `process` is a descriptor from before its end.
    async fn ended(&self, id: &ContainerId, shim: Process, process: Option<&OwnedFd>) -> Exit {
        let mut waited = Duration::ZERO;
        loop {
            // Asked in this order: a shim that has gone has written its file before.
            let lives = shim.is_there();
            if let Some(exit) = self.exit(id) {
                return exit;
            }
            if waited >= EXIT_FILE_WAIT || !lives {
                break;
            }
            sleep(EXIT_FILE_LOOK).await;
            waited += EXIT_FILE_LOOK;
        }
        // The shim was killed. Its container went to another parent, and the kernel tells how it ended once that has
        // collected it.
        let mut code = None;
        waited = Duration::ZERO;
        while let Some(process) = process {
            match process::exit_code(process) {
                Err(error) if error.raw_os_error() == Some(libc::ENODATA) && waited < REAP_WAIT => {}
                result => {
                    code = result.ok();
                    break;
                }
            }
            sleep(EXIT_FILE_LOOK).await;
            waited += EXIT_FILE_LOOK;
        }
        let config = read::<ContainerConfig>(&self.directory(id).join(CONFIG_FILE));
        let group = config.map(|config| super::spec::cgroup(&config));
        let killed = |group: String| self.hierarchies().is_ok_and(|all| all.killed_for_memory(&group));
        let out_of_memory = group.is_some_and(killed);
        Exit { code, out_of_memory, at: now() }
    }
}

impl Runtime for NativeRuntime {
    async fn run(&self, config: ContainerConfig) -> Result<Started, RuntimeError> {
        let id = config.id.clone();
        self.claim(&id)?;
        let prepared = self.prepare(&config);
        let result = match prepared {
            Ok(directory) => self.start(&directory).await,
            Err(error) => Err(RuntimeError::io("writing the container's files")(error)),
        };
        match result {
            Ok(running) => Ok(Started { pid: running.container.pid, at: running.at }),
            Err(error) => {
                // The first error is the one to tell.
                let _ = self.remove(&id).await;
                Err(error)
            }
        }
    }

    async fn restart(&self, id: &ContainerId) -> Result<Started, RuntimeError> {
        let directory = self.directory(id);
        if self.exit(id).is_none() {
            return Err(RuntimeError::Unknown(id.clone()));
        }
        if let Some(shim) = self.running(id).and_then(|running| running.shim.open()).map(watch).transpose()? {
            // It has written down the end and is clearing up.
            if timeout(EXIT_FILE_WAIT, shim.readable()).await.is_err() {
                process::signal(shim.get_ref(), libc::SIGKILL)
                    .map_err(RuntimeError::io("killing an old shim"))?;
            }
        }
        let clearing = directory.clone();
        let cleared = tokio::task::spawn_blocking(move || clear_for_restart(&clearing)).await;
        cleared
            .unwrap_or_else(|error| Err(io::Error::other(error)))
            .map_err(RuntimeError::io(format!("clearing {}", directory.display())))?;
        let running = self.start(&directory).await?;
        Ok(Started { pid: running.container.pid, at: running.at })
    }

    async fn signal(&self, id: &ContainerId, signal: i32) -> Result<(), RuntimeError> {
        let Some(running) = self.running(id) else { return Ok(()) };
        match running.container.open() {
            Some(fd) => process::signal(&fd, signal).map_err(RuntimeError::io("signalling the container")),
            None => Ok(()),
        }
    }

    async fn wait(&self, id: &ContainerId) -> Result<Exit, RuntimeError> {
        if let Some(exit) = self.exit(id) {
            return Ok(exit);
        }
        loop {
            let running = self.running(id).ok_or_else(|| RuntimeError::Unknown(id.clone()))?;
            let Some(process) = running.container.open().map(watch).transpose()? else {
                return Ok(self.ended(id, running.shim, None).await);
            };
            let shim = running.shim.open().map(watch).transpose()?;
            let shim_ends = async {
                if let Some(shim) = &shim {
                    // What cannot be watched is taken for gone.
                    let _ = shim.readable().await;
                }
            };
            tokio::select! {
                biased;
                ended = process.readable() => {
                    drop(ended.map_err(RuntimeError::io("watching the container"))?);
                    return Ok(self.ended(id, running.shim, Some(process.get_ref())).await);
                }
                () = shim_ends => {}
            }
            // Somebody else may have seen it too.
            if self.resume(id).await.is_err() {
                sleep(RESUME_PAUSE).await;
            }
        }
    }

    async fn remove(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        let directory = self.directory(id);
        if let Some(running) = self.running(id) {
            for process in [running.container, running.shim] {
                end(process).await?;
            }
        }
        let mut written = self.written(id);
        if let Some(config) = read::<ContainerConfig>(&directory.join(CONFIG_FILE)) {
            let group = super::spec::cgroup(&config);
            // Of a container whose start was broken off, only the group knows the processes.
            let groups = self.hierarchies()?;
            groups.kill(&group);
            removed(groups, &group).await;
            written = config.writable.unwrap_or(written);
        }
        // The directory last: while it is there the container is found.
        remove_directories(vec![written, directory]).await
    }

    async fn exec(&self, id: &ContainerId, request: ExecRequest) -> Result<Exec, RuntimeError> {
        let running = self.running(id).ok_or_else(|| RuntimeError::Unknown(id.clone()))?;
        if !running.container.is_there() {
            return Err(RuntimeError::NotRunning(id.clone()));
        }
        exec::start(&self.0.shims, self.directory(id), request).await
    }

    async fn started(&self, id: &ContainerId) -> Result<Option<Started>, RuntimeError> {
        let running = self.running(id).filter(|running| running.container.is_there());
        Ok(running.map(|running| Started { pid: running.container.pid, at: running.at }))
    }

    async fn stats(&self, id: &ContainerId) -> Result<Stats, RuntimeError> {
        let config = read::<ContainerConfig>(&self.directory(id).join(CONFIG_FILE));
        let config = config.ok_or_else(|| RuntimeError::Unknown(id.clone()))?;
        if !self.running(id).is_some_and(|running| running.container.is_there()) {
            return Err(RuntimeError::NotRunning(id.clone()));
        }
        Ok(self.hierarchies()?.stats(&super::spec::cgroup(&config)))
    }

    async fn create_task_group(&self, group: &str, limits: TaskLimits) -> Result<(), RuntimeError> {
        let limited = self.hierarchies()?.make(group).and_then(|group| group.limit_task(limits));
        limited.map_err(RuntimeError::io("limiting the task's control group"))
    }

    async fn remove_task_group(&self, group: &str) -> Result<(), RuntimeError> {
        removed(self.hierarchies()?, group).await;
        Ok(())
    }

    /// Ends what makes shims, which go on themselves. The runtime can still be used.
    async fn close(&self) {
        self.0.shims.close().await;
        // Busy as long as there are shims, also of others.
        if let Ok(groups) = self.hierarchies() {
            groups.remove(crate::shim::GROUP);
        }
    }

    async fn list(&self) -> Result<Vec<(ContainerId, State)>, RuntimeError> {
        let mut found = Vec::new();
        let mut old = ids(&self.0.places.written)?;
        // Their host has been started again since.
        old.retain(|id| !self.directory(id).exists());
        remove_directories(old.iter().map(|id| self.written(id)).collect()).await?;
        for id in ids(&self.0.places.containers)? {
            let state = match (self.exit(&id), self.running(&id)) {
                (Some(exit), _) => State::Exited(exit),
                (None, Some(running)) if running.container.is_there() => {
                    if !running.shim.is_there() {
                        // Otherwise its output stops it; who waits for its end tries again.
                        let _ = self.resume(&id).await;
                    }
                    State::Running(Started { pid: running.container.pid, at: running.at })
                }
                (None, Some(running)) => State::Exited(self.ended(&id, running.shim, None).await),
                // Never came to run.
                (None, None) => {
                    self.remove(&id).await?;
                    continue;
                }
            };
            found.push((id, state));
        }
        found.sort_by(|(a, _), (b, _)| a.cmp(b));
        Ok(found)
    }
}

/// The containers that have something in a directory.
fn ids(place: &Path) -> Result<Vec<ContainerId>, RuntimeError> {
    let entries = fs::read_dir(place).map_err(RuntimeError::io("listing the containers"))?;
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    Ok(names.filter_map(|name| ContainerId::try_from(name).ok()).collect())
}

/// One after the other, up to the first that cannot be. One that is not there is no error.
async fn remove_directories(directories: Vec<PathBuf>) -> Result<(), RuntimeError> {
    let removed = tokio::task::spawn_blocking(move || {
        directories.iter().try_for_each(|directory| match fs::remove_dir_all(directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(RuntimeError::io(format!("removing {}", directory.display()))(error))
            }
            _ => Ok(()),
        })
    });
    removed.await.unwrap_or(Ok(()))
}

/// What lies in it may be set-user-ID, and is for nobody else of the host.
fn make_private(directory: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)
}

/// Everything that a container's programs can write, but for its volumes, lies elsewhere: links lead there.
fn lead_to(written: &Path, directory: &Path) -> io::Result<()> {
    make_private(written)?;
    for name in [UPPER, WORK] {
        let place = written.join(name);
        fs::create_dir(&place)?;
        std::os::unix::fs::symlink(place, directory.join(name))?;
    }
    Ok(())
}

/// Removes what one run of a container left and the next makes anew. What the program wrote stays.
fn clear_for_restart(directory: &Path) -> io::Result<()> {
    // What the layers' file system kept for itself is of no use to the next one, and in its way.
    let work = fs::read_link(directory.join(WORK))?;
    fs::remove_dir_all(&work)?;
    fs::create_dir(&work)?;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        // Links are those that lead to where it writes.
        if entry.file_name() == CONFIG_FILE || entry.file_type()?.is_symlink() {
            continue;
        }
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// The one report of a shim that makes or takes up a container.
async fn hear(line: &mut Line) -> Result<Running, RuntimeError> {
    let heard = timeout(START_MAX, line.hear()).await;
    match heard.map_err(|_| RuntimeError::Timeout { seconds: START_MAX.as_secs() })?? {
        Some((Report::Running(running), _)) => Ok(running),
        Some((Report::Failed { step, text }, _)) => Err(RuntimeError::Failed { step, text }),
        _ => Err(RuntimeError::Silent),
    }
}

/// Removes a group. One of processes that just died is busy for a moment; one that stays so is left to the next sweep.
async fn removed(groups: &Hierarchies, group: &str) {
    for _ in 0..GROUP_LOOKS {
        if groups.remove(group) {
            break;
        }
        sleep(GROUP_LOOK).await;
    }
}

/// Kills a process and waits until it is gone.
async fn end(process: Process) -> Result<(), RuntimeError> {
    let Some(fd) = process.open() else { return Ok(()) };
    process::signal(&fd, libc::SIGKILL).map_err(RuntimeError::io("killing a process"))?;
    let fd = watch(fd)?;
    let gone = timeout(KILL_WAIT, fd.readable()).await;
    gone.map(drop).map_err(|_| RuntimeError::Timeout { seconds: KILL_WAIT.as_secs() })
}

/// Has the end of a process told by the reactor.
fn watch(fd: OwnedFd) -> Result<AsyncFd<OwnedFd>, RuntimeError> {
    // SAFETY: the descriptor is owned by the `AsyncFd`, which never gives it away: it stays open and itself.
    let watched = unsafe { AsyncFd::register(fd) };
    watched.map_err(|error| RuntimeError::io("watching a process")(error.into()))
}

fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

fn now() -> Timestamp {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(i64::try_from(now.as_millis()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_container_that_writes_elsewhere_does_so_again_when_it_runs_again() {
        let scratch = tempfile::tempdir().unwrap();
        let (directory, written) = (scratch.path().join("c"), scratch.path().join("disk/containers/c"));
        fs::create_dir(&directory).unwrap();
        lead_to(&written, &directory).unwrap();
        fs::write(directory.join(UPPER).join("kept"), "").unwrap();
        fs::write(directory.join(CONFIG_FILE), "{}").unwrap();
        fs::write(directory.join(EXIT_FILE), "{}").unwrap();
        fs::create_dir(directory.join("rootfs")).unwrap();
        fs::create_dir_all(directory.join(WORK).join("incompat/volatile")).unwrap();
        clear_for_restart(&directory).unwrap();
        let mut left: Vec<_> =
            fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, [CONFIG_FILE, UPPER, WORK]);
        assert!(written.join(UPPER).join("kept").is_file());
        assert_eq!(fs::read_dir(written.join(WORK)).unwrap().count(), 0);
    }
}
