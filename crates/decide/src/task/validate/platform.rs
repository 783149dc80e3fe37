//! What each platform adds to the common rules. Asked for at registration it refuses; not asked for, the platform is
//! merely left out of the definition's compatibilities.

use super::DefinitionError;
use crate::task::definition::{ContainerDefinition, TaskDefinition};
use crate::task::fargate;
use crate::task::kinds::{Compatibility, IpcMode, LogDriver, NetworkMode, OsFamily, PidMode};
use crate::task::volume::VolumeSource;

/// Seconds that a container may take on Fargate to stop or to wait for its dependencies.
const FARGATE_MAX_TIMEOUT: u32 = 120;
const FARGATE_MIN_START_TIMEOUT: u32 = 2;

/// The first rule of `platform` that the definition breaks.
pub fn check_platform(task: &TaskDefinition, platform: Compatibility) -> Result<(), DefinitionError> {
    match platform {
        Compatibility::Ec2 => Ok(()),
        Compatibility::Fargate => check_fargate(task),
        Compatibility::External => check_external(task),
        Compatibility::ManagedInstances => check_managed_instances(task),
    }
}

fn check_fargate(task: &TaskDefinition) -> Result<(), DefinitionError> {
    if task.network_mode != Some(NetworkMode::Awsvpc) {
        return Err(DefinitionError::FargateNetworkMode);
    }
    let cpu = task.cpu.ok_or(DefinitionError::FargateNeeds { what: "cpu" })?;
    let memory = task.memory.ok_or(DefinitionError::FargateNeeds { what: "memory" })?;
    let os = task.runtime_platform.and_then(|p| p.operating_system_family).unwrap_or(OsFamily::Linux);
    if !fargate::has_size(cpu, memory, os) {
        return Err(DefinitionError::FargateSize { cpu: cpu.0, memory: memory.0 });
    }
    if task.ipc_mode.is_some_and(|mode| mode != IpcMode::None) {
        return Err(DefinitionError::NotInFargateTasks { what: "ipcMode" });
    }
    if task.pid_mode == Some(PidMode::Host) {
        return Err(DefinitionError::NotInFargateTasks { what: "pidMode host" });
    }
    let refuse = |what| Err(DefinitionError::NotOnFargate { what });
    if !task.placement_constraints.is_empty() {
        return refuse("placementConstraints");
    }
    if task.inference_accelerators.as_ref().is_some_and(|a| !a.is_empty()) {
        return refuse("inferenceAccelerators");
    }
    for volume in &task.volumes {
        match &volume.source {
            VolumeSource::Docker(_) => return refuse("dockerVolumeConfiguration"),
            VolumeSource::Host(host) if host.source_path.is_some() => return refuse("sourcePath"),
            VolumeSource::FsxWindows(_) => return refuse("fsxWindowsFileServerVolumeConfiguration"),
            _ => {}
        }
    }
    task.container_definitions.iter().try_for_each(|c| check_fargate_container(task, c))
}

fn check_fargate_container(task: &TaskDefinition, c: &ContainerDefinition) -> Result<(), DefinitionError> {
    fn given<T>(list: &Option<Vec<T>>) -> bool {
        list.as_ref().is_some_and(|l| !l.is_empty())
    }
    let refuse = |what| Err(DefinitionError::NotOnFargate { what });
    // ECS's names, in ECS's order of the container's members.
    let unsupported = [
        (given(&c.links), "links"),
        (c.is_privileged(), "privileged"),
        (c.disable_networking == Some(true), "disableNetworking"),
        (given(&c.dns_servers), "dnsServers"),
        (given(&c.dns_search_domains), "dnsSearchDomains"),
        (given(&c.extra_hosts), "extraHosts"),
        (given(&c.docker_security_options), "dockerSecurityOptions"),
        (given(&c.resource_requirements), "resourceRequirements"),
        (given(&c.credential_specs), "credentialSpecs"),
    ];
    if let Some((_, what)) = unsupported.into_iter().find(|(found, _)| *found) {
        return refuse(what);
    }
    if let Some(linux) = &c.linux_parameters {
        let unsupported = [
            (given(&linux.devices), "devices"),
            (linux.shared_memory_size.is_some(), "sharedMemorySize"),
            (linux.max_swap.is_some(), "maxSwap"),
            (linux.swappiness.is_some(), "swappiness"),
        ];
        if let Some((_, what)) = unsupported.into_iter().find(|(found, _)| *found) {
            return refuse(what);
        }
        let mut added = linux.capabilities.iter().flat_map(|c| c.add.iter().flatten());
        if added.any(|c| c != "SYS_PTRACE") {
            return refuse("adding Linux capabilities other than SYS_PTRACE");
        }
    }
    if let Some(log) = &c.log_configuration
        && !matches!(log.log_driver, LogDriver::Awslogs | LogDriver::Splunk | LogDriver::Awsfirelens)
    {
        return refuse("log drivers other than awslogs, splunk and awsfirelens");
    }
    let range = |setting, low: u32, value: Option<u32>| match value {
        Some(value) if !(low..=FARGATE_MAX_TIMEOUT).contains(&value) => {
            Err(DefinitionError::ContainerRange {
                container: c.name.to_string(),
                setting,
                low: i64::from(low),
                high: i64::from(FARGATE_MAX_TIMEOUT),
            })
        }
        _ => Ok(()),
    };
    range("startTimeout", FARGATE_MIN_START_TIMEOUT, c.start_timeout)?;
    range("stopTimeout", 0, c.stop_timeout)?;
    if task.execution_role_arn.is_none() && is_ecr_image(&c.image) {
        return Err(DefinitionError::FargateEcrRole);
    }
    Ok(())
}

/// Whether the image is in a private ECR registry: `ACCOUNT.dkr.ecr.REGION.amazonaws.com/…`.
pub fn is_ecr_image(image: &str) -> bool {
    let Some((registry, _)) = image.split_once('/') else { return false };
    let mut parts = registry.split('.');
    let account = parts.next().unwrap_or_default();
    account.len() == 12
        && account.bytes().all(|b| b.is_ascii_digit())
        && parts.next() == Some("dkr")
        && parts.next().is_some_and(|p| p == "ecr" || p == "ecr-fips")
}

fn check_external(task: &TaskDefinition) -> Result<(), DefinitionError> {
    let refuse = |what| Err(DefinitionError::NotOnExternal { what });
    if task.network_mode == Some(NetworkMode::Awsvpc) {
        return refuse("network mode awsvpc");
    }
    if task.proxy_configuration.is_some() {
        return refuse("proxyConfiguration");
    }
    if task.volumes.iter().any(|v| !matches!(v.source, VolumeSource::Host(_) | VolumeSource::Docker(_))) {
        return refuse("volumes other than host and Docker volumes");
    }
    Ok(())
}

fn check_managed_instances(task: &TaskDefinition) -> Result<(), DefinitionError> {
    let refuse = |what| Err(DefinitionError::NotOnManagedInstances { what });
    if task.effective_network_mode() == NetworkMode::Bridge {
        return refuse("network mode bridge");
    }
    if task.runtime_platform.and_then(|p| p.operating_system_family).is_some_and(OsFamily::is_windows) {
        return refuse("Windows containers");
    }
    let fits = |driver| {
        matches!(
            driver,
            LogDriver::Awslogs | LogDriver::Splunk | LogDriver::Awsfirelens | LogDriver::JsonFile
        )
    };
    let mut drivers = task.container_definitions.iter().filter_map(|c| c.log_configuration.as_ref());
    if drivers.any(|log| !fits(log.log_driver)) {
        return refuse("log drivers other than awslogs, splunk, awsfirelens and json-file");
    }
    Ok(())
}
