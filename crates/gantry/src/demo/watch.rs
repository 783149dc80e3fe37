//! Follows the tasks of the demo through DescribeTasks and shows each change of state once.

use super::screen::Screen;
use crate::api::Api;
use anyhow::{Context, Result, bail};
use gantry_api::ecs;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Between two looks: finer than the eye, coarse enough to leave the machine to the containers.
const LOOK_EVERY: Duration = Duration::from_millis(40);
/// Each chapter of the demo is a matter of seconds; pulling real images may take longer.
const CHAPTER_MAX: Duration = Duration::from_secs(120);

/// The tasks seen so far, by ARN, as they were when last seen.
#[derive(Default)]
pub struct Watch {
    tasks: BTreeMap<String, ecs::Task>,
}

impl Watch {
    /// Looks again and again until `met` holds of the tasks, showing what changes.
    ///
    /// # Errors
    /// When it does not come about in [`CHAPTER_MAX`]; the reasons of stopped tasks are named.
    pub async fn until(
        &mut self,
        api: &Api,
        screen: &Screen,
        wanted: &str,
        mut met: impl FnMut(&[&ecs::Task]) -> bool,
    ) -> Result<()> {
        let start = Instant::now();
        loop {
            self.look(api, screen).await?;
            if met(&self.tasks.values().collect::<Vec<_>>()) {
                return Ok(());
            }
            if start.elapsed() > CHAPTER_MAX {
                let reasons: Vec<&str> =
                    self.tasks.values().filter_map(|task| task.stopped_reason.as_deref()).collect();
                bail!("{wanted} did not come about in {CHAPTER_MAX:?}; stopped tasks say: {reasons:?}");
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Every task there is, by its latest state.
    pub fn tasks(&self) -> impl Iterator<Item = &ecs::Task> {
        self.tasks.values()
    }

    async fn look(&mut self, api: &Api, screen: &Screen) -> Result<()> {
        let mut arns = Vec::new();
        for desired in [ecs::DesiredStatus::Running, ecs::DesiredStatus::Stopped] {
            let request = ecs::ListTasksRequest { desired_status: Some(desired), ..Default::default() };
            arns.extend(api.call::<ecs::ListTasks>(request).await?.task_arns.unwrap_or_default());
        }
        if arns.is_empty() {
            return Ok(());
        }
        let request = ecs::DescribeTasksRequest { tasks: arns, ..Default::default() };
        for task in api.call::<ecs::DescribeTasks>(request).await?.tasks.unwrap_or_default() {
            let arn = task.task_arn.clone().context("a task without ARN")?;
            let before = self.tasks.get(&arn).and_then(|known| known.last_status.as_deref());
            if before != task.last_status.as_deref() {
                show(screen, &arn, &task);
            }
            self.tasks.insert(arn, task);
        }
        Ok(())
    }
}

fn show(screen: &Screen, arn: &str, task: &ecs::Task) {
    let status = task.last_status.as_deref().unwrap_or_default();
    let detail = match status {
        "RUNNING" => address(task).map(|address| format!("at {address}")).unwrap_or_default(),
        "STOPPED" => task.stopped_reason.clone().unwrap_or_default(),
        _ => String::new(),
    };
    screen.change(family(task), short(arn), status, &detail);
}

/// The first characters of a task's id: enough to tell a handful apart.
pub fn short(arn: &str) -> &str {
    let id = arn.rsplit('/').next().unwrap_or(arn);
    id.get(..8).unwrap_or(id)
}

pub fn family(task: &ecs::Task) -> &str {
    let arn = task.task_definition_arn.as_deref().unwrap_or_default();
    let name = arn.rsplit('/').next().unwrap_or(arn);
    name.split(':').next().unwrap_or(name)
}

/// The private address of an awsvpc task.
pub fn address(task: &ecs::Task) -> Option<&str> {
    let details = task.attachments.as_ref()?.first()?.details.as_ref()?;
    details.iter().find(|detail| detail.name.as_deref() == Some("privateIPv4Address"))?.value.as_deref()
}

pub fn is(task: &ecs::Task, status: &str) -> bool {
    task.last_status.as_deref() == Some(status)
}
