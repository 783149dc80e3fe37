//! A world whose machines are made, joined and destroyed as somebody wants them, and whose agents do as they are told.
#![allow(clippy::unwrap_used)]

use super::round;
use crate::controllers::provisioning::Provisioning;
use crate::controllers::tasks::Tasks;
use crate::machines::{MachineSpec, Report, Want, machines, report};
use crate::services::ecs::ops::{container_instance, submit, task, task_definition};
use crate::services::ecs::state::{ContainerInstanceKey, Task};
use crate::services::ecs::tests::world::{World, registration};
use gantry_decide::arn::{EcsArn, EcsResource};
use gantry_decide::ids::Ec2InstanceId;
use gantry_decide::lifecycle::DesiredStatus;
use serde_json::{Value, json};
use std::ops::{Deref, DerefMut};
use std::time::Duration;

/// More rounds than any chain of reactions needs.
const ROUNDS_MAX: usize = 200;

/// See the module. Machines and tasks are of the cluster `default`.
pub struct Fleet {
    world: World,
    /// The controllers that take part beside those of tasks look at all once; true if anything was changed.
    round: fn(&mut World) -> bool,
    /// Where its tasks run.
    strategy: Value,
}

impl Deref for Fleet {
    type Target = World;

    fn deref(&self) -> &World {
        &self.world
    }
}

impl DerefMut for Fleet {
    fn deref_mut(&mut self) -> &mut World {
        &mut self.world
    }
}

impl Fleet {
    /// Tasks run on this capacity provider.
    pub fn new(world: World, provider: &str, round: fn(&mut World) -> bool) -> Fleet {
        Fleet { world, round, strategy: json!([{"capacityProvider": provider, "weight": 1}]) }
    }

    /// Controllers react to each other until nothing moves.
    pub fn settle(&mut self) {
        for _ in 0..ROUNDS_MAX {
            let world = &mut self.world;
            let moved = round::<Provisioning>(world) | (self.round)(world) | round::<Tasks>(world);
            world.state.check_invariants();
            if !moved {
                return;
            }
        }
        panic!("the controllers do not come to rest");
    }

    pub fn pass(&mut self, seconds: u64) {
        self.now = self.now + Duration::from_secs(seconds);
        self.settle();
    }

    /// Registers the family `app`, which [`Fleet::run`] runs.
    pub fn define(&mut self, network_mode: &str, container: Value) {
        let mut app =
            json!({"name": "app", "image": "app:1", "memory": 128, "versionConsistency": "disabled"});
        app.as_object_mut().unwrap().extend(container.as_object().unwrap().clone());
        let request = json!({"family": "app", "networkMode": network_mode, "containerDefinitions": [app]});
        self.write(task_definition::register_task_definition, request).unwrap();
    }

    pub fn run(&mut self, count: usize) {
        let strategy = self.strategy.clone();
        let request = json!({"taskDefinition": "app", "count": count, "capacityProviderStrategy": strategy});
        self.write(task::run_task, request).unwrap();
        self.settle();
    }

    /// The machines that are to be made.
    pub fn wanted(&self) -> Vec<(Ec2InstanceId, MachineSpec)> {
        let wants = machines(&self.state).filter_map(|(id, want)| match want {
            Want::Create(spec) => Some((id, *spec)),
            Want::Keep | Want::Destroy => None,
        });
        wants.collect()
    }

    pub fn tell(&mut self, id: Ec2InstanceId, what: Report) {
        self.edit(|tx| report(tx, id, what));
        self.settle();
    }

    /// Makes and destroys the machines that are wanted; those that are made join.
    pub fn serve(&mut self) {
        for (id, want) in machines(&self.state).collect::<Vec<_>>() {
            match want {
                Want::Create(_) => {
                    self.tell(id, Report::Running { address: None });
                    self.join(id);
                }
                Want::Destroy => self.tell(id, Report::Gone),
                Want::Keep => {}
            }
        }
        self.settle();
    }

    fn join(&mut self, id: Ec2InstanceId) {
        let mut request = registration("default");
        for name in [
            "com.amazonaws.ecs.capability.docker-remote-api.1.18",
            "ecs.capability.pid-ipc-namespace-sharing",
        ] {
            request["attributes"].as_array_mut().unwrap().push(json!({"name": name}));
        }
        request["instanceIdentityDocument"] = json!({"instanceId": id}).to_string().into();
        let reply = self.write(container_instance::register_container_instance, request).unwrap();
        let arn = reply["containerInstance"]["containerInstanceArn"].as_str().unwrap();
        let EcsResource::ContainerInstance(cluster, id) = arn.parse::<EcsArn>().unwrap().resource else {
            panic!("{arn}")
        };
        let key = ContainerInstanceKey { cluster, id };
        let mut instance = self.state.ecs.container_instance(&key).unwrap().clone();
        instance.agent_connected = true;
        self.state.ecs.put_container_instance(instance);
        self.settle();
    }

    /// Agents start what they have been given, and end what shall end.
    pub fn act(&mut self) {
        self.act_but(|_| false);
    }

    /// The same, but they lose what `fails` says.
    pub fn act_but(&mut self, fails: impl Fn(&Task) -> bool) {
        let tasks: Vec<_> =
            self.state.ecs.tasks().values().filter(|t| t.instance.is_some()).cloned().collect();
        for task in tasks.into_iter().filter(|task| task.is_live()) {
            let status = match task.desired_status {
                DesiredStatus::Stopped => "STOPPED",
                _ if fails(&task) => "STOPPED",
                _ => "RUNNING",
            };
            let request =
                json!({"task": task.arn(&self.scope).to_string(), "status": status, "containers": []});
            self.write(submit::submit_task_state_change, request).unwrap();
        }
        self.settle();
    }

    /// Users stop all tasks.
    pub fn stop_all(&mut self) {
        let live = self.state.ecs.tasks().values().filter(|task| task.is_live());
        let arns: Vec<String> = live.map(|task| task.arn(&self.scope).to_string()).collect();
        for arn in arns {
            self.write(task::stop_task, json!({"task": arn})).unwrap();
        }
        self.act();
    }
}
