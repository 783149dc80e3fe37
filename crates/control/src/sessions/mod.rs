//! The agents' connections: one ACS session per container instance (tasks, manifests, heartbeats) and one TCS session
//! (health and metrics). What a session remembers is volatile: everything that must survive is in the tables, and a
//! new session starts from them with a manifest.

mod acs;
mod credentials;
mod lease;
pub(crate) mod neighbours;
pub(crate) mod payload;
mod prefetch;
mod security;
mod tcs;
#[cfg(test)]
mod tests;

use crate::controllers::Changes;
use crate::roles::Roles;
use crate::services::ecs::state::{
    AgentVersion, Change, ContainerInstance, ContainerInstanceKey, ContainerInstanceStatus, ServiceKey,
    ServiceStatus,
};
use crate::state::State;
use crate::tx::View;
use acs::AcsSession;
pub use acs::PullStatus;
use gantry_decide::arn::{EcsArn, EcsResource};
use gantry_decide::ids::{Scope, SecurityGroupId};
use gantry_decide::lease::{Leases, Terms};
use gantry_decide::mutant;
use gantry_decide::random::Random;
use gantry_decide::time::Timestamp;
use gantry_wire::ApiError;
use neighbours::Directory;
use prefetch::{Hint, Hinted};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use tcs::TcsSession;

/// Names an agent's connection; chosen by the driver, never twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

/// Which of the two connections it is, and whose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opening {
    pub scope: Scope,
    pub instance: ContainerInstanceKey,
    pub channel: Channel,
    pub agent: AgentVersion,
    /// The base URL under which the agent reaches the control plane, `http://host:port`.
    pub endpoint: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channel {
    /// Agent communication.
    Acs,
    /// Telemetry.
    Tcs,
}

/// What happened on a connection.
#[derive(Clone, Debug)]
pub enum SessionInput {
    /// Upgraded after [`admit`] let it in.
    Opened(Opening),
    /// One text frame.
    Text(String),
    Closed,
}

/// What to do on a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionOutput {
    /// Send one text frame.
    Send(String),
    /// Close it with this WebSocket code and text.
    Close(u16, &'static str),
}

/// Checks that a connection's instance is known and active, by the ARN that the agent gives.
///
/// # Errors
/// The exceptions that agents look for. A deregistered one waits for an hour on `InactiveInstanceException`.
pub fn admit(view: View<'_>, instance_arn: &str) -> Result<ContainerInstanceKey, ApiError> {
    let unknown = || {
        ApiError::new("InvalidInstanceException", "There is no such container instance. Register it first.")
    };
    let arn: EcsArn = instance_arn.parse().map_err(|_| unknown())?;
    let EcsResource::ContainerInstance(cluster, id) = arn.resource else { return Err(unknown()) };
    let key = ContainerInstanceKey { cluster, id };
    let known = view.state.ecs.container_instance(&key).filter(|_| &arn.scope == view.scope);
    match known.ok_or_else(unknown)?.status {
        ContainerInstanceStatus::Inactive => {
            Err(ApiError::new("InactiveInstanceException", "The container instance is deregistered."))
        }
        ContainerInstanceStatus::Registering
        | ContainerInstanceStatus::Active
        | ContainerInstanceStatus::Draining => Ok(key),
    }
}

/// Whether an agent's frame does nothing but acknowledge, so that nobody waits for it to be handled. By its first
/// bytes, in which agents write the kind of a frame; one that writes them otherwise is only handled sooner.
pub fn is_calm(frame: &str) -> bool {
    let calm = ["AckRequest", "HeartbeatAckRequest", "IAMRoleCredentialsAckRequest"];
    let kind = frame.strip_prefix(r#"{"type":""#).and_then(|rest| rest.split('"').next());
    kind.is_some_and(|kind| calm.contains(&kind))
}

type Owner = (Scope, ContainerInstanceKey);

/// Why an older connection of the same instance is closed: two agents with one identity, or a connection whose end
/// nobody noticed. By this code an agent waits, ever longer, before it comes back: two that fight must not spin.
const SUPERSEDED: SessionOutput = SessionOutput::Close(1008, "a newer connection took over");

/// All connections of this process. One that was told to close is forgotten at once: what it says after that, and its
/// end, change nothing.
pub struct Sessions {
    roles: Roles,
    acs: BTreeMap<SessionId, AcsSession>,
    tcs: BTreeMap<SessionId, TcsSession>,
    /// The newest ACS session of each instance; an older one is closed when a newer opens.
    by_instance: BTreeMap<Owner, SessionId>,
    /// The same for telemetry.
    telemetry: BTreeMap<Owner, SessionId>,
    /// The ACS sessions whose agents were told of a security group.
    told_of_group: BTreeMap<(Scope, SecurityGroupId), BTreeSet<SessionId>>,
    neighbours: Directory,
    /// When each session wants to be looked at.
    timers: BTreeSet<(Timestamp, SessionId)>,
    wakes: BTreeMap<SessionId, Timestamp>,
    /// Sessions that something happened to since the last delivery.
    touched: BTreeSet<SessionId>,
    /// What agents were last told to fetch ahead, by service.
    hinted: BTreeMap<(Scope, ServiceKey), Hinted>,
    /// Connections that are to hear of all services.
    unhinted: BTreeSet<SessionId>,
    leases: Leases<Owner>,
    /// Whether the first step was taken.
    begun: bool,
    outputs: Vec<(SessionId, SessionOutput)>,
    /// What rests on nothing that is stored, and must not wait for the disk.
    urgent: Vec<(SessionId, SessionOutput)>,
}

impl Sessions {
    pub fn new(roles: Roles, terms: Terms) -> Sessions {
        Sessions {
            roles,
            leases: Leases::new(terms),
            begun: false,
            urgent: Vec::new(),
            acs: BTreeMap::new(),
            tcs: BTreeMap::new(),
            by_instance: BTreeMap::new(),
            telemetry: BTreeMap::new(),
            told_of_group: BTreeMap::new(),
            neighbours: Directory::default(),
            timers: BTreeSet::new(),
            wakes: BTreeMap::new(),
            touched: BTreeSet::new(),
            hinted: BTreeMap::new(),
            unhinted: BTreeSet::new(),
            outputs: Vec::new(),
        }
    }

    pub fn handle(&mut self, now: Timestamp, id: SessionId, input: SessionInput, state: &mut State) {
        match input {
            SessionInput::Opened(opening) => {
                self.touched.insert(id);
                self.open(now, id, opening, state);
            }
            SessionInput::Text(text) => {
                let outputs = &mut self.outputs;
                let mut out = |output| outputs.push((id, output));
                if let Some(session) = self.acs.get_mut(&id) {
                    // Most frames acknowledge, after which nothing is due that was not before.
                    if session.receive(&text, state, &mut out) {
                        self.touched.insert(id);
                    }
                    if let Some(request) = session.lease_asked() {
                        let answer = lease::grant(&mut self.leases, session.owner(), &request);
                        self.urgent.push((id, answer));
                    }
                } else if let Some(session) = self.tcs.get_mut(&id) {
                    self.touched.insert(id);
                    session.receive(&text, state, &mut out);
                }
            }
            SessionInput::Closed => self.close(now, id, state),
        }
    }

    fn open(&mut self, now: Timestamp, id: SessionId, opening: Opening, state: &mut State) {
        let Opening { scope, instance: key, channel, agent, endpoint } = opening;
        let known = state.get(&scope).and_then(|state| state.ecs.container_instance(&key));
        let Some(mut instance) =
            known.filter(|instance| instance.status != ContainerInstanceStatus::Inactive).cloned()
        else {
            self.outputs.push((id, SessionOutput::Close(1008, "the container instance is not registered")));
            return;
        };
        if channel == Channel::Tcs {
            if let Some(older) = self.telemetry.insert((scope.clone(), key.clone()), id) {
                self.forget(older);
                self.outputs.push((older, SUPERSEDED));
            }
            self.tcs.insert(id, TcsSession::new(now, scope, key));
            return;
        }
        instance.sessions += 1;
        instance.version += 1;
        instance.agent_connected = true;
        instance.disconnected_at = None;
        instance.lost_at = None;
        instance.agent = agent;
        let session = AcsSession::open(now, scope.clone(), endpoint, &instance);
        let owner = (scope.clone(), key.clone());
        if lease::is_held(&instance) {
            let terms = self.leases.terms();
            self.leases.extend(owner, terms.length + terms.margin);
            self.urgent.push((id, lease::message(terms, 0, terms.length)));
        } else {
            self.leases.forget(&owner);
        }
        let of_overlay = instance.attribute(neighbours::ATTRIBUTE).map(|_| scope.clone());
        state.edit(&scope).ecs.put_container_instance(instance);
        if let Some(older) = self.by_instance.insert((scope, key), id) {
            if !mutant::is("an old connection's end counts") {
                self.forget(older);
            }
            self.outputs.push((older, SUPERSEDED));
        }
        self.acs.insert(id, session);
        if let Some(scope) = of_overlay
            && let Some(state) = state.get(&scope)
        {
            self.neighbours.open(&scope, id, state);
        }
        self.unhinted.insert(id);
    }

    /// A connection has ended, or was told to.
    fn close(&mut self, now: Timestamp, id: SessionId, state: &mut State) {
        if let Some(session) = self.tcs.get(&id) {
            let owner = session.owner();
            if self.telemetry.get(&owner) == Some(&id) {
                self.telemetry.remove(&owner);
            }
        }
        let owner = self.acs.get(&id).map(AcsSession::owner);
        self.forget(id);
        let counts = |owner: &Owner| {
            self.by_instance.get(owner) == Some(&id) || mutant::is("an old connection's end counts")
        };
        let Some(owner) = owner.filter(counts) else { return };
        self.by_instance.remove(&owner);
        let known = state.get(&owner.0).and_then(|state| state.ecs.container_instance(&owner.1));
        if known.is_some_and(|instance| !lease::is_held(instance)) {
            self.leases.extend(owner.clone(), self.leases.terms().without);
        }
        lease::disconnected(now, &owner, state);
    }

    fn forget(&mut self, id: SessionId) {
        if self.acs.remove(&id).is_some() {
            self.neighbours.close(id);
            self.told_of_group.retain(|_, sessions| {
                sessions.remove(&id);
                !sessions.is_empty()
            });
        }
        self.tcs.remove(&id);
        self.touched.remove(&id);
        self.unhinted.remove(&id);
        self.wake(id, None);
    }

    fn wake(&mut self, id: SessionId, at: Option<Timestamp>) {
        if let Some(old) = self.wakes.remove(&id) {
            self.timers.remove(&(old, id));
        }
        if let Some(at) = at {
            self.wakes.insert(id, at);
            self.timers.insert((at, id));
        }
    }

    /// Sends each agent what it has not been told yet: a manifest after a connect, payloads for changed tasks,
    /// repetitions of what was not acknowledged, heartbeats.
    pub fn deliver(&mut self, now: Timestamp, state: &mut State, changes: &Changes, random: &mut dyn Random) {
        for (scope, change) in changes {
            let Some(scope_state) = state.get(scope) else { continue };
            self.neighbours.note(scope, change, scope_state);
            let ecs = &scope_state.ecs;
            match change {
                Change::Task(key) => {
                    let Some(task) = ecs.task(key) else { continue };
                    let groups = security::groups_of(task).filter(|_| !self.told_of_group.is_empty());
                    for group in groups {
                        for id in self.told_of_group.get(&(scope.clone(), group)).into_iter().flatten() {
                            let session = self.acs.get_mut(id);
                            if session.is_some_and(|session| session.security().note_member(key, task)) {
                                self.touched.insert(*id);
                            }
                        }
                    }
                    let Some(instance) = task.instance.clone() else { continue };
                    let Some(id) = self.by_instance.get(&(scope.clone(), instance)) else { continue };
                    if let Some(session) = self.acs.get_mut(id)
                        && !mutant::is("changes of tasks not told")
                    {
                        session.note(key.clone());
                    }
                    self.touched.insert(*id);
                }
                Change::ContainerInstance(key) => {
                    let owner = (scope.clone(), key.clone());
                    self.touched.extend(self.by_instance.get(&owner));
                    self.touched.extend(self.telemetry.get(&owner));
                }
                Change::ExecSession(id) => {
                    // One that goes on has been told already.
                    let asked = ecs.exec_sessions.get(id).filter(|asked| !asked.opened);
                    let task = asked.and_then(|session| ecs.task(&session.task));
                    let Some(instance) = task.and_then(|task| task.instance.clone()) else { continue };
                    let Some(id) = self.by_instance.get(&(scope.clone(), instance)) else { continue };
                    if let (Some(session), Some(asked)) = (self.acs.get(id), asked) {
                        self.outputs.push((*id, session.execute(asked, random)));
                    }
                }
                Change::SecurityGroup(group) => {
                    for id in self.told_of_group.get(&(scope.clone(), *group)).into_iter().flatten() {
                        if let Some(session) = self.acs.get_mut(id) {
                            session.security().note_group(*group);
                            self.touched.insert(*id);
                        }
                    }
                }
                Change::Service(key) => self.hint_of_service(scope, key, state, random),
                Change::Alarm(_)
                | Change::AutoScalingGroup(_)
                | Change::ManagedInstance(_)
                | Change::Daemon(_)
                | Change::Cluster(_)
                | Change::CapacityProvider(_)
                | Change::Routing
                | Change::Targets(_)
                | Change::TaskDefinition(_) => {}
            }
        }
        self.hint_newcomers(state, random);
        while let Some((at, id)) = self.timers.first().copied()
            && at <= now
        {
            self.wake(id, None);
            self.touched.insert(id);
        }
        self.neighbours.tell(&mut self.outputs);
        for id in std::mem::take(&mut self.touched) {
            let outputs = &mut self.outputs;
            let mut out = |output| outputs.push((id, output));
            let (flow, wake) = if let Some(session) = self.acs.get_mut(&id) {
                let flow = session.deliver(now, state, &self.roles, random, &mut out);
                for group in session.security().newly_told() {
                    let (scope, _) = session.owner();
                    self.told_of_group.entry((scope, group)).or_default().insert(id);
                }
                (flow, session.wake_at())
            } else if let Some(session) = self.tcs.get_mut(&id) {
                (session.deliver(now, state, &mut out), session.wake_at())
            } else {
                continue;
            };
            match flow {
                ControlFlow::Continue(()) => self.wake(id, Some(wake)),
                ControlFlow::Break(()) => self.close(now, id, state),
            }
        }
    }

    /// Tells agents of a service's images, if they are others than before.
    fn hint_of_service(&mut self, scope: &Scope, key: &ServiceKey, state: &State, random: &mut dyn Random) {
        let Some(state) = state.get(scope) else { return };
        let service = state.ecs.service(key);
        let (place, now) = ((scope.clone(), key.clone()), Hinted::of(service));
        if self.hinted.get(&place) == Some(&now) {
            return;
        }
        if let Some(hint) = Hint::of(scope, state, key) {
            for (instance, record) in state.ecs.container_instances().iter() {
                if record.agent_connected
                    && let Some(output) = hint.tell(record, random)
                {
                    let id = self.by_instance.get(&(scope.clone(), instance.clone()));
                    self.outputs.extend(id.map(|id| (*id, output)));
                }
            }
        }
        match service {
            Some(_) => _ = self.hinted.insert(place, now),
            None => _ = self.hinted.remove(&place),
        }
    }

    /// Tells new connections of all services' images.
    fn hint_newcomers(&mut self, state: &State, random: &mut dyn Random) {
        let mut newcomers: BTreeMap<Scope, Vec<(SessionId, ContainerInstanceKey)>> = BTreeMap::new();
        for id in std::mem::take(&mut self.unhinted) {
            if let Some((scope, key)) = self.acs.get(&id).map(AcsSession::owner) {
                newcomers.entry(scope).or_default().push((id, key));
            }
        }
        for (scope, newcomers) in newcomers {
            let Some(state) = state.get(&scope) else { continue };
            let told: Vec<(SessionId, &ContainerInstance)> = newcomers
                .iter()
                .filter_map(|(id, key)| Some((*id, state.ecs.container_instance(key)?)))
                .filter(|(_, instance)| prefetch::is_told(instance))
                .collect();
            if told.is_empty() {
                continue;
            }
            for (service, record) in state.ecs.services().iter() {
                let active = record.status == ServiceStatus::Active;
                let Some(hint) = Hint::of(&scope, state, service).filter(|_| active) else { continue };
                for (id, instance) in &told {
                    self.outputs.extend(hint.tell(instance, random).map(|output| (*id, output)));
                }
            }
        }
    }

    /// Lets time pass: agents of which nothing was heard for too long are given up, with their tasks. After a start all
    /// count as what they were until they had time to come back: agents outlive a restart of the server.
    pub fn look(&mut self, now: Timestamp, state: &mut State) {
        self.leases.look(now);
        if !std::mem::replace(&mut self.begun, true) {
            lease::begin(&mut self.leases, state);
        }
        while let Some(owner) = self.leases.run_out() {
            let known = state.get(&owner.0).and_then(|state| state.ecs.container_instance(&owner.1));
            let Some((held, connected)) =
                known.map(|instance| (lease::is_held(instance), instance.agent_connected))
            else {
                continue;
            };
            match self.by_instance.remove(&owner) {
                // Without a lease its heartbeats tell whether it is there.
                Some(id) if !held => _ = self.by_instance.insert(owner, id),
                None if !held && connected => {
                    self.leases.extend(owner.clone(), self.leases.terms().without);
                    lease::disconnected(now, &owner, state);
                }
                session => {
                    if let Some(id) = session {
                        self.forget(id);
                        self.outputs.push((id, SessionOutput::Close(1001, "nothing was heard for too long")));
                    }
                    lease::lost(now, &owner, state);
                }
            }
        }
    }

    /// Agents that are connected.
    pub fn agents(&self) -> usize {
        self.by_instance.len()
    }

    /// The pulls that agents told of last, of tasks that still wait.
    pub fn pulls(&self) -> Vec<PullStatus> {
        self.acs.values().flat_map(|session| session.pulls()).cloned().collect()
    }

    pub fn take_outputs(&mut self) -> Vec<(SessionId, SessionOutput)> {
        std::mem::take(&mut self.outputs)
    }

    /// What may be said before anything is durable.
    pub fn take_urgent(&mut self) -> Vec<(SessionId, SessionOutput)> {
        std::mem::take(&mut self.urgent)
    }

    pub fn wake_at(&self, now: Timestamp) -> Timestamp {
        let next = self.timers.first().map_or(Timestamp::NEVER, |(at, _)| *at);
        next.min(self.leases.wake_at(now))
    }
}
