//! A container instance and its tasks as cluster query expressions see them.

use crate::services::ecs::state::{ContainerInstance, Task};
use gantry_decide::lifecycle::{DesiredStatus, LastStatus};
use gantry_decide::query::Candidate;
use gantry_decide::time::Timestamp;

pub struct InstanceCandidate<'a> {
    pub instance: &'a ContainerInstance,
    /// The tasks on it that have not STOPPED.
    pub tasks: Vec<&'a Task>,
}

impl Candidate for InstanceCandidate<'_> {
    fn agent_connected(&self) -> bool {
        self.instance.agent_connected
    }

    fn agent_version(&self) -> &str {
        &self.instance.agent.version
    }

    fn ec2_instance_id(&self) -> Option<&str> {
        self.instance.ec2_instance_id.as_deref()
    }

    fn registered_at(&self) -> Timestamp {
        self.instance.registered_at
    }

    /// The number that DescribeContainerInstances shows.
    fn running_tasks_count(&self) -> u64 {
        let runs = |task: &&&Task| {
            task.desired_status == DesiredStatus::Running && task.last_status == LastStatus::Running
        };
        self.tasks.iter().filter(runs).count() as u64
    }

    fn any_task_group(&self, condition: &mut dyn FnMut(&str) -> bool) -> bool {
        self.tasks.iter().any(|task| condition(&task.group))
    }

    fn attribute(&self, name: &str) -> Option<Option<&str>> {
        self.instance.attributes.get(name).map(Option::as_deref)
    }
}
