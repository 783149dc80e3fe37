//! What ECS does with the Auto Scaling groups of capacity providers: it makes them larger and smaller by what tasks
//! need, protects instances that have tasks, and drains those that are about to go.

use super::{Controller, LookAgain};
use crate::services::autoscaling::links as groups;
use crate::services::autoscaling::state::AutoScalingGroup;
use crate::services::ecs::capacity::{self, GROUP_ATTRIBUTE};
use crate::services::ecs::state::{
    AutoScalingGroupProvider, CapacityProvider, ContainerInstance, ContainerInstanceKey,
    ContainerInstanceStatus, ScalingProgress, SchedulingStrategy, Task,
};
use crate::state::Change;
use crate::tx::{Tx, View};
use gantry_decide::capacity::managed_scaling::{self, Facts, Progress, SCALE_IN_AFTER};
use gantry_decide::capacity::reservation::{Situation, Size, Waiting};
use gantry_decide::ids::{
    AutoScalingGroupName, CapacityProviderName, ClusterName, Ec2InstanceId, LifecycleHookName,
};
use gantry_decide::mutant;
use gantry_decide::placement::{Constraint, Request};
use gantry_decide::random::Random;
use gantry_decide::time::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// The hook by which ECS holds instances until they are drained: ECS's name for it.
const DRAINING_HOOK: &str = "ecs-managed-draining-termination-hook";
/// A tag of a provider that says for how many seconds fewer instances must be needed before some go, where ECS's
/// fifteen minutes are too long: machines of one's own cost nothing to try with.
const SCALE_IN_TAG: &str = "gantry.scale-in-after";
/// How long before its end a hook's heartbeat is renewed.
const HEARTBEAT_MARGIN: Duration = Duration::from_secs(600);

/// See the module.
pub struct ManagedScaling;

/// What a provider's group needs now.
#[derive(Debug, Default, PartialEq)]
pub struct Plan {
    group: Option<AutoScalingGroupName>,
    /// Whether the hook is to be there, where that is not so.
    hook: Option<bool>,
    mark: bool,
    desired: Option<u32>,
    progress: Option<ScalingProgress>,
    protect: Vec<(Ec2InstanceId, bool)>,
    drain: Vec<ContainerInstanceKey>,
    let_go: Vec<Ec2InstanceId>,
    hold_on: Vec<Ec2InstanceId>,
}

impl Controller for ManagedScaling {
    const NAME: &'static str = "managed-scaling";
    type Key = CapacityProviderName;
    type Plan = Plan;

    fn watches(view: View<'_>, change: &Change, keys: &mut BTreeSet<CapacityProviderName>) {
        let ecs = &view.state.ecs;
        if ecs.capacity_providers.is_empty() {
            return;
        }
        let mut of_cluster = |name: &ClusterName| {
            if let Some(cluster) = ecs.clusters.get(name) {
                let own = cluster.capacity_providers.iter();
                keys.extend(own.filter(|name| ecs.capacity_providers.contains_key(name)).cloned());
            }
        };
        match change {
            Change::Task(key) => of_cluster(&key.cluster),
            Change::ContainerInstance(key) => of_cluster(&key.cluster),
            Change::Cluster(name) => of_cluster(name),
            Change::CapacityProvider(name) => {
                keys.insert(name.clone());
            }
            Change::AutoScalingGroup(name) => {
                let of_group = |provider: &CapacityProvider| {
                    let settings = provider.kind.auto_scaling_group();
                    settings.is_some_and(|settings| settings.group_name() == name.as_str())
                };
                let all = ecs.capacity_providers.values().filter(|provider| of_group(provider));
                keys.extend(all.map(|provider| provider.name.clone()));
            }
            _ => {}
        }
    }

    fn all(view: View<'_>) -> Vec<CapacityProviderName> {
        view.state.ecs.capacity_providers.iter().map(|(name, _)| name.clone()).collect()
    }

    fn plan(
        view: View<'_>,
        name: &CapacityProviderName,
        _random: &mut dyn Random,
    ) -> (Option<Plan>, LookAgain) {
        let Some(provider) = view.state.ecs.capacity_providers.get(name) else { return (None, None) };
        let Some(settings) = provider.kind.auto_scaling_group() else { return (None, None) };
        let Some(group) = groups::group(view, &settings.group).filter(|group| !group.deleting) else {
            return (None, None);
        };
        let cluster = view.state.ecs.clusters.values().find(|cluster| {
            cluster.is_active() && provider.is_active() && cluster.capacity_providers.contains(name)
        });
        let hosts = hosts(view, group);
        let mut plan = Plan { group: Some(group.name.clone()), ..Plan::default() };
        let mut again = draining(view, group, &hosts, &mut plan);
        let drains = cluster.is_some() && settings.managed_draining;
        let has_hook = group.hooks.contains_key(&draining_hook());
        plan.hook = (drains != has_hook).then_some(drains);
        if let Some(cluster) = cluster {
            let manages = settings.managed_scaling.enabled || settings.managed_draining;
            plan.mark = manages && !group.tags.contains_key(groups::MANAGED_TAG);
            if settings.managed_termination_protection {
                protection(view, group, &hosts, &mut plan);
            }
            if settings.managed_scaling.enabled {
                let look = scaling(view, (provider, settings), group, (&cluster.name, &hosts), &mut plan);
                again = [again, look].into_iter().flatten().min();
            }
        }
        let nothing = Plan { group: Some(group.name.clone()), ..Plan::default() };
        ((plan != nothing).then_some(plan), again)
    }

    fn apply(tx: &mut Tx<'_>, name: &CapacityProviderName, plan: Plan) {
        let Some(group) = plan.group else { return };
        let hook = draining_hook();
        if plan.mark {
            groups::mark_managed(tx, &group);
        }
        if let Some(hold) = plan.hook {
            groups::hold_terminations(tx, &group, &hook, hold);
        }
        for (id, protected) in plan.protect {
            groups::protect(tx, id, protected);
        }
        for key in plan.drain {
            if let Some(mut instance) = tx.state.ecs.container_instance(&key).cloned() {
                instance.status = ContainerInstanceStatus::Draining;
                instance.version += 1;
                tx.state.ecs.put_container_instance(instance);
            }
        }
        for id in plan.let_go {
            groups::let_go(tx, id, &hook);
        }
        for id in plan.hold_on {
            groups::hold_on(tx, id, &hook);
        }
        if let Some(desired) = plan.desired {
            let reason = format!(
                "a monitor alarm in state ALARM triggered policy ECSManagedAutoScalingPolicy of the capacity provider \
                 {name}"
            );
            groups::set_desired(tx, &group, desired, &reason);
        }
        if let Some(progress) = plan.progress {
            tx.state.ecs.capacity_providers.edit(name, |provider| provider.scaling = progress);
        }
    }
}

fn draining_hook() -> LifecycleHookName {
    DRAINING_HOOK.parse().expect("it is a hook's name")
}

/// A group's container instances, by their machines. Those of a machine that joined several clusters are several.
type Hosts<'a> = BTreeMap<&'a str, Vec<&'a ContainerInstance>>;

fn hosts<'a>(view: View<'a>, group: &AutoScalingGroup) -> Hosts<'a> {
    let mut hosts = Hosts::new();
    for instance in view.state.ecs.container_instances().values() {
        let own = instance.attribute(GROUP_ATTRIBUTE) == Some(group.name.as_str());
        let gone = instance.status == ContainerInstanceStatus::Inactive;
        if let (true, false, Some(machine)) = (own, gone, instance.ec2_instance_id.as_deref()) {
            hosts.entry(machine).or_default().push(instance);
        }
    }
    hosts
}

fn is_daemon(view: View<'_>, task: &Task) -> bool {
    let service = task.service_key().and_then(|key| view.state.ecs.service(&key));
    service.is_some_and(|service| service.scheduling_strategy == SchedulingStrategy::Daemon)
}

/// Whether tasks run there that are no daemon's.
fn is_busy(view: View<'_>, hosts: &[&ContainerInstance]) -> bool {
    let tasks = |instance: &&ContainerInstance| {
        let key = ContainerInstanceKey { cluster: instance.cluster.clone(), id: instance.id };
        view.state.ecs.tasks_on(&key).any(|task| !is_daemon(view, task))
    };
    hosts.iter().any(tasks)
}

/// Instances that the hook holds go once they have no tasks.
fn draining(
    view: View<'_>,
    group: &AutoScalingGroup,
    hosts: &Hosts<'_>,
    plan: &mut Plan,
) -> Option<Timestamp> {
    let hook = draining_hook();
    let mut again: Option<Timestamp> = None;
    for instance in view.state.autoscaling.instances_of(&group.name) {
        let Some(wait) = instance.waits.get(&hook) else { continue };
        let id = instance.id.to_string();
        let here = hosts.get(id.as_str()).map(Vec::as_slice).unwrap_or_default();
        let active = here.iter().filter(|host| host.status == ContainerInstanceStatus::Active);
        plan.drain
            .extend(active.map(|host| ContainerInstanceKey { cluster: host.cluster.clone(), id: host.id }));
        if !is_busy(view, here) || mutant::is("machines go with their tasks") {
            plan.let_go.push(instance.id);
        } else if wait.until < wait.at_last {
            let renew = wait.until - HEARTBEAT_MARGIN;
            if renew <= view.now {
                plan.hold_on.push(instance.id);
            } else {
                again = Some(again.map_or(renew, |other| other.min(renew)));
            }
        }
    }
    again
}

/// Instances are protected as long as they may have tasks: also those that have yet to join.
fn protection(view: View<'_>, group: &AutoScalingGroup, hosts: &Hosts<'_>, plan: &mut Plan) {
    for instance in groups::counted(&view.state.autoscaling, group) {
        let here = hosts.get(instance.id.to_string().as_str());
        let protected = here.is_none_or(|here| is_busy(view, here)) && !mutant::is("protection forgotten");
        if protected != instance.protected {
            plan.protect.push((instance.id, protected));
        }
    }
}

/// What the group should be.
fn scaling(
    view: View<'_>,
    (provider, settings): (&CapacityProvider, &AutoScalingGroupProvider),
    group: &AutoScalingGroup,
    (cluster, hosts): (&ClusterName, &Hosts<'_>),
    plan: &mut Plan,
) -> Option<Timestamp> {
    let managed = settings.managed_scaling;
    let warmup = Duration::from_secs(u64::from(managed.warmup));
    let (mut there, mut busy, mut warm_at) = (0, 0, None::<Timestamp>);
    let mut smallest: Option<Size> = None;
    for instance in groups::counted(&view.state.autoscaling, group) {
        let here = hosts.get(instance.id.to_string().as_str()).map(Vec::as_slice).unwrap_or_default();
        there += 1;
        busy += usize::from(is_busy(view, here));
        // An instance that was never in service is new from now on.
        let warm = instance.in_service_at.unwrap_or(view.now) + warmup;
        warm_at = warm_at.max(Some(warm).filter(|warm| *warm > view.now));
        for size in here.iter().map(|host| offered(view, host)) {
            smallest = Some(smallest.map_or(size, |known| known.min(size)));
        }
    }
    let situation = Situation {
        instances: there,
        busy,
        instance: smallest,
        waiting: waiting(view, cluster, &provider.name),
        steps: (managed.minimum_step, managed.maximum_step),
    };
    let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    let facts = Facts {
        minimum: group.min_size,
        maximum: group.max_size,
        desired: group.desired,
        needed: count(situation.needed()),
        there: count(there),
        target: managed.target_capacity,
        maximum_step: managed.maximum_step,
        warm_at,
        scale_in_after: scale_in_after(provider),
    };
    let ScalingProgress { low_since, stepped_at } = provider.scaling;
    let decision = managed_scaling::decide(facts, Progress { low_since, stepped_at }, view.now);
    plan.desired = decision.desired;
    let Progress { low_since, stepped_at } = decision.progress;
    let progress = ScalingProgress { low_since, stepped_at };
    plan.progress = (progress != provider.scaling).then_some(progress);
    decision.again
}

fn scale_in_after(provider: &CapacityProvider) -> Duration {
    let told = provider.tags.get(SCALE_IN_TAG).and_then(|text| text.parse().ok());
    told.map_or(SCALE_IN_AFTER, Duration::from_secs)
}

/// What an instance has for tasks that are no daemon's.
fn offered(view: View<'_>, host: &ContainerInstance) -> Size {
    let key = ContainerInstanceKey { cluster: host.cluster.clone(), id: host.id };
    let mut size = Size {
        cpu: host.registered.cpu,
        memory: host.registered.memory,
        gpus: u32::try_from(host.registered.gpus.len()).unwrap_or(u32::MAX),
    };
    for daemon in view.state.ecs.tasks_on(&key).filter(|task| is_daemon(view, task)) {
        let request = capacity::request_of(view, daemon);
        size.cpu = size.cpu.saturating_sub(request.cpu);
        size.memory = size.memory.saturating_sub(request.memory);
        size.gpus = size.gpus.saturating_sub(request.gpus);
    }
    size
}

/// The tasks that wait for a provider's instances, alike ones together.
fn waiting(view: View<'_>, cluster: &ClusterName, provider: &CapacityProviderName) -> Vec<Waiting> {
    let mut groups: Vec<(Request, usize)> = Vec::new();
    for task in view.state.ecs.waiting_in(cluster) {
        if task.capacity_provider.as_ref() != Some(provider) {
            continue;
        }
        let request = capacity::request_of(view, task);
        match groups.iter_mut().find(|(known, _)| *known == request) {
            Some((_, count)) => *count += 1,
            None => groups.push((request, 1)),
        }
    }
    let group = |(request, count): (Request, usize)| Waiting {
        size: Size { cpu: request.cpu, memory: request.memory, gpus: request.gpus },
        count,
        apart: !request.ports.is_empty() || request.constraints.contains(&Constraint::DistinctInstance),
    };
    groups.into_iter().map(group).collect()
}

#[cfg(test)]
mod tests;
