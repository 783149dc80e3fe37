//! A world of one scope in which scripts run: calls in, replies and table changes out.
#![allow(clippy::unwrap_used)]

use crate::call::{Call, Caller, Principal};
use crate::fetch::{Fetch, Found, ObjectName};
use crate::load::{Loading, Row, StateError};
use crate::services::ecs::ops::{cluster, container_instance, task_definition};
use crate::services::ecs::placement::Placers;
use crate::services::ecs::state::{
    ContainerInstanceKey, EffectiveDefinition, LaunchType, Tags, Task, TaskKey,
};
use crate::state::{ScopeState, State};
use crate::tx::{Tx, View};
use gantry_decide::arn::{EcsArn, EcsResource};
use gantry_decide::ids::{AccountId, RequestId, Scope, TaskId};
use gantry_decide::lifecycle::{DesiredStatus, LastStatus};
use gantry_decide::random::Seeded;
use gantry_decide::task::TaskOverride;
use gantry_decide::time::Timestamp;
use gantry_wire::{ApiError, Structure, json};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// One scope, its clock and its randomness. Requests and replies are JSON in ECS's spelling.
pub struct World {
    pub scope: Scope,
    pub state: ScopeState,
    pub now: Timestamp,
    pub random: Seeded,
    pub placers: Placers,
    /// Who asks.
    pub principal: Principal,
    rows: BTreeMap<String, Box<[u8]>>,
}

pub type Write<Q, R, E> = fn(&mut Tx<'_>, &Call, Q) -> Result<R, E>;
pub type Read<Q, R, E> = fn(View<'_>, &Call, Q) -> Result<R, E>;

impl World {
    pub fn new() -> World {
        let scope = Scope { account: AccountId::DEFAULT, region: "eu-north-1".parse().unwrap() };
        World {
            scope,
            state: ScopeState::default(),
            now: Timestamp::from_millis(1_000_000),
            random: Seeded::new(7),
            placers: Placers::default(),
            principal: Principal::Root,
            rows: BTreeMap::new(),
        }
    }

    fn call(&mut self) -> Call {
        let caller = Caller {
            scope: self.scope.clone(),
            principal: self.principal.clone(),
            access_key_id: "AKIAEXAMPLE".to_owned(),
        };
        self.now = self.now + Duration::from_secs(1);
        Call { caller, request_id: RequestId::random(&mut self.random), endpoint: String::new() }
    }

    /// Runs a write as the engine does: kept when it succeeds, dropped whole when it fails.
    pub fn write<Q, R, E>(&mut self, operation: Write<Q, R, E>, request: Value) -> Result<Value, ApiError>
    where
        Q: Structure + Default,
        R: Structure,
        E: Into<ApiError>,
    {
        let call = self.call();
        let request: Q = shape(request);
        let mut state = self.state.clone();
        let (random, placers) = (&mut self.random, &mut self.placers);
        let mut tx = Tx { scope: &self.scope, state: &mut state, now: self.now, random, placers };
        let reply = operation(&mut tx, &call, request).map_err(Into::into)?;
        state.check_invariants();
        self.state = state;
        Ok(value(&reply))
    }

    /// Changes the state as controllers and those do who report: they cannot fail half-way.
    pub fn edit<T>(&mut self, change: impl FnOnce(&mut Tx<'_>) -> T) -> T {
        let (random, placers) = (&mut self.random, &mut self.placers);
        change(&mut Tx { scope: &self.scope, state: &mut self.state, now: self.now, random, placers })
    }

    pub fn read<Q, R, E>(&mut self, operation: Read<Q, R, E>, request: Value) -> Result<Value, ApiError>
    where
        Q: Structure + Default,
        R: Structure,
        E: Into<ApiError>,
    {
        let call = self.call();
        let view = View { scope: &self.scope, state: &self.state, now: self.now };
        Ok(value(&operation(view, &call, shape(request)).map_err(Into::into)?))
    }

    /// Runs an operation that needs objects, with what `stored` says of each.
    pub fn fetch<Q, E>(
        &mut self,
        operation: Read<Q, Fetch, E>,
        request: Value,
        stored: fn(&ObjectName) -> Found,
    ) -> Result<Value, ApiError>
    where
        Q: Structure + Default,
        E: Into<ApiError>,
    {
        let call = self.call();
        let view = View { scope: &self.scope, state: &self.state, now: self.now };
        let fetch = operation(view, &call, shape(request)).map_err(Into::into)?;
        let found = fetch.objects.iter().map(stored).collect();
        let mut state = self.state.clone();
        let (random, placers) = (&mut self.random, &mut self.placers);
        let mut tx = Tx { scope: &self.scope, state: &mut state, now: self.now, random, placers };
        let reply = (fetch.write)(&mut tx, found)?;
        state.check_invariants();
        self.state = state;
        Ok(serde_json::from_slice(&json::to_vec(reply.as_ref())).unwrap())
    }

    /// What the store would hold.
    pub fn rows(&mut self) -> &mut BTreeMap<String, Box<[u8]>> {
        let mut state = State::default();
        state.replace(&self.scope, std::mem::take(&mut self.state));
        let writes = state.drain_writes();
        self.state = state.scope(&self.scope);
        for write in writes {
            match write.value {
                Some(value) => self.rows.insert(write.key, value),
                None => self.rows.remove(&write.key),
            };
        }
        &mut self.rows
    }

    pub fn load(rows: &BTreeMap<String, Box<[u8]>>) -> Result<State, StateError> {
        let mut loading = Loading::default();
        // Stores hand them out in any order: here the tasks come before their definitions.
        for (key, value) in rows.iter().rev() {
            loading.take(Row::read(key, value)?);
        }
        loading.finish()
    }

    /// A new process on what the store holds.
    pub fn restart(&mut self) {
        self.state = World::load(self.rows()).unwrap().scope(&self.scope);
        self.state.check_invariants();
    }

    /// The same, on a server that is set up as this one.
    pub fn restart_with_installation(&mut self) {
        let installation = self.state.installation.clone();
        self.restart();
        self.state.installation = installation;
    }

    pub fn register(&mut self, family: &str) -> Value {
        let request = json!({
            "family": family,
            "containerDefinitions": [{"name": "app", "image": "app:1", "memory": 128, "cpu": 64}],
        });
        self.write(task_definition::register_task_definition, request).unwrap()["taskDefinition"].take()
    }

    pub fn create(&mut self, name: &str) -> Value {
        self.write(cluster::create_cluster, json!({ "clusterName": name })).unwrap()["cluster"].take()
    }

    /// Puts a RUNNING task of a registered definition on an instance, as placement and its agent would have.
    pub fn run(&mut self, definition: &str, instance_arn: &str) -> TaskKey {
        let EcsResource::ContainerInstance(cluster, id) = instance_arn.parse::<EcsArn>().unwrap().resource
        else {
            panic!("{instance_arn} is no instance's");
        };
        let record = self.state.ecs.task_definitions.get(&definition.parse().unwrap()).unwrap().clone();
        let task = Task {
            cluster: cluster.clone(),
            id: TaskId::random(&mut self.random),
            definition_id: record.id.clone(),
            definition: EffectiveDefinition::registered(record.definition.clone()),
            overrides: TaskOverride::default(),
            last_status: LastStatus::Running,
            desired_status: DesiredStatus::Running,
            containers: Vec::new(),
            eni: None,
            volume: None,
            instance: Some(ContainerInstanceKey { cluster, id }),
            waiting: None,
            launch_type: LaunchType::Ec2,
            capacity_provider: None,
            platform_version: None,
            availability_zone: None,
            group: format!("family:{}", record.id.family),
            started_by: None,
            tags: Tags::new(),
            enable_execute_command: false,
            sent: true,
            accounted: false,
            balanced: None,
            protected_until: None,
            version: 1,
            created_at: self.now,
            connectivity_at: None,
            pull_started_at: None,
            pull_stopped_at: None,
            started_at: Some(self.now),
            stopping_at: None,
            execution_stopped_at: None,
            stopped_at: None,
            stop_code: None,
            stopped_reason: None,
        };
        let key = TaskKey { cluster: task.cluster.clone(), id: task.id };
        self.state.ecs.put_task(task);
        key
    }

    pub fn register_instance(&mut self, request: Value) -> Result<Value, ApiError> {
        self.write(container_instance::register_container_instance, request)
    }

    /// Registers an instance and returns its ARN.
    pub fn join(&mut self, cluster: &str) -> String {
        let reply = self.register_instance(registration(cluster)).unwrap();
        reply["containerInstance"]["containerInstanceArn"].as_str().unwrap().to_owned()
    }
}

fn shape<T: Structure + Default>(value: Value) -> T {
    json::from_slice(value.to_string().as_bytes()).unwrap()
}

fn value(shape: &impl Structure) -> Value {
    serde_json::from_slice(&json::to_vec(shape)).unwrap()
}

/// What the stock agent sends.
pub fn registration(cluster: &str) -> Value {
    json!({
        "cluster": cluster,
        "attributes": [
            {"name": "rack", "value": "b7"},
            {"name": "ecs.capability.container-ordering"},
            {"name": "ecs.os-type", "value": "linux"},
        ],
        "totalResources": [
            {"name": "CPU", "type": "INTEGER", "integerValue": 4096},
            {"name": "MEMORY", "type": "INTEGER", "integerValue": 7800},
            {"name": "PORTS", "type": "STRINGSET", "stringSetValue": ["22", "51678"]},
            {"name": "PORTS_UDP", "type": "STRINGSET", "stringSetValue": []},
        ],
        "instanceIdentityDocument": "", "instanceIdentityDocumentSignature": "",
    })
}

#[track_caller]
pub fn fails(reply: Result<Value, ApiError>, code: &str, message: &str) {
    let error = reply.unwrap_err();
    assert_eq!((error.code.as_ref(), error.message.as_str()), (code, message));
}

pub const INVALID: &str = "InvalidParameterException";
pub const CLIENT: &str = "ClientException";
