//! Measures what leases promise, with the terms of real installations: how long after an agent falls silent its tasks run
//! elsewhere, and that nobody who is only slow is taken for dead.

use super::Fleet;
use super::plan::{Manner, Plan, Script, Wish, Without};
use gantry_decide::lease::Terms;
use gantry_decide::random::{Random, Seeded};
use gantry_decide::time::Timestamp;
use serde_json::json;
use std::collections::BTreeSet;
use std::time::Duration;

const HOSTS: usize = 8;
const TASKS: usize = 24;
/// Long enough for everything to be steady again.
const REST: Duration = Duration::from_secs(120);
/// Nobody is waited for longer.
const LONGEST: Duration = Duration::from_secs(60);
/// Who is stopped or cut off for less keeps its tasks.
const PAUSE_MAX: usize = 2000;
/// How long the server's process hangs at most.
const HANG_MAX: usize = 20_000;

/// What was measured.
#[derive(Clone, Debug, Default)]
pub struct Silence {
    /// From each silence that lasted to when as many tasks ran elsewhere as were asked for.
    pub elsewhere: Vec<Duration>,
    /// Pauses of agents and of their network, shorter than two seconds.
    pub pauses: usize,
    /// Pauses of the server.
    pub hangs: usize,
    /// Instances whose tasks were given away in a pause of their own, and after the server had hung.
    pub false_deaths: usize,
    pub given_up_in_hangs: usize,
    /// Hosts that ended their tasks in a pause of their own, and while the server hung.
    pub fences: usize,
    pub fences_in_hangs: usize,
}

impl Silence {
    /// The duration that so many of a hundred silences do not exceed.
    pub fn percentile(&self, percent: usize) -> Duration {
        let mut sorted = self.elsewhere.clone();
        sorted.sort();
        let index = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
        sorted.get(index).copied().unwrap_or_default()
    }

    pub fn add(&mut self, other: Silence) {
        self.elsewhere.extend(other.elsewhere);
        self.pauses += other.pauses;
        self.hangs += other.hangs;
        self.false_deaths += other.false_deaths;
        self.given_up_in_hangs += other.given_up_in_hangs;
        self.fences += other.fences;
        self.fences_in_hangs += other.fences_in_hangs;
    }
}

/// Puts one fleet through `rounds` silences, pauses and hangs.
///
/// # Panics
/// When tasks do not come back at all.
pub fn measure(seed: u64, rounds: usize) -> Silence {
    let plan = Plan {
        agents: HOSTS,
        // Nothing but what is done here.
        turmoil: 1 << 32,
        calls_every: 0,
        faults_every: 0,
        tasks: 1,
        terms: Terms::USUAL,
        // Images are there.
        pull_millis: 50,
    };
    let mut fleet = Fleet::new(seed, plan, script(seed, plan));
    fleet.set_up();
    fleet.ask(("UpdateService", json!({"service": "one", "desiredCount": TASKS})));
    fleet.pass(REST);
    let random = &mut Seeded::new(seed);
    let mut silence = Silence::default();
    for _ in 0..rounds {
        let agent = random.below(HOSTS);
        match random.below(3) {
            0 => {
                // One that has nothing to lose would show nothing.
                let busiest = (0..HOSTS).max_by_key(|agent| fleet.agents[*agent].running().count());
                silence.elsewhere.push(fleet.fall_silent(busiest.unwrap_or(agent), random));
            }
            1 => {
                silence.pauses += 1;
                let until = fleet.now + Duration::from_millis(random.below(PAUSE_MAX) as u64);
                match random.below(2) {
                    0 => fleet.agents[agent].stalls = until,
                    _ => fleet.agents[agent].cut_off = until,
                }
                let (lost, fences) = fleet.watch_for(REST);
                silence.false_deaths += lost;
                silence.fences += fences;
            }
            _ => {
                silence.hangs += 1;
                fleet.server_stalls = fleet.now + Duration::from_millis(random.below(HANG_MAX) as u64);
                let (lost, fences) = fleet.watch_for(REST);
                silence.given_up_in_hangs += lost;
                silence.fences_in_hangs += fences;
            }
        }
        fleet.pass(Duration::from_millis(random.below(5000) as u64));
    }
    silence
}

/// Like hosts, and one service that is spread over them.
fn script(seed: u64, plan: Plan) -> Script {
    let mut script = Script::of(seed, plan);
    for host in &mut script.hosts {
        (host.is_fargate, host.holds_leases) = (false, true);
        (host.cpu, host.memory) = (8192, 8192);
    }
    let one = Wish {
        name: "one",
        is_daemon: false,
        is_fargate: false,
        is_external: false,
        is_balanced: false,
        distinct: false,
        rack: None,
        port: None,
        strategy: vec![json!({"type": "spread", "field": "instanceId"})],
        cpu: 128,
        memory: 128,
        minimum: 100,
        maximum: 200,
        breaker: false,
        rollback: false,
        pinned: false,
        manner: Manner::rolling(),
    };
    Script { without: Without::Nothing, wishes: vec![one], steps: Vec::new(), ..script }
}

impl Fleet {
    /// Lets everything go on for so long.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        self.pass_until(end, |_| false);
        self.now = end;
    }

    /// Lets everything go on until it is as asked; says whether that was before `end`.
    fn pass_until(&mut self, end: Timestamp, mut is_so: impl FnMut(&Fleet) -> bool) -> bool {
        while let Some(entry) = self.queue.first_entry() {
            if entry.key().0 > end {
                return false;
            }
            let ((at, _), what) = entry.remove_entry();
            self.now = at;
            self.handle(what);
            if is_so(self) {
                return true;
            }
        }
        false
    }

    fn running_beside(&self, agent: usize) -> usize {
        let others = self.agents.iter().enumerate().filter(|(index, _)| *index != agent);
        others.map(|(_, other)| other.running().count()).sum()
    }

    /// The host dies, or its network does, in one of the ways in which that shows. It comes back later.
    fn fall_silent(&mut self, agent: usize, random: &mut Seeded) -> Duration {
        let since = self.now;
        let end = since + LONGEST;
        let dies = random.below(2) == 0;
        self.agents[agent].cut_off = end;
        if dies {
            // As when its power fails: nobody is told.
            self.agents[agent].lose_power();
        }
        let is_so = |fleet: &Fleet| fleet.running_beside(agent) >= TASKS;
        assert!(
            self.pass_until(end, is_so),
            "the tasks of a silent agent do not run elsewhere after {LONGEST:?}"
        );
        let took = self.now.since(since);
        self.pass(end.since(self.now));
        if dies {
            self.at(self.now, super::What::Restart { agent });
        }
        self.pass(REST);
        assert_eq!(self.running(), TASKS, "the service is not at rest again");
        took
    }

    fn running(&self) -> usize {
        self.agents.iter().map(|agent| agent.running().count()).sum()
    }

    /// Lets time pass, and counts the instances that were given up and the hosts that ended their tasks.
    fn watch_for(&mut self, time: Duration) -> (usize, usize) {
        let fences = |fleet: &Fleet| fleet.report.faults.get("fences").copied().unwrap_or(0);
        let (end, before) = (self.now + time, fences(self));
        let mut lost = BTreeSet::new();
        self.pass_until(end, |fleet| {
            let state = fleet.snapshot();
            let given_up =
                state.ecs.container_instances().iter().filter(|(_, known)| known.lost_at.is_some());
            lost.extend(given_up.map(|(key, _)| key.clone()));
            false
        });
        self.now = end;
        (lost.len(), usize::try_from(fences(self) - before).unwrap_or(usize::MAX))
    }
}
