//! How a task is reached: its own interface, and its containers' ports.

use crate::network::{Bridged, PortRequest, Published, TaskInterface};
use gantry_api::acs;
use gantry_decide::task::proxy::ProxyRules;
use gantry_decide::task::{NetworkMode, PortRange, TransportProtocol};
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
    let second = eni.ipv6_addresses.as_deref().unwrap_or_default().first();
    let ipv6 = second.and_then(|second| {
        let bits = eni.subnet_gateway_ipv6_address.as_deref()?.split_once('/')?.1;
        Some((second.address.as_deref()?.parse().ok()?, bits.parse().ok().filter(|bits| *bits <= 128)?))
    });
    let proxy = match &task.proxy_configuration {
        Some(proxy) => {
            let properties = proxy.properties.as_ref();
            let property = |name: &str| properties.and_then(|all| all.get(name)).map(String::as_str);
            // Without its proxy a task would say what it must not.
            Some(ProxyRules::read(property).ok()?)
        }
        None => None,
    };
    let interface = TaskInterface {
        ipv6,
        proxy,
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
        .map(|mapping| {
            let range = mapping.container_port_range.as_deref().and_then(|range| range.parse().ok());
            let (container_port, more) = match range {
                Some(PortRange { first, last }) => (first, last - first),
                None => (port(mapping.container_port), 0),
            };
            let (host_port, protocol) = (port(mapping.host_port), protocol(mapping));
            PortRequest { container_port, host_port, protocol, more }
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
    // A range is published as all of its ports, of which the host's follow each other as the container's do.
    let mut published = bridged.map(|bridged| bridged.ports.clone()).unwrap_or_default();
    let binding = |PortRequest { container_port, protocol, more, .. }: PortRequest| {
        let host_port = match mode {
            NetworkMode::Host => container_port,
            _ => {
                let mapped =
                    |port: &Published| (port.container_port, port.protocol) == (container_port, protocol);
                // A port of a container may be mapped to several of the host.
                published.remove(published.iter().position(mapped)?).host_port
            }
        };
        Some(NetworkBinding { bind_ip: "0.0.0.0".to_owned(), container_port, host_port, protocol, more })
    };
    match mode {
        NetworkMode::Bridge | NetworkMode::Host => {
            requests(container).into_iter().filter_map(binding).collect()
        }
        NetworkMode::Awsvpc | NetworkMode::None => Vec::new(),
    }
}
