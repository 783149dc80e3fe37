//! What happened between two states.
//!
//! What a record tells the time of is told with that time, whatever was seen of it before: so a state compared with an
//! empty one yields the past as far as the tables know it. What has no time of its own is told only as a change of
//! something that was there before, with the time of the look that found it: so it never stands before its cause.

use super::{FeedEvent, FeedKind};
use crate::services::ecs::state::{
    Cluster, ClusterStatus, ContainerInstance, ContainerInstanceStatus, Service, ServiceDeployment,
    ServiceEvent, ServiceStatus, Task,
};
use crate::services::gantry::explain::{span, stop_facts};
use crate::state::{ScopeState, State};
use gantry_decide::arn::EcsResource;
use gantry_decide::ids::Scope;
use gantry_decide::lifecycle::{DesiredStatus, HealthStatus, StopCode};
use gantry_decide::time::Timestamp;
use std::sync::Arc;

/// What happened between two states, in no order. `since` is when the earlier one was seen last, `now` when the later one
/// is.
pub fn between(before: &State, after: &State, since: Timestamp, now: Timestamp) -> Vec<(Scope, FeedEvent)> {
    let mut found = Vec::new();
    for (scope, _) in after.scopes() {
        let (before, after) = (before.snapshot(scope), after.snapshot(scope));
        if !Arc::ptr_eq(&before, &after) {
            let mut news = News { since, now, events: Vec::new() };
            news.scope(&before, &after);
            found.extend(news.events.into_iter().map(|event| (scope.clone(), event)));
        }
    }
    found
}

struct News {
    since: Timestamp,
    now: Timestamp,
    events: Vec<FeedEvent>,
}

impl News {
    fn scope(&mut self, before: &ScopeState, after: &ScopeState) {
        let (before, after) = (&before.ecs, &after.ecs);
        for (old, new) in after.clusters.changes_since(&before.clusters) {
            self.cluster(old, new);
        }
        for (old, new) in after.container_instances().changes_since(before.container_instances()) {
            self.instance(old, new);
        }
        for (old, new) in after.services().changes_since(before.services()) {
            self.service(old, new);
        }
        for (old, new) in after.service_deployments().changes_since(before.service_deployments()) {
            self.deployment(old, new);
        }
        for (old, new) in after.tasks().changes_since(before.tasks()) {
            self.task(old, new);
        }
    }

    fn cluster(&mut self, old: Option<&Cluster>, new: Option<&Cluster>) {
        let Some(new) = new else { return };
        let subject = || EcsResource::Cluster(new.name.clone());
        if old.is_none_or(|old| old.created_at != new.created_at) {
            self.tell(new.created_at, FeedKind::ClusterCreated, subject(), [], "the cluster was created");
        }
        if new.status == ClusterStatus::Inactive
            && old.is_none_or(|old| old.status != new.status)
            && let Some(at) = new.deleted_at
        {
            self.tell(at, FeedKind::ClusterDeleted, subject(), [], "the cluster was deleted");
        }
    }

    fn instance(&mut self, old: Option<&ContainerInstance>, new: Option<&ContainerInstance>) {
        let Some(new) = new else { return };
        let subject = || EcsResource::ContainerInstance(new.cluster.clone(), new.id);
        if old.is_none() {
            let of = &new.registered;
            let message = format!("an instance with {} CPU units and {} MiB registered", of.cpu, of.memory);
            self.tell(new.registered_at, FeedKind::InstanceRegistered, subject(), [], message);
        }
        if new.agent_connected && old.is_some_and(|old| !old.agent_connected) {
            let message = format!("its agent {} connected", new.agent.version);
            self.tell(self.now, FeedKind::InstanceConnected, subject(), [], message);
        }
        if !new.agent_connected
            && let Some(at) = new.disconnected_at
            && old.is_none_or(|old| old.disconnected_at != new.disconnected_at)
        {
            let message = "the connection of its agent ended";
            self.tell(at, FeedKind::InstanceDisconnected, subject(), [], message);
        }
        if old.is_none_or(|old| old.status != new.status) {
            let (at, kind, message) = match (new.status, old) {
                (ContainerInstanceStatus::Inactive, _) => {
                    (new.deregistered_at, FeedKind::InstanceDeregistered, "the instance was deregistered")
                }
                // Nobody knows what one was before that is new, unless it registered since the last look.
                (status, None)
                    if status != ContainerInstanceStatus::Draining || new.registered_at < self.since =>
                {
                    return;
                }
                (ContainerInstanceStatus::Draining, _) => {
                    (Some(self.now), FeedKind::InstanceDraining, "the instance drains: it takes no new tasks")
                }
                // Nothing becomes so that was anything else before.
                (ContainerInstanceStatus::Registering, _) => return,
                (ContainerInstanceStatus::Active, _) => {
                    (Some(self.now), FeedKind::InstanceActive, "the instance takes tasks again")
                }
            };
            if let Some(at) = at {
                self.tell(at, kind, subject(), [], message);
            }
        }
    }

    fn service(&mut self, old: Option<&Service>, new: Option<&Service>) {
        let Some(new) = new else { return };
        // A service made anew under the name of a deleted one is another.
        let old = old.filter(|old| old.created_at == new.created_at);
        let subject = || EcsResource::Service(new.cluster.clone(), new.name.clone());
        let Some(old) = old else {
            let of =
                new.primary().map_or(String::new(), |primary| format!(" of {}", primary.task_definition));
            let message = format!("the service was created with {} desired tasks{of}", new.desired_count);
            self.tell(new.created_at, FeedKind::ServiceCreated, subject(), [], message);
            self.told(None, new);
            return;
        };
        if old.desired_count != new.desired_count {
            let message =
                format!("the desired count went from {} to {}", old.desired_count, new.desired_count);
            self.tell(self.now, FeedKind::ServiceUpdated, subject(), [], message);
        }
        if old.status != new.status {
            match new.status {
                ServiceStatus::Active => {}
                ServiceStatus::Draining => {
                    let message = "the service is being deleted: its tasks are stopped";
                    self.tell(self.now, FeedKind::ServiceDeleted, subject(), [], message);
                }
                ServiceStatus::Inactive => {
                    let at = new.inactive_since.unwrap_or(self.now);
                    self.tell(at, FeedKind::ServiceDeleted, subject(), [], "the service is gone");
                }
            }
        }
        self.told(Some(old), new);
    }

    /// The service's own events since the last that was known.
    fn told(&mut self, old: Option<&Service>, new: &Service) {
        let last = old.and_then(|old| old.events.last()).map(|event| event.id.as_str());
        let known = |event: &&Arc<ServiceEvent>| Some(event.id.as_str()) == last;
        // Newest last: what is behind the last one known is new, all of it if that one was forgotten meanwhile.
        let fresh = new.events.iter().rev().take_while(|event| !known(event)).count();
        for event in &new.events[new.events.len() - fresh..] {
            let subject = EcsResource::Service(new.cluster.clone(), new.name.clone());
            self.tell(event.created_at, FeedKind::ServiceEvent, subject, [], &event.message);
        }
    }

    fn deployment(&mut self, old: Option<&ServiceDeployment>, new: Option<&ServiceDeployment>) {
        let Some(new) = new.filter(|new| old.is_none_or(|old| old.status != new.status)) else { return };
        let (cluster, name) = (new.service.cluster.clone(), new.service.name.clone());
        let subject = EcsResource::ServiceDeployment(cluster.clone(), name.clone(), new.id);
        let reason = new.status_reason.as_deref().map_or(String::new(), |reason| format!(": {reason}"));
        let message = format!("the deployment of {name} is {}{reason}", new.status.as_str());
        let service = EcsResource::Service(cluster, name);
        self.tell(new.updated_at, FeedKind::Deployment, subject, [service], message);
    }

    fn task(&mut self, old: Option<&Task>, new: Option<&Task>) {
        // One that is forgotten an hour after its end was told of then.
        let Some(new) = new else { return };
        let instance = new.instance.as_ref();
        let host = || match instance {
            Some(key) if key.in_fargate_pool() => format!(" on the host {} of the Fargate pool", key.id),
            Some(key) => format!(" on the instance {}", key.id),
            None => String::new(),
        };
        if old.is_none() {
            let zone = new.availability_zone.as_deref().map_or(String::new(), |zone| format!(" in {zone}"));
            let place = match instance {
                Some(_) => format!("placed{}{zone}", host()),
                None => "waiting for capacity".to_owned(),
            };
            let by = new.started_by.as_ref().map_or(String::new(), |by| format!(" by {by}"));
            let message = format!("a task of {} was created{by}, {place}", new.definition_id);
            self.tell_task(new, new.created_at, FeedKind::TaskCreated, message);
        } else if instance.is_some() && old.is_some_and(|old| old.instance.is_none()) {
            self.tell_task(new, self.now, FeedKind::TaskPlaced, format!("the task was placed{}", host()));
        }
        if let Some(at) = new.started_at.filter(|_| old.is_none_or(|old| old.started_at.is_none())) {
            let took = span(at.since(new.created_at));
            let message = format!("the task of {} runs, {took} after it was created", new.definition_id);
            self.tell_task(new, at, FeedKind::TaskRunning, message);
        }
        if old.is_some_and(|old| new.is_live() && old.health() != new.health()) {
            let told = match new.health() {
                HealthStatus::Healthy => Some((FeedKind::TaskHealthy, "the task's health checks pass")),
                HealthStatus::Unhealthy => Some((FeedKind::TaskUnhealthy, "the task's health checks fail")),
                HealthStatus::Unknown => None,
            };
            if let Some((kind, message)) = told {
                self.tell_task(new, self.now, kind, message);
            }
        }
        let asked = |task: &Task| task.desired_status == DesiredStatus::Stopped;
        let by_itself = matches!(
            new.stop_code,
            None | Some(StopCode::EssentialContainerExited | StopCode::TaskFailedToStart)
        );
        // Of one that ends by itself, the end says it all.
        if let Some(at) = new.stopping_at.filter(|_| asked(new) && !by_itself && !old.is_some_and(asked)) {
            let reason = new.stopped_reason.as_deref().unwrap_or("no reason is known");
            self.tell_task(new, at, FeedKind::TaskStopping, format!("the task is to stop: {reason}"));
        }
        if let Some(at) = new.stopped_at.filter(|_| old.is_none_or(Task::is_live)) {
            let ran = match new.started_at {
                Some(started) => format!("after it ran for {}", span(at.since(started))),
                None => "and never ran".to_owned(),
            };
            let message =
                format!("the task of {} stopped{} {ran}: {}", new.definition_id, host(), stop_facts(new));
            self.tell_task(new, at, FeedKind::TaskStopped, message);
        }
    }

    fn tell_task(&mut self, task: &Task, at: Timestamp, kind: FeedKind, message: impl std::fmt::Display) {
        let service = task.service_key().map(|key| EcsResource::Service(key.cluster, key.name));
        let instance = task.instance.clone().map(|key| EcsResource::ContainerInstance(key.cluster, key.id));
        let subject = EcsResource::Task(task.cluster.clone(), task.id);
        self.tell(at, kind, subject, service.into_iter().chain(instance), message);
    }

    fn tell(
        &mut self,
        at: Timestamp,
        kind: FeedKind,
        subject: EcsResource,
        related: impl IntoIterator<Item = EcsResource>,
        message: impl std::fmt::Display,
    ) {
        self.events.push(FeedEvent::new(at, kind, subject, related, message));
    }
}
