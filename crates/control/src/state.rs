//! All the state of a cell: per scope (account and region) one [`ScopeState`] of typed tables. Cloning is cheap,
//! because tables share what did not change; that is what snapshots and transactions are made of.

use crate::services::acm::state::AcmState;
use crate::services::autoscaling::state::AutoScalingState;
use crate::services::cloudwatch::state::CloudWatchState;
use crate::services::ec2::state::{DefaultVpcBlock, Ec2State};
use crate::services::ecs::quotas::Quotas;
use crate::services::ecs::state::EcsState;
use crate::services::elbv2::state::{BalancerAddresses, Elbv2State};
use crate::services::logs::state::LogsState;
use crate::services::ssm::state::SsmState;
use gantry_decide::ids::Scope;
use gantry_store::Write;
use gantry_wire::sigv4::SessionKey;
use imbl::OrdMap;
use std::sync::Arc;

pub use crate::services::ecs::state::Change;

/// What an installation was set up with: the same for all scopes, and stored in none.
#[derive(Clone, Debug, Default)]
pub struct Installation {
    /// The key behind sessions and activations; without it there are no activations.
    pub key: Option<SessionKey>,
    pub quotas: Quotas,
    /// Where load balancers have their addresses.
    pub balancer_addresses: BalancerAddresses,
    /// Whether targets may have loopback addresses: those of whatever machine a balancer runs on.
    pub loopback_targets: bool,
    /// The block of default VPCs that nobody has written to yet.
    pub default_vpc: DefaultVpcBlock,
}

impl Installation {
    /// The key behind what tells nobody anything. An installation without one, as simulations and tests have, has nothing to
    /// keep secret.
    pub fn key(&self) -> SessionKey {
        self.key.clone().unwrap_or_else(|| SessionKey::new(&[0; SessionKey::LENGTH]))
    }
}

/// Every scope's state.
#[derive(Clone, Default)]
pub struct State {
    installation: Arc<Installation>,
    scopes: OrdMap<Scope, Arc<ScopeState>>,
    /// Scopes changed since writes were last drained.
    touched: OrdMap<Scope, ()>,
}

/// One account's state in one region. A request never sees more than its caller's.
#[derive(Clone, Default)]
pub struct ScopeState {
    pub acm: AcmState,
    pub autoscaling: AutoScalingState,
    pub cloudwatch: CloudWatchState,
    pub ec2: Ec2State,
    pub ecs: EcsState,
    pub elbv2: Elbv2State,
    pub logs: LogsState,
    pub ssm: SsmState,
    pub installation: Arc<Installation>,
}

impl ScopeState {
    /// Panics where the tables contradict each other. Called by tests and by the simulator after every step.
    pub fn check_invariants(&self) {
        self.acm.check_invariants();
        self.autoscaling.check_invariants();
        self.ec2.check_invariants();
        self.ecs.check_invariants();
        self.elbv2.check_invariants();
        self.logs.check_invariants();
        self.ssm.check_invariants();
    }
}

impl State {
    /// Sets up all scopes, also those to come. Done once, before anybody reads.
    pub fn install(&mut self, installation: Installation) {
        self.installation = Arc::new(installation);
        let scopes: Vec<Scope> = self.scopes.keys().cloned().collect();
        for scope in &scopes {
            if let Some(state) = self.scopes.get_mut(scope) {
                let state = Arc::make_mut(state);
                state.installation = Arc::clone(&self.installation);
                state.ec2.install(self.installation.default_vpc);
            }
        }
    }

    /// What a scope is that nobody has used.
    fn unused(&self) -> ScopeState {
        let mut unused = ScopeState { installation: Arc::clone(&self.installation), ..ScopeState::default() };
        unused.ec2.install(self.installation.default_vpc);
        unused
    }

    pub fn get(&self, scope: &Scope) -> Option<&ScopeState> {
        self.scopes.get(scope).map(Arc::as_ref)
    }

    /// A private copy to work on; empty for a scope that nobody has used.
    pub fn scope(&self, scope: &Scope) -> ScopeState {
        self.get(scope).cloned().unwrap_or_else(|| self.unused())
    }

    /// What readers of a scope see, also before anything was written there.
    pub fn snapshot(&self, scope: &Scope) -> Arc<ScopeState> {
        self.scopes.get(scope).cloned().unwrap_or_else(|| Arc::new(self.unused()))
    }

    pub fn replace(&mut self, scope: &Scope, state: ScopeState) {
        self.scopes.insert(scope.clone(), Arc::new(state));
        self.touched.insert(scope.clone(), ());
    }

    pub fn scopes(&self) -> impl Iterator<Item = (&Scope, &ScopeState)> {
        self.scopes.iter().map(|(scope, state)| (scope, state.as_ref()))
    }

    /// A scope's state, to be changed in place: by what cannot fail half-way, and so needs no copy to fall back on.
    pub fn edit(&mut self, scope: &Scope) -> &mut ScopeState {
        self.touched.insert(scope.clone(), ());
        if !self.scopes.contains_key(scope) {
            self.scopes.insert(scope.clone(), Arc::new(self.unused()));
        }
        Arc::make_mut(self.scopes.entry(scope.clone()).or_default())
    }

    /// What changed since the last call, for the controllers and the agents' sessions.
    pub fn drain_changes(&mut self) -> Vec<(Scope, Change)> {
        let mut changes = Vec::new();
        for scope in self.touched.keys() {
            if let Some(state) = self.scopes.get_mut(scope) {
                let state = Arc::make_mut(state);
                let ecs = state.ecs.drain_changes().into_iter();
                changes.extend(ecs.map(|change| (scope.clone(), change)));
                let groups = state.ec2.drain_changes().into_iter().map(Change::SecurityGroup);
                changes.extend(groups.map(|change| (scope.clone(), change)));
                let groups = state.autoscaling.drain_changes().into_iter().map(Change::AutoScalingGroup);
                changes.extend(groups.map(|change| (scope.clone(), change)));
                let alarms = state.cloudwatch.alarms.drain_changes().into_iter().map(Change::Alarm);
                changes.extend(alarms.map(|change| (scope.clone(), change)));
                let news = state.elbv2.drain_changes();
                // Balancers fetch a certificate anew when it changed.
                let routing = (news.any | state.acm.drain_changes()).then_some(Change::Routing);
                let targets = news.groups.into_iter().map(Change::Targets).chain(routing);
                changes.extend(targets.map(|change| (scope.clone(), change)));
            }
        }
        changes
    }

    /// What was written since the last call, each record once. None of it is told as changed any more.
    pub fn drain_writes(&mut self) -> Vec<Write> {
        let mut writes = Vec::new();
        for (scope, ()) in std::mem::take(&mut self.touched) {
            if let Some(state) = self.scopes.get_mut(&scope) {
                let (state, prefix) = (Arc::make_mut(state), format!("{scope}/"));
                state.ecs.drain_writes(&prefix, &mut writes);
                state.acm.drain_writes(&prefix, &mut writes);
                state.autoscaling.drain_writes(&prefix, &mut writes);
                state.cloudwatch.drain_writes(&prefix, &mut writes);
                state.ec2.drain_writes(&prefix, &mut writes);
                state.elbv2.drain_writes(&prefix, &mut writes);
                state.logs.drain_writes(&prefix, &mut writes);
                state.ssm.drain_writes(&prefix, &mut writes);
            }
        }
        writes
    }

    /// Takes a scope as it was loaded.
    pub(crate) fn adopt(&mut self, scope: Scope, state: ScopeState) {
        self.scopes.insert(scope, Arc::new(state));
    }
}
