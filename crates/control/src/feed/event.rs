//! One event of the feed, and the line that it is stored as: `KIND SUBJECT RELATED… | MESSAGE`, for filters to search.

use gantry_decide::arn::EcsResource;
use gantry_decide::ids::ClusterName;
use gantry_decide::time::Timestamp;
use std::fmt;
use std::str::FromStr;

/// Between what an event is about and its message.
const SEPARATOR: &str = " | ";
/// Characters of a message: reasons of stops are 1024 at most, each container adds its own.
const MESSAGE_MAX: usize = 4096;

/// An enum that is stored and searched in these words.
macro_rules! kinds {
    ($($(#[$doc:meta])* $variant:ident $text:literal,)*) => {
        /// What happened.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum FeedKind { $($(#[$doc])* $variant,)* }

        impl FeedKind {
            pub fn as_str(self) -> &'static str {
                match self { $(FeedKind::$variant => $text,)* }
            }
        }

        impl FromStr for FeedKind {
            type Err = ();

            fn from_str(text: &str) -> Result<FeedKind, ()> {
                match text { $($text => Ok(FeedKind::$variant),)* _ => Err(()) }
            }
        }

        #[cfg(test)]
        const ALL: &[FeedKind] = &[$(FeedKind::$variant),*];
    };
}

kinds! {
    ClusterCreated "CLUSTER_CREATED",
    ClusterDeleted "CLUSTER_DELETED",
    InstanceRegistered "INSTANCE_REGISTERED",
    InstanceConnected "INSTANCE_CONNECTED",
    InstanceDisconnected "INSTANCE_DISCONNECTED",
    InstanceDraining "INSTANCE_DRAINING",
    InstanceActive "INSTANCE_ACTIVE",
    InstanceDeregistered "INSTANCE_DEREGISTERED",
    ServiceCreated "SERVICE_CREATED",
    ServiceUpdated "SERVICE_UPDATED",
    ServiceDeleted "SERVICE_DELETED",
    /// What the service tells in its own list of events.
    ServiceEvent "SERVICE_EVENT",
    /// A service deployment's status.
    Deployment "DEPLOYMENT",
    TaskCreated "TASK_CREATED",
    /// It waited for capacity, and found an instance.
    TaskPlaced "TASK_PLACED",
    TaskRunning "TASK_RUNNING",
    TaskHealthy "TASK_HEALTHY",
    TaskUnhealthy "TASK_UNHEALTHY",
    TaskStopping "TASK_STOPPING",
    TaskStopped "TASK_STOPPED",
}

/// Something that happened to a cluster, a service, a task or an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeedEvent {
    pub at: Timestamp,
    pub kind: FeedKind,
    /// What it happened to.
    pub subject: EcsResource,
    /// What else it concerns: a task's service and instance.
    pub related: Vec<EcsResource>,
    /// In plain words, on one line.
    pub message: String,
}

impl FeedEvent {
    /// An event about `subject`; line breaks in `message` become blanks.
    pub fn new(
        at: Timestamp,
        kind: FeedKind,
        subject: EcsResource,
        related: impl IntoIterator<Item = EcsResource>,
        message: impl fmt::Display,
    ) -> FeedEvent {
        let plain = |c: char| if c.is_control() { ' ' } else { c };
        let message = message.to_string().chars().take(MESSAGE_MAX).map(plain).collect();
        FeedEvent { at, kind, subject, related: related.into_iter().collect(), message }
    }

    /// The cluster that it happened in.
    pub fn cluster(&self) -> &ClusterName {
        cluster_of(&self.subject).expect("events are made of and read with subjects in a cluster")
    }

    /// Whether it happened to this, or concerns it.
    pub fn concerns(&self, resource: &EcsResource) -> bool {
        self.subject == *resource || self.related.contains(resource)
    }

    /// The line that is stored.
    pub fn line(&self) -> String {
        let mut line = format!("{} {}", self.kind.as_str(), self.subject);
        for related in &self.related {
            line.push(' ');
            line.push_str(&related.to_string());
        }
        line.push_str(SEPARATOR);
        line.push_str(&self.message);
        line
    }

    /// Reads a stored line; `None` for other text, which a later version may have written.
    pub fn read(at: Timestamp, line: &str) -> Option<FeedEvent> {
        let (about, message) = line.split_once(SEPARATOR)?;
        let mut words = about.split(' ');
        let kind = words.next()?.parse().ok()?;
        let subject = words.next()?.parse().ok()?;
        cluster_of(&subject)?;
        let related = words.map(|word| word.parse().ok()).collect::<Option<Vec<EcsResource>>>()?;
        Some(FeedEvent { at, kind, subject, related, message: message.to_owned() })
    }
}

/// The cluster that a resource is in, if it is in one.
fn cluster_of(resource: &EcsResource) -> Option<&ClusterName> {
    match resource {
        EcsResource::Cluster(cluster)
        | EcsResource::Service(cluster, _)
        | EcsResource::Task(cluster, _)
        | EcsResource::TaskSet(cluster, ..)
        | EcsResource::Container(cluster, ..)
        | EcsResource::ContainerInstance(cluster, _)
        | EcsResource::ServiceDeployment(cluster, ..)
        | EcsResource::ServiceRevision(cluster, ..)
        | EcsResource::Daemon(cluster, _)
        | EcsResource::DaemonDeployment(cluster, ..)
        | EcsResource::DaemonRevision(cluster, ..) => Some(cluster),
        EcsResource::ServiceShort(_)
        | EcsResource::TaskDefinition(_)
        | EcsResource::DaemonTaskDefinition(_)
        | EcsResource::CapacityProvider(_) => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_stored_is_read_back() {
        let (task, service) = ("task/default/5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e", "service/default/web");
        for kind in ALL {
            let (task, service) = (task.parse().unwrap(), service.parse().unwrap());
            let event = FeedEvent::new(Timestamp::EPOCH, *kind, task, [service], "a | b\nc");
            assert_eq!(event.message, "a | b c");
            assert_eq!(FeedEvent::read(Timestamp::EPOCH, &event.line()), Some(event));
        }
        let line = format!("TASK_STOPPED {task} {service} | why");
        assert_eq!(FeedEvent::read(Timestamp::EPOCH, &line).unwrap().line(), line);
        for other in [
            "",
            "TASK_STOPPED",
            "TASK_STOPPED | x",
            "NEWS task/a/b | x",
            "TASK_STOPPED tusk/a/b | x",
            "TASK_STOPPED task-definition/web:1 | x",
        ] {
            assert_eq!(FeedEvent::read(Timestamp::EPOCH, other), None, "{other}");
        }
    }
}
