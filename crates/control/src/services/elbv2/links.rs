//! The door to load balancing for other services and for controllers: targets come and go, and balancers tell of them.

use super::check;
use super::errors::{Elbv2Error, Limit};
use super::state::{Read, Target, TargetGroup, TargetId, TargetKey, Tls, of_target_group};
use crate::tx::{Tx, View};
use gantry_decide::arn::{BalancingArn, BalancingResource};
use gantry_decide::ids::{
    ListenerId, LoadBalancerId, RuleId, Scope, SecurityGroupId, SubnetId, TargetGroupId, TaskId,
};
use gantry_decide::routing::HealthReport;
use gantry_decide::routing::config::{self as routing, Action, Forward, TargetGroupArn, WeightedGroup};
use gantry_decide::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
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

/// Whether a load balancer is in a subnet.
pub fn uses_subnet(view: View<'_>, subnet: SubnetId) -> bool {
    let mut balancers = view.state.elbv2.load_balancers.values();
    balancers.any(|balancer| balancer.places.iter().any(|place| place.subnet == subnet))
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
