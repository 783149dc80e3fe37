//! The settings of a capacity provider of Managed Instances, as requests say them: read and checked.

use crate::services::ec2;
use crate::services::ecs::check;
use crate::services::ecs::errors::EcsError;
use crate::services::ecs::state::ManagedInstancesProvider;
use crate::tx::View;
use gantry_api::ecs;
use gantry_decide::capacity::managed_instances::{Range, Requirements, Wish};
use gantry_decide::scaling::instance_type::{Generation, Manufacturer};

/// ECS's bounds, in seconds: for ever, at once, an hour.
const SCALE_IN_AFTER: std::ops::RangeInclusive<i32> = -1..=3600;
/// ECS's bounds, in GiB.
const STORAGE: std::ops::RangeInclusive<i32> = 30..=16_384;

/// GiB, far beyond any type.
const MEMORY_PER_CPU_MAX: f64 = 1024.0;

/// Reads a new provider's settings.
///
/// # Errors
/// For a cluster or a subnet that is not there, for what contradicts itself, and for what no instance provider can do.
pub fn read(
    view: View<'_>,
    cluster: Option<&str>,
    given: ecs::CreateManagedInstancesProviderConfiguration,
) -> Result<ManagedInstancesProvider, EcsError> {
    if cluster.is_none_or(str::is_empty) {
        return Err(EcsError::invalid(
            "The cluster must be specified for a capacity provider of Managed Instances.",
        ));
    }
    let template = given.instance_launch_template;
    let spot = match template.capacity_option_type.as_ref().map(|kind| kind.as_str()) {
        None | Some("ON_DEMAND") => false,
        Some("SPOT") => true,
        Some(_) => return Err(unsupported("capacityOptionType other than ON_DEMAND and SPOT")),
    };
    if template.fips_enabled == Some(true) {
        return Err(unsupported("fipsEnabled"));
    }
    if template.nitro_enclaves_enabled == Some(true) {
        return Err(unsupported("nitroEnclavesEnabled"));
    }
    let settings = ManagedInstancesProvider {
        cluster: check::cluster(view, cluster)?.name.clone(),
        infrastructure_role: given.infrastructure_role_arn,
        instance_profile: template.ec2_instance_profile_arn,
        subnets: Vec::new(),
        security_groups: Vec::new(),
        requirements: None,
        storage: None,
        detailed_monitoring: None,
        scale_in_after: scale_in_after(given.infrastructure_optimization.as_ref(), None)?,
        repairs: repairs(given.auto_repair_configuration.as_ref(), false),
        propagates_tags: given.propagate_tags == Some(ecs::PropagateMITags::CapacityProvider),
        spot,
        failure: None,
    };
    let changed = ecs::InstanceLaunchTemplateUpdate {
        capacity_reservations: template.capacity_reservations,
        ec2_instance_profile_arn: None,
        instance_metadata_tags_propagation: template.instance_metadata_tags_propagation,
        instance_requirements: template.instance_requirements,
        local_storage_configuration: template.local_storage_configuration,
        monitoring: template.monitoring,
        network_configuration: Some(template.network_configuration),
        storage_configuration: template.storage_configuration,
    };
    with(view, settings, changed)
}

/// The settings with what an update says in place of what they say. Machines that are there stay as they are.
///
/// # Errors
/// As [`read`].
pub fn change(
    view: View<'_>,
    mut settings: ManagedInstancesProvider,
    given: ecs::UpdateManagedInstancesProviderConfiguration,
) -> Result<ManagedInstancesProvider, EcsError> {
    settings.infrastructure_role = given.infrastructure_role_arn;
    settings.scale_in_after =
        scale_in_after(given.infrastructure_optimization.as_ref(), settings.scale_in_after)?;
    settings.repairs = repairs(given.auto_repair_configuration.as_ref(), settings.repairs);
    if let Some(propagate) = given.propagate_tags {
        settings.propagates_tags = propagate == ecs::PropagateMITags::CapacityProvider;
    }
    // Whatever was wrong may be right now.
    settings.failure = None;
    with(view, settings, given.instance_launch_template)
}

fn with(
    view: View<'_>,
    mut settings: ManagedInstancesProvider,
    template: ecs::InstanceLaunchTemplateUpdate,
) -> Result<ManagedInstancesProvider, EcsError> {
    let local =
        template.local_storage_configuration.is_some_and(|local| local.use_local_storage == Some(true));
    let refused = [
        (template.capacity_reservations.is_some(), "capacityReservations"),
        (template.instance_metadata_tags_propagation == Some(true), "instanceMetadataTagsPropagation"),
        (local, "localStorageConfiguration"),
    ];
    if let Some((_, member)) = refused.into_iter().find(|(given, _)| *given) {
        return Err(unsupported(member));
    }
    if let Some(profile) = template.ec2_instance_profile_arn {
        settings.instance_profile = profile;
    }
    if let Some(network) = template.network_configuration {
        settings.subnets = network.subnets.unwrap_or_default();
        settings.security_groups = network.security_groups.unwrap_or_default();
        let seen = view.state.ec2.seen(view.scope);
        ec2::links::networks(&seen, &settings.subnets, &settings.security_groups)
            .map_err(|error| EcsError::invalid(error.to_string()))?;
        if settings.subnets.is_empty() {
            return Err(EcsError::invalid(
                "At least one subnet must be specified for a capacity provider of Managed Instances.",
            ));
        }
    }
    if let Some(storage) = template.storage_configuration.and_then(|storage| storage.storage_size_gi_b) {
        settings.storage = Some(within(storage, "storageSizeGiB", STORAGE)?.unsigned_abs());
    }
    if let Some(monitoring) = template.monitoring {
        settings.detailed_monitoring = Some(monitoring == ecs::ManagedInstancesMonitoringOptions::Detailed);
    }
    if let Some(given) = template.instance_requirements {
        settings.requirements = Some(requirements(given)?);
    }
    Ok(settings)
}

fn unsupported(what: &str) -> EcsError {
    EcsError::UnsupportedFeature(format!("Gantry does not serve {what} of Managed Instances."))
}

fn repairs(given: Option<&ecs::AutoRepairConfiguration>, before: bool) -> bool {
    let status = given.and_then(|given| given.actions_status.as_ref());
    status.map_or(before, |status| *status == ecs::AutoRepairActionsStatus::Enabled)
}

fn scale_in_after(
    given: Option<&ecs::InfrastructureOptimization>,
    before: Option<i32>,
) -> Result<Option<i32>, EcsError> {
    let Some(given) = given else { return Ok(before) };
    given.scale_in_after.map(|seconds| within(seconds, "scaleInAfter", SCALE_IN_AFTER)).transpose()
}

fn within(number: i32, name: &str, range: std::ops::RangeInclusive<i32>) -> Result<i32, EcsError> {
    match range.contains(&number) {
        true => Ok(number),
        false => {
            Err(EcsError::invalid(format!("{name} must be between {} and {}.", range.start(), range.end())))
        }
    }
}

/// What machines may be made. A wish that nothing here is known of is refused, rather than met by chance.
fn requirements(given: ecs::InstanceRequirementsRequest) -> Result<Requirements, EcsError> {
    let known = ecs::InstanceRequirementsRequest {
        accelerator_count: given.accelerator_count.clone(),
        allowed_instance_types: given.allowed_instance_types.clone(),
        bare_metal: given.bare_metal,
        burstable_performance: given.burstable_performance,
        cpu_manufacturers: given.cpu_manufacturers.clone(),
        excluded_instance_types: given.excluded_instance_types.clone(),
        instance_generations: given.instance_generations.clone(),
        local_storage: given.local_storage,
        memory_gi_b_per_v_cpu: given.memory_gi_b_per_v_cpu.clone(),
        memory_mi_b: given.memory_mi_b.clone(),
        require_hibernate_support: given.require_hibernate_support.filter(|required| !required),
        v_cpu_count: given.v_cpu_count.clone(),
        ..Default::default()
    };
    if known != given {
        return Err(unsupported(
            "instanceRequirements other than vCpuCount, memoryMiB, memoryGiBPerVCpu, allowedInstanceTypes, \
             excludedInstanceTypes, cpuManufacturers, instanceGenerations, burstablePerformance, bareMetal, localStorage \
             and acceleratorCount",
        ));
    }
    if given.allowed_instance_types.is_some() && given.excluded_instance_types.is_some() {
        return Err(EcsError::invalid(
            "allowedInstanceTypes and excludedInstanceTypes cannot be specified together.",
        ));
    }
    let accelerators = given
        .accelerator_count
        .map(|count| range("acceleratorCount", count.min.unwrap_or_default(), count.max));
    let read = Requirements {
        cpus: range("vCpuCount", given.v_cpu_count.min, given.v_cpu_count.max)?,
        memory: range("memoryMiB", given.memory_mi_b.min, given.memory_mi_b.max)?,
        allowed: given.allowed_instance_types.unwrap_or_default(),
        excluded: given.excluded_instance_types.unwrap_or_default(),
        memory_per_cpu: given.memory_gi_b_per_v_cpu.as_ref().map(memory_per_cpu).transpose()?,
        manufacturers: given.cpu_manufacturers.unwrap_or_default().iter().map(manufacturer).collect(),
        generations: given.instance_generations.unwrap_or_default().iter().map(generation).collect(),
        burstable: given.burstable_performance.as_ref().map(|wanted| wish(wanted.as_str())),
        local_storage: given.local_storage.as_ref().map(|wanted| wish(wanted.as_str())),
        bare_metal: given.bare_metal.as_ref().map(|wanted| wish(wanted.as_str())),
        accelerators: accelerators.transpose()?,
    };
    if read.offers().is_empty() {
        return Err(EcsError::invalid(
            "No instance type that Gantry knows meets the instance requirements. It knows the families c7i, m7i and \
             r7i, and those of the t, m, c and r families that are allowed by their full names.",
        ));
    }
    Ok(read)
}

/// The wire refuses what is no value of the enumerations.
fn wish(text: &str) -> Wish {
    match text {
        "required" => Wish::Required,
        "excluded" => Wish::Excluded,
        _ => Wish::Included,
    }
}

fn manufacturer(given: &ecs::CpuManufacturer) -> Manufacturer {
    match given.as_str() {
        "amd" => Manufacturer::Amd,
        "amazon-web-services" => Manufacturer::AmazonWebServices,
        _ => Manufacturer::Intel,
    }
}

fn generation(given: &ecs::InstanceGeneration) -> Generation {
    match given.as_str() {
        "previous" => Generation::Previous,
        _ => Generation::Current,
    }
}

/// GiB with their fractions, as MiB.
fn memory_per_cpu(given: &ecs::MemoryGiBPerVCpuRequest) -> Result<Range, EcsError> {
    const NAME: &str = "memoryGiBPerVCpu";
    let mib = |gib: f64| match gib.is_finite() && gib.abs() <= MEMORY_PER_CPU_MAX {
        true => Ok((gib * 1024.0).round() as i32),
        false => Err(EcsError::invalid(format!("{NAME} must be between 0 and {MEMORY_PER_CPU_MAX}."))),
    };
    range(NAME, given.min.map_or(Ok(0), mib)?, given.max.map(mib).transpose()?)
}

fn range(name: &str, min: i32, max: Option<i32>) -> Result<Range, EcsError> {
    let number = |number: i32| {
        u32::try_from(number).map_err(|_| EcsError::invalid(format!("{name} must not be negative.")))
    };
    let range = Range { min: number(min)?, max: max.map(number).transpose()? };
    match range.max {
        Some(max) if max < range.min => {
            Err(EcsError::invalid(format!("The maximum of {name} is below its minimum.")))
        }
        _ => Ok(range),
    }
}
