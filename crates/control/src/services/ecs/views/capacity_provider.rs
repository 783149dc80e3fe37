//! Capacity providers as the API shows them.

use crate::services::ecs::state::{
    AutoScalingGroupProvider, CapacityProvider, ManagedInstancesProvider, ManagedScaling, UpdateStatus,
};
use crate::services::ecs::tags;
use crate::tx::View;
use gantry_api::ecs;
use gantry_decide::arn::EcsResource;
use gantry_decide::capacity::managed_instances::{Range, Requirements};
use gantry_decide::scaling::instance_type::{Generation, Manufacturer};

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
        cluster: provider
            .kind
            .managed_instances()
            .map(|settings| view.scope.ecs(EcsResource::Cluster(settings.cluster.clone())).to_string()),
        managed_instances_provider: provider.kind.managed_instances().map(managed_instances),
        auto_scaling_group_provider: provider.kind.auto_scaling_group().map(auto_scaling_group),
        update_status: provider.update_status.as_ref().and_then(|status| status.as_str().parse().ok()),
        update_status_reason: reason.map(str::to_owned),
        tags: Some(if with_tags { tags::show(&provider.tags) } else { Vec::new() }),
    }
}

fn managed_instances(settings: &ManagedInstancesProvider) -> ecs::ManagedInstancesProvider {
    ecs::ManagedInstancesProvider {
        auto_repair_configuration: Some(ecs::AutoRepairConfiguration {
            actions_status: switch(settings.repairs).parse().ok(),
        }),
        infrastructure_optimization: settings
            .scale_in_after
            .map(|seconds| ecs::InfrastructureOptimization { scale_in_after: Some(seconds) }),
        infrastructure_role_arn: Some(settings.infrastructure_role.clone()),
        instance_launch_template: Some(ecs::InstanceLaunchTemplate {
            capacity_option_type: Some(match settings.spot {
                true => ecs::CapacityOptionType::Spot,
                false => ecs::CapacityOptionType::OnDemand,
            }),
            ec2_instance_profile_arn: settings.instance_profile.clone(),
            instance_requirements: settings.requirements.as_ref().map(requirements),
            monitoring: settings.detailed_monitoring.map(|detailed| match detailed {
                true => ecs::ManagedInstancesMonitoringOptions::Detailed,
                false => ecs::ManagedInstancesMonitoringOptions::Basic,
            }),
            network_configuration: ecs::ManagedInstancesNetworkConfiguration {
                security_groups: Some(settings.security_groups.clone()),
                subnets: Some(settings.subnets.clone()),
            },
            storage_configuration: settings.storage.map(|gib| ecs::ManagedInstancesStorageConfiguration {
                storage_size_gi_b: i32::try_from(gib).ok(),
            }),
            ..Default::default()
        }),
        propagate_tags: Some(match settings.propagates_tags {
            true => ecs::PropagateMITags::CapacityProvider,
            false => ecs::PropagateMITags::None,
        }),
    }
}

fn requirements(requirements: &Requirements) -> ecs::InstanceRequirementsRequest {
    let number = |n: u32| i32::try_from(n).unwrap_or(i32::MAX);
    let most = |range: Range| range.max.map(number);
    let list = |texts: &[String]| Some(texts.to_vec()).filter(|texts| !texts.is_empty());
    let gib = |mib: u32| f64::from(mib) / 1024.0;
    let manufacturers = requirements.manufacturers.iter().map(|manufacturer| match manufacturer {
        Manufacturer::Intel => ecs::CpuManufacturer::Intel,
        Manufacturer::Amd => ecs::CpuManufacturer::Amd,
        Manufacturer::AmazonWebServices => ecs::CpuManufacturer::AmazonWebServices,
    });
    let generations = requirements.generations.iter().map(|generation| match generation {
        Generation::Current => ecs::InstanceGeneration::Current,
        Generation::Previous => ecs::InstanceGeneration::Previous,
    });
    ecs::InstanceRequirementsRequest {
        accelerator_count: requirements
            .accelerators
            .map(|range| ecs::AcceleratorCountRequest { min: Some(number(range.min)), max: most(range) }),
        bare_metal: requirements.bare_metal.and_then(|wish| wish.as_str().parse().ok()),
        burstable_performance: requirements.burstable.and_then(|wish| wish.as_str().parse().ok()),
        local_storage: requirements.local_storage.and_then(|wish| wish.as_str().parse().ok()),
        cpu_manufacturers: Some(manufacturers.collect()).filter(|all: &Vec<_>| !all.is_empty()),
        instance_generations: Some(generations.collect()).filter(|all: &Vec<_>| !all.is_empty()),
        memory_gi_b_per_v_cpu: requirements
            .memory_per_cpu
            .map(|range| ecs::MemoryGiBPerVCpuRequest { min: Some(gib(range.min)), max: range.max.map(gib) }),
        allowed_instance_types: list(&requirements.allowed),
        excluded_instance_types: list(&requirements.excluded),
        memory_mi_b: ecs::MemoryMiBRequest {
            min: number(requirements.memory.min),
            max: most(requirements.memory),
        },
        v_cpu_count: ecs::VCpuCountRangeRequest {
            min: number(requirements.cpus.min),
            max: most(requirements.cpus),
        },
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
