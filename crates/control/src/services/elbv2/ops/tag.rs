//! Tags of everything that has an ARN here.

use crate::call::Call;
use crate::services::elbv2::check::{self, TAGS_MAX};
use crate::services::elbv2::errors::{Elbv2Error, Limit, shortened};
use crate::services::elbv2::state::{Elbv2State, Tags};
use crate::services::elbv2::views;
use crate::tx::{Tx, View};
use gantry_api::elbv2;
use gantry_decide::arn::{BalancingArn, BalancingResource};
use gantry_decide::ids::Scope;

/// Resources in one request: AWS's limit.
const RESOURCES_MAX: usize = 20;

fn resource(scope: &Scope, text: &str) -> Result<BalancingResource, Elbv2Error> {
    let arn = text.parse::<BalancingArn>().ok().filter(|arn| arn.scope == *scope);
    let invalid = || Elbv2Error::validation(format!("'{}' is not a valid resource ARN", shortened(text)));
    arn.map(|arn| arn.resource).ok_or_else(invalid)
}

fn resources(given: &[String]) -> Result<&[String], Elbv2Error> {
    match given.len() {
        0 => Err(Elbv2Error::validation("A resource ARN must be specified")),
        count if count > RESOURCES_MAX => {
            Err(Elbv2Error::validation(format!("At most {RESOURCES_MAX} resources can be specified at once")))
        }
        _ => Ok(given),
    }
}

/// The tags of what an ARN names.
fn of<'a>(elbv2: &'a Elbv2State, resource: &BalancingResource, text: &str) -> Result<&'a Tags, Elbv2Error> {
    match resource {
        BalancingResource::LoadBalancer(id) => {
            let found = elbv2.load_balancer(id).map(|balancer| &balancer.tags);
            found.ok_or_else(|| Elbv2Error::LoadBalancerNotFound(shortened(text)))
        }
        BalancingResource::Listener(id) => {
            elbv2.listener(id).map(|listener| &listener.tags).ok_or(Elbv2Error::ListenerNotFound)
        }
        BalancingResource::Rule(id) => {
            let default = elbv2.listener(&id.listener).filter(|listener| listener.default_rule == *id);
            let found = elbv2.rule(id).map(|rule| &rule.tags).or(default.map(|listener| &listener.rule_tags));
            found.ok_or(Elbv2Error::RuleNotFound)
        }
        BalancingResource::TargetGroup(id) => {
            elbv2.target_group(id).map(|group| &group.tags).ok_or(Elbv2Error::TargetGroupNotFound)
        }
        BalancingResource::TrustStore(id) => {
            elbv2.trust_store(id).map(|store| &store.tags).ok_or(Elbv2Error::TrustStoreNotFound)
        }
    }
}

/// Replaces the tags of a resource that there is.
fn put(elbv2: &mut Elbv2State, resource: &BalancingResource, tags: Tags) {
    match resource {
        BalancingResource::LoadBalancer(id) => {
            elbv2.load_balancers.edit(id, |balancer| balancer.tags = tags);
        }
        BalancingResource::Listener(id) => {
            elbv2.listeners.edit(id, |listener| listener.tags = tags);
        }
        BalancingResource::Rule(id) if elbv2.rules.contains_key(id) => {
            elbv2.rules.edit(id, |rule| rule.tags = tags);
        }
        BalancingResource::Rule(id) => {
            elbv2.listeners.edit(&id.listener, |listener| listener.rule_tags = tags);
        }
        BalancingResource::TargetGroup(id) => {
            elbv2.target_groups.edit(id, |group| group.tags = tags);
        }
        BalancingResource::TrustStore(id) => {
            elbv2.trust_stores.edit(id, |store| store.tags = tags);
        }
    }
}

pub fn add_tags(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: elbv2::AddTagsInput,
) -> Result<elbv2::AddTagsOutput, Elbv2Error> {
    let more = check::tags(Some(&request.tags))?;
    for arn in resources(&request.resource_arns)? {
        let resource = resource(tx.scope, arn)?;
        let mut tags = of(&tx.state.elbv2, &resource, arn)?.clone();
        tags.extend(more.clone());
        if tags.len() > TAGS_MAX {
            return Err(Elbv2Error::TooMany(Limit::Tags));
        }
        put(&mut tx.state.elbv2, &resource, tags);
    }
    Ok(elbv2::AddTagsOutput::default())
}

pub fn remove_tags(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: elbv2::RemoveTagsInput,
) -> Result<elbv2::RemoveTagsOutput, Elbv2Error> {
    for arn in resources(&request.resource_arns)? {
        let resource = resource(tx.scope, arn)?;
        let mut tags = of(&tx.state.elbv2, &resource, arn)?.clone();
        tags.retain(|key, _| !request.tag_keys.contains(key));
        put(&mut tx.state.elbv2, &resource, tags);
    }
    Ok(elbv2::RemoveTagsOutput::default())
}

pub fn describe_tags(
    view: View<'_>,
    _call: &Call,
    request: elbv2::DescribeTagsInput,
) -> Result<elbv2::DescribeTagsOutput, Elbv2Error> {
    let describe = |arn: &String| {
        let tags = of(&view.state.elbv2, &resource(view.scope, arn)?, arn)?;
        Ok(elbv2::TagDescription { resource_arn: Some(arn.clone()), tags: views::tags(tags) })
    };
    let shown = resources(&request.resource_arns)?.iter().map(describe).collect::<Result<_, Elbv2Error>>()?;
    Ok(elbv2::DescribeTagsOutput { tag_descriptions: Some(shown) })
}
