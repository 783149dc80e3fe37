//! Whether an instance takes tasks, what is on it, and which services' tasks it does not take for what reason.

use super::words::{at, count};
use super::{DETAILS_MAX, Explanation, room};
use crate::controllers::services::one_more_task;
use crate::services::ecs::state::{ContainerInstance, ContainerInstanceStatus, Service, ServiceStatus, Task};
use crate::services::ecs::{capacity, placement};
use crate::tx::View;
use gantry_decide::placement::{Host, Request, Shortfall};
use gantry_store::Record;
use std::collections::BTreeMap;

/// Explains a container instance, or a host of the Fargate pool.
pub fn explain(view: View<'_>, instance: &ContainerInstance) -> Explanation {
    let key = instance.key();
    let tasks: Vec<&Task> = view.state.ecs.tasks_on(&key).collect();
    let host = placement::host(instance, tasks.iter().copied());
    let mut told =
        Explanation { verdict: verdict(view, instance, &host, tasks.len()), ..Explanation::default() };
    resources(instance, &host, &mut told);
    on_it(view, &tasks, &mut told);
    connection(view, instance, &mut told);
    if instance.status == ContainerInstanceStatus::Active {
        let kept = capacity::kept_on(view, &key, &host, "");
        if !kept.is_empty() {
            told.find("daemons", format!("It {}: other tasks find what remains.", room::kept_for(&kept)));
        }
        unfit(view, instance, &host, &kept, &mut told);
    }
    if !key.in_fargate_pool() {
        told.suggest(
            "See all that is known of the instance.",
            format!(
                "aws ecs describe-container-instances --cluster {} --container-instances {}",
                instance.cluster, instance.id
            ),
        );
    }
    told
}

fn verdict(view: View<'_>, instance: &ContainerInstance, host: &Host, tasks: usize) -> String {
    let head = match instance.key().in_fargate_pool() {
        true => format!("The host {} of the Fargate pool", instance.id),
        false => format!("The instance {}", instance.id),
    };
    let left = count(tasks as u64, "task");
    match instance.status {
        ContainerInstanceStatus::Inactive => {
            let when =
                instance.deregistered_at.map_or(String::new(), |when| format!(" {}", at(view.now, when)));
            format!("{head} was deregistered{when}: its agent is refused until it registers anew.")
        }
        ContainerInstanceStatus::Registering => {
            format!("{head} takes no tasks yet: the managed daemons of its capacity provider start first.")
        }
        ContainerInstanceStatus::Draining if tasks == 0 => {
            format!("{head} is draining and empty: it can be switched off or deregistered.")
        }
        ContainerInstanceStatus::Draining => {
            let runs = if tasks == 1 { "runs" } else { "run" };
            format!("{head} is draining: it takes no new tasks, and {left} of before {runs} on it still.")
        }
        ContainerInstanceStatus::Active if !instance.agent_connected => {
            let since = instance
                .disconnected_at
                .map_or(String::new(), |since| format!(" since {}", at(view.now, since)));
            format!("{head} takes no tasks: its agent is not connected{since}.")
        }
        ContainerInstanceStatus::Active => format!(
            "{head} takes tasks: {} CPU units and {} MiB are free, and {left} on it.",
            host.free_cpu.max(0),
            host.free_memory.max(0)
        ),
    }
}

fn resources(instance: &ContainerInstance, host: &Host, told: &mut Explanation) {
    let registered = &instance.registered;
    let message = format!(
        "{} of {} CPU units and {} of {} MiB are free.",
        host.free_cpu.max(0),
        registered.cpu,
        host.free_memory.max(0),
        registered.memory
    );
    let finding = told.find("resources", message);
    if !registered.gpus.is_empty() {
        finding.details.push(format!("{} of {} GPUs are free", host.free_gpus.max(0), registered.gpus.len()));
    }
    let ports: Vec<String> = host.used_ports.iter().map(|(_, port)| port.to_string()).collect();
    if !ports.is_empty() {
        finding.details.push(format!("ports reserved or in use: {}", ports.join(", ")));
    }
}

/// Its tasks by their groups; of one that drains, why each is still there.
fn on_it(view: View<'_>, tasks: &[&Task], told: &mut Explanation) {
    if tasks.is_empty() {
        return;
    }
    let mut groups: BTreeMap<&str, Vec<&Task>> = BTreeMap::new();
    for task in tasks {
        groups.entry(task.group.as_str()).or_default().push(task);
    }
    let finding = told.find("tasks", format!("{} on it.", count(tasks.len() as u64, "task")));
    for (group, tasks) in groups.iter().take(DETAILS_MAX) {
        let mut line = format!("{group}: {}", count(tasks.len() as u64, "task"));
        if let [only] = tasks.as_slice() {
            line = format!("{group}: task {} ({}, {})", only.id, only.definition_id, only.last_status);
        }
        let protected = tasks.iter().filter(|task| task.is_protected(view.now)).count();
        if protected > 0 {
            line.push_str(&format!(", {protected} of them protected from scale-in"));
        }
        finding.details.push(line);
    }
    let more = groups.len().saturating_sub(DETAILS_MAX);
    if more > 0 {
        finding.details.push(format!("and {more} more groups"));
    }
    let draining = |task: &&&Task| {
        let instance = task.instance.as_ref().and_then(|key| view.state.ecs.container_instance(key));
        instance.is_some_and(|instance| instance.status == ContainerInstanceStatus::Draining)
    };
    if tasks.iter().any(|task| draining(&task)) {
        let alone = tasks.iter().filter(|task| task.service_key().is_none()).count();
        let mut message =
            "Tasks of services are replaced elsewhere within the percentages of their deployments, and then \
                           stopped here."
                .to_owned();
        if alone > 0 {
            message.push_str(&format!(
                " {} of no service: draining leaves those alone.",
                count(alone as u64, "task")
            ));
        }
        told.find("draining", message);
        if let Some(service) = tasks.iter().find_map(|task| task.service_key()) {
            told.suggest(
                "See why a service's tasks do not move.",
                format!("gantry explain {}", service.name),
            );
        }
        if alone > 0 {
            let task = tasks.iter().find(|task| task.service_key().is_none());
            told.suggest(
                "Stop tasks of no service yourself, or wait until they end.",
                task.map(|task| format!("aws ecs stop-task --cluster {} --task {}", task.cluster, task.id)),
            );
        }
    }
}

fn connection(view: View<'_>, instance: &ContainerInstance, told: &mut Explanation) {
    let version = match instance.agent.version.as_str() {
        "" => "of a version that it has not told".to_owned(),
        version => format!("of version {version}"),
    };
    let registered = at(view.now, instance.registered_at);
    let state = match (instance.agent_connected, instance.disconnected_at) {
        (true, _) => "is connected".to_owned(),
        (false, Some(since)) => format!("has not been connected since {}", at(view.now, since)),
        // Deregistering it ended the connection.
        (false, None) if instance.sessions > 0 => "is not connected".to_owned(),
        (false, None) => "has never been connected".to_owned(),
    };
    told.find("agent", format!("Its agent, {version}, {state}. It registered {registered}."));
    if !instance.agent_connected && instance.status != ContainerInstanceStatus::Inactive {
        told.suggest(
            "Look whether the agent runs on the machine, and whether it reaches this server: its log says what it tries.",
            None,
        );
    }
}

/// Services whose next task would not go here.
fn unfit(
    view: View<'_>,
    instance: &ContainerInstance,
    host: &Host,
    kept: &[(&Service, Request)],
    told: &mut Explanation,
) {
    let key = instance.key();
    let mut lines = Vec::new();
    let services =
        view.state.ecs.services().values().filter(|service| service.status == ServiceStatus::Active);
    for service in services {
        let next = service.primary().and_then(|primary| one_more_task(view, service, primary.id));
        let Some((_, request)) = next.filter(|(pool, _)| *pool == key.cluster) else { continue };
        let mut host = host.clone();
        for (_, room) in kept.iter().filter(|(daemon, _)| daemon.name != service.name) {
            host.reserve(room);
        }
        // That the agent is away is told already.
        let lacks = host
            .shortfalls(&request)
            .into_iter()
            .filter(|lack| instance.agent_connected || *lack != Shortfall::Agent);
        let lacks: Vec<String> = lacks.map(|lack| lack.to_string()).collect();
        if !lacks.is_empty() {
            lines.push(format!("{}: it {}", service.name, lacks.join("; it ")));
        }
    }
    if lines.is_empty() {
        return;
    }
    let message = format!("{} could place no further task here.", count(lines.len() as u64, "service"));
    let more = lines.len().saturating_sub(DETAILS_MAX);
    lines.truncate(DETAILS_MAX);
    if more > 0 {
        lines.push(format!("and {more} more"));
    }
    told.find("services", message).details = lines;
}
