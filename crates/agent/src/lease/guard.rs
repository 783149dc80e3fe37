//! The guard of a host's tasks: a small process beside the agent that ends them when their lease is over, whether the
//! agent runs, is stopped or is dead. It ends itself with what it guards.
//!
//! Agent and guard share a file of two numbers: until when the lease is good, which the agent writes, and whether tasks
//! were ended, which the guard does.

use crate::runtime::cgroup::Hierarchies;
use crate::shim::GROUP;
use crate::storage;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

/// How often the guard looks at a record at least: a lease that is made longer costs nothing.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How often processes are ended while a lease is over: a launch may be under way.
const END_EVERY: Duration = Duration::from_millis(20);
/// After so many times without a process there is nothing left to guard once the agent is dead.
const EMPTY_TIMES: u32 = 250;

/// Time since the start of the host, its sleep included: no clock setting changes it.
pub fn now() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes one timespec; the clock is there since Linux 2.6.39.
    unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut time) };
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

fn path(name: &str) -> PathBuf {
    Path::new(storage::DIRECTORY).join(format!("{name}.lease"))
}

/// Removes the record; its guard ends.
pub fn remove(name: &str) {
    let _ = fs::remove_file(path(name));
}

/// The file. See the module.
pub struct Record(File);

const UNTIL: u64 = 0;
const FENCED: u64 = 8;

impl Record {
    /// Opens the record of an agent, which is made when it is not there.
    ///
    /// # Errors
    /// Of the file.
    pub fn open(name: &str) -> io::Result<Record> {
        fs::create_dir_all(storage::DIRECTORY)?;
        Record::open_at(&path(name))
    }

    fn open_at(path: &Path) -> io::Result<Record> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        if file.metadata()?.len() < 16 {
            file.set_len(16)?;
        }
        Ok(Record(file))
    }

    /// Opens the record of an agent that starts. `has_tasks`: it was given tasks before. No record outlives a start of
    /// the host: where there is none, nobody knows whether the lease on those tasks has been over since, so they have to end.
    ///
    /// # Errors
    /// Of the file.
    pub fn resume(name: &str, has_tasks: bool) -> io::Result<Record> {
        fs::create_dir_all(storage::DIRECTORY)?;
        Record::resume_at(&path(name), has_tasks)
    }

    fn resume_at(path: &Path, has_tasks: bool) -> io::Result<Record> {
        let is_new = !path.exists();
        let record = Record::open_at(path)?;
        if is_new && has_tasks {
            record.set(FENCED, 1)?;
        }
        Ok(record)
    }

    fn number(&self, at: u64) -> io::Result<u64> {
        let mut bytes = [0; 8];
        self.0.read_exact_at(&mut bytes, at)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn set(&self, at: u64, number: u64) -> io::Result<()> {
        self.0.write_all_at(&number.to_le_bytes(), at)
    }

    /// Until when the lease is good; none without one.
    ///
    /// # Errors
    /// Of the file, as with all others.
    pub fn until(&self) -> io::Result<Option<Duration>> {
        Ok(Some(self.number(UNTIL)?).filter(|nanos| *nanos > 0).map(Duration::from_nanos))
    }

    pub fn set_until(&self, until: Duration) -> io::Result<()> {
        self.set(UNTIL, u64::try_from(until.as_nanos()).unwrap_or(u64::MAX))
    }

    pub fn is_fenced(&self) -> io::Result<bool> {
        Ok(self.number(FENCED)? > 0)
    }

    /// There is no lease, and nothing to end.
    pub fn clear(&self) -> io::Result<()> {
        self.set(UNTIL, 0)?;
        self.set(FENCED, 0)
    }
}

/// Starts the guard of an agent.
///
/// # Errors
/// When no process can be started.
pub fn start(name: &str, program: &Path) -> io::Result<()> {
    let mut command = Command::new(program);
    // It outlives the agent: nobody who waits for the end of the agent's output waits for it.
    command.args(["guard", name]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut guard = command.current_dir("/").process_group(0).spawn()?;
    let wait = move || {
        let ended = guard.wait();
        if !ended.as_ref().is_ok_and(std::process::ExitStatus::success) {
            tracing::error!(
                ?ended,
                "the guard of the tasks is gone: they do not end in time if the agent stops"
            );
        }
    };
    std::thread::Builder::new().name("guard".to_owned()).spawn(wait).map(drop)
}

/// Runs the guard.
pub fn main(arguments: &[String]) -> ExitCode {
    let [name] = arguments else { return ExitCode::FAILURE };
    match guard(name) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn guard(name: &str) -> io::Result<()> {
    let agent = nix::unistd::getppid();
    let hierarchies = Hierarchies::of_host()?;
    // A service manager that ends the agent by its group must not end what guards its tasks.
    let _ = hierarchies.join(GROUP);
    let record = Record::open(name)?;
    // One guards; that of an agent that has started anew waits for its end.
    let lock = Flock::lock(record.0.try_clone()?, FlockArg::LockExclusive).map_err(|(_, error)| error)?;
    let mut empty = 0;
    let mut last = None;
    while path(name).exists() {
        let until = record.until()?;
        let is_alone = nix::unistd::getppid() != agent;
        // Another agent is there, with a guard of its own.
        if is_alone && (until.is_none() || last.is_some_and(|last| last != until)) {
            break;
        }
        if is_alone {
            last = Some(until);
        }
        let left = until.map(|until| until.saturating_sub(now()));
        if left == Some(Duration::ZERO) {
            record.set(FENCED, 1)?;
            let ended = end(&hierarchies, &format!("/gantry/{name}"));
            empty = if ended == 0 { empty + 1 } else { 0 };
            if is_alone && empty > EMPTY_TIMES {
                break;
            }
            std::thread::sleep(END_EVERY);
        } else {
            empty = 0;
            std::thread::sleep(left.unwrap_or(LOOK_EVERY).min(LOOK_EVERY));
        }
    }
    drop(lock);
    Ok(())
}

/// Ends every process in a group and in those below it; says how many there were.
fn end(hierarchies: &Hierarchies, group: &str) -> usize {
    let mut ended = 0;
    let mut groups = vec![group.to_owned()];
    while let Some(group) = groups.pop() {
        for pid in hierarchies.members(&group) {
            // One that is gone is what is wanted.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            ended += 1;
        }
        // The first hierarchy has them all.
        let directory = hierarchies.directories(&group).next();
        let entries = directory.and_then(|(directory, _)| fs::read_dir(directory).ok());
        let below = entries.into_iter().flatten().flatten();
        let below = below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        let below = below.filter_map(|entry| entry.file_name().into_string().ok());
        groups.extend(below.map(|name| format!("{group}/{name}")));
    }
    ended
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn tasks_of_before_the_hosts_start_have_to_end() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("a.lease");
        assert!(!Record::resume_at(&path, false).unwrap().is_fenced().unwrap(), "there is nothing to end");
        fs::remove_file(&path).unwrap();
        let record = Record::resume_at(&path, true).unwrap();
        assert!(record.is_fenced().unwrap());
        // They have ended, and the agent starts anew on the same host.
        record.clear().unwrap();
        record.set_until(Duration::from_secs(5)).unwrap();
        let record = Record::resume_at(&path, true).unwrap();
        assert_eq!(
            (record.is_fenced().unwrap(), record.until().unwrap()),
            (false, Some(Duration::from_secs(5)))
        );
    }
}
