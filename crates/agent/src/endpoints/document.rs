//! The metadata documents: what a task and its containers are, in versions 2 (and 3, which is the same) and 4.

use crate::config::AgentConfig;
use crate::driver::container::cluster;
use crate::driver::reach::{interface, requests};
use crate::driver::{ContainerSnapshot, TaskSnapshot, volumes};
use crate::network::PortRequest;
use gantry_api::acs;
use gantry_decide::network::Ipv6Block;
use gantry_decide::task::NetworkMode;
use gantry_decide::task_engine::KnownStatus;
use gantry_decide::time::Timestamp;
use gantry_wire::{EpochMillis, xml::iso8601};
use serde_json::{Map, Value, json};

/// The versions of the documents. They grew: each has all that the earlier one has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    Two,
    Three,
    Four,
}

/// What a document says beside the task's own.
#[derive(Clone, Copy, Debug)]
pub struct About<'a> {
    pub config: &'a AgentConfig,
    pub availability_zone: Option<&'a str>,
}

fn time(at: Timestamp) -> Value {
    Value::String(iso8601(EpochMillis(at.as_millis())))
}

/// Puts a member in, if there is one: documents leave out what is not known.
fn put(document: &mut Map<String, Value>, name: &str, value: Option<Value>) {
    if let Some(value) = value {
        document.insert(name.to_owned(), value);
    }
}

/// A task with its containers.
pub fn task(about: About<'_>, snapshot: &TaskSnapshot, version: Version) -> Value {
    let payload = snapshot.known.task();
    let containers = snapshot.containers.iter().filter(|container| {
        // Those that were never made are only in the latest version, once their image is there.
        let least = if version == Version::Four { KnownStatus::Pulled } else { KnownStatus::Created };
        container.status >= least
    });
    let mut document = Map::new();
    let mut set = |name: &str, value: Option<Value>| put(&mut document, name, value);
    set("Cluster", Some(json!(cluster(about.config, payload))));
    set("TaskARN", Some(json!(snapshot.arn.0)));
    set("Family", payload.family.clone().map(Value::String));
    set("Revision", payload.version.clone().map(Value::String));
    set("DesiredStatus", Some(json!(snapshot.desired.as_str())));
    set("KnownStatus", Some(json!(snapshot.status.as_str())));
    let all: Vec<_> = containers.map(|one| container(about, snapshot, one, version)).collect();
    set("Containers", Some(Value::Array(all)));
    let mut limits = Map::new();
    put(&mut limits, "CPU", payload.cpu.filter(|cpu| *cpu > 0.0).map(|cpu| json!(cpu)));
    put(&mut limits, "Memory", payload.memory.filter(|memory| *memory > 0).map(|memory| json!(memory)));
    set("Limits", (!limits.is_empty()).then_some(Value::Object(limits)));
    set("PullStartedAt", snapshot.pull.map(|pull| time(pull.started_at)));
    set("PullStoppedAt", snapshot.pull.map(|pull| time(pull.stopped_at)));
    set("ExecutionStoppedAt", snapshot.execution_stopped_at.map(time));
    set("AvailabilityZone", about.availability_zone.map(|zone| json!(zone)));
    if version == Version::Four {
        set("LaunchType", payload.launch_type.clone().map(Value::String));
        set("ServiceName", payload.service_name.clone().map(Value::String));
        set("Group", payload.group.clone().map(Value::String));
        // Tasks that want it are not placed here.
        set("FaultInjectionEnabled", Some(json!(false)));
    }
    Value::Object(document)
}

/// One container of a task.
pub fn container(
    about: About<'_>,
    snapshot: &TaskSnapshot,
    one: &ContainerSnapshot,
    version: Version,
) -> Value {
    let empty = acs::Container::default();
    let payload = snapshot.known.container(&one.name).unwrap_or(&empty);
    let docker = snapshot.known.docker(&one.name);
    let mut document = Map::new();
    let mut set = |name: &str, value: Option<Value>| put(&mut document, name, value);
    set("DockerId", Some(json!(one.runtime_id)));
    set("Name", Some(json!(one.name)));
    set("DockerName", Some(json!(one.name)));
    // ECS shows the name that the task definition has, whatever the tag was found to stand for.
    let image = payload.image.as_deref().map(|image| match image.split_once('@') {
        Some((tagged, _)) if payload.image_pinned == Some(true) => tagged,
        _ => image,
    });
    set("Image", image.map(|image| json!(image)));
    set("ImageID", Some(json!(one.image_id.clone().unwrap_or_default())));
    let ports = ports(snapshot, one, payload);
    set("Ports", (!ports.is_empty()).then_some(Value::Array(ports)));
    set("Labels", Some(labels(about, snapshot, one)));
    set("DesiredStatus", Some(json!(one.desired.as_str())));
    set("KnownStatus", Some(json!(one.status.as_str())));
    set("ExitCode", one.exit.and_then(|exit| exit.code).map(|code| json!(code)));
    let memory = payload.memory.unwrap_or(0);
    set("Limits", Some(json!({"CPU": payload.cpu.unwrap_or(0), "Memory": memory})));
    // Made and started in one step.
    set("CreatedAt", one.started_at.map(time));
    set("StartedAt", one.started_at.map(time));
    set("FinishedAt", one.exit.map(|exit| time(exit.at)));
    set("Type", Some(json!("NORMAL")));
    set("Networks", Some(Value::Array(networks(snapshot, one, version))));
    set(
        "Health",
        one.health.as_ref().map(|health| {
            json!({
                "status": health.status.as_str(),
                "statusSince": time(health.since),
                "exitCode": health.exit_code,
                "output": health.output,
            })
        }),
    );
    // What could not be mounted is told with the container's end.
    let of = volumes::Of {
        agent: about.config,
        arn: &snapshot.arn,
        task: snapshot.known.task(),
        of_image: &|_| Vec::new(),
    };
    let mounts = volumes::mounts(of, payload).unwrap_or_default();
    let mounts: Vec<_> = mounts
        .iter()
        .map(|mount| json!({"Source": mount.bind.source, "Destination": mount.bind.target}))
        .collect();
    set("Volumes", (!mounts.is_empty()).then_some(Value::Array(mounts)));
    if version == Version::Four {
        let log = docker.and_then(|docker| docker.host_config.log_config.as_ref());
        set("LogDriver", Some(json!(log.and_then(|log| log.driver.as_deref()).unwrap_or("json-file"))));
        set("LogOptions", log.and_then(|log| log.config.as_ref()).map(|options| json!(options)));
        set("ContainerARN", payload.container_arn.clone().map(Value::String));
        set("Snapshotter", Some(json!("overlayfs")));
        let restarts = payload.restart_policy.as_ref().and_then(|policy| policy.enabled);
        set("RestartCount", restarts.filter(|enabled| *enabled).map(|_| json!(one.restarts)));
    }
    Value::Object(document)
}

/// The container's own labels, and ECS's over them.
fn labels(about: About<'_>, snapshot: &TaskSnapshot, one: &ContainerSnapshot) -> Value {
    let payload = snapshot.known.task();
    let docker = snapshot.known.docker(&one.name);
    let mut labels = docker.and_then(|docker| docker.config.labels.clone()).unwrap_or_default();
    for (name, value) in [
        ("cluster", cluster(about.config, payload)),
        ("container-name", &one.name),
        ("task-arn", &snapshot.arn.0),
        ("task-definition-family", payload.family.as_deref().unwrap_or_default()),
        ("task-definition-version", payload.version.as_deref().unwrap_or_default()),
    ] {
        labels.insert(format!("com.amazonaws.ecs.{name}"), value.to_owned());
    }
    json!(labels)
}

fn ports(snapshot: &TaskSnapshot, one: &ContainerSnapshot, payload: &acs::Container) -> Vec<Value> {
    match snapshot.known.mode() {
        // The task's ports are its own.
        NetworkMode::Awsvpc => {
            let numbers = |port: &PortRequest| {
                let (first, protocol) = (port.container_port, port.protocol);
                (first..=first.saturating_add(port.more)).map(move |number| {
                    json!({"ContainerPort": number, "Protocol": protocol.as_str(), "HostPort": number})
                })
            };
            requests(payload).iter().flat_map(numbers).collect()
        }
        _ => one
            .bindings
            .iter()
            .flat_map(|binding| {
                (0..=binding.more).map(|step| {
                    json!({
                        "ContainerPort": binding.container_port.saturating_add(step),
                        "Protocol": binding.protocol.as_str(),
                        "HostPort": binding.host_port.saturating_add(step),
                        "HostIp": binding.bind_ip,
                    })
                })
            })
            .collect(),
    }
}

fn networks(snapshot: &TaskSnapshot, one: &ContainerSnapshot, version: Version) -> Vec<Value> {
    let mode = snapshot.known.mode();
    let addresses = |address: String| json!({"NetworkMode": mode.as_str(), "IPv4Addresses": [address]});
    match mode {
        NetworkMode::Bridge => {
            one.address.map(|address| addresses(address.to_string())).into_iter().collect()
        }
        NetworkMode::Awsvpc => {
            let Some((known, name)) = interface(snapshot.known.task()) else { return Vec::new() };
            let mut network = addresses(known.address.to_string());
            if let (Some((address, _)), Some(network)) = (known.ipv6, network.as_object_mut()) {
                network.insert("IPv6Addresses".to_owned(), json!([address]));
            }
            if let (Version::Four, Some(network)) = (version, network.as_object_mut()) {
                let mac: Vec<_> = known.mac.iter().map(|byte| format!("{byte:02x}")).collect();
                let bits = u32::MAX << (32 - u32::from(known.prefix_length));
                let subnet = std::net::Ipv4Addr::from(u32::from(known.address) & bits);
                let docker = snapshot.known.docker(&one.name).map(|docker| &docker.host_config);
                network.extend([
                    ("AttachmentIndex".to_owned(), json!(0)),
                    ("MACAddress".to_owned(), json!(mac.join(":"))),
                    ("IPv4SubnetCIDRBlock".to_owned(), json!(format!("{subnet}/{}", known.prefix_length))),
                    ("PrivateDNSName".to_owned(), json!(name)),
                    (
                        "SubnetGatewayIpv4Address".to_owned(),
                        json!(format!("{}/{}", known.gateway, known.prefix_length)),
                    ),
                ]);
                let block = known.ipv6.and_then(|(address, bits)| Ipv6Block::around(address, bits));
                put(network, "IPv6SubnetCIDRBlock", block.map(|block| json!(block)));
                let lists = docker.map(|docker| (docker.dns.clone(), docker.dns_search.clone()));
                let (servers, search) = lists.unwrap_or_default();
                put(network, "DomainNameServers", servers.map(|servers| json!(servers)));
                put(network, "DomainNameSearchList", search.map(|search| json!(search)));
            }
            vec![network]
        }
        NetworkMode::Host | NetworkMode::None => {
            vec![json!({"NetworkMode": mode.as_str(), "IPv4Addresses": []})]
        }
    }
}
