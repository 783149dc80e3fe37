//! Who makes and destroys machines: each takes its time, some cannot be made, some vanish.

use super::agents::{self, Agent};
use super::{Host, Metal, Waiting, What};
use gantry_control::call::Principal;
use gantry_control::machines::{Report, Want, machines, report};
use gantry_control::services::ecs;
use gantry_decide::ids::Ec2InstanceId;
use gantry_decide::random::{Random, Seeded};
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;

/// How often it is looked what is wanted: a report that a crash swallowed is made once more.
pub const LOOK_EVERY: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Making,
    Runs,
    Ending,
    Vanished,
}

#[derive(Debug)]
pub struct Machine {
    phase: Phase,
    pub agent: Agent,
}

impl Machine {
    pub fn runs(&self) -> bool {
        self.phase == Phase::Runs
    }
}

impl Metal {
    pub(super) fn look(&mut self) {
        let state = self.published.snapshot(&self.scope);
        let wants: BTreeMap<Ec2InstanceId, Want> = machines(&state).collect();
        // What nobody knows is destroyed, as by the server when it asks what there is.
        let strangers = self.machines.iter().filter(|(id, machine)| {
            !wants.contains_key(*id) && !matches!(machine.phase, Phase::Making | Phase::Ending)
        });
        let strangers: Vec<Ec2InstanceId> = strangers.map(|(id, _)| *id).collect();
        for id in strangers {
            self.end(id);
            self.machines.remove(&id);
            self.count("machines of nobody");
        }
        for (id, want) in wants {
            let phase = self.machines.get(&id).map(|machine| machine.phase);
            match (want, phase) {
                (Want::Create(_), None) => {
                    self.machines.insert(id, Machine { phase: Phase::Making, agent: Agent::default() });
                    // Some take very long.
                    let most = if self.mishap(6) { 600_000 } else { 60_000 };
                    self.after(1000..most, What::Made(id));
                }
                // The report was lost.
                (Want::Create(_), Some(Phase::Runs)) => self.report(id, Report::Running { address: None }),
                (Want::Keep, Some(Phase::Vanished)) => {
                    self.report(id, Report::Lost("it is not there".to_owned()))
                }
                (Want::Destroy, Some(Phase::Ending)) | (Want::Create(_) | Want::Keep, _) => {}
                (Want::Destroy, Some(Phase::Vanished) | None) => {
                    self.machines.remove(&id);
                    self.report(id, Report::Gone);
                }
                (Want::Destroy, Some(Phase::Making | Phase::Runs)) => {
                    if let Some(machine) = self.machines.get_mut(&id) {
                        machine.phase = Phase::Ending;
                    }
                    self.after(1000..60_000, What::Destroyed(id));
                }
            }
        }
    }

    pub(super) fn made(&mut self, id: Ec2InstanceId) {
        let fails = self.mishap(5);
        let Some(machine) = self.machines.get_mut(&id).filter(|machine| machine.phase == Phase::Making)
        else {
            return;
        };
        if fails {
            self.machines.remove(&id);
            self.count("machines that could not be made");
            return self.report(id, Report::Failed("no such type".to_owned()));
        }
        machine.phase = Phase::Runs;
        self.report(id, Report::Running { address: None });
        self.after(1000..30_000, What::Join(id));
    }

    /// Its agent joins the cluster.
    pub(super) fn join(&mut self, id: Ec2InstanceId) {
        if !self.machines.get(&id).is_some_and(|machine| machine.phase == Phase::Runs) {
            return;
        }
        let request = agents::of_machine(id);
        let write = self.prepare(&ecs::SERVICE, "RegisterContainerInstance", &request, Principal::Root);
        self.call(write, Some(Waiting::Joins(id)));
    }

    pub(super) fn joined(&mut self, id: Ec2InstanceId, reply: &Value) {
        if let Some(machine) = self.machines.get_mut(&id) {
            machine.agent.arn = Some(agents::arn_of(reply));
            self.connect(Host::Machine(id));
        }
    }

    pub(super) fn destroyed(&mut self, id: Ec2InstanceId) {
        self.end(id);
        self.machines.remove(&id);
        self.report(id, Report::Gone);
        if self.mishap(4) {
            self.count("reports repeated");
            self.report(id, Report::Gone);
        }
    }

    /// Some machine is gone at once, with all that runs on it.
    pub(super) fn vanish(&mut self, random: &mut Seeded) {
        let running = self.machines.iter().filter(|(_, machine)| machine.phase == Phase::Runs);
        let running: Vec<Ec2InstanceId> = running.map(|(id, _)| *id).collect();
        if running.is_empty() {
            return;
        }
        let id = running[random.below(running.len())];
        self.count("machines that vanished");
        self.end(id);
        if let Some(machine) = self.machines.get_mut(&id) {
            machine.phase = Phase::Vanished;
        }
        self.report(id, Report::Lost("it is not there".to_owned()));
    }

    fn report(&mut self, id: Ec2InstanceId, what: Report) {
        let write: super::Write = Box::new(move |tx| {
            report(tx, id, what);
            Ok(Box::new(gantry_api::ecs::SubmitTaskStateChangeResponse::default()))
        });
        self.call(write, None);
    }
}
