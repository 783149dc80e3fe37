//! How service deployments begin and end: the steps that operations and the services controller share. Each keeps the
//! service's own list of deployments and the record of the attempt in agreement.

use super::balanced::ServiceLoadBalancer;
use super::state::{
    Compute, Deployment, NetworkConfiguration, RevisionTasks, Rollback, RolloutState, Service,
    ServiceDeployment, ServiceDeploymentKey, ServiceKey, ServiceRevision, ServiceRevisionKey, Task, TaskSet,
};
use crate::services::cloudwatch::links as alarms;
use crate::tx::{Tx, View};
use gantry_decide::deployment::alarms::Watch;
use gantry_decide::deployment::breaker::Failures;
use gantry_decide::deployment::events;
use gantry_decide::deployment::shift::{Shift, Want, Wants};
use gantry_decide::deployment::stage::Stage;
use gantry_decide::deployment::status::ServiceDeploymentStatus;
use gantry_decide::deployment::traffic::{Traffic, Weights};
use gantry_decide::ids::{
    AlarmName, ContainerName, DeploymentId, RequestId, ServiceDeploymentId, ServiceRevisionId,
    TaskDefinitionId,
};
use gantry_decide::lifecycle::{DesiredStatus, LastStatus};
use gantry_decide::mutant;
use gantry_decide::task::launch_volume::VolumeConfiguration;
use gantry_decide::time::Timestamp;
use gantry_store::Record;
use std::collections::BTreeMap;

/// What a new deployment shall run, and on what.
#[derive(Clone, Debug)]
pub struct Wanted {
    pub task_definition: TaskDefinitionId,
    pub compute: Compute,
    pub platform_version: Option<String>,
    pub network: Option<NetworkConfiguration>,
    pub volume: Option<VolumeConfiguration>,
    pub load_balancers: Vec<ServiceLoadBalancer>,
}

/// Makes a new deployment the service's primary one. An attempt that was still going on gives way. The caller puts the
/// service.
pub fn begin(tx: &mut Tx<'_>, service: &mut Service, wanted: Wanted) {
    let id = DeploymentId::random(tx.random);
    let mut deployment = Deployment {
        id,
        revision: ServiceRevisionId::random(tx.random),
        attempt: ServiceDeploymentId::random(tx.random),
        task_definition: wanted.task_definition,
        created_at: tx.now,
        updated_at: tx.now,
        compute: wanted.compute,
        platform_version: wanted.platform_version,
        network: wanted.network,
        volume: wanted.volume,
        alternate: false,
        load_balancers: Some(wanted.load_balancers),
        rollout_state: RolloutState::InProgress,
        rollout_state_reason: events::in_progress_reason(id),
        failures: Failures::default(),
        failed_at: None,
        launch_not_before: None,
        replacements_full_at: None,
        image_digests: None,
        task_set: None,
    };
    let view = tx.view();
    let counted = service.deployments.iter().map(|old| tasks_of(view, service, old));
    let sources: Vec<_> = counted.filter(|tasks| tasks.running + tasks.pending > 0).collect();
    let shifts = service.configuration.strategy.shifts_traffic() && !service.is_daemon();
    let shift = shifts.then(|| shift_of(view, service, deployment.revision, &sources));
    deployment.alternate = takes_alternate(service, shift.as_ref());
    supersede(tx, service, deployment.attempt);
    let mut attempt = ServiceDeployment {
        service: service.key(),
        id: deployment.attempt,
        status: ServiceDeploymentStatus::Pending,
        status_reason: None,
        deployment: id,
        target: deployment.revision,
        sources,
        target_tasks: None,
        configuration: service.configuration.clone(),
        created_at: tx.now,
        updated_at: tx.now,
        started_at: None,
        finished_at: None,
        stopped_at: None,
        rollback: None,
        failures: None,
        tripped: false,
        alarms: Watch::begin(&service.configuration.alarms, |name| alarms::state(tx.view(), name)),
        baking_since: None,
        shift,
    };
    if let Some(shift) = &mut attempt.shift {
        shift.open_hooks(&service.configuration.hooks, tx.random, tx.now);
    }
    let revision = ServiceRevision::of(&service.key(), &deployment);
    tx.state.ecs.begin_service_deployment(revision, attempt);
    service.attempt = deployment.attempt;
    service.deployments.insert(0, deployment);
}

/// Makes a task set of a service that somebody else drives. The caller puts the service.
pub fn add_task_set(tx: &mut Tx<'_>, service: &mut Service, wanted: Wanted, set: TaskSet) -> DeploymentId {
    let id = DeploymentId::random(tx.random);
    service.deployments.push(Deployment {
        id,
        revision: ServiceRevisionId::random(tx.random),
        attempt: service.attempt,
        task_definition: wanted.task_definition,
        created_at: tx.now,
        updated_at: tx.now,
        compute: wanted.compute,
        platform_version: wanted.platform_version,
        network: wanted.network,
        volume: wanted.volume,
        load_balancers: Some(wanted.load_balancers),
        alternate: false,
        rollout_state: RolloutState::InProgress,
        rollout_state_reason: String::new(),
        failures: Failures::default(),
        failed_at: None,
        launch_not_before: None,
        replacements_full_at: None,
        image_digests: None,
        task_set: Some(set),
    });
    id
}

/// Whether a new deployment's tasks belong to the alternate target groups: where traffic shifts, to those that the tasks
/// before do not belong to.
fn takes_alternate(service: &Service, shift: Option<&Shift>) -> bool {
    let of = |revision: ServiceRevisionId| {
        service.deployments.iter().find(|known| known.revision == revision).map(|known| known.alternate)
    };
    match shift {
        Some(shift) => shift.source.and_then(of).is_some_and(|alternate| !alternate),
        None => serving(service).is_some_and(|serving| serving.alternate),
    }
}

/// The deployment whose tasks serve: the newest that arrived, or the first one while it is on its way.
pub fn serving(service: &Service) -> Option<&Deployment> {
    let arrived = service.deployments.iter().find(|known| known.rollout_state == RolloutState::Completed);
    arrived.or(service.primary())
}

/// How a deployment of `target` begins that shifts traffic, while the service has the revisions before it.
fn shift_of(view: View<'_>, service: &Service, target: ServiceRevisionId, before: &[RevisionTasks]) -> Shift {
    let traffic = traffic(view, service);
    let known = |revision: &ServiceRevisionId| service.deployments.iter().any(|d| d.revision == *revision);
    let arrived = service.deployments.iter().find(|d| d.rollout_state == RolloutState::Completed);
    let runs = |revision: &ServiceRevisionId| {
        before.iter().any(|tasks| tasks.revision == *revision && tasks.running > 0)
    };
    let most = before.iter().filter(|tasks| tasks.running > 0).max_by_key(|tasks| tasks.running);
    // What never arrived gets no more tasks: traffic alone, without any, makes nobody a source.
    let source = arrived
        .map(|deployment| deployment.revision)
        .or_else(|| traffic.production.most().filter(|revision| known(revision) && runs(revision)))
        .or_else(|| most.map(|tasks| tasks.revision));
    let others = before.iter().any(|tasks| Some(tasks.revision) != source);
    Shift::begin(source, target, traffic, others, view.now)
}

/// Who shall get what of the service's traffic. This is what load balancing follows: while a deployment shifts traffic, the
/// shares that it asks for, and otherwise all of it for what runs. A rolling deployment knows no shares.
pub fn traffic(view: View<'_>, service: &Service) -> Traffic {
    if let Some(shift) = current(view, service).and_then(|attempt| attempt.shift.as_ref()) {
        return shift.traffic.clone();
    }
    let arrived = service.primary().filter(|primary| primary.rollout_state == RolloutState::Completed);
    let weights = arrived.map(|primary| Weights::all_to(primary.revision)).unwrap_or_default();
    Traffic { production: weights.clone(), test: weights }
}

/// How many tasks the revisions of a service shall have whose newest attempt shifts traffic; `None` where no such attempt
/// goes on, nor stands where it was given up.
pub fn wants(attempt: &ServiceDeployment) -> Option<(&Shift, Wants)> {
    let shift = attempt.shift.as_ref()?;
    match attempt.status {
        ServiceDeploymentStatus::Successful | ServiceDeploymentStatus::RollbackSuccessful => None,
        status if status.is_over() => Some((shift, shift.wants_when_over())),
        _ => Some((shift, shift.wants())),
    }
}

/// How many tasks one of the service's deployments shall have, if that is a number that was decided.
fn wanted(view: View<'_>, service: &Service, deployment: &Deployment) -> Option<u32> {
    if let Some(set) = &deployment.task_set {
        return Some(service.computed(set));
    }
    let Some((shift, wants)) = current(view, service).and_then(wants) else {
        let is_primary = service.primary().is_some_and(|primary| primary.id == deployment.id);
        return is_primary.then_some(service.desired_count);
    };
    let want = match deployment.revision {
        revision if revision == shift.target => wants.target,
        revision if Some(revision) == shift.source => wants.source,
        _ => wants.others,
    };
    match want {
        Want::All => Some(service.desired_count),
        Want::Nothing => Some(0),
        Want::Keep | Want::GiveWay => None,
    }
}

/// The current attempt goes on to `shift`.
pub fn shift(tx: &mut Tx<'_>, service: &Service, mut shift: Shift) {
    let Some(mut record) = current(tx.view(), service).cloned() else { return };
    let again = mutant::is("hooks asked once more");
    if again || record.shift.as_ref().is_none_or(|known| known.stage != shift.stage) {
        shift.open_hooks(&record.configuration.hooks, tx.random, tx.now);
    }
    record.shift = Some(shift);
    record.updated_at = tx.now;
    tx.state.ecs.put_service_deployment(record);
}

/// The attempt that goes on, if one does, is to be stopped: `by` takes its place.
fn supersede(tx: &mut Tx<'_>, service: &Service, by: ServiceDeploymentId) {
    let Some(mut attempt) = current(tx.view(), service).cloned() else { return };
    let reason = format!("Service deployment {by} took its place.");
    let status = match attempt.status {
        ServiceDeploymentStatus::RollbackInProgress => ServiceDeploymentStatus::RollbackFailed,
        ServiceDeploymentStatus::RollbackRequested => ServiceDeploymentStatus::Stopped,
        _ => ServiceDeploymentStatus::StopRequested,
    };
    if attempt.become_(status, tx.now) {
        attempt.status_reason = Some(reason);
        if attempt.status.is_over() {
            settle(tx.view(), service, &mut attempt);
        }
        tx.state.ecs.put_service_deployment(attempt);
    }
}

/// The record of the newest attempt. A service of an older Gantry may have none.
pub fn current<'a>(view: View<'a>, service: &Service) -> Option<&'a ServiceDeployment> {
    let key = ServiceDeploymentKey { service: service.key(), id: service.attempt };
    view.state.ecs.service_deployment(&key)
}

/// Takes an attempt to `status`, with a reason. What is no step of ECS's changes nothing.
pub fn advance(
    tx: &mut Tx<'_>,
    service: &Service,
    attempt: ServiceDeploymentId,
    status: ServiceDeploymentStatus,
    reason: Option<String>,
) {
    let key = ServiceDeploymentKey { service: service.key(), id: attempt };
    let Some(mut attempt) = tx.state.ecs.service_deployment(&key).cloned() else { return };
    if !attempt.become_(status, tx.now) {
        return;
    }
    attempt.status_reason = reason.or(attempt.status_reason);
    if status.is_over() {
        settle(tx.view(), service, &mut attempt);
    }
    tx.state.ecs.put_service_deployment(attempt);
}

/// The primary deployment's first task has told what the tags of its images stand for, or no task will.
pub fn establish(tx: &mut Tx<'_>, service: &mut Service, digests: BTreeMap<ContainerName, String>) {
    let key = service.key();
    let Some(primary) = service.deployments.first_mut() else { return };
    primary.image_digests = Some(digests);
    // A service of an older Gantry has no record of its revision.
    if tx
        .state
        .ecs
        .service_revision(&ServiceRevisionKey { service: key.clone(), id: primary.revision })
        .is_some()
    {
        tx.state.ecs.put_service_revision(ServiceRevision::of(&key, primary));
    }
}

/// The primary deployment has failed, for too many of its tasks did: the circuit breaker. The last deployment that
/// arrived takes its place, if that is wanted.
pub fn trip(tx: &mut Tx<'_>, service: &mut Service) {
    let Some(failed) = give_up(tx, service, events::CIRCUIT_BREAKER_REASON) else { return };
    let event = events::deployment_failed(service.name.as_str(), failed);
    tell(tx, service, event);
    if let Some(mut record) = current(tx.view(), service).cloned() {
        record.tripped = true;
        // The failed deployment may be gone from the service when the attempt ends.
        record.failures = Some(failures(service, &record));
        tx.state.ecs.put_service_deployment(record);
    }
    let rollback = service.configuration.circuit_breaker.rollback;
    end_failed(tx, service, rollback, events::CIRCUIT_BREAKER_REASON);
}

/// Alarms have failed the primary deployment while it went on. The last deployment that arrived takes its place, if that is
/// wanted.
pub fn alarm(tx: &mut Tx<'_>, service: &mut Service, triggered: Vec<AlarmName>) {
    let going_on = |record: &&ServiceDeployment| record.status == ServiceDeploymentStatus::InProgress;
    // What else failed it in the same moment came first.
    let Some(mut record) = current(tx.view(), service).filter(going_on).cloned() else { return };
    let rollback = record.configuration.alarms.rollback;
    record.alarms = Watch::Triggered(triggered);
    tx.state.ecs.put_service_deployment(record);
    let reason = give_up_because(tx, service, events::ALARM_REASON);
    end_failed(tx, service, rollback, &reason);
}

/// What becomes of an attempt whose deployment has failed.
fn end_failed(tx: &mut Tx<'_>, service: &mut Service, rollback: bool, reason: &str) {
    let attempt = service.attempt;
    let goes_back = current(tx.view(), service)
        .is_some_and(|record| record.status == ServiceDeploymentStatus::RollbackInProgress);
    if goes_back && !mutant::is("no end of a failed rollback") {
        // There is no second way back: a rollback that fails is over.
        let reason = Some(reason.to_owned());
        advance(tx, service, attempt, ServiceDeploymentStatus::RollbackFailed, reason);
    } else if !rollback {
        let reason = Some(reason.to_owned());
        advance(tx, service, attempt, ServiceDeploymentStatus::StopRequested, reason);
        advance(tx, service, attempt, ServiceDeploymentStatus::Stopped, None);
    } else {
        go_back_or_fail(tx, service, reason);
    }
}

/// The primary deployment cannot go on, and `why` says so: what it shifted goes back.
pub fn fail(tx: &mut Tx<'_>, service: &mut Service, why: &str) {
    let reason = give_up_because(tx, service, why);
    go_back_or_fail(tx, service, &reason);
}

/// Gives the primary deployment up, tells of it, and returns its rollout reason.
fn give_up_because(tx: &mut Tx<'_>, service: &mut Service, why: &str) -> String {
    let reason = format!("ECS deployment failed: {why}");
    if let Some(failed) = give_up(tx, service, &reason) {
        let event = events::deployment_failed_because(service.name.as_str(), failed, why);
        tell(tx, service, event);
    }
    reason
}

/// The alarms that fail the current attempt now.
pub fn triggered(view: View<'_>, service: &Service) -> Vec<AlarmName> {
    let Some(attempt) = current(view, service) else { return Vec::new() };
    // Once the revision before is cleaned up, all of it is over but for that.
    let cleans_up = attempt.shift.as_ref().is_some_and(|shift| shift.stage == Stage::CleanUp);
    match attempt.status {
        ServiceDeploymentStatus::Pending | ServiceDeploymentStatus::InProgress if !cleans_up => {
            attempt.alarms.triggered(&attempt.configuration.alarms, |name| alarms::state(view, name))
        }
        _ => Vec::new(),
    }
}

/// Until when the current attempt's alarms are watched although all of its tasks are there. Strategies that shift traffic
/// have a stage for that.
pub fn bakes_until(view: View<'_>, service: &Service) -> Option<Timestamp> {
    let attempt = current(view, service)?;
    let watches =
        attempt.alarms == Watch::Monitoring && attempt.shift.is_none() && attempt.rollback.is_none();
    watches.then(|| attempt.baking_since.unwrap_or(view.now) + attempt.configuration.bake())
}

/// All of the current attempt's tasks are there: its alarms decide.
pub fn bake(tx: &mut Tx<'_>, service: &Service) {
    let Some(mut record) = current(tx.view(), service).cloned() else { return };
    if record.baking_since.is_none() {
        record.baking_since = Some(tx.now);
        record.updated_at = tx.now;
        tx.state.ecs.put_service_deployment(record);
    }
}

fn go_back_or_fail(tx: &mut Tx<'_>, service: &mut Service, reason: &str) {
    if !roll_back(tx, service, reason) {
        let attempt = service.attempt;
        advance(tx, service, attempt, ServiceDeploymentStatus::RollbackInProgress, None);
        advance(tx, service, attempt, ServiceDeploymentStatus::RollbackFailed, Some(reason.to_owned()));
    }
}

/// The user wants the attempt to end, with the last deployment that arrived in its place if `back`.
pub fn stop(tx: &mut Tx<'_>, service: &mut Service, back: bool) {
    let reason = current(tx.view(), service).and_then(|attempt| attempt.status_reason.clone());
    let reason = reason.unwrap_or_default();
    give_up(tx, service, &reason);
    if !(back && roll_back(tx, service, &reason)) {
        let attempt = service.attempt;
        advance(tx, service, attempt, ServiceDeploymentStatus::Stopped, None);
    }
}

/// Nothing more of the primary deployment is launched.
fn give_up(tx: &mut Tx<'_>, service: &mut Service, reason: &str) -> Option<DeploymentId> {
    let primary = service.deployments.first_mut()?;
    primary.rollout_state = RolloutState::Failed;
    primary.rollout_state_reason = reason.to_owned();
    primary.updated_at = tx.now;
    Some(primary.id)
}

/// Makes the last deployment that arrived the primary one again, or the one that traffic was shifted from; says whether
/// there is one.
fn roll_back(tx: &mut Tx<'_>, service: &mut Service, reason: &str) -> bool {
    let now = tx.now;
    let shift = current(tx.view(), service).and_then(|attempt| attempt.shift.as_ref());
    let back = shift.map(|shift| if shift.returning { None } else { shift.turn_back(now) });
    let index = match &back {
        None => last_arrived(service),
        Some(back) => back.as_ref().and_then(|back| {
            service.deployments.iter().position(|deployment| Some(deployment.revision) == back.source)
        }),
    };
    let (Some(index), shift) = (index, back.flatten()) else { return false };
    let mut back = service.deployments.remove(index);
    back.rollout_state = RolloutState::InProgress;
    let tripped = current(tx.view(), service).is_some_and(|attempt| attempt.tripped);
    back.rollout_state_reason = events::rolling_back_reason(back.id, tripped);
    back.failures = Failures::default();
    back.launch_not_before = None;
    back.updated_at = now;
    let event = events::rolling_back(service.name.as_str(), back.id);
    tell(tx, service, event);
    if let Some(mut record) = current(tx.view(), service).cloned() {
        record.become_(ServiceDeploymentStatus::RollbackInProgress, now);
        record.status_reason = Some(reason.to_owned());
        record.rollback =
            Some(Rollback { revision: back.revision, reason: reason.to_owned(), started_at: now });
        record.shift = shift;
        tx.state.ecs.put_service_deployment(record);
    }
    service.deployments.insert(0, back);
    true
}

/// The newest deployment but the primary that arrived: what it runs is known to work.
pub fn last_arrived(service: &Service) -> Option<usize> {
    let older = service.deployments.iter().enumerate().skip(1);
    older.filter(|(_, d)| d.rollout_state == RolloutState::Completed).map(|(index, _)| index).next()
}

/// The primary deployment has what it takes.
pub fn arrive(tx: &mut Tx<'_>, service: &mut Service) {
    let Some(primary) = service.deployments.first_mut() else { return };
    primary.rollout_state = RolloutState::Completed;
    primary.rollout_state_reason = events::completed_reason(primary.id);
    primary.updated_at = tx.now;
    let event = events::deployment_completed(service.name.as_str(), primary.id);
    tell(tx, service, event);
    let goes_back = current(tx.view(), service).is_some_and(|attempt| attempt.rollback.is_some());
    let status = match goes_back {
        true => ServiceDeploymentStatus::RollbackSuccessful,
        false => ServiceDeploymentStatus::Successful,
    };
    let attempt = service.attempt;
    advance(tx, service, attempt, status, None);
}

/// Tells an event of the service.
pub fn tell(tx: &mut Tx<'_>, service: &mut Service, message: String) {
    let id = RequestId::random(tx.random).to_string();
    service.tell(id, message, tx.now);
}

/// Notes what is left of an attempt that is over.
fn settle(view: View<'_>, service: &Service, attempt: &mut ServiceDeployment) {
    let left = |revision| {
        let deployment = service.deployments.iter().find(|deployment| deployment.revision == revision);
        deployment.map(|deployment| tasks_of(view, service, deployment))
    };
    for source in &mut attempt.sources {
        let gone = RevisionTasks { requested: 0, running: 0, pending: 0, ..*source };
        *source = left(source.revision).unwrap_or(gone);
    }
    attempt.target_tasks = left(attempt.target);
    attempt.failures = attempt.failures.or_else(|| Some(failures(service, attempt)));
}

/// What the circuit breaker counts of an attempt's failures, and how many are too many.
pub fn failures(service: &Service, attempt: &ServiceDeployment) -> (u32, u32) {
    let breaker = attempt.configuration.circuit_breaker;
    let deployment = service.deployments.iter().find(|deployment| deployment.id == attempt.deployment);
    let counted = deployment.map_or(0, |deployment| breaker.counted(deployment.failures));
    (counted, breaker.threshold.failures(service.desired_count))
}

/// The tasks of one of the service's deployments: those that it shall have, and those that it has.
pub fn tasks_of(view: View<'_>, service: &Service, deployment: &Deployment) -> RevisionTasks {
    let key: ServiceKey = service.key();
    let own = |task: &&Task| {
        task.desired_status == DesiredStatus::Running && task.deployment() == Some(deployment.id)
    };
    let (mut running, mut pending) = (0, 0);
    for task in view.state.ecs.tasks_of(&key).filter(own) {
        match task.last_status {
            LastStatus::Running => running += 1,
            _ => pending += 1,
        }
    }
    let requested = wanted(view, service, deployment).unwrap_or(running + pending);
    RevisionTasks { revision: deployment.revision, requested, running, pending }
}
