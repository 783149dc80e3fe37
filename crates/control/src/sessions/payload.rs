//! The payload compiler: from a task in the tables to what an agent is sent. A payload is no task definition: much of it
//! is Docker Engine API JSON carried as text, and what ECS resolves (overrides, log options) is resolved in it.

use crate::services::ecs::state::{Container, Eni, LaunchType, Task, TaskVolume};
use gantry_api::acs;
use gantry_decide::arn::{Arn, EcsResource};
use gantry_decide::ids::{AttachmentId, Scope};
use gantry_decide::network::Ipv6Block;
use gantry_decide::task::attributes::secret_source;
use gantry_decide::task::definition::{
    ContainerDefinition, EnvironmentFile, LinuxParameters, LogConfiguration, PortMapping, ProxyConfiguration,
    SecretReference,
};
use gantry_decide::task::kinds::{EfsSwitch, ProxyType};
use gantry_decide::task::volume::{Volume, VolumeSource};
use gantry_decide::task::{LogDriver, NetworkMode};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// The Docker API version that the JSON is written for: the least that knows all of it.
const DOCKER_API: &str = "1.25";
const CPU_UNITS_PER_VCPU: f64 = 1024.0;
const BYTES_PER_MIB: i64 = 1 << 20;
const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// One task as its agent is sent it. `endpoint` is the base URL under which the agent reaches the control plane.
pub fn compile(scope: &Scope, endpoint: &str, task: &Task) -> acs::Task {
    let definition = &task.definition;
    let mode = definition.effective_network_mode();
    let id = &task.definition_id;
    let service = task.service_key().map(|key| key.name.to_string());
    let containers = task.containers.iter().filter_map(|c| container(scope, endpoint, task, c, mode));
    acs::Task {
        arn: Some(task.arn(scope).text()),
        family: Some(id.family.to_string()),
        version: Some(id.revision.to_string()),
        desired_status: Some(task.wanted_of_agent().as_str().to_owned()),
        containers: Some(containers.collect()),
        volumes: Some(definition.volumes.iter().filter_map(volume).collect()),
        cpu: definition.cpu.map(|cpu| f64::from(cpu.0) / CPU_UNITS_PER_VCPU),
        memory: definition.memory.map(|memory| i32::try_from(memory.0).unwrap_or(i32::MAX)),
        // Agents of ours alone know it.
        ephemeral_storage_gib: definition
            .ephemeral_storage
            .map(|storage| i32::try_from(storage.size_in_gib).unwrap_or(i32::MAX)),
        network_mode: Some(mode.as_str().to_owned()),
        pid_mode: definition.pid_mode.map(|mode| mode.as_str().to_owned()),
        ipc_mode: definition.ipc_mode.map(|mode| mode.as_str().to_owned()),
        launch_type: Some(task.launch_type.as_str().to_owned()),
        service_name: service,
        group: Some(task.group.clone()),
        task_cluster_arn: Some(scope.ecs(EcsResource::Cluster(task.cluster.clone())).text()),
        elastic_network_interfaces: task.eni.as_ref().map(|eni| vec![interface(scope, eni)]),
        associations: associations(task),
        proxy_configuration: definition.proxy_configuration.as_ref().map(proxy),
        attachments: task.volume.as_ref().map(|volume| vec![managed_volume(scope, volume)]),
        role_credentials: None,
        execution_role_credentials: None,
    }
}

fn proxy(configuration: &ProxyConfiguration) -> acs::ProxyConfiguration {
    let properties = configuration.properties.iter().flatten();
    acs::ProxyConfiguration {
        type_: Some(configuration.kind.unwrap_or(ProxyType::Appmesh).as_str().to_owned()),
        container_name: Some(configuration.container_name.clone()),
        properties: Some(properties.map(|one| (one.name.clone(), one.value.clone())).collect()),
    }
}

fn interface(scope: &Scope, eni: &Eni) -> acs::ElasticNetworkInterface {
    acs::ElasticNetworkInterface {
        attachment_arn: Some(attachment_arn(scope, &eni.attachment)),
        ec2_id: Some(eni.id.to_string()),
        mac_address: Some(eni.mac.clone()),
        ipv4_addresses: Some(vec![acs::IPv4Address {
            primary: Some(true),
            private_address: Some(eni.address.to_string()),
        }]),
        ipv6_addresses: eni.ipv6.map(|ipv6| {
            let address = Some(ipv6.address.to_string());
            vec![acs::IPv6Address { primary: Some(true), address }]
        }),
        // A subnet has no router of its own in IPv6: the block is what is told here, as ECS does.
        subnet_gateway_ipv6_address: eni
            .ipv6
            .and_then(|ipv6| Ipv6Block::around(ipv6.address, ipv6.prefix_length))
            .map(|block| block.to_string()),
        subnet_gateway_ipv4_address: Some(format!("{}/{}", eni.gateway, eni.prefix_length)),
        private_dns_name: Some(eni.private_dns_name.clone()).filter(|name| !name.is_empty()),
        interface_association_protocol: Some("default".to_owned()),
        security_groups: Some(eni.security_groups.clone()),
        ..Default::default()
    }
}

fn container(
    scope: &Scope,
    endpoint: &str,
    task: &Task,
    container: &Container,
    mode: NetworkMode,
) -> Option<acs::Container> {
    let definition = task.definition.container(container.name.as_str())?;
    let arn = EcsResource::Container(task.cluster.clone(), task.id, container.id);
    let integer = |number: u32| i32::try_from(number).unwrap_or(i32::MAX);
    Some(acs::Container {
        name: Some(definition.name.to_string()),
        image: Some(match &container.pinned_digest {
            Some(digest) => format!("{}@{digest}", definition.image),
            None => definition.image.clone(),
        }),
        image_pinned: container.pinned_digest.as_ref().map(|_| true),
        essential: Some(definition.essential),
        command: definition.command.clone(),
        entry_point: definition.entry_point.clone(),
        cpu: Some(integer(definition.cpu.0)),
        memory: definition.memory.map(|memory| integer(memory.0)),
        environment: Some(environment(task, definition)),
        port_mappings: Some(definition.port_mappings.iter().map(port_mapping).collect()),
        mount_points: Some(
            definition
                .mount_points
                .iter()
                .map(|mount| acs::MountPoint {
                    source_volume: Some(mount.source_volume.clone()),
                    container_path: Some(mount.container_path.clone()),
                    read_only: Some(mount.read_only.unwrap_or(false)),
                })
                .collect(),
        ),
        volumes_from: Some(
            definition
                .volumes_from
                .iter()
                .map(|from| acs::VolumeFrom {
                    source_container: Some(from.source_container.clone()),
                    read_only: Some(from.read_only.unwrap_or(false)),
                })
                .collect(),
        ),
        links: definition.links.clone(),
        depends_on: definition.depends_on.as_ref().map(|all| {
            all.iter()
                .map(|dependency| acs::ContainerDependency {
                    container_name: Some(dependency.container_name.to_string()),
                    condition: Some(dependency.condition.as_str().to_owned()),
                })
                .collect()
        }),
        start_timeout: definition.start_timeout.map(integer),
        stop_timeout: definition.stop_timeout.map(integer),
        health_check_type: definition.health_check.as_ref().map(|_| "docker".to_owned()),
        restart_policy: definition.restart_policy.as_ref().map(|policy| acs::RestartPolicy {
            enabled: Some(policy.enabled),
            ignored_exit_codes: policy.ignored_exit_codes.clone(),
            restart_attempt_period: policy.restart_attempt_period.map(integer),
        }),
        firelens_configuration: definition.firelens_configuration.as_ref().map(|router| {
            acs::FirelensConfiguration {
                type_: Some(router.kind.as_str().to_owned()),
                options: router.options.clone(),
            }
        }),
        environment_files: definition.environment_files.as_ref().map(|files| {
            let file = |file: &EnvironmentFile| acs::EnvironmentFile {
                type_: Some(file.kind.as_str().to_owned()),
                value: Some(file.value.clone()),
            };
            files.iter().map(file).collect()
        }),
        secrets: secrets(scope, definition),
        logs_auth_strategy: task
            .definition
            .execution_role_arn
            .as_ref()
            .and(definition.log_configuration.as_ref())
            .filter(|log| log.log_driver == LogDriver::Awslogs)
            .map(|_| "ExecutionRole".to_owned()),
        registry_authentication: definition.repository_credentials.as_ref().map(|credentials| {
            let named = &credentials.credentials_parameter;
            acs::RegistryAuthentication {
                type_: Some("asm".to_owned()),
                asm_auth_data: Some(acs::AsmAuthData {
                    credentials_parameter: Some(named.clone()),
                    region: Some(region_of(scope, named)),
                }),
            }
        }),
        container_arn: Some(scope.ecs(arn).text()),
        docker_config: Some(acs::DockerConfig {
            config: Some(Value::Object(docker_config(definition)).to_string()),
            host_config: Some(
                Value::Object(host_config(scope, endpoint, task, definition, mode)).to_string(),
            ),
            version: Some(DOCKER_API.to_owned()),
        }),
    })
}

/// What the agent fetches values for: variables of the container, and options of its log driver.
fn secrets(scope: &Scope, definition: &ContainerDefinition) -> Option<Vec<acs::ContainerSecret>> {
    let variables = definition.secrets.iter().flatten().map(|reference| secret(scope, reference));
    let options = definition.log_configuration.iter().flat_map(|log| log.secret_options.iter().flatten());
    // Of another type, since the stock agent makes variables of all that are of that one.
    let options = options.map(|reference| acs::ContainerSecret {
        type_: None,
        target: Some("LOG_DRIVER".to_owned()),
        ..secret(scope, reference)
    });
    Some(variables.chain(options).collect::<Vec<_>>()).filter(|all| !all.is_empty())
}

/// A variable whose value the agent fetches.
fn secret(scope: &Scope, reference: &SecretReference) -> acs::ContainerSecret {
    acs::ContainerSecret {
        name: Some(reference.name.clone()),
        value_from: Some(reference.value_from.clone()),
        region: Some(region_of(scope, &reference.value_from)),
        provider: Some(secret_source(&reference.value_from).to_owned()),
        type_: Some("ENVIRONMENT_VARIABLE".to_owned()),
        target: Some("CONTAINER".to_owned()),
        container_path: None,
    }
}

/// The region that an ARN names, or the task's own.
fn region_of(scope: &Scope, named: &str) -> String {
    let own = || scope.region.to_string();
    named.parse::<Arn>().ok().map(|arn| arn.region).filter(|region| !region.is_empty()).unwrap_or_else(own)
}

/// The definition's variables, and the one by which AWS's SDKs tell where they run.
fn environment(task: &Task, definition: &ContainerDefinition) -> BTreeMap<String, String> {
    let given = definition.environment.iter();
    let mut all: BTreeMap<String, String> =
        given.map(|pair| (pair.name.clone(), pair.value.clone())).collect();
    let launch_type = format!("AWS_ECS_{}", task.launch_type.as_str());
    all.entry("AWS_EXECUTION_ENV".to_owned()).or_insert(launch_type);
    all
}

fn port_mapping(mapping: &PortMapping) -> acs::PortMapping {
    acs::PortMapping {
        container_port: mapping.container_port.map(i32::from),
        host_port: mapping.host_port.map(i32::from),
        protocol: Some(mapping.protocol.as_str().to_owned()),
        container_port_range: mapping
            .container_port_range
            .map(|range| format!("{}-{}", range.first, range.last)),
    }
}

/// Puts a member in, if there is one.
fn put(object: &mut Map<String, Value>, name: &str, value: Option<impl Into<Value>>) {
    if let Some(value) = value {
        object.insert(name.to_owned(), value.into());
    }
}

fn docker_config(definition: &ContainerDefinition) -> Map<String, Value> {
    let mut config = Map::new();
    put(&mut config, "User", definition.user.clone());
    put(&mut config, "WorkingDir", definition.working_directory.clone());
    put(&mut config, "Hostname", definition.hostname.clone());
    put(&mut config, "Labels", definition.docker_labels.as_ref().map(|labels| json!(labels)));
    put(&mut config, "OpenStdin", definition.interactive);
    put(&mut config, "Tty", definition.pseudo_terminal);
    put(&mut config, "NetworkDisabled", definition.disable_networking);
    let nanos = |seconds: u32| u64::from(seconds) * NANOS_PER_SECOND;
    put(
        &mut config,
        "Healthcheck",
        definition.health_check.as_ref().map(|check| {
            json!({
                "Test": check.command,
                "Interval": nanos(check.interval),
                "Timeout": nanos(check.timeout),
                "Retries": check.retries,
                "StartPeriod": nanos(check.start_period.unwrap_or(0)),
            })
        }),
    );
    config
}

fn host_config(
    scope: &Scope,
    endpoint: &str,
    task: &Task,
    definition: &ContainerDefinition,
    mode: NetworkMode,
) -> Map<String, Value> {
    let mut config = Map::new();
    if mode != NetworkMode::Awsvpc {
        put(&mut config, "NetworkMode", Some(mode.as_str()));
    }
    put(&mut config, "Privileged", definition.privileged);
    put(&mut config, "ReadonlyRootfs", definition.readonly_root_filesystem);
    put(&mut config, "Dns", definition.dns_servers.clone());
    put(&mut config, "DnsSearch", definition.dns_search_domains.clone());
    put(
        &mut config,
        "ExtraHosts",
        definition.extra_hosts.as_ref().map(|hosts| {
            hosts.iter().map(|host| format!("{}:{}", host.hostname, host.ip_address)).collect::<Vec<_>>()
        }),
    );
    put(&mut config, "SecurityOpt", definition.docker_security_options.clone());
    put(&mut config, "Ulimits", definition.ulimits.as_ref().map(|limits| {
        let limit = |limit: &gantry_decide::task::definition::Ulimit| {
            json!({"Name": limit.name.as_str(), "Soft": limit.soft_limit, "Hard": limit.hard_limit})
        };
        limits.iter().map(limit).collect::<Vec<_>>()
    }));
    if let Some(reservation) = definition.memory_reservation {
        put(&mut config, "MemoryReservation", Some(i64::from(reservation.0) * BYTES_PER_MIB));
    }
    if let Some(linux) = &definition.linux_parameters {
        linux_parameters(&mut config, linux, definition);
    }
    let sysctls: BTreeMap<&str, &str> = definition
        .system_controls
        .iter()
        .filter_map(|control| Some((control.namespace.as_deref()?, control.value.as_deref()?)))
        .collect();
    put(&mut config, "Sysctls", (!sysctls.is_empty()).then(|| json!(sysctls)));
    put(
        &mut config,
        "LogConfig",
        definition.log_configuration.as_ref().map(|log| log_config(scope, endpoint, task, definition, log)),
    );
    config
}

fn linux_parameters(
    config: &mut Map<String, Value>,
    linux: &LinuxParameters,
    definition: &ContainerDefinition,
) {
    let capabilities = linux.capabilities.as_ref();
    put(config, "CapAdd", capabilities.and_then(|capabilities| capabilities.add.clone()));
    put(config, "CapDrop", capabilities.and_then(|capabilities| capabilities.drop.clone()));
    put(
        config,
        "Devices",
        linux.devices.as_ref().map(|devices| {
            let device = |device: &gantry_decide::task::definition::Device| {
                let all = || "rwm".to_owned();
                let permissions = device.permissions.as_ref().map_or_else(all, |permissions| {
                    permissions.iter().filter_map(|permission| permission.as_str().chars().next()).collect()
                });
                json!({
                    "PathOnHost": device.host_path,
                    "PathInContainer": device.container_path.as_ref().unwrap_or(&device.host_path),
                    "CgroupPermissions": permissions,
                })
            };
            devices.iter().map(device).collect::<Vec<_>>()
        }),
    );
    put(config, "Init", linux.init_process_enabled);
    put(config, "ShmSize", linux.shared_memory_size.map(|mib| i64::from(mib) * BYTES_PER_MIB));
    put(
        config,
        "Tmpfs",
        linux.tmpfs.as_ref().map(|mounts| {
            let mounts = mounts.iter().map(|mount| {
                let mut options = mount.mount_options.clone().unwrap_or_default();
                options.push(format!("size={}m", mount.size));
                (mount.container_path.clone(), options.join(","))
            });
            json!(mounts.collect::<BTreeMap<_, _>>())
        }),
    );
    if let (Some(swap), Some(memory)) = (linux.max_swap, definition.memory) {
        let both = (i64::from(swap) + i64::from(memory.0)) * BYTES_PER_MIB;
        put(config, "MemorySwap", Some(both));
    }
    put(config, "MemorySwappiness", linux.swappiness);
}

/// The log driver's options. `awslogs` gets those that ECS fills in: group, region and the name of the stream; and the
/// control plane's address, since Docker's driver would ask AWS. A stream without a prefix is called by the container's
/// id, which its agent knows. Fargate demands a prefix; what goes without here gets one there.
fn log_config(
    scope: &Scope,
    endpoint: &str,
    task: &Task,
    definition: &ContainerDefinition,
    log: &LogConfiguration,
) -> Value {
    let mut options = log.options.clone().unwrap_or_default();
    if log.log_driver == LogDriver::Awslogs {
        options.entry("awslogs-endpoint".to_owned()).or_insert_with(|| endpoint.to_owned());
        options.entry("awslogs-region".to_owned()).or_insert_with(|| scope.region.to_string());
        let group = || format!("/ecs/{}", task.definition_id.family);
        options.entry("awslogs-group".to_owned()).or_insert_with(group);
        let prefix = options.remove("awslogs-stream-prefix");
        let needed = || (task.launch_type == LaunchType::Fargate).then(|| "ecs".to_owned());
        if let Some(prefix) = prefix.or_else(needed) {
            options
                .entry("awslogs-stream".to_owned())
                .or_insert_with(|| format!("{prefix}/{}/{}", definition.name, task.id));
        }
    }
    json!({"Type": log.log_driver.as_str(), "Config": options})
}

/// Volumes of kinds that no agent of ours announces are kept off by placement.
fn volume(volume: &Volume) -> Option<acs::Volume> {
    let name = Some(volume.name.clone());
    match &volume.source {
        VolumeSource::Host(host) => Some(acs::Volume {
            name,
            type_: Some("host".to_owned()),
            host: Some(acs::HostVolume { source_path: host.source_path.clone() }),
            ..Default::default()
        }),
        VolumeSource::Docker(docker) => Some(acs::Volume {
            name,
            type_: Some("docker".to_owned()),
            docker_volume_configuration: Some(acs::DockerVolumeConfiguration {
                scope: docker.scope.map(|scope| scope.as_str().to_owned()),
                autoprovision: docker.autoprovision,
                driver: docker.driver.clone(),
                driver_opts: docker.driver_opts.clone(),
                labels: docker.labels.clone(),
            }),
            ..Default::default()
        }),
        VolumeSource::Efs(efs) => {
            let word = |switch: Option<EfsSwitch>| switch.map(|switch| switch.as_str().to_owned());
            Some(acs::Volume {
                name,
                type_: Some("efs".to_owned()),
                efs_volume_configuration: Some(acs::EFSVolumeConfiguration {
                    file_system_id: Some(efs.file_system_id.clone()),
                    root_directory: efs.root_directory.clone(),
                    transit_encryption: word(efs.transit_encryption),
                    transit_encryption_port: efs.transit_encryption_port,
                    authorization_config: efs.authorization_config.as_ref().map(|authorization| {
                        acs::EFSAuthorizationConfig {
                            access_point_id: authorization.access_point_id.clone(),
                            iam: word(authorization.iam),
                        }
                    }),
                }),
                ..Default::default()
            })
        }
        // The rest stands among the attachments.
        VolumeSource::ConfiguredAtLaunch(_) => Some(acs::Volume { name, ..Default::default() }),
        _ => None,
    }
}

/// Which GPUs are whose.
fn associations(task: &Task) -> Option<Vec<acs::Association>> {
    let of = |container: &Container| {
        let name = container.name.to_string();
        let one = move |id: &String| acs::Association {
            type_: Some("gpu".to_owned()),
            name: Some(id.clone()),
            containers: Some(vec![name.clone()]),
        };
        container.gpu_ids.iter().map(one).collect::<Vec<_>>()
    };
    Some(task.containers.iter().flat_map(of).collect::<Vec<_>>()).filter(|all| !all.is_empty())
}

/// A managed volume as its agent makes it. A file system that nobody asked for is the agent's choice.
fn managed_volume(scope: &Scope, volume: &TaskVolume) -> acs::TaskAttachment {
    let managed = &volume.configuration.managed_ebs_volume;
    let properties = [
        ("volumeId", Some(volume.id.to_string())),
        ("volumeSizeGib", Some(managed.size().to_string())),
        ("volumeName", Some(volume.configuration.name.clone())),
        ("fileSystem", managed.filesystem_type.map(|kind| kind.as_str().to_owned())),
        ("deleteOnTermination", Some(managed.is_deleted_at_end().to_string())),
    ];
    let property = |(name, value): (&str, Option<String>)| {
        Some(acs::AttachmentProperty { name: Some(name.to_owned()), value: Some(value?) })
    };
    acs::TaskAttachment {
        attachment_arn: Some(attachment_arn(scope, &volume.attachment)),
        attachment_type: Some("amazonebs".to_owned()),
        attachment_properties: Some(properties.into_iter().filter_map(property).collect()),
    }
}

fn attachment_arn(scope: &Scope, id: &AttachmentId) -> String {
    format!("arn:aws:ecs:{}:{}:attachment/{id}", scope.region, scope.account)
}
