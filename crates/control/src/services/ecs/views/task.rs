//! Tasks as the API shows them.

use crate::services::ecs::bridge;
use crate::services::ecs::errors::EcsError;
use crate::services::ecs::ops::execute_command;
use crate::services::ecs::state::{Container, Eni, LaunchType, NetworkBinding, StartedBy, Task, TaskVolume};
use crate::services::ecs::tags;
use crate::tx::View;
use gantry_api::ecs;
use gantry_decide::arn::EcsResource;
use gantry_decide::lifecycle::{ContainerStatus, HealthStatus};
use gantry_decide::task::{PortRange, TaskOverride};
use gantry_decide::time::Timestamp;
use gantry_wire::EpochMillis;

/// GiB of ephemeral storage of a Fargate task that asks for none.
const FARGATE_STORAGE_GIB: i32 = 20;

/// The whole task; `tags` only where they were asked for.
///
/// # Errors
/// When the stored overrides have no shape in the API, which a valid record's have.
pub fn task(view: View<'_>, task: &Task, with_tags: bool) -> Result<ecs::Task, EcsError> {
    let scope = view.scope;
    let arn = task.arn(scope).text();
    let fargate = task.launch_type == LaunchType::Fargate;
    let definition = &task.definition;
    let instance = task.instance.as_ref().filter(|instance| !instance.in_fargate_pool());
    let storage = definition
        .ephemeral_storage
        .map_or(FARGATE_STORAGE_GIB, |storage| i32::try_from(storage.size_in_gib).unwrap_or(i32::MAX));
    let attributes = definition.runtime_platform.as_ref().and_then(|platform| platform.cpu_architecture);
    let architecture = attributes.map_or("x86_64".to_owned(), |a| a.as_str().to_ascii_lowercase());
    Ok(ecs::Task {
        attachments: Some(
            task.eni
                .iter()
                .map(|eni| attachment(task, eni))
                .chain(task.volume.iter().map(|volume| volume_attachment(task, volume)))
                .collect(),
        ),
        attributes: Some(vec![ecs::Attribute {
            name: "ecs.cpu-architecture".to_owned(),
            value: Some(architecture),
            ..Default::default()
        }]),
        availability_zone: task.availability_zone.clone(),
        capacity_provider_name: task.capacity_provider.as_ref().map(ToString::to_string),
        cluster_arn: Some(scope.ecs(EcsResource::Cluster(task.cluster.clone())).text()),
        connectivity: task.connectivity_at.map(|_| ecs::Connectivity::Connected),
        connectivity_at: millis(task.connectivity_at),
        container_instance_arn: instance.map(|instance| instance.arn(scope).text()),
        containers: Some(task.containers.iter().map(|c| container(view, task, c, &arn)).collect()),
        cpu: Some(definition.reserved_cpu().0.to_string()),
        created_at: millis(Some(task.created_at)),
        desired_status: Some(task.desired_status.as_str().to_owned()),
        enable_execute_command: Some(task.enable_execute_command),
        ephemeral_storage: fargate.then_some(ecs::EphemeralStorage { size_in_gi_b: storage }),
        execution_stopped_at: millis(task.execution_stopped_at),
        fargate_ephemeral_storage: fargate
            .then_some(ecs::TaskEphemeralStorage { size_in_gi_b: Some(storage), kms_key_id: None }),
        group: Some(task.group.clone()),
        health_status: health(task.health()),
        inference_accelerators: Some(Vec::new()),
        last_status: Some(task.last_status.as_str().to_owned()),
        launch_type: task.launch_type.as_str().parse().ok(),
        memory: Some(definition.reserved_memory().0.to_string()),
        overrides: Some(overrides(task)?),
        platform_family: fargate.then(|| "Linux".to_owned()),
        platform_version: task.platform_version.clone(),
        pull_started_at: millis(task.pull_started_at),
        pull_stopped_at: millis(task.pull_stopped_at),
        started_at: millis(task.started_at),
        started_by: task.started_by.as_ref().map(StartedBy::to_string),
        stop_code: task.stop_code.and_then(|code| code.as_str().parse().ok()),
        stopped_at: millis(task.stopped_at),
        stopped_reason: task.stopped_reason.clone(),
        stopping_at: millis(task.stopping_at),
        tags: with_tags.then(|| tags::show(&task.tags)),
        task_arn: Some(arn),
        task_definition_arn: Some(
            match task.daemon_name() {
                Some(_) => scope.ecs(EcsResource::DaemonTaskDefinition(task.definition_id.clone())),
                None => scope.ecs(EcsResource::TaskDefinition(task.definition_id.clone())),
            }
            .text(),
        ),
        trusted_execution_summary: None,
        version: Some(i64::try_from(task.version).unwrap_or(i64::MAX)),
    })
}

impl Task {
    /// The worst of its essential containers that have a health check; UNKNOWN while one is, or where none has.
    pub fn health(&self) -> HealthStatus {
        let checked = self.containers.iter().filter(|container| {
            let definition = self.definition.container(container.name.as_str());
            definition.is_some_and(|d| d.essential && d.health_check.is_some())
        });
        let mut status = None;
        for container in checked {
            status = Some(match (status, container.health_status) {
                (Some(HealthStatus::Unhealthy), _) | (_, HealthStatus::Unhealthy) => HealthStatus::Unhealthy,
                (Some(HealthStatus::Unknown), _) | (_, HealthStatus::Unknown) => HealthStatus::Unknown,
                _ => HealthStatus::Healthy,
            });
        }
        status.unwrap_or(HealthStatus::Unknown)
    }
}

/// Each container has an entry, also where nothing is overridden.
fn overrides(task: &Task) -> Result<ecs::TaskOverride, EcsError> {
    if task.overrides != TaskOverride::default() {
        return bridge::shape_of(&task.overrides.shown_for(&task.definition));
    }
    // The same, without the way through JSON: of most tasks, and of each that is shown.
    let containers = task.definition.container_definitions.iter().map(|container| ecs::ContainerOverride {
        name: Some(container.name.to_string()),
        ..Default::default()
    });
    Ok(ecs::TaskOverride {
        container_overrides: Some(containers.collect()),
        inference_accelerator_overrides: Some(Vec::new()),
        ..Default::default()
    })
}

pub fn millis(at: Option<Timestamp>) -> Option<EpochMillis> {
    at.map(|at| EpochMillis(at.as_millis()))
}

fn health(status: HealthStatus) -> Option<ecs::HealthStatus> {
    status.as_str().parse().ok()
}

fn attachment(task: &Task, eni: &Eni) -> ecs::Attachment {
    use gantry_decide::lifecycle::LastStatus;
    let status = match task.last_status {
        LastStatus::Provisioning => "ATTACHING",
        LastStatus::Deprovisioning => "DETACHING",
        _ if eni.attached => "ATTACHED",
        _ => "DELETED",
    };
    let detail = |name: &str, value: &str| ecs::KeyValuePair {
        name: Some(name.to_owned()),
        value: Some(value.to_owned()),
    };
    ecs::Attachment {
        id: Some(eni.attachment.to_string()),
        type_: Some("ElasticNetworkInterface".to_owned()),
        status: Some(status.to_owned()),
        details: Some(
            [
                ("subnetId", &eni.subnet),
                ("networkInterfaceId", &eni.id.to_string()),
                ("macAddress", &eni.mac),
                ("privateDnsName", &eni.private_dns_name),
                ("privateIPv4Address", &eni.address.to_string()),
            ]
            .into_iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(name, value)| detail(name, value))
            .collect(),
        ),
    }
}

/// With the details that ECS documents, and the volume's id.
fn volume_attachment(task: &Task, volume: &TaskVolume) -> ecs::Attachment {
    use gantry_decide::lifecycle::LastStatus;
    let managed = &volume.configuration.managed_ebs_volume;
    let deleted = managed.is_deleted_at_end();
    let status = match task.last_status {
        LastStatus::Provisioning | LastStatus::Pending => "ATTACHING",
        LastStatus::Deprovisioning => "DETACHING",
        LastStatus::Stopped if deleted => "DELETED",
        LastStatus::Stopped => "DETACHED",
        _ => "ATTACHED",
    };
    let number = |number: i32| number.to_string();
    let details = [
        ("volumeId", Some(volume.id.to_string())),
        ("volumeName", Some(volume.configuration.name.clone())),
        ("roleArn", Some(managed.role_arn.clone())),
        ("sizeInGiB", managed.size_in_gib.map(number)),
        ("volumeType", Some(managed.volume_type().to_owned())),
        ("filesystemType", managed.filesystem_type.map(|kind| kind.as_str().to_owned())),
        ("iops", managed.iops.map(number)),
        ("throughput", managed.throughput.map(number)),
        ("encrypted", managed.encrypted.map(|encrypted| encrypted.to_string())),
        ("kmsKeyId", managed.kms_key_id.clone()),
        ("deleteOnTermination", Some(deleted.to_string())),
    ];
    let detail = |(name, value): (&str, Option<String>)| {
        Some(ecs::KeyValuePair { name: Some(name.to_owned()), value: Some(value?) })
    };
    ecs::Attachment {
        id: Some(volume.attachment.to_string()),
        type_: Some("AmazonElasticBlockStorage".to_owned()),
        status: Some(status.to_owned()),
        details: Some(details.into_iter().filter_map(detail).collect()),
    }
}

fn container(view: View<'_>, task: &Task, container: &Container, task_arn: &str) -> ecs::Container {
    let arn = EcsResource::Container(task.cluster.clone(), task.id, container.id);
    let definition = task.definition.container(container.name.as_str());
    let interface = |eni: &Eni| ecs::NetworkInterface {
        attachment_id: Some(eni.attachment.to_string()),
        private_ipv4_address: Some(eni.address.to_string()),
        ipv6_address: eni.ipv6.map(|ipv6| ipv6.address.to_string()),
    };
    ecs::Container {
        container_arn: Some(view.scope.ecs(arn).text()),
        cpu: definition.map(|d| d.cpu.0.to_string()),
        exit_code: container.exit_code,
        gpu_ids: Some(container.gpu_ids.clone()).filter(|ids| !ids.is_empty()),
        gpu_sharing_strategy: None,
        health_status: health(container.health_status),
        image: Some(container.image.clone()),
        image_digest: container.image_digest.clone(),
        last_status: Some(container.last_status.as_str().to_owned()),
        managed_agents: exec_agent(view, task, container).map(|agent| vec![agent]),
        memory: definition.and_then(|d| d.memory).map(|memory| memory.0.to_string()),
        memory_reservation: definition.and_then(|d| d.memory_reservation).map(|memory| memory.0.to_string()),
        name: Some(container.name.to_string()),
        network_bindings: Some(container.network_bindings.iter().map(binding).collect()),
        network_interfaces: Some(task.eni.iter().map(interface).collect()),
        neuron_device_ids: None,
        reason: container.reason.clone(),
        runtime_id: container.runtime_id.clone(),
        task_arn: Some(task_arn.to_owned()),
    }
}

/// ECS Exec's agent in a container: ours needs none of its own there, and is ready when the container runs.
fn exec_agent(view: View<'_>, task: &Task, container: &Container) -> Option<ecs::ManagedAgent> {
    let instance = task.instance.as_ref().and_then(|key| view.state.ecs.container_instance(key));
    execute_command::is_ready(task, instance).then(|| {
        let (status, since) = match container.last_status {
            ContainerStatus::Running => ("RUNNING", task.started_at),
            ContainerStatus::Stopped => ("STOPPED", None),
            _ => ("PENDING", None),
        };
        ecs::ManagedAgent {
            last_started_at: millis(since),
            last_status: Some(status.to_owned()),
            name: Some(ecs::ManagedAgentName::ExecuteCommandAgent),
            reason: None,
        }
    })
}

fn binding(binding: &NetworkBinding) -> ecs::NetworkBinding {
    let (container, host, more) = (binding.container_port, binding.host_port, binding.more);
    let range = |first: u16| PortRange::of_several(first, more).map(|range| range.to_string());
    let one = |port: u16| (more == 0).then_some(port.into());
    ecs::NetworkBinding {
        bind_ip: Some(binding.bind_ip.clone()),
        container_port: one(container),
        container_port_range: range(container),
        host_port: one(host),
        host_port_range: range(host),
        protocol: binding.protocol.parse().ok(),
    }
}
