//! What the agent remembers on disk: who it is and its tasks, one JSON file each.
//!
//! A file is replaced whole (written beside, synced, renamed, directory synced), so that a crash leaves the old or the
//! new one. Credentials never come here. The calls block: they belong on a blocking thread.

use crate::images::Digest;
use crate::network::Bridged;
use gantry_decide::task_engine::{Task, TaskArn};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

const VERSION: u32 = 1;
const INSTANCE_FILE: &str = "instance.json";
const TASKS_DIR: &str = "tasks";
/// Written and not yet renamed; left behind only by a crash.
const UNFINISHED: &str = "tmp";

/// Who this agent is to the control plane.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// As configured when it was registered: a directory belongs to one cluster.
    pub cluster: String,
    pub container_instance_arn: String,
    /// The largest sequence number or timeline of a manifest or payload; older manifests are ignored.
    pub timeline: i64,
    /// As the control plane named it.
    #[serde(default)]
    pub availability_zone: Option<String>,
    /// The port of the host's loopback where tasks in its namespace ask: those that run know no other.
    #[serde(default)]
    pub host_port: Option<u16>,
    /// The socket of the engine that has its containers; none: they are this program's own.
    #[serde(default)]
    pub docker: Option<PathBuf>,
}

/// A task as it is saved: what the engine knows of it, and what it takes to go on with it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SavedTask {
    pub task: Task,
    /// The payload's JSON; absent for a task that could not be understood.
    pub payload: Option<String>,
    /// The networks of its containers in bridge mode, by container.
    #[serde(default)]
    pub bridged: BTreeMap<String, Bridged>,
    /// The secret ids by which its containers ask their agent.
    #[serde(default)]
    pub keys: BTreeMap<String, String>,
    /// The images of its containers, by the digest of their configuration.
    #[serde(default)]
    pub images: BTreeMap<String, Digest>,
}

/// Why the saved state cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    #[error("{path}")]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{path} is damaged")]
    Damaged {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    #[error("{path} was written by a newer version ({version}); this one reads up to {VERSION}")]
    Newer { path: PathBuf, version: u32 },
}

/// The state directory of one agent.
#[derive(Clone, Debug)]
pub struct AgentState {
    root: PathBuf,
}

#[derive(Deserialize)]
struct Version {
    v: u32,
}

#[derive(Serialize, Deserialize)]
struct Saved<T> {
    v: u32,
    #[serde(flatten)]
    value: T,
}

impl AgentState {
    /// Opens or makes the directory, for its owner only, and clears what a crash left unfinished.
    pub fn open(root: &Path) -> Result<AgentState, StateError> {
        let tasks = root.join(TASKS_DIR);
        let mut builder = fs::DirBuilder::new();
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.recursive(true).create(&tasks).map_err(at(&tasks))?;
        for dir in [root, &tasks] {
            for path in files(dir, UNFINISHED)? {
                fs::remove_file(&path).map_err(at(&path))?;
            }
        }
        Ok(AgentState { root: root.to_owned() })
    }

    /// `None` before the first registration.
    pub fn instance(&self) -> Result<Option<Instance>, StateError> {
        let path = self.root.join(INSTANCE_FILE);
        match read(&path) {
            Err(StateError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            other => other.map(Some),
        }
    }

    /// Durable on return, as is every other writing call.
    pub fn save_instance(&self, instance: &Instance) -> Result<(), StateError> {
        write(&self.root, &self.root.join(INSTANCE_FILE), instance)
    }

    /// All saved tasks, in the order in which they were accepted.
    pub fn tasks(&self) -> Result<Vec<SavedTask>, StateError> {
        let mut tasks = Vec::new();
        for path in files(&self.root.join(TASKS_DIR), "json")? {
            tasks.push(read::<SavedTask>(&path)?);
        }
        tasks.sort_by(|a, b| {
            (a.task.accepted_at, &a.task.spec.arn).cmp(&(b.task.accepted_at, &b.task.spec.arn))
        });
        Ok(tasks)
    }

    pub fn save_task(&self, saved: &SavedTask) -> Result<(), StateError> {
        write(&self.root.join(TASKS_DIR), &self.task_path(&saved.task.spec.arn), saved)
    }

    /// Nothing happens when there is no such task.
    pub fn forget_task(&self, task: &TaskArn) -> Result<(), StateError> {
        let path = self.task_path(task);
        match fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(source) => Err(StateError::Io { path, source }),
            Ok(()) => sync(&self.root.join(TASKS_DIR)),
        }
    }

    /// An ARN is text from outside and of any length: its digest names the file.
    fn task_path(&self, task: &TaskArn) -> PathBuf {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, task.0.as_bytes());
        let name = faster_hex::hex_string(&digest.as_ref()[..16]);
        self.root.join(TASKS_DIR).join(format!("{name}.json"))
    }
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> StateError {
    let path = path.to_owned();
    move |source| StateError::Io { path, source }
}

fn files(dir: &Path, extension: &str) -> Result<Vec<PathBuf>, StateError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(at(dir))? {
        let path = entry.map_err(at(dir))?.path();
        if path.extension().is_some_and(|known| known == extension) {
            found.push(path);
        }
    }
    Ok(found)
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<T, StateError> {
    let bytes = fs::read(path).map_err(at(path))?;
    let damaged = |source| StateError::Damaged { path: path.to_owned(), source };
    let Version { v: version } = serde_json::from_slice(&bytes).map_err(damaged)?;
    if version > VERSION {
        return Err(StateError::Newer { path: path.to_owned(), version });
    }
    serde_json::from_slice::<Saved<T>>(&bytes).map(|saved| saved.value).map_err(damaged)
}

fn write<T: Serialize>(dir: &Path, path: &Path, value: &T) -> Result<(), StateError> {
    let bytes = serde_json::to_vec(&Saved { v: VERSION, value })
        .map_err(|source| StateError::Damaged { path: path.to_owned(), source })?;
    let unfinished = path.with_extension(UNFINISHED);
    let put = || {
        let mut file =
            File::options().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&unfinished, path)
    };
    put().map_err(at(path))?;
    sync(dir)
}

fn sync(dir: &Path) -> Result<(), StateError> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(at(dir))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use gantry_decide::lifecycle::DesiredStatus;
    use gantry_decide::task_engine::{Capacity, EngineConfig, Event, Failure, FailureKind, TaskEngine};
    use gantry_decide::time::Timestamp;

    fn task(arn: &str, accepted_at: i64) -> SavedTask {
        let mut engine = TaskEngine::new(EngineConfig::new(Capacity::default()));
        let arn = TaskArn(arn.to_owned());
        let failure = Failure::new(FailureKind::UnrecogniedTaskError, "Error loading task");
        engine.step(Timestamp::from_millis(accepted_at), Event::TaskRejected { task: arn.clone(), failure });
        let task = engine.task(&arn).unwrap().clone();
        let payload = Some("{}".to_owned());
        SavedTask { task, payload, bridged: BTreeMap::new(), keys: BTreeMap::new(), images: BTreeMap::new() }
    }

    #[test]
    fn what_was_saved_comes_back_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("agent");
        let state = AgentState::open(&root).unwrap();
        assert_eq!(state.instance().unwrap(), None);
        let instance = Instance {
            cluster: "default".into(),
            container_instance_arn: "arn:i".into(),
            timeline: 7,
            availability_zone: None,
            host_port: Some(51_679),
            docker: None,
        };
        state.save_instance(&instance).unwrap();
        let (first, mut second) = (task("arn:zz/../../etc", 1), task("arn:aa", 2));
        state.save_task(&second).unwrap();
        state.save_task(&first).unwrap();
        second.task.desired = DesiredStatus::Stopped;
        second.task.failure = None;
        state.save_task(&second).unwrap();

        let state = AgentState::open(&root).unwrap();
        assert_eq!(state.instance().unwrap(), Some(instance));
        // As JSON: what is under way at the moment is not saved, by intent.
        let json = |tasks: &[SavedTask]| serde_json::to_value(tasks).unwrap();
        assert_eq!(json(&state.tasks().unwrap()), json(&[first.clone(), second]));
        state.forget_task(&first.task.spec.arn).unwrap();
        state.forget_task(&first.task.spec.arn).unwrap();
        assert_eq!(state.tasks().unwrap().len(), 1);
    }

    #[test]
    fn an_unfinished_file_is_cleared_and_a_damaged_or_newer_one_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let state = AgentState::open(dir.path()).unwrap();
        let tasks = dir.path().join(TASKS_DIR);
        fs::write(tasks.join("ab.tmp"), "{").unwrap();
        let state = AgentState::open(&state.root).unwrap();
        assert_eq!(fs::read_dir(&tasks).unwrap().count(), 0);
        fs::write(tasks.join("ab.json"), "{").unwrap();
        assert!(matches!(state.tasks(), Err(StateError::Damaged { path, .. }) if path.ends_with("ab.json")));
        fs::write(tasks.join("ab.json"), r#"{"v":2,"strange":true}"#).unwrap();
        assert!(matches!(state.tasks(), Err(StateError::Newer { version: 2, .. })));
    }
}
