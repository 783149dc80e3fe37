//! What goes wrong.

use super::plan::Victim;
use super::{Fleet, What};
use gantry_control::engine::Input;
use gantry_control::sessions::{SessionId, SessionInput};
use gantry_decide::random::{Random, Seeded};
use gantry_decide::time::Timestamp;
use gantry_store::memory::Failpoint;
use std::time::Duration;

/// How far a clock is set at most, in milliseconds. Everything that waits for a time waits so much longer at most.
const STEP_MAX: usize = 120_000;

/// Kinds of faults, the likely ones several times.
const KINDS: usize = 32;

/// Whom a kind befalls.
fn victim(kind: usize) -> Victim {
    match kind {
        0..=2 | 17 | 29 => Victim::Server,
        3..=5 => Victim::Pace,
        6 => Victim::Clock,
        7..=11 => Victim::Agents,
        12..=16 | 25..=28 | 31 => Victim::Network,
        18 | 19 | 30 => Victim::Registry,
        20..=22 => Victim::Balancers,
        _ => Victim::Containers,
    }
}

fn seconds(random: &mut Seeded, most: usize) -> Duration {
    Duration::from_millis(random.below(most * 1000) as u64)
}

impl Fleet {
    /// A step of the script.
    pub(super) fn fault(&mut self, random: &mut Seeded) {
        let agent = random.below(self.agents.len());
        let kind = loop {
            let kind = random.below(KINDS);
            if !self.script.spared.contains(&victim(kind)) {
                break kind;
            }
        };
        match kind {
            0 => {
                let survivors = random.below(4);
                self.crash_server(survivors);
            }
            1 | 2 => {
                self.count("disk failures");
                self.backend.fail_at(Failpoint::ALL[random.below(Failpoint::ALL.len())]);
            }
            3 => {
                self.count("busy disks");
                self.backend.be_busy(1 + random.below(20) as u32);
            }
            4 => {
                self.count("slow disks");
                self.disk_stalls = self.now + seconds(random, 10);
            }
            5 => {
                self.count("server pauses");
                self.server_stalls = self.now + seconds(random, 5);
            }
            6 => {
                self.count("clock steps");
                self.skew = random.below(2 * STEP_MAX) as i64 - STEP_MAX as i64;
                self.skewed = self.now;
            }
            7..=9 => {
                self.count("agent crashes");
                self.kill_agent(agent);
                let at = self.now + seconds(random, 30);
                self.at(at, What::Restart { agent });
            }
            10 => {
                self.count("host restarts");
                self.kill_host(agent);
                let at = self.now + seconds(random, 60);
                self.at(at, What::Restart { agent });
            }
            11 => {
                self.count("agent pauses");
                self.agents[agent].stalls = self.now + seconds(random, 60);
            }
            12 | 13 => {
                self.count("partitions");
                self.agents[agent].cut_off = self.now + seconds(random, 60);
                // A long one ends the connection.
                if random.below(2) == 0 {
                    self.cut(agent);
                }
            }
            14 | 15 => {
                self.count("connections lost");
                self.cut(agent);
            }
            16 => {
                self.count("connections half open");
                self.leave_half_open(agent, random);
            }
            18 | 19 => {
                self.count("registry outages");
                self.no_images = self.now + seconds(random, 100);
            }
            20..=22 => self.ail_balancer(random),
            23 => self.hang(agent, random),
            17 => {
                self.count("server outages");
                self.crash_server(1);
                self.server_down = self.now + seconds(random, 60);
                self.lose_server();
            }
            25 | 26 => {
                self.count("answers held up");
                self.agents[agent].lag = (self.now + seconds(random, 40), seconds(random, 20));
                let (at, time) = (self.now + seconds(random, 30), seconds(random, 80));
                self.at(at, What::Part { agent, time });
            }
            27 | 28 => self.isolate(agent, random),
            29 => {
                self.count("servers to be killed between batches");
                self.dies_between = true;
            }
            30 => {
                self.count("long registry outages");
                self.no_images = self.until_peace(random, 360);
            }
            31 => {
                self.count("long partitions");
                self.agents[agent].cut_off = self.until_peace(random, 300);
                self.cut(agent);
            }
            _ => {
                if let Some((task, container)) = self.any_container(agent, random) {
                    self.count("containers died");
                    self.after(1..2, What::Exit { agent, task, container, code: 1 });
                }
            }
        }
    }

    /// Some time from now, at most so many seconds, when nothing goes wrong any more.
    fn until_peace(&self, random: &mut Seeded, most: usize) -> Timestamp {
        (self.now + seconds(random, most)).min(self.peace_from)
    }

    /// The agent starts again while its network is down, and the server does not know of it for a while.
    fn isolate(&mut self, agent: usize, random: &mut Seeded) {
        self.count("agent crashes in partitions");
        self.agents[agent].cut_off = self.now + seconds(random, 100);
        if let Some(session) = self.agents[agent].session.take() {
            let at = self.now + seconds(random, 60);
            self.at(at, What::Closed { session });
        }
        self.kill_agent(agent);
        let at = self.now + seconds(random, 5);
        self.at(at, What::Restart { agent });
    }

    /// The agent goes to a new connection before the server knows of the old one's end.
    fn leave_half_open(&mut self, agent: usize, random: &mut Seeded) {
        let Some(session) = self.agents[agent].session.take() else { return };
        let life = self.agents[agent].life;
        self.after(1..3000, What::Connect { agent, life });
        let at = self.now + seconds(random, 20);
        self.at(at, What::Closed { session });
    }

    /// With all that runs on it. What it comes back with is on its disk.
    pub(super) fn kill_host(&mut self, agent: usize) {
        self.kill_agent(agent);
        self.agents[agent].lose_power();
    }

    fn kill_agent(&mut self, agent: usize) {
        let session = self.agents[agent].session;
        self.agents[agent].die();
        if let Some(session) = session {
            self.sessions.remove(&session);
            self.step(Input::Session { id: SessionId(session), input: SessionInput::Closed });
        }
    }
}
