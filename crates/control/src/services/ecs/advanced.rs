//! `advancedConfiguration` of a service's load balancers: the two target groups that revisions take turns in, and the rules
//! that send traffic to them. A deployment says who shall get what (see [`deployments::traffic`]); what a rule's weights are
//! to be follows from it, at any time.

use super::balanced::{self, ServiceLoadBalancer};
use super::deployments;
use super::errors::EcsError;
use super::state::{Deployment, Service};
use crate::services::elbv2::links::{self, Sender};
use crate::services::elbv2::state::TargetGroup;
use crate::tx::View;
use gantry_api::ecs;
use gantry_decide::deployment::traffic::{Share, Weights};
use gantry_decide::ids::TargetGroupId;
use serde::{Deserialize, Serialize};

/// What goes with a target group whose traffic is shifted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Advanced {
    pub alternate: TargetGroupId,
    pub production: Sender,
    /// What sends test traffic.
    pub test: Option<Sender>,
    /// The role that ECS would take on to change the rules. It is only shown.
    pub role_arn: String,
}

/// Reads what goes with a target group.
///
/// # Errors
/// When something is missing, or does not fit together.
pub fn read(
    view: View<'_>,
    given: &ecs::AdvancedConfiguration,
    group: &TargetGroup,
) -> Result<Advanced, EcsError> {
    let text = |value: &Option<String>| value.clone().filter(|text| !text.is_empty());
    let needed = |value: &Option<String>, name: &str| {
        text(value)
            .ok_or_else(|| EcsError::invalid(format!("advancedConfiguration.{name} must be specified.")))
    };
    let arn = needed(&given.alternate_target_group_arn, "alternateTargetGroupArn")?;
    let alternate = links::target_group(view, &arn).ok_or_else(|| {
        let arn: String = arn.chars().take(256).collect();
        EcsError::invalid(format!("Unable to assume role and validate the specified targetGroupArn: {arn}."))
    })?;
    if alternate.id == group.id {
        return Err(EcsError::invalid("The alternate target group must be another than the target group."));
    }
    let kind = |group: &TargetGroup| (group.protocol, group.target_type, group.address_family, group.vpc);
    if kind(alternate) != kind(group) {
        return Err(EcsError::invalid(
            "The alternate target group must have the protocol, the target type, the address type and the VPC of the \
             target group.",
        ));
    }
    let production = sender(view, &needed(&given.production_listener_rule, "productionListenerRule")?)?;
    let test = text(&given.test_listener_rule).map(|arn| sender(view, &arn)).transpose()?;
    if test.as_ref() == Some(&production) {
        return Err(EcsError::invalid(
            "The test listener rule must be another than the production listener rule.",
        ));
    }
    for one in std::iter::once(&production).chain(&test) {
        let elsewhere = |group: &TargetGroupId| links::is_used_beyond(view, group, one.balancer());
        if elsewhere(&group.id) || elsewhere(&alternate.id) {
            return Err(EcsError::invalid(format!(
                "The target groups cannot be used by {}: another load balancer uses them.",
                one.arn(view.scope)
            )));
        }
    }
    let role_arn = needed(&given.role_arn, "roleArn")?;
    Ok(Advanced { alternate: alternate.id.clone(), production, test, role_arn })
}

/// What forwards requests, by the ARN of a rule or, for a network load balancer, of a listener.
fn sender(view: View<'_>, arn: &str) -> Result<Sender, EcsError> {
    let shown = || arn.chars().take(256).collect::<String>();
    let sender = links::sender(view, arn)
        .ok_or_else(|| EcsError::invalid(format!("The listener rule {} does not exist.", shown())))?;
    if links::forwarding(view, &sender).is_none() {
        return Err(EcsError::invalid(format!(
            "The listener rule {} must have an action of type forward.",
            shown()
        )));
    }
    Ok(sender)
}

pub fn show(view: View<'_>, advanced: &Advanced) -> ecs::AdvancedConfiguration {
    ecs::AdvancedConfiguration {
        alternate_target_group_arn: Some(view.scope.balancing(advanced.alternate.clone()).to_string()),
        production_listener_rule: Some(advanced.production.arn(view.scope)),
        test_listener_rule: advanced.test.as_ref().map(|test| test.arn(view.scope)),
        role_arn: Some(advanced.role_arn.clone()),
    }
}

/// What a rule shall send to which groups: their weights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    pub sender: Sender,
    pub weights: Vec<(TargetGroupId, u16)>,
}

/// What the rules of a service shall send where.
pub fn due(view: View<'_>, service: &Service) -> Vec<Due> {
    let mut all = Vec::new();
    if service.load_balancers.iter().all(|one| one.advanced.is_none()) {
        return all;
    }
    let traffic = deployments::traffic(view, service);
    for one in &service.load_balancers {
        let Some(advanced) = &one.advanced else { continue };
        let mut add = |sender: &Sender, weights: &Weights| {
            let weights = split(service, one, sender, weights);
            all.extend(weights.map(|weights| Due { sender: sender.clone(), weights }));
        };
        add(&advanced.production, &traffic.production);
        if let Some(test) = &advanced.test {
            add(test, &traffic.test);
        }
    }
    all
}

/// The group in which a deployment's tasks get what a rule sends.
fn group_of<'a>(
    service: &'a Service,
    deployment: &'a Deployment,
    sender: &Sender,
) -> Option<&'a TargetGroupId> {
    let behind = |one: &&ServiceLoadBalancer| {
        let advanced = one.advanced.as_ref();
        advanced.is_some_and(|known| known.production == *sender || known.test.as_ref() == Some(sender))
    };
    let found = balanced::asked(service, deployment).iter().find(behind);
    found.map(|one| one.group(deployment.alternate))
}

/// The weights of a service's two groups, and of others that deployments before had behind the same rule. None while no
/// deployment has any.
fn split(
    service: &Service,
    one: &ServiceLoadBalancer,
    sender: &Sender,
    weights: &Weights,
) -> Option<Vec<(TargetGroupId, u16)>> {
    let mut split: Vec<(TargetGroupId, u16)> =
        vec![(one.group(false).clone(), 0), (one.group(true).clone(), 0)];
    let mut add =
        |group: &TargetGroupId, share: Share| match split.iter_mut().find(|(known, _)| known == group) {
            Some((_, sum)) => *sum += tenths(share),
            None => split.push((group.clone(), tenths(share))),
        };
    let mut nobody = true;
    for deployment in &service.deployments {
        let share = weights.of(deployment.revision);
        if let Some(group) = group_of(service, deployment, sender).filter(|_| share > Share::NONE) {
            add(group, share);
            nobody = false;
        }
    }
    if nobody {
        // Nobody knows of shares: all is for those who serve, or will.
        let serving = deployments::serving(service).and_then(|known| group_of(service, known, sender));
        let begun = || service.primary().and_then(|known| group_of(service, known, sender));
        add(serving.or_else(begun)?, Share::ALL);
    }
    Some(as_weights(split))
}

fn tenths(share: Share) -> u16 {
    // At most 1,000, as a share is at most all.
    (share.percent() * 10.0).round() as u16
}

/// Weights of a rule, which are at most 999: percentages, as far as these are whole, and else tenths of them.
fn as_weights(mut split: Vec<(TargetGroupId, u16)>) -> Vec<(TargetGroupId, u16)> {
    if split.iter().all(|(_, tenths)| tenths.is_multiple_of(10)) {
        split.iter_mut().for_each(|(_, weight)| *weight /= 10);
    }
    split
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn weights_keep_to_what_a_rule_can_have() {
        let weights = |own: u16, other: u16| {
            let (one, two) = ("a/0000000000000001".parse().unwrap(), "b/0000000000000002".parse().unwrap());
            let weights = as_weights(vec![(one, own), (two, other)]);
            (weights[0].1, weights[1].1)
        };
        assert_eq!(weights(1000, 0), (100, 0));
        assert_eq!(weights(950, 50), (95, 5));
        assert_eq!(weights(999, 1), (999, 1));
        assert_eq!(weights(667, 333), (667, 333));
    }
}
