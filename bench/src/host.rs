//! A `gantry up` of the benchmark's own, ended and swept at the end.

use anyhow::{Context, Result, bail};
use gantry_agent::client::Client;
use gantry_wire::Secret;
use gantry_wire::sigv4::Credentials;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The program to measure: built by who starts the benchmark.
pub fn program() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let gantry = own.with_file_name("gantry");
    if !gantry.exists() {
        bail!("{} is not built", gantry.display());
    }
    Ok(gantry)
}

pub struct Host {
    pub directory: tempfile::TempDir,
    pub endpoint: String,
    pub credentials: Credentials,
    child: Child,
    program: PathBuf,
}

/// How long a start may take before the benchmark gives up.
const START_MAX: Duration = Duration::from_secs(30);

impl Host {
    /// Starts `gantry up` or `gantry server`.
    pub fn start(command: &str) -> Result<Host> {
        let program = program()?;
        let directory = tempfile::tempdir()?;
        let samples =
            Command::new(&program).args(["image", "samples", "--data-dir"]).arg(directory.path()).status()?;
        anyhow::ensure!(samples.success(), "the sample images could not be made");
        let child = spawn(&program, command, directory.path())?;
        let endpoint = endpoint(directory.path())?;
        let keys = std::fs::read(directory.path().join("keys.json"))?;
        let keys: serde_json::Value = serde_json::from_slice(&keys)?;
        let text = |name: &str| keys["root"][name].as_str().unwrap_or_default().to_owned();
        let credentials = Credentials {
            access_key_id: text("access_key_id"),
            secret_access_key: Secret::new(text("secret_access_key")),
            session_token: None,
        };
        Ok(Host { directory, endpoint, credentials, child, program })
    }

    pub fn client(&self) -> Result<Client> {
        Ok(Client::new(&self.endpoint, "us-east-1", self.credentials.clone())?)
    }

    pub fn address(&self) -> &str {
        self.endpoint.trim_start_matches("http://")
    }

    /// Resident memory in MiB.
    pub fn memory(&self) -> Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
        let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kib / 1024.0)
    }
}

pub fn spawn(program: &Path, command: &str, directory: &Path) -> Result<Child> {
    Command::new(program)
        .args([command, "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(directory)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("starting gantry")
}

/// Waits for the file that a running Gantry leaves.
pub fn endpoint(directory: &Path) -> Result<String> {
    let start = Instant::now();
    loop {
        if let Ok(text) = std::fs::read_to_string(directory.join("endpoint"))
            && text.ends_with('\n')
        {
            return Ok(text.trim().to_owned());
        }
        anyhow::ensure!(start.elapsed() < START_MAX, "gantry did not start");
        std::thread::sleep(Duration::from_micros(200));
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // What has ended already needs no killing; the sweep finds what is left.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = Command::new(&self.program)
            .args(["sweep", "--data-dir"])
            .arg(self.directory.path())
            .stdout(Stdio::null())
            .status();
    }
}
