//! Where one more task could go now: what it needs, and what each instance lacks for it.

use super::words::count;
use super::{DETAILS_MAX, Explanation};
use crate::services::ec2;
use crate::services::ecs::capacity::{self, GROUP_ATTRIBUTE};
use crate::services::ecs::state::{ContainerInstanceKey, FARGATE_POOL, NetworkConfiguration, Service};
use crate::tx::View;
use gantry_decide::ids::ClusterName;
use gantry_decide::placement::{Protocol, Refusal, Request, Shortfall};
use std::collections::BTreeMap;

/// What came of asking every instance of a pool.
pub struct Room {
    pool: ClusterName,
    request: Request,
    /// Instances that take the task.
    pub fitting: usize,
    /// The others, those that lack the least first.
    refused: Vec<(ContainerInstanceKey, Vec<Shortfall>)>,
    /// Of those that are told, the ones where room is kept: for which DAEMON services.
    kept: BTreeMap<ContainerInstanceKey, String>,
}

/// Asks every instance of a pool for one more task.
pub fn survey(view: View<'_>, pool: ClusterName, request: Request) -> Room {
    let mut room = Room { pool, request, fitting: 0, refused: Vec::new(), kept: BTreeMap::new() };
    for (key, host) in capacity::open_to(view, &room.pool, &room.request.group).hosts() {
        let shortfalls = host.shortfalls(&room.request);
        if shortfalls.is_empty() {
            room.fitting += 1;
        } else {
            room.refused.push((key.clone(), shortfalls));
        }
    }
    // An instance that is only full comes closer than one of the wrong kind.
    room.refused
        .sort_by_key(|(_, lacks)| (lacks.iter().filter(|lack| !lack.is_of_room()).count(), lacks.len()));
    let full = room.refused.iter().filter(|(_, lacks)| lacks.iter().any(Shortfall::is_of_room));
    for (key, _) in full.take(DETAILS_MAX) {
        let host = view.state.ecs.pool(&key.cluster).host(key);
        let daemons = host.map(|host| capacity::kept_on(view, key, &host, &room.request.group));
        if let Some(daemons) = daemons.filter(|daemons| !daemons.is_empty()) {
            room.kept.insert(key.clone(), kept_for(&daemons));
        }
    }
    room
}

/// For whom room is kept, as the rest of a sentence.
pub fn kept_for(daemons: &[(&Service, Request)]) -> String {
    let each = daemons.iter().map(|(service, request)| {
        format!("{} for a task of the DAEMON service {}", needs(request), service.name)
    });
    format!("keeps {}", each.collect::<Vec<_>>().join(" and "))
}

impl Room {
    fn kept(&self, key: &ContainerInstanceKey) -> String {
        self.kept.get(key).map_or(String::new(), |kept| format!("; it {kept}"))
    }

    pub fn instances(&self) -> usize {
        self.fitting + self.refused.len()
    }

    fn noun(&self) -> &'static str {
        if self.pool.as_str() == FARGATE_POOL { "host of the Fargate pool" } else { "container instance" }
    }

    /// One sentence about all instances, with what the closest lacks.
    pub fn summary(&self) -> String {
        let closest = self.refused.first().filter(|_| self.fitting == 0).map(|(key, lacks)| {
            let lacks: Vec<String> = lacks.iter().map(ToString::to_string).collect();
            format!("; {} {}{}", key.id, lacks.join(" and "), self.kept(key))
        });
        self.outcome() + &closest.unwrap_or_default()
    }

    fn outcome(&self) -> String {
        match (self.fitting, self.instances()) {
            (0, 0) if self.pool.as_str() == FARGATE_POOL => "the Fargate pool has no host".to_owned(),
            (0, 0) => format!("no container instance is registered in the cluster {}", self.pool),
            (0, 1) => format!("the only {} cannot take the task", self.noun()),
            (0, all) => format!("none of the {all} {} can take the task", plural(self.noun())),
            (1, 1) => format!("the only {} can take the task", self.noun()),
            (fitting, all) => format!("{fitting} of {all} {} can take the task", plural(self.noun())),
        }
    }

    /// Tells what was found, and what would help.
    pub fn explain(&self, view: View<'_>, explanation: &mut Explanation) {
        let message = format!("One more task needs {}. Now {}.", needs(&self.request), self.outcome());
        let finding = explanation.find("placement", message);
        for (key, lacks) in self.refused.iter().take(DETAILS_MAX) {
            let lacks: Vec<String> = lacks.iter().map(ToString::to_string).collect();
            finding.details.push(format!("instance {} {}{}", key.id, lacks.join("; "), self.kept(key)));
        }
        let more = self.refused.len().saturating_sub(DETAILS_MAX);
        if more > 0 {
            let counts =
                self.counts().into_iter().map(|(refusal, count)| format!("{} {count}", refusal.reason()));
            let counts: Vec<String> = counts.collect();
            finding
                .details
                .push(format!("and {more} more. Of all, by what they lack: {}", counts.join(", ")));
        }
        if self.fitting == 0 {
            self.suggest(view, explanation);
        }
    }

    /// Instances by each thing that they lack; one that lacks several is in several counts.
    fn counts(&self) -> BTreeMap<Refusal, usize> {
        let mut counts = BTreeMap::new();
        for (_, lacks) in &self.refused {
            let mut kinds: Vec<Refusal> = lacks.iter().map(Shortfall::refusal).collect();
            kinds.sort();
            kinds.dedup();
            kinds.into_iter().for_each(|kind| *counts.entry(kind).or_default() += 1);
        }
        counts
    }

    fn suggest(&self, view: View<'_>, explanation: &mut Explanation) {
        if self.refused.is_empty() {
            let message = match self.pool.as_str() {
                FARGATE_POOL => {
                    "Join a host to the Fargate pool with `gantry agent`, or run `gantry up`.".to_owned()
                }
                cluster => {
                    format!("Register a container instance: `gantry agent` with the cluster {cluster}.")
                }
            };
            let group = self.request.attributes.get(GROUP_ATTRIBUTE).and_then(Option::as_deref);
            let joins = |group| format!("gantry agent --cluster {} --auto-scaling-group {group}", self.pool);
            return explanation.suggest(message, group.map(joins));
        }
        let Some((_, closest)) = self.refused.first() else { return };
        let only_room = closest.iter().all(Shortfall::is_of_room);
        let lacks = |refusal| closest.iter().any(|lack| lack.refusal() == refusal);
        if only_room && (lacks(Refusal::Cpu) || lacks(Refusal::Memory) || lacks(Refusal::Gpu)) {
            let message = match self.too_large_for_all(view) {
                Some(largest) => format!(
                    "The task is larger than any instance, even an empty one ({largest}): register a larger instance, or \
                     ask for less in the task definition."
                ),
                None => "Register another or a larger instance, stop tasks that are not needed, or ask for less in the \
                         task definition."
                    .to_owned(),
            };
            explanation.suggest(message, None);
        }
        if lacks(Refusal::Ports) {
            let message = "Use a dynamic host port (hostPort 0) or network mode awsvpc: a host port goes to one task of an \
                           instance.";
            explanation.suggest(message, None);
        }
        for lack in closest {
            match lack {
                Shortfall::Agent => explanation.suggest(
                    "Start the agent of the instance, or look at its log to see why it does not connect.",
                    None,
                ),
                Shortfall::Inactive if self.pool.as_str() == FARGATE_POOL => explanation.suggest(
                    "Join another host to the Fargate pool with `gantry agent`: one that drains is about to be taken away.",
                    None,
                ),
                Shortfall::Inactive => explanation.suggest(
                    "Set the instance to ACTIVE again, if it is to take tasks.",
                    None,
                ),
                Shortfall::Attribute { name, .. } if name.starts_with("gantry.not-carried") => explanation.suggest(
                    "The task definition asks for something that no agent does here; `aws ecs describe-task-definition` \
                     lists it in requiresAttributes.",
                    None,
                ),
                Shortfall::Attribute { name, wanted: Some(group), .. } if name == GROUP_ATTRIBUTE => explanation.suggest(
                    format!(
                        "The capacity provider takes instances of the Auto Scaling group {group} alone: raise the group's \
                         desired capacity, have managed scaling do so, or join a machine to it."
                    ),
                    format!("gantry agent --cluster {} --auto-scaling-group {group}", self.pool),
                ),
                Shortfall::Attribute { name, .. } => explanation.suggest(
                    format!("Run it on an agent that has {name}; requiresAttributes of the task definition says what for."),
                    None,
                ),
                Shortfall::MemberOf(_) => explanation.suggest(
                    "Give an instance the attributes that the constraint asks for (`aws ecs put-attributes`), or change \
                     the constraint.",
                    None,
                ),
                Shortfall::DistinctInstance { .. } => explanation
                    .suggest("Register as many instances as there are to be tasks, or drop distinctInstance.", None),
                Shortfall::Cpu { .. } | Shortfall::Memory { .. } | Shortfall::Port(..) | Shortfall::Gpu { .. } => {}
            }
        }
    }

    /// What the largest instance has when it is empty, if the task needs more than that of any.
    fn too_large_for_all(&self, view: View<'_>) -> Option<String> {
        let all = self.refused.iter().filter_map(|(key, _)| view.state.ecs.container_instance(key));
        let sizes: Vec<(u32, u32)> = all.map(|i| (i.registered.memory, i.registered.cpu)).collect();
        let fits = |(memory, cpu): &(u32, u32)| *memory >= self.request.memory && *cpu >= self.request.cpu;
        let (memory, cpu) = sizes.iter().max()?;
        (!sizes.iter().any(fits)).then(|| format!("the largest has {cpu} CPU units and {memory} MiB"))
    }
}

fn plural(noun: &str) -> String {
    match noun.split_once(' ') {
        Some(("host", rest)) => format!("hosts {rest}"),
        _ => format!("{noun}s"),
    }
}

/// What a task takes of an instance.
pub fn needs(request: &Request) -> String {
    let mut parts = vec![format!("{} CPU units", request.cpu), format!("{} MiB of memory", request.memory)];
    for (protocol, port) in &request.ports {
        let protocol = if *protocol == Protocol::Tcp { "TCP" } else { "UDP" };
        parts.push(format!("the host's {protocol} port {port}"));
    }
    if request.gpus > 0 {
        parts.push(count(request.gpus, "GPU"));
    }
    parts.join(", ")
}

/// Tells of subnets that have no address left, or that are no more. False if a task finds none.
pub fn addresses(view: View<'_>, network: &NetworkConfiguration, explanation: &mut Explanation) -> bool {
    let ec2 = view.state.ec2.seen(view.scope);
    let subnets = match ec2::links::networks(&ec2, &network.subnets, &network.security_groups) {
        Ok((subnets, _)) => subnets,
        Err(error) => {
            explanation.find("network", error.to_string());
            explanation.suggest(
                "Update the service or run the task with subnets and security groups that exist.",
                None,
            );
            return false;
        }
    };
    let free =
        |id: &str, usable: u32| (usable as usize).saturating_sub(view.state.ecs.interfaces().count_in(id));
    let left: Vec<(String, usize)> = subnets
        .iter()
        .map(|subnet| (subnet.id.to_string(), free(&subnet.id.to_string(), subnet.block.usable())))
        .collect();
    if left.iter().any(|(_, free)| *free > 0) {
        return true;
    }
    let finding = explanation.find("network", "No subnet of the task has an address left.");
    finding
        .details
        .extend(left.iter().take(DETAILS_MAX).map(|(id, _)| format!("{id}: all addresses are in use")));
    explanation
        .suggest("Add a subnet to the network configuration, or stop tasks that are not needed.", None);
    false
}
