//! The provider `local`: machines made of this one. Each is a network namespace of its own with an agent in it, whose
//! tasks get no more CPU time and memory than the instance type says.
//!
//! Agents end with this process and containers run on; the next start makes agents for all machines that are on disk.

use super::machines::{Place, Record, directory, places};
use super::{failure, settings};
use anyhow::{Context, Result, anyhow, bail};
use gantry_agent::network::Ipv4Block;
use gantry_decide::ids::{AccountId, Ec2InstanceId};
use gantry_decide::scaling::instance_type;
use gantry_server::instances::{Answer, InstanceProvider, Machine, Made};
use gantry_server::keys::KeyPair;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::OpenOptions;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

/// Where a machine's programs find the control plane, at their own loopback address: Gantry's usual port.
const PORT: u16 = 4580;
/// Connections of one machine to the control plane at a time: an agent has a handful.
const CONNECTIONS_MAX: usize = 128;
/// For an agent that was told to end.
const END_MAX: Duration = Duration::from_secs(15);
/// Before an agent that ended by itself is started again, at first and at last.
const RESTART_FIRST: Duration = Duration::from_millis(500);
const RESTART_LAST: Duration = Duration::from_secs(30);
/// Bytes of an agent's log, which is begun anew at the next start beyond it.
const LOG_MAX: u64 = 16 << 20;

/// What all machines have in common.
#[derive(Clone, Debug)]
pub struct LocalConfig {
    pub data_dir: PathBuf,
    /// Where images are, for all agents of this host.
    pub image_dir: PathBuf,
    /// This program.
    pub program: PathBuf,
    pub server: SocketAddr,
    pub account: AccountId,
    /// The agents' key.
    pub key: KeyPair,
    /// Addresses of machines, two for each.
    pub block: Ipv4Block,
    pub task_cleanup_wait: Duration,
}

/// See the module.
pub struct Local {
    config: Arc<LocalConfig>,
    machines: Mutex<BTreeMap<Ec2InstanceId, Running>>,
    /// Which pair of the block's addresses each machine has, from its plan until nothing is left of it.
    slots: Mutex<BTreeMap<Ec2InstanceId, u32>>,
}

/// A machine with its agent, as it is looked after.
struct Running {
    stop: watch::Sender<bool>,
    ended: JoinHandle<()>,
}

impl Local {
    /// Takes up the machines of an earlier run.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub async fn open(config: LocalConfig) -> Result<Arc<Local>> {
        std::fs::create_dir_all(directory(&config.data_dir))
            .with_context(|| format!("cannot make {}", directory(&config.data_dir).display()))?;
        let local =
            Arc::new(Local { config: Arc::new(config), machines: Mutex::default(), slots: Mutex::default() });
        for (id, place) in places(&local.config.data_dir)? {
            match place.read()? {
                Some(record) => {
                    local.slots.lock().insert(id, record.slot);
                    local.look_after(record, place);
                }
                // A crash came before its first step.
                None => {
                    tracing::info!(%id, "a machine that was not begun is removed");
                    place.remove(&local.config.image_dir, &local.config.program).await?;
                }
            }
        }
        Ok(local)
    }

    fn look_after(&self, record: Record, place: Place) {
        let (stop, stopped) = watch::channel(false);
        let id = record.id;
        let ended = tokio::spawn(supervise(Arc::clone(&self.config), record, place, stopped));
        self.machines.lock().insert(id, Running { stop, ended });
    }

    async fn make(&self, machine: Machine) -> Result<Made> {
        let place = Place::of(&self.config.data_dir, machine.id);
        let record = match place.read()? {
            Some(record) => record,
            None => {
                let planned = self.plan(&machine).and_then(|record| place.write(&record).map(|()| record));
                if planned.is_err() {
                    self.slots.lock().remove(&machine.id);
                }
                planned?
            }
        };
        let opened = record.machine();
        tokio::task::spawn_blocking(move || opened.open())
            .await?
            .context("cannot make the machine's network")?;
        let address = Some(record.address.to_string());
        if !self.machines.lock().contains_key(&machine.id) {
            self.look_after(record, place);
        }
        Ok(Made { address })
    }

    fn plan(&self, machine: &Machine) -> Result<Record> {
        let Machine { id, scope, spec } = machine;
        if scope.account != self.config.account {
            bail!("local machines belong to the account {}", self.config.account);
        }
        let size = instance_type::size(&spec.instance_type)?;
        let settings = settings(machine);
        let attributes = settings.get("ECS_INSTANCE_ATTRIBUTES").map(|text| {
            serde_json::from_str(text).context("ECS_INSTANCE_ATTRIBUTES is not an object of texts")
        });
        let slot = self.take_slot(*id)?;
        let address =
            |offset| self.config.block.address(2 * slot + offset).context("the block has this address");
        Ok(Record {
            id: *id,
            name: agent_name(&self.config.data_dir, *id),
            cluster: settings.get("ECS_CLUSTER").cloned().unwrap_or_else(|| "default".to_owned()),
            region: scope.region.to_string(),
            zone: spec.zone.clone(),
            instance_type: spec.instance_type.clone(),
            cpu: size.cpu,
            memory: size.memory,
            attributes: attributes.transpose()?.unwrap_or_default(),
            slot,
            router: address(0)?,
            address: address(1)?,
        })
    }

    /// Others that are planned at the same time find it taken.
    fn take_slot(&self, id: Ec2InstanceId) -> Result<u32> {
        let mut slots = self.slots.lock();
        let taken: BTreeSet<u32> = slots.values().copied().collect();
        let slot = (1..self.config.block.size() / 2)
            .find(|slot| !taken.contains(slot))
            .ok_or_else(|| anyhow!("no address is left in {}", self.config.block))?;
        slots.insert(id, slot);
        Ok(slot)
    }

    /// Ends a machine's agent, if it has one.
    async fn end(&self, id: Ec2InstanceId) {
        let running = self.machines.lock().remove(&id);
        if let Some(running) = running {
            running.stop.send_replace(true);
            if let Err(error) = running.ended.await {
                tracing::error!(%id, %error, "looking after a machine failed");
            }
        }
    }

    /// Ends all agents; containers run on.
    pub async fn shutdown(&self) {
        let machines = std::mem::take(&mut *self.machines.lock());
        for running in machines.values() {
            running.stop.send_replace(true);
        }
        for (id, running) in machines {
            if let Err(error) = running.ended.await {
                tracing::error!(%id, %error, "looking after a machine failed");
            }
        }
    }
}

/// Names an agent after its installation and its machine.
fn agent_name(data_dir: &std::path::Path, id: Ec2InstanceId) -> String {
    let text = format!("{} {id}", data_dir.display());
    // FNV-1a: tells names apart, and nothing else.
    let hash = text.bytes().fold(0x811c_9dc5_u32, |hash, b| (hash ^ u32::from(b)).wrapping_mul(0x0100_0193));
    format!("m{:07x}", hash >> 4)
}

impl InstanceProvider for Local {
    fn create(&self, machine: Machine) -> Answer<'_, Made> {
        Box::pin(async move { self.make(machine).await.map_err(failure) })
    }

    fn destroy(&self, id: Ec2InstanceId) -> Answer<'_, ()> {
        Box::pin(async move {
            self.end(id).await;
            let place = Place::of(&self.config.data_dir, id);
            place.remove(&self.config.image_dir, &self.config.program).await.map_err(failure)?;
            self.slots.lock().remove(&id);
            Ok(())
        })
    }

    fn list(&self) -> Answer<'_, BTreeSet<Ec2InstanceId>> {
        let listed =
            places(&self.config.data_dir).map(|places| places.into_iter().map(|(id, _)| id).collect());
        Box::pin(std::future::ready(listed.map_err(failure)))
    }
}

/// Keeps a machine's agent running until told to stop.
async fn supervise(config: Arc<LocalConfig>, record: Record, place: Place, mut stop: watch::Receiver<bool>) {
    let id = record.id;
    let earlier = place.clone();
    // Only a panic there fails it, and then the start below says what is wrong.
    let _ = tokio::task::spawn_blocking(move || earlier.end_process()).await;
    let mut pause = RESTART_FIRST;
    while !*stop.borrow() {
        match run(&config, &record, &place, &mut stop).await {
            Ok(()) => {}
            Err(error) => tracing::warn!(%id, error = format!("{error:#}"), "a machine's agent failed"),
        }
        tokio::select! {
            () = told(&mut stop) => {}
            () = tokio::time::sleep(pause) => pause = (pause * 2).min(RESTART_LAST),
        }
    }
}

/// One life of an agent. It ends with its standard input, so that none outlives who looks after it.
async fn run(
    config: &LocalConfig,
    record: &Record,
    place: &Place,
    stop: &mut watch::Receiver<bool>,
) -> Result<()> {
    let machine = record.machine();
    let listener = tokio::task::spawn_blocking(move || {
        machine.open().context("cannot make the machine's network")?;
        machine.network.listen(PORT).context("cannot listen in the machine's network")
    });
    let listener = listener.await??;
    listener.set_nonblocking(true)?;
    let door = tokio::spawn(carry(TcpListener::from_std(listener)?, config.server));
    let started = start(config, record, place);
    let mut child = match started {
        Ok(child) => child,
        Err(error) => {
            door.abort();
            return Err(error);
        }
    };
    let input = child.stdin.take();
    let mut ended = tokio::task::spawn_blocking(move || child.wait());
    let result = tokio::select! {
        status = &mut ended => Err(anyhow!("it ended by itself: {}", status??)),
        () = told(stop) => {
            drop(input);
            if tokio::time::timeout(END_MAX, &mut ended).await.is_err() {
                let late = place.clone();
                tokio::task::spawn_blocking(move || late.end_process()).await?;
            }
            Ok(())
        }
    };
    door.abort();
    result
}

async fn told(stop: &mut watch::Receiver<bool>) {
    // The sender going away means the same.
    let _ = stop.wait_for(|stop| *stop).await.is_ok();
}

/// Starts an agent in its machine.
fn start(config: &LocalConfig, record: &Record, place: &Place) -> Result<Child> {
    let log = place.log();
    let long = std::fs::metadata(&log).is_ok_and(|log| log.len() > LOG_MAX);
    let log = OpenOptions::new().create(true).write(true).truncate(long).append(!long).open(&log)?;
    let mut command = Command::new(&config.program);
    command
        .arg("agent")
        .arg("--endpoint")
        .arg(format!("http://127.0.0.1:{PORT}"))
        .arg("--cluster")
        .arg(&record.cluster)
        .arg("--region")
        .arg(&record.region)
        .arg("--data-dir")
        .arg(place.agent())
        .arg("--image-dir")
        .arg(&config.image_dir)
        .arg("--name")
        .arg(&record.name)
        .arg("--cpu")
        .arg(record.cpu.to_string())
        .arg("--memory")
        .arg(record.memory.to_string())
        .arg("--availability-zone")
        .arg(&record.zone)
        .arg("--host-address")
        .arg(record.address.to_string())
        .arg("--instance-id")
        .arg(record.id.to_string())
        .arg("--instance-type")
        .arg(&record.instance_type)
        .arg("--task-cleanup-wait")
        .arg(format!("{}ms", config.task_cleanup_wait.as_millis()))
        .arg("--instance-metadata")
        .arg("--end-with-input");
    for (name, value) in &record.attributes {
        command.arg("--attribute").arg(format!("{name}={value}"));
    }
    for name in ["AWS_SESSION_TOKEN", "GANTRY_ADDRESS_BLOCK", "GANTRY_AGENT_CONFIG", "GANTRY_RUNTIME"] {
        command.env_remove(name);
    }
    command
        .env("AWS_ACCESS_KEY_ID", &config.key.access_key_id)
        .env("AWS_SECRET_ACCESS_KEY", &config.key.secret_access_key)
        .stdin(Stdio::piped())
        .stdout(log.try_clone()?)
        .stderr(log);
    // A program starts in the namespace of the thread that starts it.
    let child = record.machine().network.within(|| command.spawn()).context("cannot start the agent")?;
    place.note_process(child.id())?;
    Ok(child)
}

/// Carries connections out of a machine to the control plane, which may listen at a loopback address only.
async fn carry(listener: TcpListener, server: SocketAddr) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = tokio::task::JoinSet::new();
    while let Ok(permit) = Arc::clone(&room).acquire_owned().await {
        while connections.try_join_next().is_some() {}
        let Ok((mut inside, _)) = listener.accept().await else {
            // Out of descriptors: others are given up meanwhile.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        connections.spawn(async move {
            if let Ok(mut outside) = TcpStream::connect(server).await {
                // A connection that breaks is the agent's to make anew.
                let _ = tokio::io::copy_bidirectional(&mut inside, &mut outside).await;
            }
            drop(permit);
        });
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn machines_that_are_made_at_once_get_addresses_of_their_own() {
        let data = tempfile::tempdir().unwrap();
        let config = LocalConfig {
            data_dir: data.path().to_owned(),
            image_dir: data.path().join("images"),
            program: PathBuf::from("/bin/false"),
            server: SocketAddr::from(([127, 0, 0, 1], 1)),
            account: AccountId::DEFAULT,
            key: KeyPair { access_key_id: String::new(), secret_access_key: String::new() },
            block: Ipv4Block::new([10, 0, 0, 0].into(), 28).unwrap(),
            task_cleanup_wait: Duration::ZERO,
        };
        let local = Local::open(config).await.unwrap();
        let id = |n: u32| format!("i-{n:017}").parse().unwrap();
        // Nothing of them is looked after yet.
        for slot in 1..8 {
            assert_eq!(local.take_slot(id(slot)).unwrap(), slot);
        }
        assert_eq!(local.take_slot(id(8)).unwrap_err().to_string(), "no address is left in 10.0.0.0/28");
        local.destroy(id(2)).await.unwrap();
        assert_eq!(local.take_slot(id(8)).unwrap(), 2);
    }
}
