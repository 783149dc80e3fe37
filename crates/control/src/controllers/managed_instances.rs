//! Capacity providers of Managed Instances: makes machines for tasks that wait, lets those go that have had none for a
//! while or are too old, and replaces what failed. Who makes machines is an instance provider's business (`machines.rs`).

use super::{Controller, LookAgain};
use crate::services::ec2;
use crate::services::ecs::capacity::{self, PROVIDER_ATTRIBUTE};
use crate::services::ecs::daemons;
use crate::services::ecs::links;
use crate::services::ecs::state::{
    CapacityProvider, ContainerInstanceKey, ContainerInstanceStatus, ManagedInstance,
    ManagedInstancesProvider, Task, TaskKey,
};
use crate::state::Change;
use crate::tx::{Tx, View};
use gantry_decide::capacity::managed_instances::{Offer, Requirements, launches};
use gantry_decide::capacity::reservation::{Size, Waiting};
use gantry_decide::ids::{CapacityProviderName, ClusterName, Ec2InstanceId};
use gantry_decide::lifecycle::{DesiredStatus, StopCode};
use gantry_decide::placement::{Constraint, Refusal, Request};
use gantry_decide::random::Random;
use gantry_decide::scaling::lifecycle::MachineState;
use gantry_decide::time::Timestamp;
use gantry_store::Record;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How long a machine without tasks is kept, unless the provider says: ECS publishes no figure.
const SCALE_IN_AFTER: Duration = Duration::from_secs(300);
/// After so long ECS drains an instance, to replace it by one with a newer system.
const AGE_MAX: Duration = Duration::from_secs(14 * 24 * 3600);
/// How long a machine that runs may take to join its cluster.
const JOIN_MAX: Duration = Duration::from_secs(600);
/// How long its daemons may take, each of which has half of it.
const REGISTER_MAX: Duration = Duration::from_secs(1800);
/// Before the next machine is made after one that could not be.
const AFTER_FAILURE: Duration = Duration::from_secs(30);
/// Machines made in one round; the next follows when tasks still wait.
const LAUNCHES_MAX: usize = 20;

/// See the module.
pub struct ManagedInstances;

/// What a provider's machines need now.
#[derive(Debug, Default, PartialEq)]
pub struct Plan {
    /// Types of machines to make, each with where.
    launch: Vec<(String, Place)>,
    drain: Vec<Ec2InstanceId>,
    /// Instances whose daemons run: from now on they take other tasks.
    activate: Vec<ContainerInstanceKey>,
    /// Daemons' tasks, on instances that have no other any more and go.
    stop: Vec<TaskKey>,
    /// Machines to destroy, with why where they failed.
    destroy: Vec<(Ec2InstanceId, Option<String>)>,
    forget: Vec<Ec2InstanceId>,
    /// Machines that came to have no task, or have one again.
    idle: Vec<(Ec2InstanceId, Option<Timestamp>)>,
    works: bool,
}

/// Where a machine is.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    zone: String,
    subnet: Option<String>,
}

impl Controller for ManagedInstances {
    const NAME: &'static str = "managed-instances";
    type Key = CapacityProviderName;
    type Plan = Plan;

    fn watches(view: View<'_>, change: &Change, keys: &mut BTreeSet<CapacityProviderName>) {
        let ecs = &view.state.ecs;
        if ecs.capacity_providers.is_empty() && ecs.managed_instances.is_empty() {
            return;
        }
        let mut of_cluster = |name: &ClusterName| {
            let own = |provider: &CapacityProvider| {
                provider.kind.managed_instances().is_some_and(|settings| settings.cluster == *name)
            };
            let providers = ecs.capacity_providers.values().filter(|provider| own(provider));
            keys.extend(providers.map(|provider| provider.name.clone()));
        };
        match change {
            Change::Task(key) => of_cluster(&key.cluster),
            Change::ContainerInstance(key) => of_cluster(&key.cluster),
            Change::CapacityProvider(name) => {
                keys.insert(name.clone());
            }
            Change::ManagedInstance(id) => {
                keys.extend(ecs.managed_instances.get(id).map(|instance| instance.provider.clone()));
            }
            _ => {}
        }
    }

    fn all(view: View<'_>) -> Vec<CapacityProviderName> {
        let ecs = &view.state.ecs;
        let providers = ecs.capacity_providers.values();
        let own = providers.filter(|provider| provider.kind.managed_instances().is_some());
        let own = own.map(|provider| provider.name.clone());
        // A provider that was deleted may have machines left.
        let left = ecs.managed_instances.values().map(|instance| instance.provider.clone());
        own.chain(left).collect::<BTreeSet<_>>().into_iter().collect()
    }

    fn plan(view: View<'_>, name: &CapacityProviderName, _: &mut dyn Random) -> (Option<Plan>, LookAgain) {
        let provider = view.state.ecs.capacity_providers.get(name).filter(|provider| provider.is_active());
        let settings = provider.and_then(|provider| provider.kind.managed_instances());
        let mut look = Look { view, settings, plan: Plan::default(), room: Vec::new(), again: None };
        let instances = view.state.ecs.managed_instances.values().map(AsRef::as_ref);
        let instances: Vec<&ManagedInstance> =
            instances.filter(|instance: &&ManagedInstance| instance.provider == *name).collect();
        for instance in &instances {
            look.at(instance);
        }
        if let Some(settings) = settings {
            look.plan.works = settings.failure.is_some() && look.works(&instances);
            look.grow(name, settings);
        }
        ((look.plan != Plan::default()).then_some(look.plan), look.again)
    }

    fn apply(tx: &mut Tx<'_>, name: &CapacityProviderName, plan: Plan) {
        for (id, since) in plan.idle {
            tx.state.ecs.managed_instances.edit(&id, |instance| instance.idle_since = since);
        }
        for id in plan.drain {
            links::drain_machine(tx, id);
        }
        for key in plan.activate {
            activate(tx, &key);
        }
        for key in plan.stop {
            stop(tx, &key);
        }
        let mut failure = None;
        for (id, why) in plan.destroy {
            failure = why.or(failure);
            links::drain_machine(tx, id);
            tx.state.ecs.managed_instances.edit(&id, |instance| instance.machine = MachineState::Unwanted);
        }
        for id in plan.forget {
            links::machine_is_gone(tx, &id.to_string());
            tx.state.ecs.managed_instances.remove(&id);
        }
        if failure.is_some() || plan.works {
            let failure = failure.map(|why| (tx.now, why));
            tx.state.ecs.capacity_providers.edit(name, |provider| {
                if let Some(settings) = provider.kind.managed_instances_mut() {
                    settings.failure = failure;
                }
            });
        }
        let provider = tx.state.ecs.capacity_providers.get(name);
        let Some(cluster) = provider.and_then(|p| p.kind.managed_instances()).map(|s| s.cluster.clone())
        else {
            return;
        };
        for (instance_type, place) in plan.launch {
            tx.state.ecs.managed_instances.put(ManagedInstance {
                id: Ec2InstanceId::random(tx.random),
                cluster: cluster.clone(),
                provider: name.clone(),
                machine: MachineState::Wanted,
                instance_type,
                zone: place.zone,
                subnet: place.subnet,
                launched_at: tx.now,
                running_at: None,
                idle_since: None,
                failure: None,
                daemons: BTreeMap::new(),
            });
        }
    }
}

fn activate(tx: &mut Tx<'_>, key: &ContainerInstanceKey) {
    let Some(mut host) = tx.state.ecs.container_instance(key).cloned() else { return };
    if host.status == ContainerInstanceStatus::Registering {
        host.status = ContainerInstanceStatus::Active;
        host.version += 1;
        tx.state.ecs.put_container_instance(host);
    }
}

/// Stops a daemon's task, the last on its instance.
fn stop(tx: &mut Tx<'_>, key: &TaskKey) {
    let Some(mut task) = tx.state.ecs.task(key).cloned() else { return };
    if task.request_stop(StopCode::ServiceSchedulerInitiated, "Its container instance is replaced.", tx.now) {
        tx.state.ecs.put_task(task);
    }
}

/// One look at a provider.
struct Look<'a> {
    view: View<'a>,
    /// None of a provider that was deleted.
    settings: Option<&'a ManagedInstancesProvider>,
    plan: Plan,
    /// What machines offer that are coming or have no task.
    room: Vec<Size>,
    again: LookAgain,
}

impl Look<'_> {
    fn again(&mut self, at: Timestamp) {
        self.again = Some(self.again.map_or(at, |known| known.min(at)));
    }

    fn at(&mut self, instance: &ManagedInstance) {
        match instance.machine {
            MachineState::Wanted if self.settings.is_none() => self.plan.destroy.push((instance.id, None)),
            MachineState::Wanted => self.room.extend(offered(&instance.instance_type)),
            MachineState::Running => self.at_running(instance),
            // Half a machine is of no use.
            MachineState::Failed => self.plan.destroy.push((instance.id, instance.failure.clone())),
            MachineState::Unwanted => {}
            MachineState::Gone => self.plan.forget.push(instance.id),
        }
    }

    fn at_running(&mut self, instance: &ManagedInstance) {
        let (view, machine) = (self.view, instance.id.to_string());
        let Some(host) = links::on_machine(view, &machine).find(|host| host.cluster == instance.cluster)
        else {
            let until = instance.running_at.unwrap_or(view.now) + JOIN_MAX;
            if until <= view.now {
                let why = format!("The machine {machine} did not join its cluster within 10 minutes.");
                return self.plan.destroy.push((instance.id, Some(why)));
            }
            self.room.extend(offered(&instance.instance_type));
            return self.again(until);
        };
        let key = host.key();
        let tasks = || view.state.ecs.tasks_on(&key);
        // Daemons keep no instance: they go with it.
        let busy = tasks().any(|task| task.daemon_name().is_none());
        let old = instance.launched_at + AGE_MAX;
        let broken = self.settings.is_some_and(|settings| settings.repairs) && host.lost_at.is_some();
        let takes =
            matches!(host.status, ContainerInstanceStatus::Active | ContainerInstanceStatus::Registering);
        if self.settings.is_none() || old <= view.now || broken || !takes {
            if takes {
                self.plan.drain.push(instance.id);
            }
            if busy {
                return;
            }
            let running = |task: &&Task| task.desired_status == DesiredStatus::Running;
            self.plan.stop.extend(tasks().filter(running).map(TaskKey::from));
            if broken || tasks().next().is_none() {
                self.plan.destroy.push((instance.id, None));
            }
            return;
        }
        if host.status == ContainerInstanceStatus::Registering {
            if instance.daemons.values().all(|slot| slot.state.is_settled(slot.critical)) {
                self.plan.activate.push(host.key());
            }
            let until = host.registered_at + REGISTER_MAX;
            if until <= view.now {
                let why =
                    format!("The daemons of the machine {machine} did not come to run within 30 minutes.");
                return self.plan.destroy.push((instance.id, Some(why)));
            }
            self.room.extend(offered(&instance.instance_type));
            return self.again(until);
        }
        self.again(old);
        if busy {
            if instance.idle_since.is_some() {
                self.plan.idle.push((instance.id, None));
            }
            return;
        }
        let since = instance.idle_since.unwrap_or(view.now);
        if instance.idle_since.is_none() {
            self.plan.idle.push((instance.id, Some(since)));
        }
        match self.settings.and_then(patience).map(|patience| since + patience) {
            Some(until) if until <= view.now => self.plan.drain.push(instance.id),
            until => {
                let registered = &host.registered;
                self.room.push(Size { cpu: registered.cpu, memory: registered.memory, gpus: 0 });
                if let Some(until) = until {
                    self.again(until);
                }
            }
        }
    }

    /// Whether a machine has run since the last failure.
    fn works(&self, instances: &[&ManagedInstance]) -> bool {
        let failed = self.settings.and_then(|settings| settings.failure.as_ref()).map(|(at, _)| *at);
        instances.iter().any(|instance| instance.running_at > failed)
    }

    /// Makes machines for what waits and has no room.
    fn grow(&mut self, name: &CapacityProviderName, settings: &ManagedInstancesProvider) {
        let waiting = waiting(self.view, name, settings);
        if waiting.is_empty() {
            return;
        }
        let fails_now = self.plan.destroy.iter().any(|(_, why)| why.is_some());
        let failed = match &settings.failure {
            _ if fails_now => Some(self.view.now),
            Some((failed, _)) if !self.plan.works => Some(*failed),
            _ => None,
        };
        if let Some(at) = failed.map(|failed| failed + AFTER_FAILURE).filter(|at| *at > self.view.now) {
            return self.again(at);
        }
        // What daemons need of each is not for others.
        let taken = daemons::reserved(self.view, name);
        let room: Vec<Size> = self.room.iter().map(|room| without(*room, taken)).collect();
        let offers = offers(settings).into_iter();
        let offers: Vec<Offer> =
            offers.map(|offer| Offer { size: without(offer.size, taken), ..offer }).collect();
        let types = launches(&waiting, &room, &offers, LAUNCHES_MAX);
        let mut places = places(self.view, name, settings);
        for instance_type in types {
            let Some((place, count)) = places.iter_mut().min_by_key(|(_, count)| *count) else { return };
            *count += 1;
            self.plan.launch.push((instance_type, place.clone()));
        }
    }
}

fn without(size: Size, taken: Size) -> Size {
    Size {
        cpu: size.cpu.saturating_sub(taken.cpu),
        memory: size.memory.saturating_sub(taken.memory),
        gpus: size.gpus.saturating_sub(taken.gpus),
    }
}

/// How long a machine without tasks is kept; `None` for ever.
fn patience(settings: &ManagedInstancesProvider) -> Option<Duration> {
    match settings.scale_in_after {
        None => Some(SCALE_IN_AFTER),
        Some(seconds) => u64::try_from(seconds).ok().map(Duration::from_secs),
    }
}

/// The types of machines that a provider may make.
pub fn offers(settings: &ManagedInstancesProvider) -> Vec<Offer> {
    settings.requirements.as_ref().unwrap_or(&Requirements::default()).offers()
}

/// What a machine of a type will offer.
fn offered(instance_type: &str) -> Option<Size> {
    let named = Requirements { allowed: vec![instance_type.to_owned()], ..Requirements::default() };
    named.offers().into_iter().next().map(|offer| offer.size)
}

/// The tasks that wait for a provider's machines, alike ones together. Those are left out that its machines refuse for
/// what no other machine of it would have either.
fn waiting(view: View<'_>, name: &CapacityProviderName, settings: &ManagedInstancesProvider) -> Vec<Waiting> {
    let mut groups: Vec<(Request, usize)> = Vec::new();
    for task in view.state.ecs.waiting_in(&settings.cluster) {
        if task.capacity_provider.as_ref() != Some(name) {
            continue;
        }
        let request = capacity::request_of(view, task);
        match groups.iter_mut().find(|(known, _)| *known == request) {
            Some((_, count)) => *count += 1,
            None => groups.push((request, 1)),
        }
    }
    let pool = view.state.ecs.pool(&settings.cluster);
    let own = |host: &gantry_decide::placement::Host| {
        host.profile.attributes.get(PROVIDER_ATTRIBUTE).and_then(Option::as_deref) == Some(name.as_str())
    };
    groups.retain(|(request, _)| {
        let mut refusals = pool.hosts().map(|(_, host)| host).filter(own).map(|host| host.refuses(request));
        !refusals.any(|refusal| matches!(refusal, Some(Refusal::Attribute | Refusal::MemberOf)))
    });
    let group = |(request, count): (Request, usize)| Waiting {
        size: Size { cpu: request.cpu, memory: request.memory, gpus: request.gpus },
        count,
        apart: !request.ports.is_empty() || request.constraints.contains(&Constraint::DistinctInstance),
    };
    groups.into_iter().map(group).collect()
}

/// Where machines may be, each with how many of the provider's are there.
fn places(
    view: View<'_>,
    name: &CapacityProviderName,
    settings: &ManagedInstancesProvider,
) -> Vec<(Place, usize)> {
    let seen = view.state.ec2.seen(view.scope);
    let subnets = settings.subnets.iter().filter_map(|text| ec2::links::subnet(&seen, text));
    let place = |subnet: &ec2::state::Subnet| Place {
        zone: subnet.zone.clone(),
        subnet: Some(subnet.id.to_string()),
    };
    let there = |place: &Place| {
        let own = view.state.ecs.managed_instances.values().filter(|instance| instance.provider == *name);
        own.filter(|instance| instance.zone == place.zone && instance.subnet == place.subnet).count()
    };
    subnets.map(place).map(|place| (place.clone(), there(&place))).collect()
}

#[cfg(test)]
mod tests;
