//! What must hold of balancers' words: what all of them see becomes known, who is gone holds nobody up, and nobody is
//! signalled to whom one of them still sends requests.

use super::Fleet;
use super::balancers::{Balancer, DELAY, Word, machine};
use gantry_control::services::ecs::state::TaskKey;
use gantry_decide::lifecycle::LastStatus;
use gantry_decide::routing::HealthState;
use gantry_decide::routing::config::{Target, TargetKey};
use gantry_decide::task_engine::TaskArn;
use gantry_decide::time::Timestamp;
use std::collections::BTreeSet;
use std::time::Duration;

/// How long a word takes to become known at most: balancers are late, and look every few seconds.
const WORD_MAX: Duration = Duration::from_secs(30);
/// How long a balancer takes at most to say that a target drains: until that is durable, told and looked at.
const LEARN_MAX: Duration = Duration::from_secs(20);
/// How long after its end a balancer's word counts for nothing any more, by the documentation.
const ABSENT: Duration = Duration::from_secs(60);

impl Fleet {
    /// A container is asked to end by our own action: no balancer that is connected sends it requests any more. What a new
    /// server process has not had the time to tell they cannot know.
    pub(super) fn judge_signal(&self, agent: usize, task: &TaskKey, arn: &TaskArn) {
        let state = self.published.snapshot(&self.scope);
        let told = state.ecs.task(task).is_some_and(|task| task.last_status == LastStatus::Stopping);
        if !told || self.balancers.began + LEARN_MAX > self.now {
            return;
        }
        let ports =
            self.balancers.ports.iter().filter(|((host, _), (task, _))| *host == agent && task == arn);
        let ports: Vec<u16> = ports.map(|((_, port), _)| *port).collect();
        let own = |target: &&Target| {
            target.deregistered.is_none()
                && target.key.id.as_str() == machine(agent)
                && ports.contains(&target.key.port)
        };
        for balancer in self.balancers.all.iter().filter(|balancer| balancer.session.is_some()) {
            let target = balancer.config.target_groups.iter().flat_map(|group| &group.targets).find(own);
            assert!(target.is_none(), "{task} is signalled while a balancer sends it requests: {target:?}");
            self.judge_draining(balancer, task, |key| {
                key.id.as_str() == machine(agent) && ports.contains(&key.port)
            });
        }
    }

    /// A balancer that is there has told that the last requests of a task are over, or they had all of their time.
    fn judge_draining(&self, balancer: &Balancer, task: &TaskKey, is_own: impl Fn(&TargetKey) -> bool) {
        // The time is the server's, whose clock must not have been set since it deregistered the target, which is before
        // anybody says so. Who has just come back learns of it late.
        let steady = |since: Timestamp| self.skewed.max(balancer.moved) + LEARN_MAX < since;
        for (_, (word, since)) in balancer.said.iter().filter(|((_, key), _)| is_own(key)) {
            let drains = *word == Word::Is(HealthState::Draining);
            let has_time = *since + (DELAY - LEARN_MAX) > self.now;
            assert!(
                !(drains && has_time && steady(*since)),
                "{task} is signalled while a balancer has requests of it since {since:?}"
            );
        }
    }

    /// What all balancers say that are there, and have for a while, is known.
    pub(super) fn judge_words(&self) {
        let server = self.server_stalls.max(self.server_down).max(self.balancers.began);
        if server + WORD_MAX > self.now {
            return;
        }
        let state = self.engine.head().snapshot(&self.scope);
        let (here, away): (Vec<&Balancer>, Vec<&Balancer>) =
            self.balancers.all.iter().partition(|balancer| balancer.session.is_some());
        let unsure = here.iter().any(|balancer| balancer.moved + WORD_MAX > self.now)
            || away.iter().any(|balancer| balancer.moved + ABSENT + WORD_MAX > self.now);
        if unsure {
            return;
        }
        for target in state.elbv2.targets.values() {
            let is_it =
                |key: &TargetKey| key.port == target.key.port && key.id.as_str() == target.key.id.to_string();
            let word = |balancer: &&Balancer| {
                let (_, (word, since)) = balancer.said.iter().find(|((_, key), _)| is_it(key))?;
                (*since + WORD_MAX <= self.now).then_some(*word)
            };
            let words: BTreeSet<Option<Word>> = here.iter().map(word).collect();
            let mut words = words.into_iter();
            let (Some(Some(word)), None) = (words.next(), words.next()) else { continue };
            match word {
                Word::Is(word @ (HealthState::Healthy | HealthState::Unhealthy))
                    if target.deregistered_at.is_none() =>
                {
                    let known = target.health.map(|(health, _)| health.state);
                    assert_eq!(known, Some(word), "all balancers say {word:?} of {target:?}");
                }
                Word::Drained => assert!(
                    target.deregistered_at.is_none(),
                    "all balancers that are there have nothing for {target:?}, and it drains on"
                ),
                Word::Is(_) => {}
            }
        }
    }
}
