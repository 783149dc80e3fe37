//! What an agent of ours is told of security groups: those of the interfaces on its host with their rules, and those
//! that these rules name with their members' addresses. A message of its own, which stock agents never see: they have no
//! interfaces of tasks here. It goes out before the payload of a task that needs it, and within the step in which a
//! group or its members changed.
//!
//! What was told once is kept true until the connection ends; a new one begins with all of it.

use crate::services::ec2::state::{Direction, SecurityGroup};
use crate::services::ecs::state::{Eni, Task, TaskKey, held};
use crate::state::ScopeState;
use gantry_decide::ids::{Scope, SecurityGroupId};
use gantry_decide::network::Peer;
use gantry_decide::network::firewall::{Allowances, Allowed, News};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Had by agents that enforce security groups.
pub const ATTRIBUTE: &str = "gantry.security-groups";

/// See the module. Of one connection.
#[derive(Default)]
pub struct Security {
    begun: bool,
    told: BTreeMap<SecurityGroupId, Told>,
    changed_groups: BTreeSet<SecurityGroupId>,
    changed_members: BTreeSet<TaskKey>,
    newly_told: Vec<SecurityGroupId>,
}

/// What was told of a group.
#[derive(Default)]
struct Told {
    allows: Option<Allowances>,
    members: Option<BTreeSet<IpAddr>>,
}

/// The groups of the interface that a task has or had.
pub fn groups_of(task: &Task) -> impl Iterator<Item = SecurityGroupId> {
    let groups = task.eni.iter().flat_map(|eni| &eni.security_groups);
    groups.filter_map(|group| group.parse().ok())
}

impl Security {
    /// A group's rules may have changed.
    pub fn note_group(&mut self, group: SecurityGroupId) {
        self.changed_groups.insert(group);
    }

    /// A task has changed, on whatever host. True if that is news to the agent.
    pub fn note_member(&mut self, key: &TaskKey, task: &Task) -> bool {
        let Some(eni) = &task.eni else { return false };
        // Its addresses come and go together.
        let address = IpAddr::from(eni.address);
        let members = groups_of(task).filter_map(|group| self.told.get(&group)?.members.as_ref());
        let mut members = members.filter(|members| members.contains(&address) != eni.attached);
        let differs = members.next().is_some();
        if differs {
            self.changed_members.insert(key.clone());
        }
        differs
    }

    /// The groups that were told of for the first time since the last call.
    pub fn newly_told(&mut self) -> Vec<SecurityGroupId> {
        std::mem::take(&mut self.newly_told)
    }

    /// What is to be told now. `changed` are the tasks of the agent's own that changed.
    pub fn news<'a>(
        &mut self,
        scope: &Scope,
        state: &ScopeState,
        changed: impl Iterator<Item = &'a TaskKey>,
    ) -> Option<News> {
        let mut news = News { complete: !std::mem::replace(&mut self.begun, true), ..News::default() };
        self.tell_members(state, &mut news);
        let mut wanted = std::mem::take(&mut self.changed_groups);
        wanted.retain(|group| self.told.get(group).is_some_and(|told| told.allows.is_some()));
        let own = changed.filter_map(|key| state.ecs.task(key)).filter(|task| held(task).is_some());
        wanted.extend(
            own.flat_map(groups_of)
                .filter(|group| self.told.get(group).is_none_or(|told| told.allows.is_none())),
        );
        if !wanted.is_empty() {
            let ec2 = state.ec2.seen(scope);
            for group in wanted {
                self.tell_rules(state, group, ec2.security_group(&group), &mut news);
            }
        }
        (!news.is_empty()).then_some(news)
    }

    /// Who left before who joined: an address may have gone from one to the other.
    fn tell_members(&mut self, state: &ScopeState, news: &mut News) {
        let changed = std::mem::take(&mut self.changed_members);
        let tasks: Vec<&Task> = changed.iter().filter_map(|key| state.ecs.task(key)).collect();
        for joins in [false, true] {
            for task in &tasks {
                let Some(eni) = task.eni.as_ref().filter(|eni| eni.attached == joins) else { continue };
                for group in groups_of(task) {
                    let told = self.told.get_mut(&group).and_then(|told| told.members.as_mut());
                    let Some(members) = told else { continue };
                    for address in eni.addresses() {
                        if joins && members.insert(address) {
                            news.groups.entry(group).or_default().joined.insert(address);
                        } else if !joins && members.remove(&address) {
                            news.groups.entry(group).or_default().left.insert(address);
                        }
                    }
                }
            }
        }
    }

    fn tell_rules(
        &mut self,
        state: &ScopeState,
        id: SecurityGroupId,
        group: Option<&SecurityGroup>,
        news: &mut News,
    ) {
        // One that was deleted allows nothing.
        let allows = group.map(allowances).unwrap_or_default();
        let told = &mut self.told_of(id).allows;
        if told.as_ref() == Some(&allows) {
            return;
        }
        *told = Some(allows.clone());
        for allowed in allows.ingress.iter().chain(&allows.egress) {
            let Peer::Group(peer) = &allowed.peer else { continue };
            let told = &mut self.told_of(*peer).members;
            if told.is_none() {
                let tasks = state.ecs.interfaces().in_group(&peer.to_string());
                let enis = tasks.filter_map(|key| held(state.ecs.task(key)?));
                let members: BTreeSet<IpAddr> = enis.flat_map(Eni::addresses).collect();
                news.groups.entry(*peer).or_default().joined = members.clone();
                *told = Some(members);
            }
        }
        news.groups.entry(id).or_default().allows = Some(allows);
    }

    fn told_of(&mut self, group: SecurityGroupId) -> &mut Told {
        self.told.entry(group).or_insert_with(|| {
            self.newly_told.push(group);
            Told::default()
        })
    }
}

fn allowances(group: &SecurityGroup) -> Allowances {
    let list = |direction| {
        let rules = group.rules_in(direction);
        rules.map(|(_, rule)| Allowed { traffic: rule.traffic, peer: rule.peer.clone() }).collect()
    };
    Allowances { ingress: list(Direction::Ingress), egress: list(Direction::Egress) }
}
