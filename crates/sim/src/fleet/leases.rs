//! Agents' leases, and the guards of their hosts, which end tasks whose agents hold none any more, whether the agent's
//! process runs, is stopped, or is dead.

use super::{Fleet, What};
use crate::agent::Container;
use gantry_api::acs;
use gantry_decide::lease::Terms;
use gantry_decide::task_engine::{Event, Exit, TaskArn};
use gantry_decide::time::Timestamp;
use gantry_wire::envelope::seal;
use std::time::Duration;

/// Ten times as long as usual: a simulated hour has so many fewer messages, and the same misfortunes between them.
pub const SLOW: Terms = Terms {
    length: Duration::from_secs(23),
    renew_every: Duration::from_secs(6),
    margin: Duration::from_secs(4),
    without: Duration::from_secs(90),
    grace: Duration::from_secs(60),
    look_every: Duration::from_secs(2),
    leap: Duration::from_secs(3),
};

/// Time by a host's clock that is never set.
fn steady(now: Timestamp) -> Duration {
    now.since(Timestamp::EPOCH)
}

impl Fleet {
    pub(super) fn dial(&mut self, agent: usize) {
        let now = steady(self.now);
        if let Some(lease) = &mut self.agents[agent].lease {
            lease.dial(now);
        }
    }

    pub(super) fn refuse(&mut self, agent: usize) {
        let now = steady(self.now);
        if let Some(lease) = &mut self.agents[agent].lease {
            lease.refused(now);
        }
        self.watch(agent);
    }

    pub(super) fn renew(&mut self, agent: usize, session: u64) {
        let now = steady(self.now);
        let host = &mut self.agents[agent];
        if host.session != Some(session) {
            return;
        }
        let Some(lease) = &mut host.lease else { return };
        let (number, held) = lease.ask(now);
        let request = acs::LeaseRequest {
            number: i64::try_from(number).ok(),
            held_millis: i64::try_from(held.as_millis()).ok(),
            leaving: None,
        };
        self.say(agent, seal("LeaseRequest", &request));
        self.at(self.now + self.plan.terms.renew_every, What::Renew { agent, session });
    }

    pub(super) fn leased(&mut self, agent: usize, message: acs::LeaseMessage) {
        let millis =
            |number: Option<i64>| Duration::from_millis(u64::try_from(number.unwrap_or(0)).unwrap_or(0));
        let number = u64::try_from(message.number.unwrap_or(0)).unwrap_or(0);
        let now = steady(self.now);
        if let Some(lease) = &mut self.agents[agent].lease {
            lease.granted(now, number, millis(message.length_millis), millis(message.absence_millis));
        }
        self.watch(agent);
    }

    /// The guard wakes when the lease is over.
    fn watch(&mut self, agent: usize) {
        if let Some(until) = self.agents[agent].lease.as_ref().and_then(|lease| lease.until()) {
            self.at(Timestamp::EPOCH + until, What::Guard { agent });
        }
    }

    /// Ends everything on the host if the lease is over.
    pub(super) fn guard(&mut self, agent: usize) {
        let now = steady(self.now);
        let host = &mut self.agents[agent];
        let Some(lease) = host.lease.as_mut().filter(|lease| lease.is_over(now)) else { return };
        lease.fenced();
        host.fenced = true;
        let exit = Exit { code: Some(137), out_of_memory: false, at: self.now };
        let mut ended: Vec<(TaskArn, String)> = Vec::new();
        for (key, container) in &mut host.runtime {
            if *container == Container::Running {
                *container = Container::Exited(exit);
                ended.push(key.clone());
            }
        }
        let life = host.life;
        self.count("fences");
        // What was said on the connection before is not heard any more.
        self.cut(agent);
        self.after(1..2, What::Fenced { agent, life });
        for (task, container) in ended {
            let event = Event::ContainerExited { task, container, exit };
            self.after(250..300, What::Happened { agent, life, event });
        }
    }

    /// The process learns that nothing of what it had may run: all of it is to stop.
    pub(super) fn hear_of_fence(&mut self, agent: usize, life: u64) {
        let host = &mut self.agents[agent];
        if host.life != life || host.engine.is_none() || !host.fenced {
            return;
        }
        let engine = host.engine.iter();
        let tasks: Vec<TaskArn> =
            engine.flat_map(|engine| engine.tasks()).map(|task| task.spec.arn.clone()).collect();
        for task in tasks {
            self.told_to_stop(agent, task.clone());
            let actions = self.agents[agent].step(self.now, Event::StopRequested { task });
            self.perform(agent, actions);
        }
        self.agents[agent].fenced = false;
    }
}
