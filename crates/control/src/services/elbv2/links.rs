//! The door to load balancing for other services and for controllers: targets come and go, and balancers tell of them.

use super::check;
use super::errors::{Elbv2Error, Limit};
use super::state::{Read, Target, TargetGroup, TargetId, TargetKey, Tls, of_target_group};
use crate::tx::{Tx, View};
use gantry_decide::ids::{SecurityGroupId, SubnetId, TargetGroupId, TaskId};
use gantry_decide::routing::HealthReport;
use gantry_decide::routing::config::{self as routing, TargetGroupArn};
use gantry_decide::time::Timestamp;
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
