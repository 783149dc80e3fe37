//! What the control plane is told of a task, and when.

use super::engine::EngineConfig;
use super::message::{Action, ContainerChange, Submission, SubmitFailure};
use super::spec::Failure;
use super::task::{Phase, Task, TaskPhase};
use crate::lifecycle::{ContainerStatus, DesiredStatus};
use crate::mutant;
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::time::Duration;

/// The pauses before a submission is tried again: from the first to the longest, each 1.3 times its predecessor.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_LONGEST: Duration = Duration::from_secs(30);

/// A task's submissions: strictly in order, one at a time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Reports {
    /// Changes that wait for a submission. At most three per container: each status is noted once.
    collected: Vec<ContainerChange>,
    collected_since: Option<Timestamp>,
    /// The task status in the latest submission.
    told: Option<ContainerStatus>,
    /// The first one may be under way.
    outbox: VecDeque<Submission>,
    next_id: u64,
    #[serde(skip)]
    under_way: bool,
    retry_at: Option<Timestamp>,
    #[serde(skip)]
    pause: Option<Duration>,
}

impl Reports {
    /// After a restart nothing is under way, and what was refused for now may be taken at once.
    pub(super) fn recover(&mut self) {
        if mutant::is("reports forgotten in a restart") {
            self.outbox.clear();
        }
        self.under_way = false;
        self.retry_at = None;
        self.pause = None;
    }

    /// Whether nothing waits to be told or taken.
    pub(super) fn all_taken(&self) -> bool {
        self.outbox.is_empty()
    }

    pub(super) fn taken(&mut self, id: u64) -> bool {
        let awaited = self.outbox.front().is_some_and(|first| first.id == id);
        if awaited {
            self.outbox.pop_front();
            self.recover();
        }
        awaited
    }

    pub(super) fn failed(&mut self, id: u64, failure: SubmitFailure, now: Timestamp) -> bool {
        match failure {
            SubmitFailure::Refused => self.taken(id),
            SubmitFailure::Later if mutant::is("failed reports dropped") => self.taken(id),
            SubmitFailure::Later => {
                let awaited = self.under_way && self.outbox.front().is_some_and(|first| first.id == id);
                if awaited {
                    let pause = self.pause.map_or(RETRY_FIRST, |last| (last * 13 / 10).min(RETRY_LONGEST));
                    self.under_way = false;
                    self.pause = Some(pause);
                    self.retry_at = Some(now + pause);
                }
                awaited
            }
        }
    }

    pub(super) fn deadline(&self, config: &EngineConfig) -> Option<Timestamp> {
        let flush = match self.told {
            Some(ContainerStatus::Stopped) => None,
            _ => self.collected_since.map(|since| since + config.flush_after),
        };
        [flush, self.retry_at].into_iter().flatten().min()
    }
}

impl Task {
    /// Remembers a container's new status for the next submission.
    pub(super) fn note(&mut self, index: usize, status: ContainerStatus, now: Timestamp) {
        let container = &self.containers[index];
        let change = ContainerChange {
            name: container.spec.name.clone(),
            status,
            runtime_id: container.runtime_id.clone(),
            image_digest: container.image_digest.clone(),
            exit_code: container.exit.and_then(|exit| exit.code),
            reason: container.failure.as_ref().map(Failure::reason),
            bindings: container.bindings.clone(),
        };
        self.reports.collected.push(change);
        self.reports.collected_since.get_or_insert(now);
    }

    /// Queues what is due and sends the next submission when none is under way.
    pub(super) fn report(&mut self, now: Timestamp, config: &EngineConfig, out: &mut Vec<Action>) {
        let due = self.due_status();
        if let Some(status) = due {
            self.queue_submission(status);
        } else if self.reports.told != Some(ContainerStatus::Stopped)
            && self.reports.collected_since.is_some_and(|since| since + config.flush_after <= now)
        {
            self.queue_submission(self.reports.told.unwrap_or(ContainerStatus::Pending));
        }
        let reports = &mut self.reports;
        if !reports.under_way
            && reports.retry_at.is_none_or(|at| at <= now)
            && let Some(next) = reports.outbox.front()
        {
            reports.under_way = true;
            reports.retry_at = None;
            out.push(Action::Submit(next.clone()));
        }
    }

    /// The task status that the control plane should hear of now and has not.
    fn due_status(&self) -> Option<ContainerStatus> {
        let all = &self.containers;
        let status = if self.phase == TaskPhase::Stopped {
            ContainerStatus::Stopped
        } else if self.desired == DesiredStatus::Stopped {
            return None;
        } else if all.iter().all(|container| container.phase >= Phase::Running) {
            ContainerStatus::Running
        } else if all.iter().all(|container| container.phase >= Phase::Ready)
            && all.iter().any(|container| container.image_digest.is_some())
        {
            ContainerStatus::Pending
        } else {
            return None;
        };
        (Some(status) > self.reports.told).then_some(status)
    }

    fn queue_submission(&mut self, status: ContainerStatus) {
        let reason = match (&self.failure, status) {
            (Some(failure), ContainerStatus::Stopped) => failure.reason(),
            _ => String::new(),
        };
        let reports = &mut self.reports;
        let submission = Submission {
            task: self.spec.arn.clone(),
            id: reports.next_id,
            status,
            reason,
            pull_started_at: self.pull.map(|pull| pull.started_at),
            pull_stopped_at: self.pull.map(|pull| pull.stopped_at),
            execution_stopped_at: self.execution_stopped_at,
            containers: std::mem::take(&mut reports.collected),
        };
        reports.collected_since = None;
        reports.next_id += 1;
        reports.told = Some(status);
        reports.outbox.push_back(submission);
    }
}
