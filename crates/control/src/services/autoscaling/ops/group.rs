//! Auto Scaling groups.

use super::{PAGE_DEFAULT, PAGE_MAX, hook};
use crate::call::Call;
use crate::page::Page;
use crate::services::autoscaling::activity::at;
use crate::services::autoscaling::errors::AutoScalingError;
use crate::services::autoscaling::state::AutoScalingGroup;
use crate::services::autoscaling::{check, views};
use crate::tx::{Tx, View};
use gantry_api::autoscaling as shape;
use gantry_decide::ids::AutoScalingGroupId;
use gantry_decide::time::Timestamp;
use std::collections::BTreeMap;

/// Groups of a scope: AWS's quota.
const GROUPS_MAX: usize = 500;
/// Seconds: AWS's defaults.
const COOLDOWN_DEFAULT: u32 = 300;
/// Seconds that a group may name: AWS's limits for the longest of them, and a year.
const SECONDS: std::ops::RangeInclusive<i32> = 0..=31_536_000;

/// Refuses the settings of a request that nothing here would honour.
macro_rules! refuse {
    ($request:ident: $($member:ident),*) => {$(
        if $request.$member.is_some() {
            return Err(AutoScalingError::unsupported(stringify!($member)));
        }
    )*};
}

fn refuse_lists(given: [(Option<usize>, &str); 3]) -> Result<(), AutoScalingError> {
    match given.iter().find(|(count, _)| count.is_some_and(|count| count > 0)) {
        Some((_, what)) => Err(AutoScalingError::unsupported(what)),
        None => Ok(()),
    }
}

fn health_check_type(text: &str) -> Result<String, AutoScalingError> {
    match text {
        "EC2" => Ok(text.to_owned()),
        _ => Err(AutoScalingError::unsupported("health checks other than EC2")),
    }
}

pub fn create_auto_scaling_group(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: shape::CreateAutoScalingGroupType,
) -> Result<shape::CreateAutoScalingGroupResponse, AutoScalingError> {
    let name = check::name(&request.auto_scaling_group_name)?;
    refuse!(request: mixed_instances_policy, instance_id, placement_group, availability_zone_ids,
        capacity_reservation_specification, availability_zone_impairment_policy);
    refuse_lists([
        (request.load_balancer_names.as_ref().map(Vec::len), "classic load balancers"),
        (request.target_group_ar_ns.as_ref().map(Vec::len), "target groups"),
        (request.traffic_sources.as_ref().map(Vec::len), "traffic sources"),
    ])?;
    let known = tx.state.autoscaling.group(&name);
    if let Some(known) = known {
        let pending = if known.deleting { ", and it is pending delete" } else { "" };
        return Err(AutoScalingError::AlreadyExists(format!(
            "AutoScalingGroup by this name already exists - A group with the name {name} already exists{pending}"
        )));
    }
    if tx.state.autoscaling.groups.len() >= GROUPS_MAX {
        return Err(AutoScalingError::LimitExceeded("AutoScalingGroup limit exceeded.".to_owned()));
    }
    let template = request.launch_template.as_ref();
    let launch = check::launch_source(tx.view(), template, request.launch_configuration_name.as_deref())?;
    let launch = launch.ok_or_else(|| {
        let message = "Valid requests must contain either LaunchTemplate, LaunchConfigurationName, InstanceId or \
                       MixedInstancesPolicy parameter.";
        AutoScalingError::invalid(message)
    })?;
    let zones = request.availability_zones.as_deref();
    let places = check::places(tx.view(), zones, request.vpc_zone_identifier.as_deref())?;
    let (zones, subnets) = places.ok_or_else(|| {
        AutoScalingError::invalid("At least one Availability Zone or VPC Subnet is required.")
    })?;
    let min_size = check::size(request.min_size, "MinSize")?;
    let max_size = check::size(request.max_size, "MaxSize")?;
    let desired = request.desired_capacity.map(|size| check::size(size, "DesiredCapacity")).transpose()?;
    let desired = desired.unwrap_or(min_size);
    check::bounds(min_size, max_size, desired)?;
    let seconds = |given: Option<i32>, member: &str| {
        given.map(|given| check::seconds(given, member, SECONDS)).transpose()
    };
    let hooks = hook::specified(request.lifecycle_hook_specification_list.as_deref().unwrap_or_default())?;
    let mut group = AutoScalingGroup {
        id: AutoScalingGroupId::random(tx.random),
        created_at: tx.now,
        min_size,
        max_size,
        desired,
        launch,
        zones,
        subnets,
        default_cooldown: seconds(request.default_cooldown, "DefaultCooldown")?.unwrap_or(COOLDOWN_DEFAULT),
        health_check_type: health_check_type(request.health_check_type.as_deref().unwrap_or("EC2"))?,
        // The API's own; consoles say 300.
        health_check_grace_period: seconds(request.health_check_grace_period, "HealthCheckGracePeriod")?
            .unwrap_or(0),
        new_instances_protected: request.new_instances_protected_from_scale_in.unwrap_or(false),
        termination_policies: check::policies(request.termination_policies.as_deref().unwrap_or_default())?,
        suspended: BTreeMap::new(),
        tags: BTreeMap::new(),
        hooks,
        // -1 takes the setting away.
        default_instance_warmup: seconds(
            request.default_instance_warmup.filter(|seconds| *seconds >= 0),
            "DefaultInstanceWarmup",
        )?,
        max_instance_lifetime: lifetime(request.max_instance_lifetime)?,
        capacity_rebalance: request.capacity_rebalance.unwrap_or(false),
        service_linked_role: request.service_linked_role_arn.or_else(|| Some(service_role(tx))),
        deleting: false,
        failures: 0,
        failed_at: None,
        next_activity: 1,
        cause: changed_by_user(tx.now, (min_size, max_size), (0, desired), true),
        name,
    };
    let own = group.name.to_string();
    let tags = check::tags(request.tags.as_deref().unwrap_or_default(), Some(&own))?.remove(&own);
    check::put_tags(&mut group, tags.unwrap_or_default())?;
    tx.state.autoscaling.groups.put(group);
    Ok(shape::CreateAutoScalingGroupResponse::default())
}

/// Instances here do not grow too old.
fn lifetime(given: Option<i32>) -> Result<Option<u32>, AutoScalingError> {
    match given {
        None | Some(0) => Ok(None),
        Some(_) => Err(AutoScalingError::unsupported("the maximum instance lifetime")),
    }
}

/// The role by which AWS's own service would act.
fn service_role(tx: &Tx<'_>) -> String {
    let account = tx.scope.account;
    format!(
        "arn:aws:iam::{account}:role/aws-service-role/autoscaling.amazonaws.com/AWSServiceRoleForAutoScaling"
    )
}

/// Why a group wants what it wants from now on.
fn changed_by_user(
    now: Timestamp,
    (min, max): (u32, u32),
    (before, desired): (u32, u32),
    created: bool,
) -> String {
    let what =
        if created { "created an AutoScalingGroup" } else { "update of AutoScalingGroup constraints to" };
    let now = at(now);
    if created {
        return format!(
            "At {now} a user request {what} changing the desired capacity from {before} to {desired}."
        );
    }
    format!(
        "At {now} a user request {what} min: {min}, max: {max}, desired: {desired} changing the desired capacity from \
         {before} to {desired}."
    )
}

pub fn update_auto_scaling_group(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: shape::UpdateAutoScalingGroupType,
) -> Result<shape::UpdateAutoScalingGroupResponse, AutoScalingError> {
    let mut group = check::living_group(&tx.state.autoscaling, &request.auto_scaling_group_name)?;
    refuse!(request: mixed_instances_policy, availability_zone_ids, capacity_reservation_specification,
        availability_zone_impairment_policy);
    if request.placement_group.as_ref().is_some_and(|name| !name.is_empty()) {
        return Err(AutoScalingError::unsupported("placement groups"));
    }
    let template = request.launch_template.as_ref();
    if let Some(launch) =
        check::launch_source(tx.view(), template, request.launch_configuration_name.as_deref())?
    {
        group.launch = launch;
        // What failed may have been the fault of what is replaced now.
        (group.failures, group.failed_at) = (0, None);
    }
    let zones = request.availability_zones.as_deref();
    if let Some((zones, subnets)) = check::places(tx.view(), zones, request.vpc_zone_identifier.as_deref())? {
        (group.zones, group.subnets) = (zones, subnets);
    }
    let before = group.desired;
    if let Some(size) = request.min_size {
        group.min_size = check::size(size, "MinSize")?;
    }
    if let Some(size) = request.max_size {
        group.max_size = check::size(size, "MaxSize")?;
    }
    match request.desired_capacity {
        Some(size) => group.desired = check::size(size, "DesiredCapacity")?,
        // A wish that new bounds contradict gives way.
        None if group.min_size <= group.max_size => {
            group.desired = group.desired.clamp(group.min_size, group.max_size);
        }
        None => {}
    }
    check::bounds(group.min_size, group.max_size, group.desired)?;
    if group.desired != before {
        let bounds = (group.min_size, group.max_size);
        group.cause = changed_by_user(tx.now, bounds, (before, group.desired), false);
    }
    if let Some(seconds) = request.default_cooldown {
        group.default_cooldown = check::seconds(seconds, "DefaultCooldown", SECONDS)?;
    }
    if let Some(text) = request.health_check_type.as_deref() {
        group.health_check_type = health_check_type(text)?;
    }
    if let Some(seconds) = request.health_check_grace_period {
        group.health_check_grace_period = check::seconds(seconds, "HealthCheckGracePeriod", SECONDS)?;
    }
    if let Some(protected) = request.new_instances_protected_from_scale_in {
        group.new_instances_protected = protected;
    }
    if let Some(policies) = request.termination_policies.as_deref() {
        group.termination_policies = check::policies(policies)?;
    }
    match request.default_instance_warmup {
        Some(-1) => group.default_instance_warmup = None,
        Some(seconds) => {
            group.default_instance_warmup = Some(check::seconds(seconds, "DefaultInstanceWarmup", SECONDS)?);
        }
        None => {}
    }
    if request.max_instance_lifetime.is_some() {
        group.max_instance_lifetime = lifetime(request.max_instance_lifetime)?;
    }
    if let Some(rebalance) = request.capacity_rebalance {
        group.capacity_rebalance = rebalance;
    }
    if let Some(role) = request.service_linked_role_arn {
        group.service_linked_role = Some(role);
    }
    tx.state.autoscaling.groups.put(group);
    Ok(shape::UpdateAutoScalingGroupResponse::default())
}

pub fn set_desired_capacity(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: shape::SetDesiredCapacityType,
) -> Result<shape::SetDesiredCapacityResponse, AutoScalingError> {
    let mut group = check::living_group(&tx.state.autoscaling, &request.auto_scaling_group_name)?;
    let desired = check::size(request.desired_capacity, "DesiredCapacity")?;
    let beyond = |bound, side, name| {
        AutoScalingError::invalid(format!(
            "New SetDesiredCapacity value {desired} is {side} {name} value {bound} for the AutoScalingGroup."
        ))
    };
    if desired > group.max_size {
        return Err(beyond(group.max_size, "above", "max"));
    }
    if desired < group.min_size {
        return Err(beyond(group.min_size, "below", "min"));
    }
    if desired != group.desired {
        group.cause = format!(
            "At {} a user request explicitly set group desired capacity changing the desired capacity from {} to \
             {desired}.",
            at(tx.now),
            group.desired,
        );
        group.desired = desired;
        tx.state.autoscaling.groups.put(group);
    }
    Ok(shape::SetDesiredCapacityResponse::default())
}

pub fn delete_auto_scaling_group(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: shape::DeleteAutoScalingGroupType,
) -> Result<shape::DeleteAutoScalingGroupResponse, AutoScalingError> {
    let mut group = check::group(&tx.state.autoscaling, &request.auto_scaling_group_name)?.clone();
    let has_instances = tx.state.autoscaling.instances_of(&group.name).next().is_some();
    if has_instances && !request.force_delete.unwrap_or(false) {
        return Err(AutoScalingError::ResourceInUse(
            "You cannot delete an AutoScalingGroup while there are instances or pending Spot instance request(s) still \
             in the group."
                .to_owned(),
        ));
    }
    group.deleting = true;
    tx.state.autoscaling.groups.put(group);
    Ok(shape::DeleteAutoScalingGroupResponse::default())
}

/// Whether a group has what all filters of a request ask for.
fn passes(filters: &[shape::Filter], group: &AutoScalingGroup) -> Result<bool, AutoScalingError> {
    for filter in filters {
        let values = filter.values.as_deref().unwrap_or_default();
        let name = filter.name.as_deref().unwrap_or_default();
        let is = |text: &String| values.contains(text);
        let passes = match (name, name.strip_prefix("tag:")) {
            (_, Some(key)) => group.tags.get(key).is_some_and(|tag| is(&tag.value)),
            ("tag-key", _) => group.tags.keys().any(is),
            ("tag-value", _) => group.tags.values().any(|tag| is(&tag.value)),
            _ => return Err(AutoScalingError::invalid("Filter types are tag-key, tag-value and tag:KEY.")),
        };
        if !passes {
            return Ok(false);
        }
    }
    Ok(true)
}

pub fn describe_auto_scaling_groups(
    view: View<'_>,
    _call: &Call,
    request: shape::AutoScalingGroupNamesType,
) -> Result<shape::AutoScalingGroupsType, AutoScalingError> {
    let page = Page::read(request.next_token.as_deref(), request.max_records, PAGE_MAX, PAGE_DEFAULT)?;
    let wanted = request.auto_scaling_group_names.as_deref().unwrap_or_default();
    let filters = request.filters.as_deref().unwrap_or_default();
    let state = &view.state.autoscaling;
    let mut found = Vec::new();
    for group in state.groups.values() {
        if (wanted.is_empty() || wanted.contains(&group.name.to_string())) && passes(filters, group)? {
            found.push(group.as_ref());
        }
    }
    let with_instances = request.include_instances.unwrap_or(true);
    let show = |group: &AutoScalingGroup| {
        let instances = state.instances_of(&group.name).filter(|_| with_instances);
        views::group(view.scope, group, instances)
    };
    let place = |group: &&AutoScalingGroup| group.name.to_string();
    let (auto_scaling_groups, next_token) = page.cut(found.into_iter(), place, show);
    Ok(shape::AutoScalingGroupsType { auto_scaling_groups, next_token })
}
