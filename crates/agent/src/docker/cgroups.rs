//! Control groups of tasks whose containers Docker makes. Docker puts a container's group into the one that it is told,
//! by paths or, where systemd manages the host's groups, by slices.

use crate::runtime::cgroup::{self, CPU_PERIOD_MICROS, Hierarchies, Stats, TaskLimits};
use std::io;
use std::time::Duration;
use tokio::process::Command;
use tokio::time::timeout;

/// For systemd to make or remove a slice.
const SYSTEMD_MAX: Duration = Duration::from_secs(10);

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
            Driver::Cgroupfs => Hierarchies::of_host()?.limit_task(group, limits),
            Driver::Systemd => {
                let slice = self.parent(group);
                systemctl(&["start", &slice]).await?;
                let properties = properties(limits);
                let mut words = vec!["set-property", "--runtime", &slice];
                words.extend(properties.iter().map(String::as_str));
                if properties.is_empty() { Ok(()) } else { systemctl(&words).await }
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
                if let Err(error) = systemctl(&["stop", &self.parent(group)]).await {
                    tracing::debug!(group, %error, "a slice is left to systemd");
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

/// A task's limits as systemd's unit properties.
fn properties(limits: TaskLimits) -> Vec<String> {
    let quota =
        |quota: i64| format!("CPUQuota={}%", (quota as f64 * 100.0 / CPU_PERIOD_MICROS as f64).max(1.0));
    let cpu = limits.cpu_quota.filter(|quota| *quota > 0).map(quota);
    cpu.into_iter().chain(limits.memory.map(|bytes| format!("MemoryMax={bytes}"))).collect()
}

async fn systemctl(words: &[&str]) -> io::Result<()> {
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
        let limits = TaskLimits { cpu_shares: None, cpu_quota: Some(25_000), memory: Some(64 << 20) };
        assert_eq!(properties(limits), ["CPUQuota=25%", "MemoryMax=67108864"]);
        assert!(properties(TaskLimits::default()).is_empty());
    }
}
