//! A Gantry of the benchmark's own, ended and swept at the end.

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
    /// By which its commands find the engine that its containers are made of.
    engine: Vec<(&'static str, String)>,
}

/// How long a start may take before the benchmark gives up.
const START_MAX: Duration = Duration::from_secs(30);

/// What `gantry up` offers: more than the machine has, so that placement never is what is measured elsewhere.
const CAPACITY: [&str; 4] = ["--cpu", "131072", "--memory", "262144"];

impl Host {
    /// Starts `gantry up`, with the sample images.
    pub fn up() -> Result<Host> {
        Host::up_on(Vec::new())
    }

    /// The same on an engine, by the variables that lead to it.
    pub fn up_on(engine: Vec<(&'static str, String)>) -> Result<Host> {
        let program = program()?;
        let directory = tempfile::tempdir()?;
        let mut samples = Command::new(&program);
        samples.args(["image", "samples", "--data-dir"]).arg(directory.path()).envs(engine.clone());
        anyhow::ensure!(samples.status()?.success(), "the sample images could not be made");
        let child =
            spawn(Command::new(&program).arg("up").args(CAPACITY).envs(engine.clone()), directory.path())?;
        let mut host = Host::reach(program, directory, child)?;
        host.engine = engine;
        Ok(host)
    }

    /// What its containers are made of.
    pub fn runtime(&self) -> &'static str {
        if self.engine.is_empty() { "the native runtime" } else { "Docker Engine" }
    }

    /// Starts `gantry server` on one core of the machine.
    pub fn server_on_one_core() -> Result<Host> {
        let program = program()?;
        let directory = tempfile::tempdir()?;
        let mut pinned = Command::new("taskset");
        pinned.args(["--cpu-list", "0"]).arg(&program).arg("server");
        let child = spawn(&mut pinned, directory.path())?;
        Host::reach(program, directory, child)
    }

    /// Starts `gantry server` on a data directory, which may be one that another left.
    pub fn server_in(directory: tempfile::TempDir) -> Result<Host> {
        let program = program()?;
        let child = spawn(Command::new(&program).arg("server"), directory.path())?;
        Host::reach(program, directory, child)
    }

    /// Kills the process and returns its data directory.
    pub fn kill(mut self) -> Result<tempfile::TempDir> {
        self.child.kill()?;
        self.child.wait()?;
        std::fs::remove_file(self.directory.path().join("endpoint"))?;
        Ok(std::mem::replace(&mut self.directory, tempfile::tempdir()?))
    }

    fn reach(program: PathBuf, directory: tempfile::TempDir, child: Child) -> Result<Host> {
        let endpoint = endpoint(directory.path())?;
        let keys = std::fs::read(directory.path().join("keys.json"))?;
        let keys: serde_json::Value = serde_json::from_slice(&keys)?;
        let text = |name: &str| keys["root"][name].as_str().unwrap_or_default().to_owned();
        let credentials = Credentials {
            access_key_id: text("access_key_id"),
            secret_access_key: Secret::new(text("secret_access_key")),
            session_token: None,
        };
        Ok(Host { directory, endpoint, credentials, child, program, engine: Vec::new() })
    }

    pub fn client(&self) -> Result<Client> {
        Ok(Client::new(&self.endpoint, "us-east-1", self.credentials.clone())?)
    }

    pub fn address(&self) -> &str {
        self.endpoint.trim_start_matches("http://")
    }

    /// Seconds of processor time that it took so far.
    pub fn cpu_seconds(&self) -> Result<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // After the name, which may contain anything: the state is the first, user and system time are 12th and 13th.
        let fields: Vec<&str> =
            stat.rsplit(')').next().unwrap_or_default().split_ascii_whitespace().collect();
        let ticks = |index: usize| anyhow::Ok(fields.get(index).context("a field of stat")?.parse::<f64>()?);
        // Linux tells these in hundredths on every architecture.
        Ok((ticks(11)? + ticks(12)?) / 100.0)
    }

    /// What `gantry sweep` would remove.
    pub fn leftovers(&self) -> Result<String> {
        let listed = Command::new(&self.program)
            .args(["sweep", "--list", "--data-dir"])
            .arg(self.directory.path())
            .envs(self.engine.clone())
            .output()
            .context("gantry sweep --list")?;
        Ok(String::from_utf8(listed.stdout)?)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The file that this Gantry is.
    pub fn program_id(&self) -> Result<(u64, u64)> {
        use std::os::unix::fs::MetadataExt;
        let file = std::fs::metadata(&self.program)?;
        Ok((file.dev(), file.ino()))
    }

    /// Whether a process runs it.
    pub fn is_program(&self, process: &Path, id: (u64, u64)) -> bool {
        use std::os::unix::fs::MetadataExt;
        std::fs::metadata(process.join("exe")).is_ok_and(|file| (file.dev(), file.ino()) == id)
    }

    /// Resident memory in MiB.
    pub fn memory(&self) -> Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
        let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kib / 1024.0)
    }
}

/// Starts a command of Gantry's on a free port.
pub fn spawn(command: &mut Command, directory: &Path) -> Result<Child> {
    command
        // What is measured is larger than what ECS allows.
        .env("GANTRY_QUOTAS", "container-instances-per-cluster=1000000,tasks-per-service=1000000")
        .args(["--listen", "127.0.0.1:0", "--data-dir"])
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
            .envs(self.engine.clone())
            .stdout(Stdio::null())
            .status();
    }
}
