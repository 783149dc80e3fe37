//! Input rules beyond the model's constraints.

use super::errors::AutoScalingError;
use super::state::{AutoScalingGroup, AutoScalingState, Instance, LaunchSource, Tag};
use super::steps;
use crate::services::ec2::links as ec2;
use crate::tx::View;
use gantry_api::autoscaling;
use gantry_decide::ids::{AutoScalingGroupName, Ec2InstanceId};
use gantry_decide::scaling::termination::TerminationPolicy;
use std::collections::BTreeMap;

/// Tags of a group: AWS's limit.
pub const TAGS_MAX: usize = 50;
/// Characters of a key and a value: AWS's limits.
const KEY_LENGTH_MAX: usize = 128;
const VALUE_LENGTH_MAX: usize = 256;
/// Instances that a group may be asked to have: machines are real here, and a slip should not make a million.
const SIZE_MAX: i32 = 10_000;

pub fn name(text: &str) -> Result<AutoScalingGroupName, AutoScalingError> {
    text.parse().map_err(|_| {
        AutoScalingError::invalid(
            "1 validation error detected: Value at 'autoScalingGroupName' failed to satisfy constraint: \
             Member must not contain a colon",
        )
    })
}

/// The group of a name.
///
/// # Errors
/// When there is none.
pub fn group<'a>(state: &'a AutoScalingState, text: &str) -> Result<&'a AutoScalingGroup, AutoScalingError> {
    let found = text.parse().ok().and_then(|name| state.group(&name));
    found.ok_or_else(|| AutoScalingError::no_group(text))
}

/// The group of a name, to be changed.
///
/// # Errors
/// When there is none, or it is being deleted.
pub fn living_group(state: &AutoScalingState, text: &str) -> Result<AutoScalingGroup, AutoScalingError> {
    let group = group(state, text)?;
    if group.deleting {
        return Err(AutoScalingError::InProgress(
            "You cannot modify an AutoScalingGroup while it is being deleted.".to_owned(),
        ));
    }
    Ok(group.clone())
}

/// # Errors
/// When no group has the instance.
pub fn instance<'a>(state: &'a AutoScalingState, text: &str) -> Result<&'a Instance, AutoScalingError> {
    let found = text.parse::<Ec2InstanceId>().ok().and_then(|id| state.instance(&id));
    found.ok_or_else(|| AutoScalingError::no_instance(text))
}

/// A number of instances.
///
/// # Errors
/// For one below zero or beyond [`SIZE_MAX`].
pub fn size(number: i32, member: &str) -> Result<u32, AutoScalingError> {
    let fits = (0..=SIZE_MAX).contains(&number);
    fits.then_some(number.unsigned_abs())
        .ok_or_else(|| AutoScalingError::invalid(format!("{member} must be a number from 0 to {SIZE_MAX}.")))
}

/// # Errors
/// For a number of seconds outside of `range`.
pub fn seconds(
    number: i32,
    member: &str,
    range: std::ops::RangeInclusive<i32>,
) -> Result<u32, AutoScalingError> {
    range.contains(&number).then_some(number.unsigned_abs()).ok_or_else(|| {
        let (least, most) = (range.start(), range.end());
        AutoScalingError::invalid(format!("{member} must be a number of seconds from {least} to {most}."))
    })
}

/// Whether a group may want so many.
///
/// # Errors
/// When the bounds contradict each other or the wish.
pub fn bounds(min: u32, max: u32, desired: u32) -> Result<(), AutoScalingError> {
    if max < min {
        return Err(AutoScalingError::invalid(format!(
            "Max bound, {max}, must be greater than or equal to min bound, {min}"
        )));
    }
    if !(min..=max).contains(&desired) {
        return Err(AutoScalingError::invalid(format!(
            "Desired capacity:{desired} must be between the specified min size:{min} and max size:{max}"
        )));
    }
    Ok(())
}

/// By what a group's instances are to be made, if the request says.
///
/// # Errors
/// When it names what is not there, or two things.
pub fn launch_source(
    view: View<'_>,
    template: Option<&autoscaling::LaunchTemplateSpecification>,
    configuration: Option<&str>,
) -> Result<Option<LaunchSource>, AutoScalingError> {
    let source = match (template, configuration) {
        (None, None) => return Ok(None),
        (Some(_), Some(_)) => {
            let message = "Valid requests must contain either LaunchTemplate, LaunchConfigurationName, InstanceId or \
                           MixedInstancesPolicy parameter.";
            return Err(AutoScalingError::invalid(message));
        }
        (None, Some(name)) => LaunchSource::Configuration(name.parse().map_err(|_| no_configuration(name))?),
        (Some(given), None) => {
            let (id, name) = (given.launch_template_id.as_deref(), given.launch_template_name.as_deref());
            if id.is_some() == name.is_some() {
                return Err(AutoScalingError::invalid(
                    "Valid requests must contain either launchTemplateId or LaunchTemplateName",
                ));
            }
            let found = ec2::launch_template(&view.state.ec2, id, name).map_err(|error| {
                let message = "You must use a valid fully-formed launch template.";
                AutoScalingError::invalid(format!("{message} {error}"))
            })?;
            let version = given.version.clone().unwrap_or_else(|| "$Default".to_owned());
            LaunchSource::Template { id: found.id, version, name: found.name.clone() }
        }
    };
    let (_, data) = steps::source(view, &source)?;
    if data.instance_type().is_none() {
        return Err(AutoScalingError::invalid(
            "You must use a valid fully-formed launch template. The launch template must name an instance type.",
        ));
    }
    Ok(Some(source))
}

pub fn no_configuration(name: &str) -> AutoScalingError {
    let name: String = name.chars().take(255).collect();
    AutoScalingError::invalid(format!(
        "Launch configuration name not found - Launch configuration {name} not found"
    ))
}

/// The zones of a group and its subnets as given, if the request says any.
///
/// # Errors
/// When it names what is not there, or a zone without a subnet.
pub fn places(
    view: View<'_>,
    zones: Option<&[String]>,
    subnets: Option<&str>,
) -> Result<Option<(Vec<String>, String)>, AutoScalingError> {
    let subnets = subnets.unwrap_or_default();
    let named: Vec<&str> = subnets.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
    let zones = zones.unwrap_or_default();
    if named.is_empty() {
        let known = ec2::zones(&view.scope.region);
        if let Some(wrong) = zones.iter().find(|zone| !known.contains(zone)) {
            let wrong: String = wrong.chars().take(64).collect();
            return Err(AutoScalingError::invalid(format!("Invalid Availability Zone: [{wrong}]")));
        }
        return Ok((!zones.is_empty()).then(|| (zones.to_vec(), String::new())));
    }
    let state = view.state.ec2.seen(view.scope);
    let mut found = Vec::new();
    for name in &named {
        let subnet = ec2::subnet(&state, name).ok_or_else(|| {
            let name: String = name.chars().take(64).collect();
            AutoScalingError::invalid(format!("The subnet ID '{name}' does not exist"))
        })?;
        if !found.contains(&subnet.zone) {
            found.push(subnet.zone.clone());
        }
    }
    if zones.iter().any(|zone| !found.contains(zone)) {
        return Err(AutoScalingError::invalid(
            "The availability zones of the specified subnets and the Auto Scaling group do not match",
        ));
    }
    Ok(Some((found, named.join(","))))
}

/// # Errors
/// For a word that is no policy of AWS's; Lambda functions are none here.
pub fn policies(given: &[String]) -> Result<Vec<TerminationPolicy>, AutoScalingError> {
    let read = |text: &String| {
        TerminationPolicy::read(text).ok_or_else(|| {
            let text: String = text.chars().take(64).collect();
            AutoScalingError::invalid(format!("Unsupported termination policy: {text}"))
        })
    };
    let policies = given.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    Ok(if policies.is_empty() { vec![TerminationPolicy::Default] } else { policies })
}

/// The tags of a request by the groups that they are for; one that names none is for `own`.
///
/// # Errors
/// For keys and values that AWS does not take.
pub fn tags(
    given: &[autoscaling::Tag],
    own: Option<&str>,
) -> Result<BTreeMap<String, BTreeMap<String, Tag>>, AutoScalingError> {
    let mut tags: BTreeMap<String, BTreeMap<String, Tag>> = BTreeMap::new();
    for tag in given {
        let group = own.map(str::to_owned).or_else(|| tag.resource_id.clone()).unwrap_or_default();
        if tag.resource_type.as_deref().is_some_and(|kind| kind != "auto-scaling-group") {
            return Err(AutoScalingError::invalid(
                "Invalid resource type: the only one that can be tagged is auto-scaling-group.",
            ));
        }
        tag_key(&tag.key)?;
        let value = tag.value.clone().unwrap_or_default();
        if value.chars().count() > VALUE_LENGTH_MAX {
            return Err(AutoScalingError::invalid(format!(
                "A tag's value has at most {VALUE_LENGTH_MAX} characters."
            )));
        }
        let propagate_at_launch = tag.propagate_at_launch.unwrap_or(false);
        let known =
            tags.entry(group).or_default().insert(tag.key.clone(), Tag { value, propagate_at_launch });
        if known.is_some() {
            return Err(AutoScalingError::invalid(format!("Duplicate tag key '{}' specified.", tag.key)));
        }
    }
    Ok(tags)
}

/// # Errors
/// For a key that no user may set.
pub fn tag_key(key: &str) -> Result<(), AutoScalingError> {
    if key.get(..4).is_some_and(|prefix| prefix.eq_ignore_ascii_case("aws:")) {
        return Err(AutoScalingError::invalid("Tag keys starting with 'aws:' are reserved for internal use"));
    }
    if key.is_empty() || key.chars().count() > KEY_LENGTH_MAX {
        return Err(AutoScalingError::invalid(format!("A tag's key has 1 to {KEY_LENGTH_MAX} characters.")));
    }
    Ok(())
}

/// Puts tags on a group.
///
/// # Errors
/// For too many.
pub fn put_tags(group: &mut AutoScalingGroup, tags: BTreeMap<String, Tag>) -> Result<(), AutoScalingError> {
    group.tags.extend(tags);
    if group.tags.len() > TAGS_MAX {
        return Err(AutoScalingError::LimitExceeded(format!(
            "Limit on the number of tags exceeded: {TAGS_MAX} for each group."
        )));
    }
    Ok(())
}
