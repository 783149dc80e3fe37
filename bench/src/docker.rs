//! Docker Engine as a peer: a daemon of the benchmark's own, with an image that is imported from a directory. Nothing is
//! pulled from anywhere.

use crate::storm::pss;
use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long the daemon may take to answer.
const START_MAX: Duration = Duration::from_secs(30);
/// What it may take to end by itself, with containerd.
const STOP_MAX: Duration = Duration::from_secs(10);
const IMAGE: &str = "gantry-bench";

pub struct Docker {
    directory: tempfile::TempDir,
    daemon: Child,
}

impl Docker {
    /// Starts the daemon with the files of a directory as its only image; `None` where it is not installed.
    pub fn start(files: &Path) -> Result<Option<Docker>> {
        let installed = |name: &str| Command::new(name).arg("--version").output().is_ok();
        if !installed("dockerd") || !installed("docker") {
            println!("dockerd is not installed (Debian's docker.io): no peer for the start");
            return Ok(None);
        }
        let directory = tempfile::tempdir()?;
        let at = |name: &str| directory.path().join(name);
        let daemon = Command::new("dockerd")
            // Nothing of the host's network is touched: its containers have none.
            .args(["--bridge", "none", "--iptables=false", "--ip-masq=false", "--storage-driver", "overlay2"])
            .arg("--data-root")
            .arg(at("data"))
            .arg("--exec-root")
            .arg(at("exec"))
            .arg("--pidfile")
            .arg(at("pid"))
            .arg("--host")
            .arg(socket(directory.path()))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("starting dockerd")?;
        let docker = Docker { directory, daemon };
        let start = Instant::now();
        while !docker.command(&["version"]).stdout(Stdio::null()).stderr(Stdio::null()).status()?.success() {
            ensure!(start.elapsed() < START_MAX, "dockerd does not answer");
            std::thread::sleep(Duration::from_millis(50));
        }
        let mut pack =
            Command::new("tar").arg("-C").arg(files).args(["-c", "."]).stdout(Stdio::piped()).spawn()?;
        let files = pack.stdout.take().context("tar's output")?;
        let imported = docker.command(&["import", "-", IMAGE]).stdin(files).stdout(Stdio::null()).status()?;
        ensure!(pack.wait()?.success() && imported.success(), "the image was not imported");
        Ok(Some(docker))
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command.arg("--host").arg(socket(self.directory.path())).args(arguments);
        command
    }

    /// By what Gantry is told of it.
    pub fn variables(&self) -> Vec<(&'static str, String)> {
        vec![("GANTRY_RUNTIME", "docker".to_owned()), ("DOCKER_HOST", socket(self.directory.path()))]
    }

    /// KiB that the daemon, its containerd and their shims take.
    pub fn memory(&self) -> Result<f64> {
        let directory = self.directory.path().to_string_lossy().into_owned();
        let mut sum = 0.0;
        for process in std::fs::read_dir("/proc")?.flatten() {
            let command = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
            if String::from_utf8_lossy(&command).contains(&directory) {
                sum += pss(&process.path());
            }
        }
        Ok(sum)
    }

    /// Milliseconds of one container from `docker run` to its end, without a network.
    pub fn run(&self) -> Result<f64> {
        let start = Instant::now();
        let program = ["/usr/bin/sample"];
        self.command(&["run", "--rm", "--network", "none", IMAGE])
            .args(program)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()?;
        Ok(start.elapsed().as_secs_f64() * 1000.0)
    }
}

fn socket(directory: &Path) -> String {
    format!("unix://{}", PathBuf::from(directory).join("socket").display())
}

impl Drop for Docker {
    fn drop(&mut self) {
        let Ok(pid) = i32::try_from(self.daemon.id()) else { return };
        // Takes its containerd along, which SIGKILL would not.
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGTERM);
        let start = Instant::now();
        while start.elapsed() < STOP_MAX && matches!(self.daemon.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}
