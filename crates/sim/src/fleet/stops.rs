//! What agents are told to stop, as whoever watches their hosts remembers it: it ends in its time, and starts no more.

use super::{Fleet, What};
use crate::agent::Container;
use gantry_decide::task_engine::TaskArn;
use std::time::Duration;

/// How long a container has that does not end when it is asked to: ECS's usual time-out, and what a signal takes.
const STOP_MAX: Duration = Duration::from_secs(30 + 2);
/// Of an agent that was stopped itself, and all other messages on a host.
const SLACK: Duration = Duration::from_secs(5);

impl Fleet {
    /// An agent hears that a task is to stop.
    pub(super) fn told_to_stop(&mut self, agent: usize, task: TaskArn) {
        let life = self.agents[agent].life;
        if self.agents[agent].told.insert(task.clone()) {
            self.at(self.now + STOP_MAX + SLACK, What::Overdue { agent, life, task });
        }
    }

    /// An agent has started again: it has all of the time once more, and needs nobody to be told again.
    pub(super) fn stops_go_on(&mut self, agent: usize) {
        let life = self.agents[agent].life;
        for task in self.agents[agent].told.clone() {
            self.at(self.now + STOP_MAX + SLACK, What::Overdue { agent, life, task });
        }
    }

    /// The time of a task is over that its agent was told to stop.
    pub(super) fn judge_stop(&mut self, agent: usize, life: u64, task: TaskArn) {
        let host = &self.agents[agent];
        if host.life != life {
            return;
        }
        // One that did nothing for a while goes on where it stood.
        let awake = host.stalls + STOP_MAX + SLACK;
        if awake > self.now {
            return self.at(awake, What::Overdue { agent, life, task });
        }
        let runs = |((arn, _), container): (&(TaskArn, String), &Container)| {
            *arn == task && *container == Container::Running
        };
        assert!(
            !host.runtime.iter().any(runs),
            "{task} runs on, though its agent was told to stop it and has been there for {:?} since",
            STOP_MAX + SLACK
        );
    }
}
