//! How a task is reached: its own interface, and its containers' ports.

use crate::network::{Bridged, PortRequest, TaskInterface};
use gantry_api::acs;
use gantry_decide::task::{NetworkMode, TransportProtocol};
use gantry_decide::task_engine::NetworkBinding;
use std::net::Ipv4Addr;

/// The interface that the control plane chose, with the task's host name.
pub fn interface(task: &acs::Task) -> Option<(TaskInterface, String)> {
    let eni = task.elastic_network_interfaces.as_ref()?.first()?;
    let addresses = eni.ipv4_addresses.as_deref().unwrap_or_default();
    let primary = addresses.iter().find(|a| a.primary == Some(true)).or(addresses.first())?;
    let (gateway, prefix) = eni.subnet_gateway_ipv4_address.as_deref()?.split_once('/')?;
    let mut mac = [0; 6];
    let text = eni.mac_address.as_deref()?;
    let mut parts = text.split(':');
    for byte in &mut mac {
        *byte = u8::from_str_radix(parts.next()?, 16).ok()?;
    }
    let interface = TaskInterface {
        address: primary.private_address.as_deref()?.parse::<Ipv4Addr>().ok()?,
        prefix_length: prefix.parse().ok().filter(|bits| (8..=30).contains(bits))?,
        gateway: gateway.parse().ok()?,
        mac,
        security_groups: eni.security_groups.iter().flatten().filter_map(|id| id.parse().ok()).collect(),
    };
    Some((interface, eni.private_dns_name.clone().unwrap_or_default()))
}

fn protocol(mapping: &acs::PortMapping) -> TransportProtocol {
    match mapping.protocol.as_deref() {
        Some("udp") => TransportProtocol::Udp,
        _ => TransportProtocol::Tcp,
    }
}

/// The ports that a container maps.
pub fn requests(container: &acs::Container) -> Vec<PortRequest> {
    let port = |number: Option<i32>| u16::try_from(number.unwrap_or(0)).unwrap_or(0);
    let mappings = container.port_mappings.iter().flatten();
    mappings
        .map(|mapping| PortRequest {
            container_port: port(mapping.container_port),
            host_port: port(mapping.host_port),
            protocol: protocol(mapping),
        })
        .filter(|request| request.container_port != 0)
        .collect()
}

/// What the control plane is told of a container's ports.
pub fn bindings(
    mode: NetworkMode,
    container: &acs::Container,
    bridged: Option<&Bridged>,
) -> Vec<NetworkBinding> {
    let binding = |container_port, host_port, protocol| NetworkBinding {
        bind_ip: "0.0.0.0".to_owned(),
        container_port,
        host_port,
        protocol,
    };
    match (mode, bridged) {
        (NetworkMode::Bridge, Some(bridged)) => bridged
            .ports
            .iter()
            .map(|port| binding(port.container_port, port.host_port, port.protocol))
            .collect(),
        (NetworkMode::Host, _) => requests(container)
            .into_iter()
            .map(|request| binding(request.container_port, request.container_port, request.protocol))
            .collect(),
        _ => Vec::new(),
    }
}
