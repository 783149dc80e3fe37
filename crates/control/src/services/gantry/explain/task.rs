//! How a task came to be where it is, what it waits for now, or why it ended.

use super::words::{at, container_end, count, out_of_memory, span, stop_code};
use super::{Explanation, room};
use crate::services::autoscaling::links as autoscaling;
use crate::services::ecs::state::{Container, ContainerInstanceStatus, LaunchType, Task, TaskKey};
use crate::services::ecs::{capacity, placement};
use crate::tx::View;
use gantry_decide::lifecycle::{ContainerStatus, DesiredStatus, HealthStatus, LastStatus, StopCode};
use gantry_decide::task::definition::ContainerDefinition;
use gantry_decide::time::Timestamp;
use std::time::Duration;

/// ECS's default between the stop signal and SIGKILL.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// Explains a task.
pub fn explain(view: View<'_>, task: &Task) -> Explanation {
    let mut told = Explanation { verdict: verdict(view, task), ..Explanation::default() };
    told.find("way", origin(task)).details = way(view, task);
    if task.is_live() {
        host(view, task, &mut told);
    }
    if task.is_waiting() {
        let pool = placement::pool_name(&task.cluster, task.launch_type);
        room::survey(view, pool, capacity::request_of(view, task)).explain(view, &mut told);
    }
    containers(task, &mut told);
    if task.stopped_at.is_some() || task.desired_status == DesiredStatus::Stopped {
        advise(task, &mut told);
    }
    if task.is_protected(view.now) {
        let until =
            task.protected_until.map_or(String::new(), |until| format!(" until {}", at(view.now, until)));
        told.find("protection", format!("Its service does not stop it to shrink or to deploy{until}."));
    }
    told.suggest(
        "See all that is known of the task.",
        format!("aws ecs describe-tasks --cluster {} --tasks {}", task.cluster, task.id),
    );
    told
}

fn verdict(view: View<'_>, task: &Task) -> String {
    let head = format!("The task {} ({})", task.id, task.definition_id);
    if let Some(stopped) = task.stopped_at {
        let why = task.stop_code.map_or("ended", stop_code);
        return format!("{head} {why}: {}. It stopped {}.", reason(task), at(view.now, stopped));
    }
    if task.desired_status == DesiredStatus::Stopped {
        let since =
            task.stopping_at.map_or(String::new(), |since| format!(" since {}", span(view.now.since(since))));
        return format!(
            "{head} is stopping{since} ({}): {}. {}",
            task.last_status,
            reason(task),
            leaving(task)
        );
    }
    match task.last_status {
        LastStatus::Running => {
            let running =
                task.started_at.map_or(String::new(), |at| format!(" for {}", span(view.now.since(at))));
            match task.health() {
                HealthStatus::Unhealthy => format!("{head} has run{running} and fails its health checks."),
                HealthStatus::Healthy => format!("{head} has run{running} and is healthy."),
                HealthStatus::Unknown => format!("{head} has run{running}."),
            }
        }
        status => format!("{head} does not run yet ({status}): it {}.", coming(view, task)),
    }
}

fn reason(task: &Task) -> String {
    let text = task.stopped_reason.as_deref().filter(|reason| !reason.is_empty());
    text.unwrap_or("no reason is known").trim_end_matches('.').to_owned()
}

/// What a task that is on its way up waits for.
fn coming(view: View<'_>, task: &Task) -> String {
    let instance = task.instance.as_ref().and_then(|key| view.state.ecs.container_instance(key));
    let Some(instance) = instance else { return capacity_awaited(view, task) };
    if !instance.agent_connected {
        let since =
            instance.disconnected_at.map_or(String::new(), |since| format!(" since {}", at(view.now, since)));
        return format!("waits for the agent of its instance {}, which is not connected{since}", instance.id);
    }
    if task.last_status == LastStatus::Provisioning {
        return "waits for its network interface".to_owned();
    }
    if !task.sent {
        return "waits to be handed to its agent".to_owned();
    }
    if task.last_status == LastStatus::Activating {
        return "runs, and waits to be registered with its load balancer".to_owned();
    }
    if let Some(began) = task.pull_started_at.filter(|_| task.pull_stopped_at.is_none()) {
        return format!("pulls its images, since {}", at(view.now, began));
    }
    let waiting: Vec<String> =
        task.containers.iter().filter_map(|container| dependency(task, container)).collect();
    if !waiting.is_empty() {
        return waiting.join("; ");
    }
    match task.pull_stopped_at {
        Some(_) => "has its images, and waits for its containers to start".to_owned(),
        None => "is with its agent, which has not told of it yet".to_owned(),
    }
}

/// Where the capacity is to come from that a task waits for.
fn capacity_awaited(view: View<'_>, task: &Task) -> String {
    if task.launch_type == LaunchType::Fargate {
        let needs = capacity::fargate_room(view).1;
        let own = needs.into_iter().find(|need| need.task == TaskKey::from(task));
        return match own.and_then(|need| need.victims) {
            Some(victims) if victims.is_empty() => {
                "waits for the room on Fargate that spot tasks make which are to stop".to_owned()
            }
            Some(victims) => {
                format!("waits for {} to make room on Fargate", count(victims.len() as u64, "spot task"))
            }
            None => "waits for room on Fargate, which not even spot tasks could make".to_owned(),
        };
    }
    match &task.capacity_provider {
        Some(provider) if capacity::managed_scaling(view, provider).is_some() => {
            let known = view.state.ecs.capacity_providers.get(provider);
            let own = known.and_then(|known| known.kind.auto_scaling_group());
            match own.map(|own| (own.group_name(), autoscaling::group(view, &own.group))) {
                Some((name, None)) => {
                    format!(
                        "waits for an instance of the provider {provider}, whose Auto Scaling group {name} is not there"
                    )
                }
                Some((name, Some(group))) if group.desired >= group.max_size => format!(
                    "waits for an instance of the provider {provider}, whose Auto Scaling group {name} is at its MaxSize of {}",
                    group.max_size
                ),
                _ => format!("waits for an instance that managed scaling of the provider {provider} brings"),
            }
        }
        Some(provider) => match capacity::managed_instances(view, provider) {
            Some(settings) => {
                let failed = settings.failure.as_ref();
                let failed = failed.map_or(String::new(), |(when, why)| {
                    format!("; the last one could not be had {}: {why}", at(view.now, *when))
                });
                format!("waits for a machine that the provider {provider} of Managed Instances makes{failed}")
            }
            None => format!(
                "waits for capacity of the provider {provider}, which has no managed scaling to bring any"
            ),
        },
        None => "waits for capacity".to_owned(),
    }
}

/// What a container that has not started waits for among its like.
fn dependency(task: &Task, container: &Container) -> Option<String> {
    if container.last_status != ContainerStatus::Pending {
        return None;
    }
    let definition: &ContainerDefinition = task.definition.container(container.name.as_str())?;
    let unmet = definition.depends_on.iter().flatten().filter_map(|dependency| {
        let other = task.containers.iter().find(|other| other.name == dependency.container_name)?;
        let met = match dependency.condition.as_str() {
            "START" => other.last_status >= ContainerStatus::Running,
            "COMPLETE" => other.last_status == ContainerStatus::Stopped,
            "SUCCESS" => other.last_status == ContainerStatus::Stopped && other.exit_code == Some(0),
            _ => other.health_status == HealthStatus::Healthy,
        };
        (!met).then(|| {
            let health = match other.health_status {
                HealthStatus::Unknown => String::new(),
                known => format!(", {known}"),
            };
            format!(
                "{} to be {} (it is {}{health})",
                other.name,
                dependency.condition.as_str(),
                other.last_status
            )
        })
    });
    let unmet: Vec<String> = unmet.collect();
    (!unmet.is_empty())
        .then(|| format!("has the container {} wait for {}", container.name, unmet.join(" and ")))
}

/// What a task that is on its way out waits for.
fn leaving(task: &Task) -> String {
    match task.last_status {
        LastStatus::Deactivating => "It is taken from its load balancer first.".to_owned(),
        LastStatus::Deprovisioning => "Its network interface is being taken away.".to_owned(),
        _ => {
            let left: Vec<String> = task
                .containers
                .iter()
                .filter(|container| container.last_status == ContainerStatus::Running)
                .map(|container| {
                    let seconds =
                        task.definition.container(container.name.as_str()).and_then(|c| c.stop_timeout);
                    let patience =
                        seconds.map_or(STOP_TIMEOUT, |seconds| Duration::from_secs(seconds.into()));
                    format!("{} (killed {} after it was asked)", container.name, span(patience))
                })
                .collect();
            match left.is_empty() {
                true => "Its agent has yet to tell that all of it has ended.".to_owned(),
                false => format!("It waits for the containers {}.", left.join(", ")),
            }
        }
    }
}

/// Who wanted it.
fn origin(task: &Task) -> String {
    let by = match (task.service_key(), task.started_by.as_ref()) {
        (Some(service), Some(deployment)) => {
            format!("by the service {} (deployment {deployment})", service.name)
        }
        (Some(service), None) => format!("by the service {}", service.name),
        (None, Some(by)) => format!("by {by}"),
        (None, None) => "by RunTask or StartTask".to_owned(),
    };
    format!("It was started {by} with {} of the group {}.", task.definition_id, task.group)
}

/// The steps it went through, with how long each took.
fn way(view: View<'_>, task: &Task) -> Vec<String> {
    let mut steps = vec![format!("created {}", at(view.now, task.created_at))];
    if let Some(key) = &task.instance {
        let zone = task.availability_zone.as_deref().map_or(String::new(), |zone| format!(" in {zone}"));
        let place = match key.in_fargate_pool() {
            true => format!("placed on the host {} of the Fargate pool{zone}", key.id),
            false => format!("placed on the instance {}{zone}", key.id),
        };
        let chosen = task.service_key().and_then(|service| view.state.ecs.service(&service));
        steps.push(match chosen.filter(|_| task.launch_type != LaunchType::Fargate) {
            Some(service) => format!("{place}, by the strategy {}", strategy(service)),
            None => place,
        });
    }
    if let Some(eni) = &task.eni {
        steps.push(format!("got the address {} in {}", eni.address, eni.subnet));
    }
    let mut last = task.created_at;
    let mut step = |what: &str, when: Option<Timestamp>| {
        if let Some(when) = when {
            let took = span(when.since(last));
            last = last.max(when);
            steps.push(format!("{what} {took} later"));
        }
    };
    step("began to pull its images", task.pull_started_at);
    step("had its images", task.pull_stopped_at);
    step("ran", task.started_at);
    step("was asked to stop", task.stopping_at);
    step("its containers had ended", task.execution_stopped_at);
    step("was gone", task.stopped_at);
    steps
}

fn strategy(service: &crate::services::ecs::state::Service) -> String {
    use crate::services::ecs::state::PlacementStrategy;
    let told = crate::controllers::services::placement_strategies(service).into_iter().map(|one| match one {
        PlacementStrategy::Random => "random".to_owned(),
        PlacementStrategy::Spread(field) => format!("spread over {field}"),
        PlacementStrategy::Binpack(field) => format!("binpack on {field}"),
    });
    told.collect::<Vec<_>>().join(", then ")
}

/// Tells when the host of a live task is gone, draining or silent.
fn host(view: View<'_>, task: &Task, told: &mut Explanation) {
    let Some(key) = &task.instance else { return };
    let Some(instance) = view.state.ecs.container_instance(key) else {
        told.find(
            "instance",
            format!("Its instance {} is no longer registered: the task will be given up.", key.id),
        );
        return;
    };
    if instance.status != ContainerInstanceStatus::Active {
        let message = match instance.status {
            ContainerInstanceStatus::Registering => "takes other tasks once its managed daemons run",
            ContainerInstanceStatus::Draining if task.service_key().is_some() => {
                "is draining: the service replaces the task elsewhere and stops it here"
            }
            ContainerInstanceStatus::Draining => {
                "is draining: a task of no service runs on until it ends or is stopped"
            }
            _ => "was deregistered: its tasks are given up",
        };
        told.find("instance", format!("Its instance {} {message}.", key.id));
    }
    if !instance.agent_connected {
        let since =
            instance.disconnected_at.map_or(String::new(), |since| format!(" since {}", at(view.now, since)));
        told.find(
            "agent",
            format!(
                "The agent of its instance {} is not connected{since}: what is shown is what was heard last.",
                key.id
            ),
        );
        told.suggest("Start the agent, or look at its log.", format!("gantry explain {}", key.id));
    }
}

/// One line for each container that says something.
fn containers(task: &Task, told: &mut Explanation) {
    let lines: Vec<String> = task
        .containers
        .iter()
        .map(|container| {
            if let Some(end) = container_end(container) {
                return end;
            }
            let checked =
                task.definition.container(container.name.as_str()).is_some_and(|c| c.health_check.is_some());
            let health = match container.health_status {
                HealthStatus::Unknown if !checked => String::new(),
                HealthStatus::Unknown => ", its health check has not spoken yet".to_owned(),
                HealthStatus::Healthy => ", healthy".to_owned(),
                HealthStatus::Unhealthy => ", its health check fails".to_owned(),
            };
            format!("container {} is {}{health}", container.name, container.last_status)
        })
        .collect();
    if !lines.is_empty() {
        let message = format!("{}.", count(lines.len() as u64, "container"));
        told.find("containers", message).details = lines;
    }
}

/// What to do about a task that ended otherwise than wanted.
fn advise(task: &Task, told: &mut Explanation) {
    let texts = || {
        let reasons = task.containers.iter().filter_map(|container| container.reason.as_deref());
        task.stopped_reason.as_deref().into_iter().chain(reasons)
    };
    let says = |prefix: &str| texts().any(|text| text.starts_with(prefix));
    let exited = |code| task.containers.iter().any(|container| container.exit_code == Some(code));
    if says("CannotPullContainerError") {
        told.suggest(
            "Look whether the image's name and tag are right, the registry can be reached from the instance, and the \
             credentials (repositoryCredentials, or the agent's own) are good.",
            None,
        );
    }
    if says("ResourceInitializationError") {
        told.suggest("Look at the volumes, secrets and log configuration of the task definition: one of them is not to be had.", None);
    }
    if let Some(container) = task.containers.iter().find(|container| out_of_memory(container)) {
        let limit =
            task.definition.container(container.name.as_str()).and_then(|definition| definition.memory);
        let limit =
            limit.or(task.definition.memory).map_or(String::new(), |limit| format!(" ({} MiB now)", limit.0));
        told.suggest(
            format!(
                "Give the container {} more memory{limit}, or find out what it needs it for.",
                container.name
            ),
            None,
        );
    } else if exited(137) && task.stop_code != Some(StopCode::EssentialContainerExited) {
        told.suggest(
            "Let the program end on SIGTERM, or raise stopTimeout, if it is not to be killed.",
            None,
        );
    }
    if exited(127) || exited(126) || says("CannotStartContainerError") {
        told.suggest("Look at the command and entryPoint of the task definition, and whether the image has that program.", None);
    }
    if task.stop_code == Some(StopCode::EssentialContainerExited) {
        told.suggest("See what the containers wrote last.", format!("gantry logs {}", task.id));
    }
}
