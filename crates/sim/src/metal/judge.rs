//! What must hold of groups, machines and spot tasks, by sums of its own.

use super::machines::Machine;
use super::{FARGATE_CPU, MACHINE_CPU, MAX_SIZE, Metal, POOL_CPU, TASK_CPU};
use gantry_control::services::ecs::state::{FARGATE_POOL, Task, TaskKey};
use gantry_control::state::ScopeState;
use gantry_decide::ids::Ec2InstanceId;
use gantry_decide::lifecycle::{DesiredStatus, LastStatus, StopCode};
use gantry_decide::scaling::lifecycle::{LifecycleState, MachineState};
use gantry_decide::time::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// For how long less must be needed before a group shrinks: ECS's documented figure.
const PATIENCE: Duration = Duration::from_secs(15 * 60);

/// What was there before a step.
#[derive(Default)]
pub struct Judge {
    /// Least of the group.
    pub minimum: usize,
    pub subnet: String,
    /// How long an instance is new.
    pub warmup: Duration,
    /// What the group wants, and when that last grew.
    desired: u32,
    grown_at: Option<Timestamp>,
    /// Since when each instance serves.
    served: BTreeMap<Ec2InstanceId, Timestamp>,
    machines: BTreeMap<Ec2InstanceId, MachineState>,
    /// Tasks that were not STOPPED.
    live: BTreeSet<TaskKey>,
}

/// The tasks on a machine that have not ended.
fn tasks_on<'a>(state: &'a ScopeState, id: &'a Ec2InstanceId) -> impl Iterator<Item = &'a Task> {
    let text = id.to_string();
    let on = move |task: &&Task| {
        let instance = task.instance.as_ref().and_then(|key| state.ecs.container_instance(key));
        instance.is_some_and(|instance| instance.ec2_instance_id.as_deref() == Some(text.as_str()))
    };
    state.ecs.tasks().values().map(AsRef::as_ref).filter(|task: &&Task| task.is_live()).filter(on)
}

impl Judge {
    /// A new process has read what was stored.
    pub fn follow_anew(&mut self, state: &ScopeState) {
        let instances = state.autoscaling.instances.values();
        self.machines = instances.map(|instance| (instance.id, instance.machine)).collect();
        let live = state.ecs.tasks().iter().filter(|(_, task)| task.is_live());
        self.live = live.map(|(key, _)| key.clone()).collect();
        let desired = state.autoscaling.groups.values().map(|group| group.desired).next().unwrap_or(0);
        if desired < self.desired {
            // What was lost with the process before did not happen.
            self.grown_at = None;
        }
        self.desired = desired;
    }

    /// What a step left.
    ///
    /// # Panics
    /// When something does not hold.
    pub fn follow(&mut self, now: Timestamp, state: &ScopeState) {
        self.check_size(now, state);
        for group in state.autoscaling.groups.values() {
            let (desired, counted) = (group.desired as usize, state.autoscaling.instances.values());
            assert!(
                (self.minimum..=MAX_SIZE).contains(&desired),
                "the group wants {desired}, of {} to {MAX_SIZE}",
                self.minimum
            );
            let counted = counted.filter(|instance| instance.state.counts()).count();
            assert!(counted <= MAX_SIZE, "{counted} instances count, of {MAX_SIZE}");
        }
        for instance in state.autoscaling.instances.values() {
            let was_well = self.machines.get(&instance.id) == Some(&MachineState::Running);
            if was_well && instance.machine == MachineState::Unwanted && instance.failure.is_none() {
                let here = tasks_on(state, &instance.id);
                let here: Vec<_> =
                    here.map(|task| (task.id, task.desired_status, task.last_status)).collect();
                assert!(here.is_empty(), "{instance:?} is taken away with its tasks: {here:?}");
            }
            let cpu = tasks_on(state, &instance.id).count() as u64 * TASK_CPU;
            assert!(cpu <= MACHINE_CPU, "{} holds {cpu} CPU units of {MACHINE_CPU}", instance.id);
        }
        let on_pool = |task: &Task| {
            task.is_live() && task.instance.as_ref().is_some_and(|host| host.cluster.as_str() == FARGATE_POOL)
        };
        let thin = state.ecs.tasks().values().filter(|task| on_pool(task)).count() as u64 * FARGATE_CPU;
        assert!(thin <= POOL_CPU, "the pool holds {thin} CPU units of {POOL_CPU}");
        self.follow_anew(state);
    }

    /// A group shrinks once less has been needed for a while, and none of its instances is new.
    fn check_size(&mut self, now: Timestamp, state: &ScopeState) {
        let serving =
            state.autoscaling.instances.values().filter(|one| one.state == LifecycleState::InService);
        let serving: BTreeSet<Ec2InstanceId> = serving.map(|one| one.id).collect();
        self.served.retain(|id, _| serving.contains(id));
        for id in &serving {
            self.served.entry(*id).or_insert(now);
        }
        let Some(group) = state.autoscaling.groups.values().next() else { return };
        if group.desired > self.desired {
            self.grown_at = Some(now);
        } else if group.desired < self.desired {
            let patience = self.grown_at.map(|at| now.since(at));
            assert!(
                patience.is_none_or(|patience| patience >= PATIENCE),
                "the group shrinks to {} of {} {patience:?} after it grew",
                group.desired,
                self.desired
            );
            let new = self.served.iter().find(|(_, since)| **since + self.warmup > now);
            assert!(new.is_none(), "the group shrinks to {} while {new:?} is new: {now:?}", group.desired);
        }
    }

    /// Whether a task had not ended before the last step.
    pub fn was_live(&self, key: &TaskKey) -> bool {
        self.live.contains(key)
    }
}

/// The tasks of a new service are shared between its providers as ECS documents it: the base first, the rest by weights.
///
/// # Panics
/// When they are not.
pub fn check_split(state: &ScopeState, count: usize, base: usize, weights: [usize; 2]) {
    let of = |name: &str| {
        let of = |task: &&std::sync::Arc<Task>| {
            task.is_live() && task.capacity_provider.as_ref().is_some_and(|known| known.as_str() == name)
        };
        state.ecs.tasks().values().filter(of).count()
    };
    let (own, spot) = (of("FARGATE"), of("FARGATE_SPOT"));
    // The first task of a service may have to tell what its images' tags stand for; these are pinned.
    assert_eq!(own + spot, count, "{own} and {spot} tasks of {count}");
    assert!(own >= base.min(count), "{own} tasks of {count}, of which {base} are the base");
    let rest = count.saturating_sub(base);
    let exact = rest * weights[0];
    let has = own.saturating_sub(base) * (weights[0] + weights[1]);
    // Nearer than one task to the exact share.
    assert!(
        has.abs_diff(exact) < weights[0] + weights[1],
        "{own} and {spot} tasks by {weights:?} beyond {base}"
    );
}

impl Metal {
    /// Everything has come right: all tasks run, and nothing is there that nobody needs.
    pub(super) fn judge_the_end(&self) {
        let state = self.head();
        state.check_invariants();
        let live: Vec<_> = state.ecs.tasks().values().filter(|task| task.is_live()).collect();
        for task in &live {
            let statuses = (task.last_status, task.desired_status);
            let told = (task.id, &task.group, &task.capacity_provider, task.created_at, &task.instance);
            assert_eq!(statuses, (LastStatus::Running, DesiredStatus::Running), "{told:?} at {:?}", self.now);
        }
        let mut needed = 0;
        for service in state.ecs.services().values() {
            let running = live
                .iter()
                .filter(|task| task.service_key() == Some(gantry_store::Record::key(service.as_ref())));
            let (running, desired) = (running.count(), service.desired_count as usize);
            // What the group can be has a limit.
            let most = if service.name.as_str() == "app" { MAX_SIZE * 4 } else { 8 };
            assert_eq!(running, desired.min(most), "{} has {running} tasks of {desired}", service.name);
            if service.name.as_str() == "app" {
                needed = running.div_ceil(4);
            }
        }
        for group in state.autoscaling.groups.values() {
            let desired = group.desired as usize;
            let serving = state.autoscaling.instances.values().filter(|instance| instance.state.counts());
            assert_eq!(serving.count(), desired, "the group does not have what it wants");
            for instance in state.autoscaling.instances.values().filter(|instance| instance.state.counts()) {
                let runs = self.machines.get(&instance.id).is_some_and(Machine::runs);
                assert!(runs, "the group counts {instance:?}, whose machine is gone");
            }
            assert!(desired >= needed, "{desired} machines for tasks of {needed}");
            if needed == 0 {
                assert_eq!(desired, self.judge.minimum, "nothing needs them, and they stay");
            }
        }
        let wanted: BTreeSet<Ec2InstanceId> =
            state.autoscaling.instances.values().map(|one| one.id).collect();
        let stray: Vec<_> = self.machines.keys().filter(|id| !wanted.contains(*id)).collect();
        assert!(stray.is_empty(), "{stray:?} run for nobody");
        for machine in self.machines.values() {
            let on_host = machine.agent.tasks.len();
            assert!(on_host <= 4, "{on_host} tasks run on a machine for 4");
        }
    }

    /// A spot task that is told to go ends by its agent's word, not before.
    pub(super) fn judge_warnings(&self, state: &ScopeState) {
        for (key, task) in state.ecs.tasks().iter() {
            let spot =
                matches!(task.stop_code, Some(StopCode::TerminationNotice | StopCode::SpotInterruption));
            let ended = spot && !task.is_live() && self.judge.was_live(key) && task.sent;
            let on_pool = task.instance.as_ref().is_some_and(|host| host.cluster.as_str() == FARGATE_POOL);
            let arn = task.arn(&self.scope).to_string();
            assert!(
                !(ended && on_pool && self.pool.tasks.contains_key(&arn)),
                "{key} was taken away before its two minutes were over: {}",
                task.stopped_reason.as_deref().unwrap_or_default()
            );
        }
    }
}
