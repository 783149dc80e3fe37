//! Why a service has fewer tasks than it should, why its deployment does not go on, or that all is well.

use super::room::{self, Room};
use super::shift;
use super::words::{at, count, span, stop_facts};
use super::{DETAILS_MAX, Explanation};
use crate::controllers::services::{Establishing, Outlook, one_more_task};
use crate::services::cloudwatch::links as alarms;
use crate::services::ecs::state::{
    Deployment, LaunchType, RolloutState, Service, ServiceStatus, Task, TaskKey,
};
use crate::services::ecs::{capacity, deployments, placement};
use crate::tx::View;
use gantry_decide::deployment::alarms::Watch;
use gantry_decide::deployment::events;
use gantry_decide::deployment::rolling::Tasks;
use gantry_decide::ids::TaskId;
use gantry_decide::lifecycle::{DesiredStatus, LastStatus, StopCode};
use gantry_decide::time::Timestamp;
use gantry_store::Record;
use std::collections::BTreeMap;

/// Kinds of failure that are told; a service that fails in more ways fails in these as well.
const FAILURES_MAX: usize = 5;

/// Tasks of one service that stopped for the same reason.
struct Failure {
    times: usize,
    last: Timestamp,
    example: TaskId,
}

/// Explains a service.
pub fn explain(view: View<'_>, service: &Service) -> Explanation {
    let mut told = Explanation::default();
    let outlook = Outlook::of(view, service);
    let name = &service.name;
    let running = running(view, service);
    let show = format!("aws ecs describe-services --cluster {} --services {name}", service.cluster);
    match service.status {
        ServiceStatus::Inactive => {
            let since = service
                .inactive_since
                .map_or(String::new(), |since| format!(" since {}", at(view.now, since)));
            told.verdict = format!("The service {name} is deleted{since}. It starts no tasks.");
            return told;
        }
        ServiceStatus::Draining => {
            let left = count(view.state.ecs.tasks_of(&service.key()).count() as u64, "task");
            told.verdict = format!("The service {name} is being deleted: {left} of it have yet to stop.");
            stopping(view, service, &mut told);
            return told;
        }
        ServiceStatus::Active => {}
    }
    let (missing, room) = (outlook.missing, survey(view, service, &outlook));
    told.verdict = verdict(view, service, &outlook, running, missing, room.as_ref());
    percentages(service, &outlook, &mut told);
    for deployment in &service.deployments {
        deployment_finding(view, service, deployment, &mut told);
    }
    shift::explain(view, service, &mut told);
    waits(view, service, &outlook, &mut told);
    if let Some(room) = &room {
        room.explain(view, &mut told);
        if let Some(network) = service.primary().and_then(|primary| primary.network.as_ref()) {
            room::addresses(view, network, &mut told);
        }
    }
    failures(view, service, &mut told);
    stopping(view, service, &mut told);
    let goes_on = !service.has_task_sets() && !service.deployments.iter().all(arrived);
    if missing > 0 || outlook.blocked || goes_on {
        told.suggest("See the service's own events and deployments.", show);
    }
    told
}

fn arrived(deployment: &Deployment) -> bool {
    deployment.rollout_state == RolloutState::Completed
}

fn running(view: View<'_>, service: &Service) -> u32 {
    let running = |task: &&Task| {
        task.last_status == LastStatus::Running && task.desired_status == DesiredStatus::Running
    };
    u32::try_from(view.state.ecs.tasks_of(&service.key()).filter(running).count()).unwrap_or(u32::MAX)
}

/// What the instances say to one more task, where one has yet to be launched or waits for an instance.
fn survey(view: View<'_>, service: &Service, outlook: &Outlook) -> Option<Room> {
    let waits = view.state.ecs.tasks_of(&service.key()).find(|task| task.is_waiting());
    let asked = match waits {
        Some(task) => {
            let pool = placement::pool_name(&task.cluster, task.launch_type);
            Some((pool, capacity::request_of(view, task)))
        }
        None if outlook.missing == 0 => None,
        None => outlook.next.and_then(|next| one_more_task(view, service, next)),
    };
    asked.map(|(pool, request)| room::survey(view, pool, request))
}

fn verdict(
    view: View<'_>,
    service: &Service,
    outlook: &Outlook,
    running: u32,
    missing: u32,
    room: Option<&Room>,
) -> String {
    let head =
        format!("{running} of {} of the service {} run", count(service.desired_count, "task"), service.name);
    let next = service.deployments.iter().find(|deployment| Some(deployment.id) == outlook.next);
    let Some(primary) = next else {
        return match service.has_task_sets() {
            true => format!(
                "{head}: its controller is {}, and nobody has made a task set of it.",
                service.controller.as_str()
            ),
            false => format!("{head}: it has no deployment that new tasks could belong to."),
        };
    };
    let situation = &outlook.situation;
    if primary.rollout_state == RolloutState::Failed {
        return format!(
            "{head}, and no more are started: the deployment failed ({}).",
            primary.rollout_state_reason
        );
    }
    if missing > 0 {
        let unfit = room.filter(|room| room.fitting == 0);
        if let Some(room) = unfit {
            return format!("{head}: {}.", room.summary());
        }
        if outlook.blocked {
            return format!(
                "{head}: the deployment's percentages allow neither to start nor to stop a task."
            );
        }
        match (&outlook.digests, primary.launch_not_before.filter(|until| *until > view.now)) {
            (_, Some(until)) => {
                let failed = count(primary.failures.starts, "start");
                return format!(
                    "{head}: after {failed} in a row that failed, the next is tried in {}.",
                    span(until.since(view.now))
                );
            }
            (Establishing::Waits, None) => {
                return format!(
                    "{head}: the first task of the deployment has to tell what its images' tags stand for before the \
                     others start."
                );
            }
            _ if outlook.held_back > 0 => {
                return format!(
                    "{head}: {} ended too quickly one after another, and {} for the quota of {} replaced in a minute.",
                    if outlook.held_back == 1 { "a task" } else { "tasks" },
                    waits_for(outlook.held_back.into()),
                    view.state.installation.quotas.replaced_tasks,
                );
            }
            _ => {}
        }
        let room_left = situation.upper().saturating_sub(situation.target.total() + situation.old.total());
        if room_left <= situation.stopping && situation.stopping > 0 {
            return format!(
                "{head}: {} on the way out, which make room for new ones.",
                are(situation.stopping)
            );
        }
        if let Some(until) = outlook.next_unprotected.filter(|_| room_left == 0) {
            return format!(
                "{head}: tasks of before are protected from scale-in, and leave no room for new ones; the first protection \
                 ends {}.",
                at(view.now, until)
            );
        }
        return format!("{head}: {missing} to be started next.");
    }
    let waits = shift::waits(view, service);
    if let Some(pause) = waits.as_ref().filter(|waits| waits.for_somebody) {
        return format!("{head}: {}.", pause.words);
    }
    let old = situation.old.total().saturating_add(situation.renewed);
    let starting = situation.target.starting;
    if starting > 0 {
        let pending = deployments::tasks_of(view, service, primary).pending;
        let waiting = view.state.ecs.tasks_of(&service.key()).filter(|task| task.is_waiting()).count() as u64;
        if waiting > 0 {
            let capacity = room.map_or(String::new(), |room| format!("; {}", room.summary()));
            return format!("{head}: {} for capacity{capacity}.", waits_for(waiting));
        }
        return match pending {
            0 => format!("{head}: {starting} of them {} yet to be found healthy.", has(starting)),
            _ => format!("{head}: {} {} on the way up.", count(pending, "task"), is(pending)),
        };
    }
    if situation.target.unhealthy > 0 {
        return format!(
            "{head}: {} of them {} health checks.",
            situation.target.unhealthy,
            fails(situation.target.unhealthy)
        );
    }
    if let Some(waits) = waits {
        return format!("{head}: {}.", waits.words);
    }
    let surplus = situation.target.total().saturating_add(old).saturating_sub(situation.desired);
    if let Some(until) = outlook.next_unprotected.filter(|_| surplus > 0) {
        return format!(
            "{head}: {} more than wanted {}, for some are protected from scale-in; the first protection ends {}.",
            count(surplus, "task"),
            if surplus == 1 { "stays" } else { "stay" },
            at(view.now, until)
        );
    }
    if old > 0 && old == outlook.draining {
        return format!(
            "{head}: {} on draining instances {} yet to stop, once others have taken {} place.",
            count(old, "task"),
            has(old),
            if old == 1 { "its" } else { "their" }
        );
    }
    if old > 0 {
        return format!(
            "{head}: the new ones are there, and {} of before {} yet to stop.",
            count(old, "task"),
            has(old)
        );
    }
    if primary.rollout_state == RolloutState::InProgress && !service.has_task_sets() {
        return format!("{head}, but the deployment has not arrived yet.");
    }
    format!("{head}: the service is as it should be.")
}

fn is(number: u32) -> &'static str {
    if number == 1 { "is" } else { "are" }
}

fn has(number: u32) -> &'static str {
    if number == 1 { "has" } else { "have" }
}

fn fails(number: u32) -> &'static str {
    if number == 1 { "fails its" } else { "fail their" }
}

fn waits_for(number: u64) -> String {
    format!("{} {}", count(number, "task"), if number == 1 { "waits" } else { "wait" })
}

fn are(number: u32) -> String {
    format!("{} {}", count(number, "task"), is(number))
}

/// The counts, and the sums that the two percentages come to.
fn percentages(service: &Service, outlook: &Outlook, told: &mut Explanation) {
    let situation = &outlook.situation;
    let of = |what: &str, tasks: Tasks| {
        (tasks.total() > 0).then(|| {
            format!(
                "{what}: {} healthy, {} starting, {} unhealthy",
                tasks.healthy, tasks.starting, tasks.unhealthy
            )
        })
    };
    let configuration = &service.configuration;
    let message = format!(
        "{} wanted ({}). minimumHealthyPercent {}: at least {} stay healthy; maximumPercent {}: at most {} exist at once.",
        count(situation.desired, "task"),
        service.scheduling_strategy.as_str(),
        configuration.minimum_healthy_percent,
        situation.lower(),
        configuration.maximum_percent,
        situation.upper(),
    );
    let finding = told.find("tasks", message);
    finding.details.extend(of("of the newest deployment", situation.target));
    let old = match outlook.draining {
        0 => "of deployments before",
        draining if draining == situation.old.total() => "on draining instances",
        _ => "of deployments before, and on draining instances",
    };
    finding.details.extend(of(old, situation.old));
    if situation.renewed > 0 {
        finding.details.push(format!(
            "starting in place of failed ones of the deployment before: {}",
            situation.renewed
        ));
    }
    if situation.stopping > 0 {
        finding.details.push(format!("on the way out: {}", situation.stopping));
    }
    if outlook.blocked {
        told.find(
            "percentages",
            "Within these percentages no task can be started first, and none stopped first.",
        );
        told.suggest(
            "Raise maximumPercent so that one more task may exist, or lower minimumHealthyPercent so that one fewer may.",
            format!(
                "aws ecs update-service --cluster {} --service {} --deployment-configuration \
                 maximumPercent=200,minimumHealthyPercent=100",
                service.cluster, service.name
            ),
        );
    }
}

/// One deployment: what it runs, how far it is, what its breaker counts.
fn deployment_finding(view: View<'_>, service: &Service, deployment: &Deployment, told: &mut Explanation) {
    let tasks = deployments::tasks_of(view, service, deployment);
    let state = match deployment.rollout_state {
        RolloutState::InProgress => "in progress",
        RolloutState::Completed => "completed",
        RolloutState::Failed => "failed",
    };
    let is_primary = service.primary().is_some_and(|primary| primary.id == deployment.id);
    let (which, state) = match &deployment.task_set {
        Some(set) => {
            (format!("The {} task set", set.status.as_str()), format!("to have {}", tasks.requested))
        }
        None if is_primary => ("The primary deployment".to_owned(), state.to_owned()),
        None => ("The older deployment".to_owned(), state.to_owned()),
    };
    let message = format!(
        "{which} {} of {} is {state}: {} running, {} pending; begun {}.",
        deployment.id,
        deployment.task_definition,
        tasks.running,
        tasks.pending,
        at(view.now, deployment.created_at),
    );
    let mut details = Vec::new();
    // What it says while it goes on, or has arrived, is said above.
    let reason = &deployment.rollout_state_reason;
    if !reason.is_empty()
        && ![events::in_progress_reason(deployment.id), events::completed_reason(deployment.id)]
            .contains(reason)
    {
        details.push(reason.clone());
    }
    let failures = deployment.failures;
    if failures.total > 0 {
        details.push(format!(
            "{} failed, {} of them in a row{}",
            count(failures.total, "task"),
            failures.consecutive,
            deployment.failed_at.map_or(String::new(), |last| format!("; the last {}", at(view.now, last))),
        ));
    }
    let breaker = service.configuration.circuit_breaker;
    if is_primary && breaker.enable {
        let then = if breaker.rollback { "it is rolled back" } else { "it fails" };
        let threshold = breaker.threshold.failures(service.desired_count);
        details.push(format!(
            "circuit breaker: {} of {threshold} failures, then {then}",
            breaker.counted(failures)
        ));
    }
    if is_primary && let Some(attempt) = deployments::current(view, service) {
        details.extend(attempt.configuration.alarms.names.iter().map(|name| {
            let says = match alarms::state(view, name) {
                Some(state) => format!("says {}", state.as_str()),
                None => "is not known: nobody has said anything of it".to_owned(),
            };
            let watched = if attempt.alarms == Watch::Disabled { ", and is not watched" } else { "" };
            format!("alarm {name} {says}{watched}")
        }));
        let reason = attempt.status_reason.as_deref().map_or(String::new(), |reason| format!(": {reason}"));
        details.push(format!("service deployment {} is {}{reason}", attempt.id, attempt.status.as_str()));
    }
    told.find("deployment", message).details = details;
}

/// What the next step waits for.
fn waits(view: View<'_>, service: &Service, outlook: &Outlook, told: &mut Explanation) {
    let Some(primary) = service.primary() else { return };
    if let Some(until) = primary.launch_not_before.filter(|until| *until > view.now) {
        let why = if primary.failures.starts > 0 {
            format!("{} in a row never got to run", count(primary.failures.starts, "task"))
        } else {
            "the last one could not be placed".to_owned()
        };
        told.find("back-off", format!("No task is started before {}, because {why}.", at(view.now, until)));
        if primary.failures.starts > 0 {
            told.suggest(
                "A new deployment does not wait: mend the cause, then force one.",
                format!(
                    "aws ecs update-service --cluster {} --service {} --force-new-deployment",
                    service.cluster, service.name
                ),
            );
        }
    }
    if outlook.held_back > 0 {
        let message = format!(
            "At most {} that ended by themselves are replaced in a minute (the quota \
             replaced-tasks-per-service-and-minute): {} for it.",
            count(view.state.installation.quotas.replaced_tasks, "task"),
            waits_for(outlook.held_back.into()),
        );
        told.find("quota", message);
    }
    if let Some(next) = outlook.next_healthy {
        let message = format!(
            "A task without a health check counts as healthy once it has run for {}; the next one will {}.",
            span(Outlook::HEALTHY_AFTER),
            at(view.now, next)
        );
        told.find("health", message);
    }
    if !outlook.unhealthy.is_empty() {
        let unhealthy = u32::try_from(outlook.unhealthy.len()).unwrap_or(u32::MAX);
        let message = format!("{} {} container health checks.", count(unhealthy, "task"), fails(unhealthy));
        let finding = told.find("health", message);
        finding
            .details
            .extend(outlook.unhealthy.iter().take(DETAILS_MAX).map(|key| format!("task {}", key.id)));
    }
    if outlook.digests == Establishing::Waits {
        told.find(
            "images",
            "The tags of the deployment's images are to mean the same for all its tasks: one task starts first and tells \
             what they stand for.",
        );
    }
    if let Some(until) = outlook.next_unprotected {
        let message = format!(
            "Some tasks are protected from scale-in and are not stopped to shrink or to deploy; the first protection ends {}.",
            at(view.now, until)
        );
        told.find("protection", message);
    }
    if service.is_daemon() && primary.compute.launch_type() != LaunchType::Fargate {
        told.find(
            "daemon",
            "A DAEMON service has one task on each ACTIVE instance that has its attributes and satisfies its constraints.",
        );
    }
}

/// Why its tasks stopped within the last hour, other than because they were told to.
fn failures(view: View<'_>, service: &Service, told: &mut Explanation) {
    let mut kinds: BTreeMap<String, Failure> = BTreeMap::new();
    let group = service.group();
    let key = |id| TaskKey { cluster: service.cluster.clone(), id };
    for (_, task) in view.state.ecs.tasks().range(key(TaskId::MIN)..=key(TaskId::MAX)) {
        // A service of the same name may have been there before.
        let own = task.group == group && task.created_at >= service.created_at;
        let Some(stopped) = task.stopped_at.filter(|_| own && failed(task)) else { continue };
        let kind =
            kinds.entry(stop_facts(task)).or_insert(Failure { times: 0, last: stopped, example: task.id });
        kind.times += 1;
        if stopped >= kind.last {
            (kind.last, kind.example) = (stopped, task.id);
        }
    }
    if kinds.is_empty() {
        return;
    }
    let mut kinds: Vec<(String, Failure)> = kinds.into_iter().collect();
    kinds.sort_by_key(|(_, failure)| std::cmp::Reverse(failure.last));
    let all: usize = kinds.iter().map(|(_, failure)| failure.times).sum();
    let newest = kinds.first().map(|(_, failure)| failure.example);
    let finding =
        told.find("failures", format!("{} failed within the last hour.", count(all as u64, "task")));
    for (reason, failure) in kinds.iter().take(FAILURES_MAX) {
        let Failure { times, last, example } = failure;
        let last = at(view.now, *last);
        finding.details.push(match times {
            1 => format!("once, {last}, task {example}: {reason}"),
            _ => format!("{times} times, the last {last}, such as task {example}: {reason}"),
        });
    }
    let more = kinds.len().saturating_sub(FAILURES_MAX);
    if more > 0 {
        finding.details.push(format!("and in {more} more ways"));
    }
    if let Some(task) = newest {
        told.suggest("See what happened to the newest of them.", format!("gantry explain {task}"));
    }
}

/// It did not stop because somebody wanted fewer.
fn failed(task: &Task) -> bool {
    let reason = task.stopped_reason.as_deref().unwrap_or_default();
    match task.stop_code {
        Some(StopCode::UserInitiated) => false,
        Some(StopCode::ServiceSchedulerInitiated) => {
            !reason.starts_with("Scaling activity") && !reason.starts_with("Availability-zone rebalancing")
        }
        _ => true,
    }
}

/// Tasks that were asked to stop and have not ended.
fn stopping(view: View<'_>, service: &Service, told: &mut Explanation) {
    let stopping: Vec<&Task> = view
        .state
        .ecs
        .tasks_of(&service.key())
        .filter(|task| task.desired_status == DesiredStatus::Stopped)
        .collect();
    if stopping.is_empty() {
        return;
    }
    let message = format!("{} on the way out.", are(u32::try_from(stopping.len()).unwrap_or(u32::MAX)));
    let finding = told.find("stopping", message);
    for task in stopping.iter().take(DETAILS_MAX) {
        let since = task
            .stopping_at
            .map_or(String::new(), |since| format!(", asked to stop {}", at(view.now, since)));
        finding.details.push(format!("task {} is {}{since}", task.id, task.last_status));
    }
}
