//! What the agent remembers on disk: who it is and its tasks, one row of versioned JSON each, in an SQLite file.
//!
//! What is saved at once costs one sync of the disk, however many tasks it is about, and a crash leaves all of it or
//! nothing. Credentials of tasks never come here. The calls block: they belong on a blocking thread.
//! `sqlite3 agent.db 'select key, value from record'` shows everything.

use crate::images::Digest;
use crate::network::Bridged;
use gantry_decide::task_engine::{Task, TaskArn};
use gantry_wire::Secret;
use gantry_wire::sigv4::Credentials;
use rusqlite::{Connection, OptionalExtension};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Of the records. The table itself is of the only form there has been.
const VERSION: u32 = 1;
const FILE_NAME: &str = "agent.db";
const INSTANCE_KEY: &str = "instance";
/// Before a task's ARN.
const TASK_KEYS: &str = "task/";
/// The first key behind all of those.
const TASK_KEYS_END: &str = "task0";

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
    /// What EC2 calls the machine.
    #[serde(default)]
    pub ec2_instance_id: Option<String>,
    /// The port of the host's loopback where tasks in its namespace ask: those that run know no other.
    #[serde(default)]
    pub host_port: Option<u16>,
    /// What the machine is called that joined by an activation, and the key that it has since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<MachineKey>,
    /// The socket of the engine that has its containers; none: they are this program's own.
    #[serde(default)]
    pub docker: Option<PathBuf>,
}

/// The key of a machine that joined by an activation. The file that it is in is its owner's alone.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineKey {
    pub access_key_id: String,
    secret_access_key: String,
}

impl std::fmt::Debug for MachineKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MachineKey").field("access_key_id", &self.access_key_id).finish_non_exhaustive()
    }
}

impl From<Credentials> for MachineKey {
    fn from(key: Credentials) -> MachineKey {
        let secret_access_key = key.secret_access_key.expose().to_owned();
        MachineKey { access_key_id: key.access_key_id, secret_access_key }
    }
}

impl From<&MachineKey> for Credentials {
    fn from(key: &MachineKey) -> Credentials {
        Credentials {
            access_key_id: key.access_key_id.clone(),
            secret_access_key: Secret::new(&key.secret_access_key),
            session_token: None,
        }
    }
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
    /// The signals by which containers end whose images name one.
    #[serde(default)]
    pub stop_signals: BTreeMap<String, i32>,
}

/// Something to be saved.
#[derive(Debug)]
pub enum Change {
    Task(Box<SavedTask>),
    /// Nothing happens when there is no such task.
    Forget(TaskArn),
    Instance(Instance),
}

/// Why the saved state cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    #[error("cannot {doing} {path}", path = path.display())]
    Io {
        doing: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot {doing} the agent's state in {path}", path = path.display())]
    Sqlite {
        doing: &'static str,
        path: PathBuf,
        #[source]
        source: rusqlite::Error,
    },
    #[error("the record {key} of {path} is damaged", path = path.display())]
    Damaged {
        path: PathBuf,
        key: String,
        #[source]
        source: serde_json::Error,
    },
    #[error(
        "the record {key} of {path} was written by a newer version ({version}); this one reads up to {VERSION}",
        path = path.display()
    )]
    Newer { path: PathBuf, key: String, version: u32 },
}

/// The state of one agent.
#[derive(Debug)]
pub struct AgentState {
    path: PathBuf,
    connection: Connection,
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
    /// Opens the state in a directory, or makes both, for their owner only.
    pub fn open(directory: &Path) -> Result<AgentState, StateError> {
        let path = directory.join(FILE_NAME);
        let make = || {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
            // SQLite gives the log and its index the mode of the file.
            OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path)
        };
        make().map_err(|source| StateError::Io { doing: "make", path: path.clone(), source })?;
        let connection = connect(&path).map_err(failed("open", &path))?;
        Ok(AgentState { path, connection })
    }

    /// `None` before the first registration.
    pub fn instance(&self) -> Result<Option<Instance>, StateError> {
        let select = "select value from record where key = ?1";
        let found: Option<String> = self
            .connection
            .query_row(select, (INSTANCE_KEY,), |row| row.get(0))
            .optional()
            .map_err(self.failed("read"))?;
        found.map(|text| self.decode(INSTANCE_KEY, &text)).transpose()
    }

    /// All saved tasks, in the order in which they were accepted.
    pub fn tasks(&self) -> Result<Vec<SavedTask>, StateError> {
        let read = || {
            let select = "select key, value from record where key >= ?1 and key < ?2";
            let mut select = self.connection.prepare(select)?;
            let rows = select.query_map((TASK_KEYS, TASK_KEYS_END), |row| Ok((row.get(0)?, row.get(1)?)))?;
            rows.collect::<rusqlite::Result<Vec<(String, String)>>>()
        };
        let rows = read().map_err(self.failed("read"))?;
        let tasks = rows.iter().map(|(key, text)| self.decode(key, text));
        let mut tasks = tasks.collect::<Result<Vec<SavedTask>, StateError>>()?;
        tasks.sort_by(|a, b| {
            (a.task.accepted_at, &a.task.spec.arn).cmp(&(b.task.accepted_at, &b.task.spec.arn))
        });
        Ok(tasks)
    }

    /// Saves all of it or nothing. Durable on return.
    pub fn save(&mut self, changes: &[Change]) -> Result<(), StateError> {
        let mut rows = Vec::with_capacity(changes.len());
        for change in changes {
            rows.push(match change {
                Change::Task(saved) => {
                    let key = task_key(&saved.task.spec.arn);
                    let value = self.encode(&key, saved)?;
                    (key, Some(value))
                }
                Change::Forget(task) => (task_key(task), None),
                Change::Instance(instance) => {
                    (INSTANCE_KEY.to_owned(), Some(self.encode(INSTANCE_KEY, instance)?))
                }
            });
        }
        let failed = failed("write", &self.path);
        let mut write = || {
            let transaction = self.connection.transaction()?;
            {
                let mut put = transaction
                    .prepare_cached("insert or replace into record (key, value) values (?1, ?2)")?;
                let mut delete = transaction.prepare_cached("delete from record where key = ?1")?;
                for (key, value) in &rows {
                    match value {
                        Some(value) => put.execute((key, value))?,
                        None => delete.execute((key,))?,
                    };
                }
            }
            transaction.commit()
        };
        write().map_err(failed)
    }

    fn encode<T: Serialize>(&self, key: &str, value: &T) -> Result<String, StateError> {
        serde_json::to_string(&Saved { v: VERSION, value }).map_err(self.damaged(key))
    }

    fn decode<T: DeserializeOwned>(&self, key: &str, text: &str) -> Result<T, StateError> {
        let Version { v: version } = serde_json::from_str(text).map_err(self.damaged(key))?;
        if version > VERSION {
            return Err(StateError::Newer { path: self.path.clone(), key: key.to_owned(), version });
        }
        serde_json::from_str::<Saved<T>>(text).map(|saved| saved.value).map_err(self.damaged(key))
    }

    fn damaged(&self, key: &str) -> impl FnOnce(serde_json::Error) -> StateError {
        let (path, key) = (self.path.clone(), key.to_owned());
        move |source| StateError::Damaged { path, key, source }
    }

    fn failed(&self, doing: &'static str) -> impl FnOnce(rusqlite::Error) -> StateError {
        failed(doing, &self.path)
    }
}

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(rusqlite::Error) -> StateError {
    let path = path.to_owned();
    move |source| StateError::Sqlite { doing, path, source }
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.execute_batch(
        "create table if not exists record (id integer primary key, key text not null unique, value text not null) strict",
    )?;
    Ok(connection)
}

fn task_key(task: &TaskArn) -> String {
    format!("{TASK_KEYS}{}", task.0)
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
        SavedTask {
            task,
            payload,
            bridged: BTreeMap::new(),
            keys: BTreeMap::new(),
            images: BTreeMap::new(),
            stop_signals: BTreeMap::new(),
        }
    }

    #[test]
    fn what_was_saved_comes_back_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("agent");
        let mut state = AgentState::open(&root).unwrap();
        assert_eq!(state.instance().unwrap(), None);
        let instance = Instance {
            cluster: "default".into(),
            container_instance_arn: "arn:i".into(),
            timeline: 7,
            availability_zone: None,
            ec2_instance_id: None,
            host_port: Some(51_679),
            machine: None,
            docker: None,
        };
        let (first, mut second) = (task("arn:zz/../../etc", 1), task("arn:aa", 2));
        let saved = |task: &SavedTask| Change::Task(Box::new(task.clone()));
        state.save(&[Change::Instance(instance.clone()), saved(&second), saved(&first)]).unwrap();
        second.task.desired = DesiredStatus::Stopped;
        second.task.failure = None;
        state.save(&[saved(&second)]).unwrap();
        drop(state);

        let mut state = AgentState::open(&root).unwrap();
        assert_eq!(state.instance().unwrap(), Some(instance));
        // As JSON: what is under way at the moment is not saved, by intent.
        let json = |tasks: &[SavedTask]| serde_json::to_value(tasks).unwrap();
        assert_eq!(json(&state.tasks().unwrap()), json(&[first.clone(), second]));
        for _ in 0..2 {
            state.save(&[Change::Forget(first.task.spec.arn.clone())]).unwrap();
        }
        assert_eq!(state.tasks().unwrap().len(), 1);
        for entry in fs::read_dir(&root).unwrap() {
            let mode =
                std::os::unix::fs::PermissionsExt::mode(&entry.unwrap().metadata().unwrap().permissions());
            assert_eq!(mode & 0o777, 0o600);
        }
    }

    #[test]
    fn a_damaged_or_newer_record_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let state = AgentState::open(dir.path()).unwrap();
        let put = |value: &str| {
            let put = "insert or replace into record (key, value) values ('task/ab', ?1)";
            state.connection.execute(put, (value,)).unwrap();
        };
        put("{");
        assert!(matches!(state.tasks(), Err(StateError::Damaged { key, .. }) if key == "task/ab"));
        put(r#"{"v":2,"strange":true}"#);
        assert!(matches!(state.tasks(), Err(StateError::Newer { version: 2, .. })));
    }
}
