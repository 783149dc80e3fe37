//! Capacity providers as the API shows them.

use crate::services::ecs::state::{AutoScalingGroupProvider, CapacityProvider, ManagedScaling, UpdateStatus};
use crate::services::ecs::tags;
use crate::tx::View;
use gantry_api::ecs;

/// With its tags, or with an empty list in their place.
pub fn capacity_provider(
    view: View<'_>,
    provider: &CapacityProvider,
    with_tags: bool,
) -> ecs::CapacityProvider {
    let reason = provider.update_status.as_ref().and_then(UpdateStatus::reason);
    ecs::CapacityProvider {
        capacity_provider_arn: Some(provider.arn(view.scope).to_string()),
        name: Some(provider.name.to_string()),
        status: provider.status.as_str().parse().ok(),
        type_: provider.kind.as_str().parse().ok(),
        auto_scaling_group_provider: provider.kind.auto_scaling_group().map(auto_scaling_group),
        update_status: provider.update_status.as_ref().and_then(|status| status.as_str().parse().ok()),
        update_status_reason: reason.map(str::to_owned),
        tags: Some(if with_tags { tags::show(&provider.tags) } else { Vec::new() }),
        ..Default::default()
    }
}

fn auto_scaling_group(provider: &AutoScalingGroupProvider) -> ecs::AutoScalingGroupProvider {
    ecs::AutoScalingGroupProvider {
        auto_scaling_group_arn: provider.group.clone(),
        managed_scaling: Some(managed_scaling(provider.managed_scaling)),
        managed_termination_protection: switch(provider.managed_termination_protection).parse().ok(),
        managed_draining: switch(provider.managed_draining).parse().ok(),
    }
}

fn managed_scaling(scaling: ManagedScaling) -> ecs::ManagedScaling {
    let number = |n: u32| i32::try_from(n).ok();
    ecs::ManagedScaling {
        status: switch(scaling.enabled).parse().ok(),
        target_capacity: number(scaling.target_capacity),
        minimum_scaling_step_size: number(scaling.minimum_step),
        maximum_scaling_step_size: number(scaling.maximum_step),
        instance_warmup_period: number(scaling.warmup),
    }
}

fn switch(on: bool) -> &'static str {
    if on { "ENABLED" } else { "DISABLED" }
}
