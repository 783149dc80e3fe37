//! What other services may know of ECS.

use super::state::{Eni, LaunchType, Tags, Task, held};
use crate::tx::View;
use gantry_decide::arn::Arn;
use gantry_decide::ids::Scope;
use gantry_decide::time::Timestamp;

/// A network interface that a task holds.
#[derive(Clone, Debug)]
pub struct TaskInterface<'a> {
    pub eni: &'a Eni,
    /// The ARN of the attachment that joins it to its task.
    pub attachment: String,
    pub on_fargate: bool,
    /// The zone of the task's host, where that is known.
    pub zone: Option<&'a str>,
    pub since: Timestamp,
    /// Those of the task that ECS itself gave it.
    pub tags: Tags,
}

/// The interfaces that tasks hold now, in the order of the tasks.
pub fn task_interfaces<'a>(view: View<'a>) -> impl Iterator<Item = TaskInterface<'a>> {
    view.state.ecs.tasks().values().filter_map(move |task| interface(view.scope, task))
}

fn interface<'a>(scope: &Scope, task: &'a Task) -> Option<TaskInterface<'a>> {
    let eni = held(task)?;
    let arn = Arn {
        service: "ecs".to_owned(),
        region: scope.region.to_string(),
        account: scope.account.to_string(),
        resource: format!("attachment/{}", eni.attachment),
    };
    let managed = |(key, _): &(&String, &String)| key.starts_with("aws:ecs:");
    Some(TaskInterface {
        eni,
        attachment: arn.to_string(),
        on_fargate: task.launch_type == LaunchType::Fargate,
        zone: task.availability_zone.as_deref(),
        since: task.created_at,
        tags: task.tags.iter().filter(managed).map(|(key, value)| (key.clone(), value.clone())).collect(),
    })
}
