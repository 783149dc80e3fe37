//! Links between containers in bridge mode: what Docker writes into a container for each `target:alias`, which is a line
//! of its hosts file and variables that name the target's ports.

use crate::network::Bridged;
use gantry_api::acs;
use gantry_decide::task_engine::{Failure, FailureKind};
use std::collections::BTreeMap;

/// What links add to a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Links {
    /// Lines of the hosts file.
    pub hosts: String,
    pub environment: BTreeMap<String, String>,
}

/// Writes a container's links, whose targets run.
///
/// # Errors
/// For a target that is not there: bridge mode alone has addresses to link to.
pub fn links(
    task: &acs::Task,
    container: &acs::Container,
    bridged: &BTreeMap<String, Bridged>,
) -> Result<Links, Failure> {
    let mut links = Links::default();
    let own_name = container.name.as_deref().unwrap_or_default();
    for link in container.links.iter().flatten() {
        let (target, alias) = link.split_once(':').unwrap_or((link, link));
        let address = bridged.get(target).map(|bridged| bridged.address).ok_or_else(|| {
            Failure::new(
                FailureKind::CannotCreateContainerError,
                format!("link {link}: container {target} has no address of its own"),
            )
        })?;
        links.hosts.push_str(&format!("{address}\t{alias}"));
        if alias != target {
            links.hosts.push_str(&format!(" {target}"));
        }
        links.hosts.push('\n');
        let prefix = alias.replace('-', "_").to_ascii_uppercase();
        let mut put = |name: String, value: String| _ = links.environment.insert(name, value);
        put(format!("{prefix}_NAME"), format!("/{own_name}/{alias}"));
        let other = task.containers.iter().flatten().find(|other| other.name.as_deref() == Some(target));
        let mappings = other.and_then(|other| other.port_mappings.as_deref()).unwrap_or_default();
        let mut ports: Vec<(i32, &str)> = mappings
            .iter()
            .filter_map(|mapping| {
                Some((mapping.container_port?, mapping.protocol.as_deref().unwrap_or("tcp")))
            })
            .collect();
        ports.sort_unstable();
        for (index, (port, protocol)) in ports.iter().enumerate() {
            let upper = protocol.to_ascii_uppercase();
            let url = format!("{protocol}://{address}:{port}");
            if index == 0 {
                put(format!("{prefix}_PORT"), url.clone());
            }
            put(format!("{prefix}_PORT_{port}_{upper}"), url);
            put(format!("{prefix}_PORT_{port}_{upper}_ADDR"), address.to_string());
            put(format!("{prefix}_PORT_{port}_{upper}_PORT"), port.to_string());
            put(format!("{prefix}_PORT_{port}_{upper}_PROTO"), (*protocol).to_owned());
        }
    }
    Ok(links)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_link_is_a_name_and_its_ports() {
        let task: acs::Task = gantry_wire::json::from_slice(
            br#"{"containers":[{"name":"db","portMappings":[{"containerPort":5432},{"containerPort":53,"protocol":"udp"}]},
                 {"name":"app","links":["db:data-base"]}]}"#,
        )
        .unwrap();
        let app = &task.containers.as_ref().unwrap()[1];
        let none = links(&task, app, &BTreeMap::new()).unwrap_err();
        assert!(none.text.contains("container db has no address"), "{}", none.text);
        let at = Bridged { address: "10.0.0.9".parse().unwrap(), ports: vec![] };
        let made = links(&task, app, &BTreeMap::from([("db".to_owned(), at)])).unwrap();
        assert_eq!(made.hosts, "10.0.0.9\tdata-base db\n");
        let variables: Vec<_> =
            made.environment.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(variables.len(), 10);
        for expected in [
            "DATA_BASE_NAME=/app/data-base",
            "DATA_BASE_PORT=udp://10.0.0.9:53",
            "DATA_BASE_PORT_5432_TCP=tcp://10.0.0.9:5432",
            "DATA_BASE_PORT_5432_TCP_ADDR=10.0.0.9",
            "DATA_BASE_PORT_53_UDP_PROTO=udp",
        ] {
            assert!(variables.iter().any(|variable| variable == expected), "{expected} in {variables:?}");
        }
    }
}
