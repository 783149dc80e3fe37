//! On which host each task's interface is, for agents whose hosts carry tasks' packets to each other. A message of its
//! own, which stock agents never see. All agents of a scope are told the same: what is new, and a new connection all.

use super::{SessionId, SessionOutput};
use crate::services::ecs::state::{Change, ContainerInstanceKey, TaskKey, held};
use crate::state::ScopeState;
use gantry_api::acs;
use gantry_decide::ids::Scope;
use gantry_decide::network::Neighbours;
use gantry_wire::envelope::seal;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

/// Where an agent says by which address other hosts reach its own.
pub const ATTRIBUTE: &str = "gantry.host-address";

/// See the module. Of all connections.
#[derive(Default)]
pub struct Directory(BTreeMap<Scope, Entries>);

/// What the agents of a scope know.
#[derive(Default)]
struct Entries {
    told: BTreeSet<SessionId>,
    to_be_told: BTreeSet<SessionId>,
    at: BTreeMap<IpAddr, Ipv4Addr>,
    /// The entries that each task has in `at`.
    of_task: BTreeMap<TaskKey, Vec<IpAddr>>,
    hosts: BTreeMap<ContainerInstanceKey, Ipv4Addr>,
    news: Neighbours,
}

fn host(state: &ScopeState, instance: &ContainerInstanceKey) -> Option<Ipv4Addr> {
    state.ecs.container_instance(instance)?.attribute(ATTRIBUTE)?.parse().ok()
}

impl Directory {
    /// A connection of an agent that wants to be told.
    pub fn open(&mut self, scope: &Scope, session: SessionId, state: &ScopeState) {
        let known = self.0.contains_key(scope);
        let entries = self.0.entry(scope.clone()).or_default();
        entries.to_be_told.insert(session);
        if !known {
            for key in state.ecs.interfaces().tasks() {
                entries.note_task(state, key);
            }
        }
    }

    /// A connection has ended.
    pub fn close(&mut self, session: SessionId) {
        self.0.retain(|_, entries| {
            entries.told.remove(&session);
            entries.to_be_told.remove(&session);
            !(entries.told.is_empty() && entries.to_be_told.is_empty())
        });
    }

    /// Something has changed.
    pub fn note(&mut self, scope: &Scope, change: &Change, state: &ScopeState) {
        let Some(entries) = self.0.get_mut(scope) else { return };
        match change {
            Change::Task(key) => entries.note_task(state, key),
            // It has come back by another address.
            Change::ContainerInstance(key) if entries.hosts.get(key).copied() != host(state, key) => {
                let tasks: Vec<TaskKey> = state.ecs.tasks_on(key).map(TaskKey::from).collect();
                tasks.iter().for_each(|task| entries.note_task(state, task));
            }
            _ => {}
        }
    }

    /// What is to be sent now.
    pub fn tell(&mut self, out: &mut Vec<(SessionId, SessionOutput)>) {
        for entries in self.0.values_mut() {
            let news = std::mem::take(&mut entries.news);
            if !news.is_empty() && !entries.told.is_empty() {
                let message = message(&news);
                out.extend(entries.told.iter().map(|id| (*id, SessionOutput::Send(message.clone()))));
            }
            if !entries.to_be_told.is_empty() {
                let all = Neighbours { complete: true, at: entries.at.clone(), gone: BTreeSet::new() };
                let message = message(&all);
                let new = std::mem::take(&mut entries.to_be_told);
                out.extend(new.iter().map(|id| (*id, SessionOutput::Send(message.clone()))));
                entries.told.extend(new);
            }
        }
    }
}

impl Entries {
    fn note_task(&mut self, state: &ScopeState, key: &TaskKey) {
        let now = state.ecs.task(key).and_then(|task| {
            let (eni, instance) = (held(task)?, task.instance.as_ref()?);
            let host = host(state, instance)?;
            self.hosts.insert(instance.clone(), host);
            Some((eni.addresses().collect::<Vec<_>>(), host))
        });
        let (addresses, host) = now.unzip();
        let addresses = addresses.unwrap_or_default();
        let before = self.of_task.remove(key).unwrap_or_default();
        for address in before.iter().filter(|address| !addresses.contains(address)) {
            // Unless another task was given it in the meantime.
            let holder = state.ecs.interfaces().holder(*address).and_then(|holder| self.of_task.get(holder));
            if !holder.is_some_and(|held| held.contains(address)) {
                self.at.remove(address);
                self.news.at.remove(address);
                self.news.gone.insert(*address);
            }
        }
        let Some(host) = host else { return };
        for address in &addresses {
            if !before.contains(address) || self.at.get(address) != Some(&host) {
                self.at.insert(*address, host);
                self.news.gone.remove(address);
                self.news.at.insert(*address, host);
            }
        }
        self.of_task.insert(key.clone(), addresses);
    }
}

fn message(news: &Neighbours) -> String {
    let news = serde_json::to_string(news).expect("addresses are JSON");
    seal("NeighboursMessage", &acs::NeighboursMessage { news })
}
