//! Control groups of tasks whose containers Docker makes. Docker puts a container's group into the one that it is told,
//! by paths or, where systemd manages the host's groups, by slices.

use crate::runtime::cgroup::{self, CPU_PERIOD_MICROS, Hierarchies, Stats, TaskLimits};
use std::io;
use std::path::Path;
use std::time::Duration;
use tokio::process::Command;
use tokio::time::timeout;

/// For systemd to make or remove a slice.
const SYSTEMD_MAX: Duration = Duration::from_secs(10);
/// Where sd_booted(3) looks whether systemd runs a host.
const BOOTED: &str = "/run/systemd/system";

/// Nobody here can make the slices that Docker is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoSystemd {
    #[error("systemd does not run this host, or is not to be seen: {BOOTED} is missing")]
    NotBooted,
    #[error("there is no systemctl in PATH")]
    NoProgram,
}

/// Who manages Docker's control groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    Cgroupfs,
    Systemd,
}

impl Driver {
    /// As Docker names it.
    pub fn of(name: &str) -> Driver {
        if name == "systemd" { Driver::Systemd } else { Driver::Cgroupfs }
    }

    /// Whether the agent can do its part on this host.
    ///
    /// # Errors
    /// Where systemd manages Docker's groups, and cannot be asked.
    pub fn check(self) -> Result<(), NoSystemd> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let has_program =
            || std::env::split_paths(&path).any(|directory| directory.join("systemctl").is_file());
        self.check_with(Path::new(BOOTED).is_dir(), has_program)
    }

    fn check_with(self, is_booted: bool, has_program: impl FnOnce() -> bool) -> Result<(), NoSystemd> {
        match self {
            Driver::Cgroupfs => Ok(()),
            Driver::Systemd if !is_booted => Err(NoSystemd::NotBooted),
            Driver::Systemd if !has_program() => Err(NoSystemd::NoProgram),
            Driver::Systemd => Ok(()),
        }
    }

    /// The parent of a task's containers, `/gantry/AGENT/TASK`, as Docker takes it.
    pub fn parent(self, group: &str) -> String {
        match self {
            Driver::Cgroupfs => group.to_owned(),
            // Parts of a slice's name are its place in the tree; those of groups have no hyphens.
            Driver::Systemd => format!("{}.slice", group.trim_matches('/').replace('/', "-")),
        }
    }

    /// The parent's path.
    fn path(self, group: &str) -> String {
        match self {
            Driver::Cgroupfs => group.to_owned(),
            Driver::Systemd => {
                let mut path = String::new();
                let mut name = String::new();
                for part in group.trim_matches('/').split('/') {
                    if !name.is_empty() {
                        name.push('-');
                    }
                    name.push_str(part);
                    path.push_str(&format!("/{name}.slice"));
                }
                path
            }
        }
    }

    /// The group of a container.
    fn of_container(self, group: &str, docker_id: &str) -> String {
        match self {
            Driver::Cgroupfs => format!("{group}/{docker_id}"),
            Driver::Systemd => format!("{}/docker-{docker_id}.scope", self.path(group)),
        }
    }

    /// Makes a task's group, or limits the one that is there.
    pub async fn limit(self, group: &str, limits: TaskLimits) -> io::Result<()> {
        match self {
            Driver::Cgroupfs => Hierarchies::of_host()?.make(group)?.limit_task(limits),
            Driver::Systemd => {
                for words in to_limit(&self.parent(group), limits) {
                    systemctl(&words).await?;
                }
                Ok(())
            }
        }
    }

    /// Removes a task's group, which is empty. One that is not there is no error.
    pub async fn remove(self, group: &str) {
        match self {
            Driver::Cgroupfs => {
                cgroup::remove(group);
            }
            Driver::Systemd => {
                for words in to_remove(&self.parent(group)) {
                    if let Err(error) = systemctl(&words).await {
                        tracing::debug!(group, %error, "a slice is left to systemd");
                    }
                }
            }
        }
    }

    /// What a container uses; `None` of one that does not run.
    pub fn stats(self, group: &str, docker_id: &str) -> io::Result<Option<Stats>> {
        let (hierarchies, group) = (Hierarchies::of_host()?, self.of_container(group, docker_id));
        let directory = hierarchies.directory("memory", &group);
        Ok(directory.filter(|directory| directory.is_dir()).map(|_| hierarchies.stats(&group)))
    }
}

/// What makes a slice, and limits it. No unit file is needed: systemd makes slices by their names.
fn to_limit(slice: &str, limits: TaskLimits) -> Vec<Vec<String>> {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let start = words(&["start", slice]);
    let properties = properties(limits);
    if properties.is_empty() {
        return vec![start];
    }
    vec![start, [words(&["set-property", "--runtime", slice]), properties].concat()]
}

/// What takes a slice away. Its limits are files of systemd's, which outlive it unless they are taken back.
fn to_remove(slice: &str) -> [Vec<String>; 2] {
    [&["stop", slice][..], &["revert", "--no-reload", "--quiet", slice][..]]
        .map(|words| words.iter().map(|word| (*word).to_owned()).collect())
}

/// A task's limits as systemd's unit properties.
fn properties(limits: TaskLimits) -> Vec<String> {
    let quota =
        |quota: i64| format!("CPUQuota={}%", (quota as f64 * 100.0 / CPU_PERIOD_MICROS as f64).max(1.0));
    let weight = limits.cpu_shares.map(|shares| format!("CPUWeight={}", cgroup::weight(shares)));
    let cpu = limits.cpu_quota.filter(|quota| *quota > 0).map(quota);
    let memory = limits.memory.map(|bytes| format!("MemoryMax={bytes}"));
    weight.into_iter().chain(cpu).chain(memory).collect()
}

async fn systemctl(words: &[String]) -> io::Result<()> {
    let running = Command::new("systemctl").args(words).kill_on_drop(true).output();
    let late = |_| io::Error::new(io::ErrorKind::TimedOut, "systemd did not answer in time");
    let output = timeout(SYSTEMD_MAX, running).await.map_err(late)??;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_s_group_is_where_docker_looks_for_it() {
        let group = "/gantry/i1/0a1b";
        assert_eq!(Driver::of("cgroupfs").parent(group), group);
        assert_eq!(Driver::Cgroupfs.of_container(group, "c0"), "/gantry/i1/0a1b/c0");
        let systemd = Driver::of("systemd");
        assert_eq!(systemd.parent(group), "gantry-i1-0a1b.slice");
        assert_eq!(
            systemd.of_container(group, "c0"),
            "/gantry.slice/gantry-i1.slice/gantry-i1-0a1b.slice/docker-c0.scope"
        );
    }

    #[test]
    fn limits_are_said_in_systemd_s_words() {
        let limits = TaskLimits { cpu_shares: Some(1024), cpu_quota: Some(25_000), memory: Some(64 << 20) };
        let [start, limit] = &to_limit("a.slice", limits)[..] else { panic!("two commands") };
        assert_eq!(start, &["start", "a.slice"]);
        let set = ["set-property", "--runtime", "a.slice"];
        assert_eq!(limit, &[&set[..], &["CPUWeight=39", "CPUQuota=25%", "MemoryMax=67108864"]].concat());
        assert_eq!(to_limit("a.slice", TaskLimits::default()), [vec!["start", "a.slice"]]);
    }

    #[test]
    fn a_slice_s_limits_go_with_it() {
        assert_eq!(
            to_remove("a.slice"),
            [vec!["stop", "a.slice"], vec!["revert", "--no-reload", "--quiet", "a.slice"]]
        );
    }

    #[test]
    fn groups_of_systemd_s_need_systemd() {
        assert_eq!(Driver::Cgroupfs.check_with(false, || false), Ok(()));
        assert_eq!(Driver::Systemd.check_with(true, || true), Ok(()));
        assert_eq!(Driver::Systemd.check_with(false, || true), Err(NoSystemd::NotBooted));
        assert_eq!(Driver::Systemd.check_with(true, || false), Err(NoSystemd::NoProgram));
    }
}
