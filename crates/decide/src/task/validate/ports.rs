//! Rules and defaults of port mappings, which depend on the network mode.

use super::DefinitionError;
use crate::task::definition::{ContainerDefinition, PortMapping, PortRange, TaskDefinition};
use crate::task::kinds::{NetworkMode, TransportProtocol};
use std::collections::{BTreeMap, BTreeSet};

/// Port ranges of a container: ECS's limit.
const MAX_RANGES: usize = 100;
/// Characters of a port mapping's name: ECS's limit.
const MAX_NAME: usize = 64;

pub fn check(definition: &mut TaskDefinition) -> Result<(), DefinitionError> {
    let mode = definition.effective_network_mode();
    let mut host_ports = BTreeSet::new();
    let mut names = BTreeSet::new();
    for container in &mut definition.container_definitions {
        if mode == NetworkMode::None && !container.port_mappings.is_empty() {
            return Err(DefinitionError::NotWithNetworkMode { what: "Port mappings", mode });
        }
        let name = container.name.to_string();
        for mapping in &mut container.port_mappings {
            fill_in(mapping, mode, &name)?;
            if let Some(port_name) = &mapping.name {
                if !name_fits(port_name) {
                    return Err(DefinitionError::ContainerSetting {
                        container: name,
                        setting: "portMappings.name",
                    });
                }
                if !names.insert(port_name.clone()) {
                    return Err(DefinitionError::PortNameTwice { name: port_name.clone() });
                }
            }
            if let Some(port) = mapping.host_port.filter(|p| *p != 0)
                && !host_ports.insert((port, mapping.protocol))
            {
                return Err(DefinitionError::HostPortTwice { port, protocol: mapping.protocol.as_str() });
            }
        }
        check_container(container)?;
        check_network_features(container, mode)?;
    }
    Ok(())
}

/// Gives a mapping its host port and refuses what its network mode cannot do.
fn fill_in(mapping: &mut PortMapping, mode: NetworkMode, container: &str) -> Result<(), DefinitionError> {
    let wrong = |setting| Err(DefinitionError::ContainerSetting { container: container.to_owned(), setting });
    if mapping.container_port_range.is_some() {
        if mapping.container_port.is_some_and(|p| p != 0) {
            return wrong("containerPort");
        }
        if mapping.host_port.is_some_and(|p| p != 0) {
            return wrong("hostPort");
        }
        if mode == NetworkMode::Host {
            return wrong("containerPortRange");
        }
        mapping.container_port = None;
        mapping.host_port = None;
        return Ok(());
    }
    let Some(port) = mapping.container_port.filter(|p| *p != 0) else { return wrong("containerPort") };
    mapping.host_port = Some(match (mode, mapping.host_port) {
        // 0 means "not given" here: ECS shows the container's port for it.
        (NetworkMode::Awsvpc | NetworkMode::Host, None | Some(0)) => port,
        (NetworkMode::Awsvpc | NetworkMode::Host, Some(host)) if host != port => {
            return Err(DefinitionError::HostPortDiffers { mode });
        }
        (_, host) => host.unwrap_or(0),
    });
    Ok(())
}

fn name_fits(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
    !name.is_empty() && name.len() <= MAX_NAME && !name.starts_with('-') && name.bytes().all(allowed)
}

fn check_container(container: &ContainerDefinition) -> Result<(), DefinitionError> {
    let name = || container.name.to_string();
    let mut protocols: BTreeMap<u16, TransportProtocol> = BTreeMap::new();
    let mut ranges: Vec<PortRange> = Vec::new();
    for mapping in &container.port_mappings {
        if let Some(port) = mapping.container_port
            && *protocols.entry(port).or_insert(mapping.protocol) != mapping.protocol
        {
            return Err(DefinitionError::PortForTwoProtocols { container: name(), port });
        }
        if let Some(range) = mapping.container_port_range {
            if ranges.iter().any(|other| other.overlaps(range)) {
                let value = range.to_string();
                let setting = "containerPortRange";
                return Err(DefinitionError::ContainerRepeats { container: name(), setting, value });
            }
            ranges.push(range);
        }
    }
    if ranges.len() > MAX_RANGES {
        let setting = "containerPortRange";
        return Err(DefinitionError::ContainerCount { container: name(), setting, max: MAX_RANGES });
    }
    Ok(())
}

/// Features of a container that need a network stack of its own (or one that nobody shares).
fn check_network_features(container: &ContainerDefinition, mode: NetworkMode) -> Result<(), DefinitionError> {
    let has = |list: &Option<Vec<String>>| list.as_ref().is_some_and(|l| !l.is_empty());
    let refuse = |what| Err(DefinitionError::NotWithNetworkMode { what, mode });
    if has(&container.links) && mode != NetworkMode::Bridge {
        return refuse("Links");
    }
    if mode == NetworkMode::Awsvpc {
        if container.extra_hosts.as_ref().is_some_and(|hosts| !hosts.is_empty()) {
            return refuse("Extra hosts");
        }
        if container.hostname.is_some() {
            return refuse("Hostnames");
        }
        if has(&container.dns_servers) || has(&container.dns_search_domains) {
            return refuse("DNS settings");
        }
    }
    if container.disable_networking == Some(true) && !container.port_mappings.is_empty() {
        let container = container.name.to_string();
        return Err(DefinitionError::ContainerSetting { container, setting: "disableNetworking" });
    }
    Ok(())
}
