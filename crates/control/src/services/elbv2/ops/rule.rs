//! Rules of listeners, and their order.

use crate::call::Call;
use crate::services::elbv2::actions::{self, Place};
use crate::services::elbv2::errors::{Elbv2Error, Limit};
use crate::services::elbv2::state::{Listener, Rule};
use crate::services::elbv2::{check, conditions, views};
use crate::tx::{Tx, View};
use gantry_api::elbv2;
use gantry_decide::ids::{BalancerKind, ListenerId, RuleId};
use std::collections::{BTreeMap, BTreeSet};

/// Rules of one load balancer, the default ones left out: AWS's quota.
pub const RULES_MAX: usize = 100;

fn priority(given: i32) -> Result<u32, Elbv2Error> {
    let priority = u32::try_from(given).ok().filter(|priority| (1..=50_000).contains(priority));
    priority.ok_or_else(|| Elbv2Error::validation("The priority must be between 1 and 50000"))
}

pub fn create_rule(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: elbv2::CreateRuleInput,
) -> Result<elbv2::CreateRuleOutput, Elbv2Error> {
    let view = tx.view();
    let listener = check::listener(view, &request.listener_arn)?;
    let balancer = &listener.id.balancer;
    if balancer.kind == BalancerKind::Network {
        return Err(Elbv2Error::UnsupportedProtocol(
            "Gantry's network load balancers have no rules beside the default one.".to_owned(),
        ));
    }
    let priority = priority(request.priority)?;
    let conditions = conditions::read(&request.conditions)?;
    let transforms = actions::transforms(request.transforms.as_deref())?;
    let tags = check::tags(request.tags.as_deref())?;
    if view.state.elbv2.rules_of(&listener.id).any(|rule| rule.priority == priority) {
        return Err(Elbv2Error::PriorityInUse(priority));
    }
    let listeners = view.state.elbv2.listeners_of(balancer);
    if listeners.map(|listener| view.state.elbv2.rules_of(&listener.id).count()).sum::<usize>() >= RULES_MAX {
        return Err(Elbv2Error::TooMany(Limit::Rules));
    }
    let action = actions::read(view, Place { balancer, protocol: listener.protocol }, &request.actions)?;
    let id = RuleId::random(listener.id.clone(), tx.random);
    let rule = Rule { id, priority, conditions, transforms, action, tags };
    let rules = Some(vec![views::rule(tx.scope, &rule)]);
    tx.state.elbv2.rules.put(rule);
    Ok(elbv2::CreateRuleOutput { rules })
}

/// A listener whose default rule has this id.
fn with_default<'a>(view: View<'a>, id: &RuleId) -> Option<&'a Listener> {
    view.state.elbv2.listener(&id.listener).filter(|listener| listener.default_rule == *id)
}

pub fn describe_rules(
    view: View<'_>,
    _call: &Call,
    request: elbv2::DescribeRulesInput,
) -> Result<elbv2::DescribeRulesOutput, Elbv2Error> {
    let arns = request.rule_arns.unwrap_or_default();
    let page = check::page(request.marker.as_deref(), request.page_size)?;
    // By listener, and then in the order in which they are tried, the default one last.
    let mut found: BTreeMap<(String, u32), elbv2::Rule> = BTreeMap::new();
    let add_default = |found: &mut BTreeMap<_, _>, listener: &Listener| {
        found.insert((listener.id.to_string(), u32::MAX), views::default_rule(view.scope, listener));
    };
    let add = |found: &mut BTreeMap<_, _>, rule: &Rule| {
        found.insert((rule.id.listener.to_string(), rule.priority), views::rule(view.scope, rule));
    };
    match (&request.listener_arn, arns.as_slice()) {
        (Some(listener), []) => {
            let listener = check::listener(view, listener)?;
            view.state.elbv2.rules_of(&listener.id).for_each(|rule| add(&mut found, rule));
            add_default(&mut found, listener);
        }
        (None, arns) if !arns.is_empty() => {
            for arn in arns {
                match with_default(view, &check::rule_id(view.scope, arn)?) {
                    Some(listener) => add_default(&mut found, listener),
                    None => add(&mut found, check::rule(view, arn)?),
                }
            }
        }
        _ => {
            return Err(Elbv2Error::validation(
                "You must specify either listener rule ARNs or a listener ARN",
            ));
        }
    }
    let place =
        |((listener, priority), _): &((String, u32), elbv2::Rule)| format!("{listener} {priority:010}");
    let (rules, next_marker) = page.cut(found.into_iter(), place, |(_, rule)| rule);
    Ok(elbv2::DescribeRulesOutput { rules: Some(rules), next_marker })
}

/// What is not given stays as it is. The default rule is changed through its listener.
pub fn modify_rule(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: elbv2::ModifyRuleInput,
) -> Result<elbv2::ModifyRuleOutput, Elbv2Error> {
    let view = tx.view();
    refuse_default(view, &request.rule_arn, "modified")?;
    let mut rule = check::rule(view, &request.rule_arn)?.clone();
    if let Some(given) = &request.conditions {
        rule.conditions = conditions::read(given)?;
    }
    if request.reset_transforms == Some(true) {
        if request.transforms.as_ref().is_some_and(|given| !given.is_empty()) {
            return Err(Elbv2Error::validation("You can either reset the transforms or specify them"));
        }
        rule.transforms.clear();
    } else if let Some(given) = &request.transforms {
        rule.transforms = actions::transforms(Some(given))?;
    }
    if let Some(given) = &request.actions
        && let Some(listener) = view.state.elbv2.listener(&rule.id.listener)
    {
        let place = Place { balancer: &listener.id.balancer, protocol: listener.protocol };
        rule.action = actions::read(view, place, given)?;
    }
    let rules = Some(vec![views::rule(tx.scope, &rule)]);
    tx.state.elbv2.rules.put(rule);
    Ok(elbv2::ModifyRuleOutput { rules })
}

fn refuse_default(view: View<'_>, arn: &str, what: &str) -> Result<(), Elbv2Error> {
    match with_default(view, &check::rule_id(view.scope, arn)?) {
        Some(_) => Err(Elbv2Error::NotPermitted(format!("Default rule '{arn}' cannot be {what}"))),
        None => Ok(()),
    }
}

pub fn delete_rule(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: elbv2::DeleteRuleInput,
) -> Result<elbv2::DeleteRuleOutput, Elbv2Error> {
    refuse_default(tx.view(), &request.rule_arn, "deleted")?;
    let id = check::rule(tx.view(), &request.rule_arn)?.id.clone();
    tx.state.elbv2.rules.remove(&id);
    Ok(elbv2::DeleteRuleOutput::default())
}

/// All of them change at once, so that two rules can change places.
pub fn set_rule_priorities(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: elbv2::SetRulePrioritiesInput,
) -> Result<elbv2::SetRulePrioritiesOutput, Elbv2Error> {
    let view = tx.view();
    let mut changed: BTreeMap<RuleId, Rule> = BTreeMap::new();
    for pair in &request.rule_priorities {
        let arn =
            pair.rule_arn.as_deref().ok_or_else(|| Elbv2Error::validation("A rule ARN must be specified"))?;
        let given =
            pair.priority.ok_or_else(|| Elbv2Error::validation("A rule priority must be specified"))?;
        refuse_default(view, arn, "modified")?;
        let rule = Rule { priority: priority(given)?, ..check::rule(view, arn)?.clone() };
        if changed.insert(rule.id.clone(), rule).is_some() {
            return Err(Elbv2Error::validation(format!("Rule '{arn}' is specified more than once")));
        }
    }
    let mut taken: BTreeSet<(&ListenerId, u32)> = BTreeSet::new();
    let listeners: BTreeSet<&ListenerId> = changed.keys().map(|id| &id.listener).collect();
    let others = listeners.iter().flat_map(|listener| view.state.elbv2.rules_of(listener));
    let others = others.filter(|rule| !changed.contains_key(&rule.id));
    for rule in others.chain(changed.values()) {
        if !taken.insert((&rule.id.listener, rule.priority)) {
            return Err(Elbv2Error::PriorityInUse(rule.priority));
        }
    }
    let rules = changed.values().map(|rule| views::rule(tx.scope, rule)).collect();
    for rule in changed.into_values() {
        tx.state.elbv2.rules.put(rule);
    }
    Ok(elbv2::SetRulePrioritiesOutput { rules: Some(rules) })
}
