//! Manifests: the control plane lists the tasks that it believes in; those that it does not are stopped once it has
//! confirmed that it means it.

use gantry_api::acs;
use gantry_decide::lifecycle::DesiredStatus;
use gantry_decide::task_engine::{Task, TaskArn};
use std::collections::BTreeSet;

/// What is known of manifests. The number belongs on disk ([`crate::state::Instance::timeline`]).
#[derive(Clone, Debug, Default)]
pub struct Manifests {
    /// The largest sequence number or timeline seen.
    timeline: i64,
    /// The last manifest's id and the tasks that were asked about.
    asked: Option<(String, BTreeSet<TaskArn>)>,
}

impl Manifests {
    pub fn new(timeline: i64) -> Manifests {
        Manifests { timeline, asked: None }
    }

    pub fn timeline(&self) -> i64 {
        self.timeline
    }

    /// A payload carries numbers of the same series.
    pub fn payload(&mut self, message: &acs::PayloadMessage) {
        let newest = message.seq_num.into_iter().chain(message.timeline).max();
        self.timeline = self.timeline.max(newest.unwrap_or_default());
    }

    /// Whether the manifest is news: it is acknowledged then, and the second part asks whether the tasks that should
    /// not run are to stop. An older or repeated manifest gets no answer, or it could stop what was sent since.
    pub fn manifest<'a>(
        &mut self,
        message: &acs::TaskManifestMessage,
        tasks: impl Iterator<Item = &'a Task>,
    ) -> Option<Option<acs::TaskStopVerificationMessage>> {
        let timeline = message.timeline.unwrap_or_default();
        if timeline <= self.timeline {
            return None;
        }
        self.timeline = timeline;
        let wanted: BTreeSet<&str> = message
            .tasks
            .iter()
            .flatten()
            .filter(|task| task.desired_status.as_deref() == Some(DesiredStatus::Running.as_str()))
            .filter_map(|task| task.task_arn.as_deref())
            .collect();
        let candidates: BTreeSet<TaskArn> = tasks
            .filter(|task| {
                task.desired == DesiredStatus::Running && !wanted.contains(task.spec.arn.0.as_str())
            })
            .map(|task| task.spec.arn.clone())
            .collect();
        let message_id = message.message_id.clone().unwrap_or_default();
        let question = (!candidates.is_empty()).then(|| acs::TaskStopVerificationMessage {
            message_id: Some(message_id.clone()),
            stop_candidates: Some(
                candidates
                    .iter()
                    .map(|task| acs::TaskIdentifier {
                        task_arn: Some(task.0.clone()),
                        desired_status: Some(DesiredStatus::Stopped.as_str().to_owned()),
                        task_cluster_arn: None,
                    })
                    .collect(),
            ),
        });
        self.asked = Some((message_id, candidates));
        Some(question)
    }

    /// The tasks to stop. Only those that were asked about in the last manifest, and only once.
    pub fn confirmed(&mut self, message: &acs::TaskStopVerificationAck) -> Vec<TaskArn> {
        let Some((_, candidates)) =
            self.asked.take_if(|(asked, _)| Some(asked.as_str()) == message.message_id.as_deref())
        else {
            return Vec::new();
        };
        let confirmed =
            message.stop_tasks.iter().flatten().filter_map(|task| task.task_arn.clone()).map(TaskArn);
        confirmed.filter(|task| candidates.contains(task)).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::protocol::payload::compile;
    use gantry_decide::task_engine::{Capacity, EngineConfig, Event, TaskEngine};
    use gantry_decide::time::Timestamp;

    fn identifier(arn: &str, desired: &str) -> acs::TaskIdentifier {
        acs::TaskIdentifier {
            task_arn: Some(arn.into()),
            desired_status: Some(desired.into()),
            ..Default::default()
        }
    }

    #[test]
    fn only_confirmed_candidates_of_the_newest_manifest_stop() {
        let mut engine = TaskEngine::new(EngineConfig::new(Capacity::default()));
        for arn in ["kept", "gone", "ended"] {
            let container = acs::Container { name: Some("c".into()), ..Default::default() };
            let task = compile(&acs::Task {
                arn: Some(arn.into()),
                desired_status: Some("RUNNING".into()),
                launch_type: Some("FARGATE".into()),
                containers: Some(vec![container]),
                ..Default::default()
            })
            .unwrap();
            engine.step(Timestamp::EPOCH, Event::TaskAccepted { spec: task.spec, desired: task.desired });
        }
        let mut manifests = Manifests::new(4);
        manifests.payload(&acs::PayloadMessage { seq_num: Some(9), timeline: Some(8), ..Default::default() });
        assert_eq!(manifests.timeline(), 9);
        let manifest = |timeline, id: &str| acs::TaskManifestMessage {
            message_id: Some(id.into()),
            timeline: Some(timeline),
            tasks: Some(vec![identifier("kept", "RUNNING"), identifier("ended", "STOPPED")]),
            ..Default::default()
        };
        assert_eq!(manifests.manifest(&manifest(9, "old"), engine.tasks()), None, "equal is not newer");
        let question = manifests.manifest(&manifest(10, "m"), engine.tasks()).unwrap().unwrap();
        let asked = question.stop_candidates.unwrap();
        assert_eq!(asked, [identifier("ended", "STOPPED"), identifier("gone", "STOPPED")]);
        let ack = |id: &str| acs::TaskStopVerificationAck {
            message_id: Some(id.into()),
            stop_tasks: Some(vec![identifier("gone", "STOPPED"), identifier("kept", "STOPPED")]),
            ..Default::default()
        };
        assert_eq!(manifests.confirmed(&ack("other")), []);
        assert_eq!(
            manifests.confirmed(&ack("m")),
            [TaskArn("gone".into())],
            "what was not asked is not stopped"
        );
        assert_eq!(manifests.confirmed(&ack("m")), [], "once");
    }
}
