//! Services of task sets: users make, scale, prefer and delete these, and each is judged by its own share.

use super::Fleet;
use super::plan::Wish;
use gantry_control::services::ecs::state::{ContainerInstanceStatus, Deployment, Service, Task, TaskSet};
use gantry_control::state::ScopeState;
use gantry_decide::deployment::task_set::TaskSetStatus;
use gantry_decide::lifecycle::DesiredStatus;
use gantry_decide::random::{Random, Seeded};
use gantry_store::Record;
use serde_json::{Value, json};

/// The part of the desired count that a set shall have: ECS rounds up. Our own sum, in floating point, which is exact
/// enough for counts as small as these.
fn computed(service: &Service, set: &TaskSet) -> usize {
    let share = f64::from(service.desired_count) * set.scale.percent() / 100.0;
    if set.status == TaskSetStatus::Draining { 0 } else { (share - 1e-9).ceil().max(0.0) as usize }
}

/// Each set's share, by the id under which it starts tasks.
pub fn shares(service: &Service) -> impl Iterator<Item = (String, usize)> {
    sets(service).map(|(deployment, set)| (deployment.id.to_string(), computed(service, set)))
}

fn sets(service: &Service) -> impl Iterator<Item = (&Deployment, &TaskSet)> {
    service.deployments.iter().filter_map(|deployment| Some((deployment, deployment.task_set.as_ref()?)))
}

impl Fleet {
    /// What a user does about the task sets of a service.
    pub(super) fn change_sets(&self, wish: &Wish, random: &mut Seeded) -> Option<(&'static str, Value)> {
        let state = self.snapshot();
        let service = Self::service_of(&state, wish.name);
        let value = [0.0, 33.3, 50.0, 100.0][random.below(4)];
        let scale = json!({"value": value, "unit": "PERCENT"});
        let mut request = json!({"cluster": "default", "service": wish.name});
        let kind = random.below(6);
        if kind <= 1 {
            request["taskDefinition"] = json!(wish.any_family(random));
            request["scale"] = scale;
            return Some(("CreateTaskSet", request));
        }
        let all: Vec<String> = sets(service).map(|(deployment, _)| deployment.id.to_string()).collect();
        let chosen = (!all.is_empty()).then(|| all[random.below(all.len())].clone())?;
        Some(match kind {
            2 | 3 => {
                request["taskSet"] = json!(chosen);
                request["scale"] = scale;
                ("UpdateTaskSet", request)
            }
            4 => {
                request["taskSet"] = json!(chosen);
                request["force"] = json!(true);
                ("DeleteTaskSet", request)
            }
            _ => {
                request["primaryTaskSet"] = json!(chosen);
                ("UpdateServicePrimaryTaskSet", request)
            }
        })
    }

    /// One set is to be left that can run, with some share of the service's tasks.
    pub(super) fn tidy_sets(&mut self, wish: &Wish) {
        let state = self.snapshot();
        let service = Self::service_of(&state, wish.name);
        let good = &wish.families()[0];
        let runs = |set: &Deployment| !wish.is_hopeless(set.task_definition.family.as_str());
        let left =
            sets(service).find(|(deployment, set)| set.status != TaskSetStatus::Draining && runs(deployment));
        let left = left.map(|(deployment, _)| deployment.id);
        let value = [33.3, 70.0, 100.0][self.random.below(3)];
        let scale = json!({"value": value, "unit": "PERCENT"});
        for (deployment, set) in sets(service).filter(|(_, set)| set.status != TaskSetStatus::Draining) {
            let mut request =
                json!({"cluster": "default", "service": wish.name, "taskSet": deployment.id.to_string()});
            if Some(deployment.id) != left {
                request["force"] = json!(true);
                self.ask(("DeleteTaskSet", request));
            } else if set.scale.percent() <= 0.0 {
                request["scale"] = scale.clone();
                self.ask(("UpdateTaskSet", request));
            }
        }
        if left.is_none() {
            let request =
                json!({"cluster": "default", "service": wish.name, "taskDefinition": good.0, "scale": scale});
            self.ask(("CreateTaskSet", request));
        }
    }

    /// How many tasks the sets of a service shall have together.
    pub(super) fn wanted_of_sets(state: &ScopeState, wish: &Wish) -> usize {
        wanted(Self::service_of(state, wish.name))
    }

    /// One set with all of its tasks, and none that is on its way out.
    pub(super) fn judge_sets(&self, state: &ScopeState, wish: &Wish) {
        let service = Self::service_of(state, wish.name);
        assert_eq!(sets(service).count(), 1, "{wish:?} has the sets {:?}", service.deployments);
        judge_counts(state, service);
    }

    /// Sets that were deleted are gone, whatever came of the others.
    pub(super) fn judge_deleted_sets(&self, state: &ScopeState, wish: &Wish) {
        let service = Self::service_of(state, wish.name);
        let drains = |(_, set): &(&Deployment, &TaskSet)| set.status == TaskSetStatus::Draining;
        let draining: Vec<_> = sets(service).filter(drains).collect();
        assert!(draining.is_empty(), "{} still has {draining:?}", wish.name);
    }
}

/// How many tasks the sets of a service are to have in all.
pub fn wanted(service: &Service) -> usize {
    shares(service).map(|(_, share)| share).sum()
}

/// Each set has its share.
fn judge_counts(state: &ScopeState, service: &Service) {
    for (deployment, set) in sets(service) {
        let own = |task: &&Task| task.is_live() && task.deployment() == Some(deployment.id);
        let running = state.ecs.tasks_of(&service.key()).filter(own).count();
        assert_eq!(running, computed(service, set), "{} has {set:?}", service.name);
    }
}

/// A set that was just given tasks has no more than its share of those that can be counted on.
///
/// # Panics
/// When it has.
pub fn judge_growth(state: &ScopeState, service: &Service, started_by: Option<&String>) {
    let of = |(deployment, _): &(&Deployment, &TaskSet)| started_by == Some(&deployment.id.to_string());
    let Some((deployment, set)) = sets(service).find(of) else {
        panic!("{} starts tasks of {started_by:?}, which is no set of it", service.name);
    };
    let is_sound = |task: &&Task| {
        let host = task.instance.as_ref().and_then(|host| state.ecs.container_instance(host));
        host.is_some_and(|host| host.status == ContainerInstanceStatus::Active && host.agent_connected)
            && task.desired_status == DesiredStatus::Running
            && task.deployment() == Some(deployment.id)
    };
    let (sound, share) =
        (state.ecs.tasks_of(&service.key()).filter(is_sound).count(), computed(service, set));
    assert!(sound <= share, "{} has {sound} tasks of a set that shall have {share}", service.name);
}
