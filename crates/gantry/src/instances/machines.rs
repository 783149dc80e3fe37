//! The machines of the provider `local` as they lie on disk, and how nothing is left of one.
//!
//! Each has a directory, `instances/ID` in the data directory, with what it is (`machine.json`, written before anything
//! of it is made), its agent's process id and log, and the agent's own data.

use anyhow::{Context, Result};
use gantry_agent::images::ImageStore;
use gantry_agent::machine::Machine;
use gantry_agent::network::MachineNetwork;
use gantry_agent::sweep;
use gantry_decide::ids::Ec2InstanceId;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const RECORD: &str = "machine.json";
const PID: &str = "agent.pid";
/// For a killed process to be gone.
const GONE_MAX: Duration = Duration::from_secs(10);

/// What a machine is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub id: Ec2InstanceId,
    /// Names what its agent makes on the host.
    pub name: String,
    pub cluster: String,
    pub region: String,
    pub zone: String,
    pub instance_type: String,
    pub cpu: u32,
    pub memory: u32,
    pub attributes: BTreeMap<String, String>,
    /// Which pair of the block's addresses it has.
    pub slot: u32,
    pub address: Ipv4Addr,
    pub router: Ipv4Addr,
}

impl Record {
    pub fn machine(&self) -> Machine {
        let (name, address, router) = (self.name.clone(), self.address, self.router);
        let network = MachineNetwork { name, address, router };
        Machine { network, cpu: self.cpu, memory: self.memory }
    }
}

/// Where the machines of an installation are.
pub fn directory(data_dir: &Path) -> PathBuf {
    data_dir.join("instances")
}

/// One machine's directory.
#[derive(Clone, Debug)]
pub struct Place(pub PathBuf);

impl Place {
    pub fn of(data_dir: &Path, id: Ec2InstanceId) -> Place {
        Place(directory(data_dir).join(id.to_string()))
    }

    /// Where its agent keeps its state.
    pub fn agent(&self) -> PathBuf {
        self.0.join("agent")
    }

    pub fn log(&self) -> PathBuf {
        self.0.join("agent.log")
    }

    /// What the machine is; `None` for one that was not begun.
    pub fn read(&self) -> Result<Option<Record>> {
        let path = self.0.join(RECORD);
        match fs::read(&path) {
            Ok(text) => Ok(Some(
                serde_json::from_slice(&text).with_context(|| format!("{} is damaged", path.display()))?,
            )),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    pub fn write(&self, record: &Record) -> Result<()> {
        fs::create_dir_all(self.agent()).with_context(|| format!("cannot make {}", self.0.display()))?;
        let (new, path) = (self.0.join("machine.new"), self.0.join(RECORD));
        let text = serde_json::to_vec(record)?;
        fs::write(&new, text)
            .and_then(|()| fs::rename(&new, &path))
            .with_context(|| format!("cannot write {}", path.display()))
    }

    pub fn note_process(&self, pid: u32) -> io::Result<()> {
        fs::write(self.0.join(PID), pid.to_string())
    }

    /// The agent's process, if it runs: one that has its number and is another is not it.
    fn process(&self) -> Option<Pid> {
        let pid: i32 = fs::read_to_string(self.0.join(PID)).ok()?.trim().parse().ok()?;
        let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let own = self.agent();
        let own = own.as_os_str().as_encoded_bytes();
        command.split(|byte| *byte == 0).any(|word| word == own).then(|| Pid::from_raw(pid))
    }

    /// Ends the agent of an earlier run, which has lost who looks after it. Containers run on.
    pub fn end_process(&self) {
        let until = Instant::now() + GONE_MAX;
        let mut signal = Signal::SIGTERM;
        while let Some(pid) = self.process() {
            // One that ended meanwhile does not hear it.
            let _ = kill(pid, signal);
            if Instant::now() > until {
                signal = Signal::SIGKILL;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn kill_process(&self) {
        while let Some(pid) = self.process() {
            // As above.
            let _ = kill(pid, Signal::SIGKILL);
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Leaves nothing of the machine. Its agent must not be started any more.
    ///
    /// # Errors
    /// When something cannot be removed: then it can be tried again.
    pub async fn remove(&self, images: &Path, program: &Path) -> Result<()> {
        let place = self.clone();
        tokio::task::spawn_blocking(move || place.kill_process()).await?;
        if let Some(record) = self.read()? {
            sweep::sweep(&self.agent(), &record.name, program).await?;
            if images.exists() {
                ImageStore::open(images)?.forget_holds(&record.name)?;
            }
            let network = record.machine().network;
            tokio::task::spawn_blocking(move || network.remove())
                .await?
                .context("removing a machine's network")?;
        }
        match fs::remove_dir_all(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove {}", self.0.display()))
            }
            _ => Ok(()),
        }
    }
}

/// The places of an installation's machines.
pub fn places(data_dir: &Path) -> io::Result<Vec<(Ec2InstanceId, Place)>> {
    let entries = match fs::read_dir(directory(data_dir)) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut places = Vec::new();
    for entry in entries {
        let entry = entry?;
        if let Some(id) = entry.file_name().to_str().and_then(|name| name.parse().ok()) {
            places.push((id, Place(entry.path())));
        }
    }
    places.sort_by_key(|(id, _)| *id);
    Ok(places)
}

/// What an installation's machines have on this host.
///
/// # Errors
/// When a directory cannot be read.
pub async fn leftovers(data_dir: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for (id, place) in places(data_dir)? {
        if let Some(record) = place.read()? {
            found.extend(sweep::leftovers(&place.agent(), &record.name).await?);
            found.extend(record.machine().network.leftovers());
        }
        found.push(format!("instance {id}"));
    }
    Ok(found)
}

/// Removes all of it.
///
/// # Errors
/// When something cannot be removed.
pub async fn sweep(data_dir: &Path, images: &Path, program: &Path) -> Result<()> {
    for (_, place) in places(data_dir)? {
        place.remove(images, program).await?;
    }
    Ok(())
}
