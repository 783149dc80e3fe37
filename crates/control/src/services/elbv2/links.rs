//! The door to load balancing for other services and for controllers: targets come and go, and balancers tell of them.

use super::check;
use super::errors::{Elbv2Error, Limit};
use super::state::{
    Listener, Read, Target, TargetGroup, TargetId, TargetKey, Tls, TrustStore, of_target_group,
};
use crate::state::State;
use crate::tx::{Tx, View};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use gantry_decide::arn::{BalancingArn, BalancingResource};
use gantry_decide::ids::{
    ListenerId, LoadBalancerId, RuleId, Scope, SecurityGroupId, SubnetId, TargetGroupId, TaskId, TrustStoreId,
};
use gantry_decide::routing::HealthReport;
use gantry_decide::routing::config::{self as routing, Action, Forward, TargetGroupArn, WeightedGroup};
use gantry_decide::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// Targets of one group: AWS's quota for one load balancer.
pub const TARGETS_MAX: usize = 1000;

/// Reads a matcher's codes: `200`, `200-299,301`. Ranges hold both ends. None for other text.
pub fn codes(text: &str) -> Option<Vec<(u16, u16)>> {
    let range = |part: &str| match part.split_once('-') {
        Some((from, to)) => Some((from.parse().ok()?, to.parse().ok()?)),
        None => part.parse().ok().map(|code| (code, code)),
    };
    text.split(',').map(|part| range(part.trim())).collect()
}

/// The ARNs of the load balancers with a listener that serves a certificate.
pub fn users_of_certificate(view: View<'_>, arn: &str) -> Vec<String> {
    let uses = |tls: &Tls| tls.certificate == arn || tls.more_certificates.iter().any(|more| more == arn);
    let listeners = view.state.elbv2.listeners.values();
    let users = listeners.filter(|listener| listener.tls.as_ref().is_some_and(uses));
    let users: BTreeSet<_> = users.map(|listener| listener.id.balancer.clone()).collect();
    users.into_iter().map(|balancer| view.scope.balancing(balancer).to_string()).collect()
}

/// The ARNs of the load balancers with a listener that verifies clients by a trust store, in their order.
pub fn users_of_trust_store(view: View<'_>, id: &TrustStoreId) -> BTreeSet<String> {
    let uses = |listener: &&Arc<Listener>| {
        listener.tls.as_ref().and_then(Tls::trust_store).is_some_and(|used| used == *id)
    };
    let users = view.state.elbv2.listeners.values().filter(uses);
    users.map(|listener| view.scope.balancing(listener.id.balancer.clone()).to_string()).collect()
}

/// The trust store that an ARN names, if it is one of the scope's.
pub fn trust_store<'a>(view: View<'a>, arn: &str) -> Option<&'a TrustStore> {
    view.state.elbv2.trust_store(&check::trust_store_id(view.scope, arn).ok()?)
}

/// Where the files of trust stores are read, by who has a location that is good still.
pub const FILES_PATH: &str = "/_gantry/trust-stores/";
/// How long one is good: as long as Elastic Load Balancing's.
const LOCATION_LIFETIME: Duration = Duration::from_secs(600);
/// Keeps the proofs of locations apart from what else follows from the installation's key.
const LOCATION: &str = "trust-store-file";

/// What a location names: a bundle of authorities, or the revocations of this id.
struct File<'a> {
    store: &'a TrustStoreId,
    revocations: Option<i64>,
    /// In seconds since 1970.
    expires: i64,
}

impl File<'_> {
    fn proof(&self, view: View<'_>) -> Option<String> {
        let File { store, revocations, expires } = self;
        let arn = view.scope.balancing((*store).clone());
        let key = view.state.installation.key.as_ref()?;
        let id = key.id(LOCATION, &format!("{arn} {revocations:?} {expires}"));
        Some(id.iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

/// Where a file of a trust store can be read for some minutes, without a signature, at the server that is called `endpoint`.
pub fn location(view: View<'_>, endpoint: &str, store: &TrustStoreId, revocations: Option<i64>) -> String {
    let expires = (view.now + LOCATION_LIFETIME).as_millis() / 1000;
    let proof = File { store, revocations, expires }.proof(view).unwrap_or_default();
    let Scope { account, region } = view.scope;
    let file = revocations.map_or_else(|| "ca".to_owned(), |id| id.to_string());
    format!("{endpoint}{FILES_PATH}{account}/{region}/{store}/{file}/{expires}/{proof}")
}

/// The file at a location, which is given without [`FILES_PATH`]. None when there is none, or none any more.
pub fn file(state: &State, location: &str, now: Timestamp) -> Option<String> {
    let mut parts = location.split('/');
    let mut next = || parts.next();
    let scope = Scope { account: next()?.parse().ok()?, region: next()?.parse().ok()? };
    let store: TrustStoreId = format!("{}/{}", next()?, next()?).parse().ok()?;
    let (file, expires, proof) = (next()?, next()?.parse().ok()?, next()?);
    let revocations = if file == "ca" { None } else { Some(file.parse().ok()?) };
    let view = View { scope: &scope, state: state.get(&scope)?, now };
    let expected = File { store: &store, revocations, expires }.proof(view)?;
    verify_slices_are_equal(expected.as_bytes(), proof.as_bytes()).ok()?;
    if next().is_some() || expires < now.as_millis() / 1000 {
        return None;
    }
    let store = view.state.elbv2.trust_store(&store)?;
    match revocations {
        None => Some(store.authorities.pem.clone()),
        Some(id) => store.revocations.get(&id).map(|file| file.pem.clone()),
    }
}

/// Whether a load balancer is in a subnet.
pub fn uses_subnet(view: View<'_>, subnet: SubnetId) -> bool {
    let mut balancers = view.state.elbv2.load_balancers.values();
    balancers.any(|balancer| balancer.places.iter().any(|place| place.subnet == subnet))
}

/// Whether a load balancer has IPv6 addresses because a subnet has.
pub fn uses_ipv6_of(view: View<'_>, subnet: SubnetId) -> bool {
    let mut places = view.state.elbv2.load_balancers.values().flat_map(|balancer| &balancer.places);
    places.any(|place| place.subnet == subnet && place.ipv6.is_some())
}

/// Whether a load balancer has a security group.
pub fn uses_security_group(view: View<'_>, group: SecurityGroupId) -> bool {
    view.state.elbv2.load_balancers.values().any(|balancer| balancer.security_groups.contains(&group))
}

/// The group that an ARN names, if it is one of the scope's.
pub fn target_group<'a>(view: View<'a>, arn: &str) -> Option<&'a TargetGroup> {
    view.state.elbv2.target_group(&check::target_group_id(view.scope, arn).ok()?)
}

/// Whether a load balancer sends requests to a group.
pub fn is_used(view: View<'_>, group: &TargetGroupId) -> bool {
    !view.state.elbv2.balancers_of(view.scope, group).is_empty()
}

/// Registers a target, of a task if ECS does it. One that is registered already, or still draining, is as if it came anew.
///
/// # Errors
/// When the group has as many as it can have.
pub fn register(
    tx: &mut Tx<'_>,
    group: &TargetGroupId,
    id: TargetId,
    port: u16,
    zone: Option<String>,
    task: Option<TaskId>,
) -> Result<(), Elbv2Error> {
    let key = TargetKey { group: group.clone(), id, port };
    let registered = tx.state.elbv2.targets.get(&key);
    if registered
        .is_some_and(|target| target.deregistered_at.is_none() && target.zone == zone && target.task == task)
    {
        return Ok(());
    }
    if registered.is_none() && tx.state.elbv2.targets_of(group).count() >= TARGETS_MAX {
        return Err(Elbv2Error::TooMany(Limit::Targets));
    }
    tx.state.elbv2.targets.put(Target {
        key,
        task,
        zone,
        registered_at: tx.now,
        deregistered_at: None,
        health: None,
    });
    Ok(())
}

/// Deregisters a target: it drains for the group's delay, unless nobody sends requests to it. True if it was
/// registered.
pub fn deregister(tx: &mut Tx<'_>, group: &TargetGroupId, id: &TargetId, port: u16) -> bool {
    let key = TargetKey { group: group.clone(), id: id.clone(), port };
    let Some(target) = tx.state.elbv2.targets.get(&key) else { return false };
    if target.deregistered_at.is_some() {
        return false;
    }
    let at_once =
        drains_until(tx.view(), &Target { deregistered_at: Some(tx.now), ..target.as_ref().clone() })
            .is_none_or(|end| end <= tx.now);
    if at_once {
        tx.state.elbv2.targets.remove(&key);
    } else {
        let now = tx.now;
        tx.state.elbv2.targets.edit(&key, |target| target.deregistered_at = Some(now));
    }
    true
}

/// When a deregistered target has drained at the latest. None for one that is registered, or that no load balancer
/// sends requests to.
pub fn drains_until(view: View<'_>, target: &Target) -> Option<Timestamp> {
    let since = target.deregistered_at?;
    let group = view.state.elbv2.target_group(&target.key.group)?;
    if view.state.elbv2.balancers_of(view.scope, &group.id).is_empty() {
        return None;
    }
    let delay =
        Read::new(of_target_group(group), &group.attributes).number("deregistration_delay.timeout_seconds");
    Some(since + Duration::from_secs(delay.unwrap_or_default().into()))
}

/// The target that a balancer means.
fn told_of(view: View<'_>, group: &TargetGroupArn, target: &routing::TargetKey) -> Option<TargetKey> {
    let group = check::target_group_id(view.scope, group.as_str()).ok()?;
    let named = |registered: &&Target| {
        registered.key.port == target.port && registered.key.id.to_string() == target.id.as_str()
    };
    view.state.elbv2.targets_of(&group).find(named).map(|target| target.key.clone())
}

/// A balancer tells how a target is now. What it says of one that came anew since, of one that drains, or of none, is of
/// no interest.
pub fn report(tx: &mut Tx<'_>, report: &HealthReport) {
    let Some(key) = told_of(tx.view(), &report.group, &report.target) else { return };
    let news = tx.state.elbv2.targets.get(&key).is_some_and(|target| {
        report.at >= target.registered_at
            && target.deregistered_at.is_none()
            && target.health.is_none_or(|(health, _)| health != report.health)
    });
    if news {
        tx.state.elbv2.targets.edit(&key, |target| target.health = Some((report.health, report.at)));
    }
}

/// A balancer tells that nothing of a deregistered target is under way: it need not wait for the rest of its delay.
pub fn drained(tx: &mut Tx<'_>, group: &TargetGroupArn, target: &routing::TargetKey) {
    let Some(key) = told_of(tx.view(), group, target) else { return };
    if tx.state.elbv2.targets.get(&key).is_some_and(|target| target.deregistered_at.is_some()) {
        tx.state.elbv2.targets.remove(&key);
    }
}

/// What sends requests to target groups for a service: a rule, or a listener by its default action.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sender {
    /// The default one of a listener included.
    Rule(RuleId),
    Listener(ListenerId),
}

impl Sender {
    pub fn arn(&self, scope: &Scope) -> String {
        match self {
            Sender::Rule(id) => scope.balancing(id.clone()).to_string(),
            Sender::Listener(id) => scope.balancing(id.clone()).to_string(),
        }
    }

    fn listener(&self) -> &ListenerId {
        match self {
            Sender::Rule(id) => &id.listener,
            Sender::Listener(id) => id,
        }
    }

    pub fn balancer(&self) -> &LoadBalancerId {
        &self.listener().balancer
    }
}

/// The rule or listener that an ARN names, if it is one of the scope's.
pub fn sender(view: View<'_>, arn: &str) -> Option<Sender> {
    let sender = match arn.parse::<BalancingArn>().ok().filter(|arn| arn.scope == *view.scope)?.resource {
        BalancingResource::Rule(id) => Sender::Rule(id),
        BalancingResource::Listener(id) => Sender::Listener(id),
        _ => return None,
    };
    action_of(view, &sender).is_some().then_some(sender)
}

fn action_of<'a>(view: View<'a>, sender: &Sender) -> Option<&'a Action> {
    let elbv2 = &view.state.elbv2;
    let listener = elbv2.listener(sender.listener());
    match sender {
        Sender::Listener(_) => listener.map(|listener| &listener.default_action),
        Sender::Rule(id) => {
            let default = listener.filter(|listener| listener.default_rule == *id);
            elbv2.rule(id).map(|rule| &rule.action).or(default.map(|listener| &listener.default_action))
        }
    }
}

/// What it forwards, if that is what it does.
pub fn forwarding<'a>(view: View<'a>, sender: &Sender) -> Option<&'a Forward> {
    match action_of(view, sender)? {
        Action::Forward(forward) => Some(forward),
        _ => None,
    }
}

fn weighted(scope: &Scope, weights: &[(TargetGroupId, u16)]) -> Vec<WeightedGroup> {
    let one = |(group, weight): &(TargetGroupId, u16)| WeightedGroup {
        group: TargetGroupArn::new(&scope.balancing(group.clone()).to_string()),
        weight: *weight,
    };
    weights.iter().map(one).collect()
}

/// Whether it forwards to these groups alone, with these weights. True also of one that is gone or does something else now:
/// there is nothing that could be set.
pub fn has_weights(view: View<'_>, sender: &Sender, weights: &[(TargetGroupId, u16)]) -> bool {
    let Some(forward) = forwarding(view, sender) else { return true };
    let wanted = weighted(view.scope, weights);
    if forward.groups.len() == wanted.len() && wanted.iter().all(|one| forward.groups.contains(one)) {
        return true;
    }
    let can = |(group, _): &(TargetGroupId, u16)| {
        view.state.elbv2.target_group(group).is_some() && !is_used_beyond(view, group, sender.balancer())
    };
    !weights.iter().all(can)
}

/// Has it forward to these groups alone, with these weights, after [`has_weights`] said that it does not.
pub fn set_weights(tx: &mut Tx<'_>, sender: &Sender, weights: &[(TargetGroupId, u16)]) {
    if has_weights(tx.view(), sender, weights) {
        return;
    }
    let groups = weighted(tx.scope, weights);
    let change = |action: &mut Action| {
        if let Action::Forward(forward) = action {
            forward.groups = groups;
        }
    };
    match sender {
        Sender::Rule(id) if tx.state.elbv2.rules.contains_key(id) => {
            tx.state.elbv2.rules.edit(id, |rule| change(&mut rule.action));
        }
        _ => {
            let id = sender.listener();
            tx.state.elbv2.listeners.edit(id, |listener| change(&mut listener.default_action));
        }
    }
}

/// Whether another load balancer sends requests to a group.
pub fn is_used_beyond(view: View<'_>, group: &TargetGroupId, balancer: &LoadBalancerId) -> bool {
    view.state.elbv2.balancers_of(view.scope, group).iter().any(|user| user != balancer)
}
