//! From a container's configuration to what Docker makes: pure.

use super::api::{Create, CreateHost, Empty, Mount, PortBinding};
use crate::network::PortRequest;
use crate::protocol::docker::{Config, Healthcheck, HostConfig, LogConfig};
use crate::runtime::cgroup::PIDS_DEFAULT;
use crate::runtime::{ContainerConfig, ContainerId, EngineParts, Namespace, NetworkNamespace};
use std::collections::BTreeMap;

/// Of the agent that a container belongs to.
pub const AGENT_LABEL: &str = "gantry.agent";
/// The agent's name for a container.
pub const CONTAINER_LABEL: &str = "gantry.container";
/// The control group of the task that a volume belongs to, with which it goes.
pub const GROUP_LABEL: &str = "gantry.task-group";
/// Where the agent keeps a container's output, with the bytes of a file and the number of files.
pub const LOG_LABEL: &str = "gantry.log";

/// A container to make. `neighbour` is the engine's id of another container.
pub fn create(
    agent: &str,
    config: &ContainerConfig,
    parts: &EngineParts,
    cgroup_parent: String,
    neighbour: &impl Fn(&ContainerId) -> String,
) -> Create {
    let joins = matches!(config.network, NetworkNamespace::Container(_));
    let of = |namespace: &Namespace, own: &str| match namespace {
        Namespace::Private => own.to_owned(),
        Namespace::Host => "host".to_owned(),
        Namespace::Container(id) => format!("container:{}", neighbour(id)),
    };
    let network_mode = match &config.network {
        NetworkNamespace::Host => "host".to_owned(),
        NetworkNamespace::Isolated | NetworkNamespace::Path(_) => "none".to_owned(),
        NetworkNamespace::Container(id) => format!("container:{}", neighbour(id)),
        NetworkNamespace::Bridge => "bridge".to_owned(),
    };
    let bridge = config.network == NetworkNamespace::Bridge;
    // Elsewhere there is nothing to publish, and Docker refuses what says so.
    let ports = if bridge { ports(&parts.ports) } else { BTreeMap::new() };
    // The pause container, which alone has no program, lends its namespace.
    let own_ipc = if config.args.is_empty() { "shareable" } else { "" };
    let payload = &parts.docker.host_config;
    let mut labels = parts.docker.config.labels.clone().unwrap_or_default();
    labels.extend(parts.labels.clone());
    let log = &config.log;
    labels.extend([
        (AGENT_LABEL.to_owned(), agent.to_owned()),
        (CONTAINER_LABEL.to_owned(), config.id.to_string()),
        (LOG_LABEL.to_owned(), format!("{} {} {}", log.max_bytes, log.max_files, log.path.display())),
    ]);
    Create {
        image: parts.image.clone(),
        entrypoint: config.args.first().map(|program| vec![program.clone()]),
        cmd: config.args.iter().skip(1).cloned().collect(),
        env: config.env.clone(),
        exposed_ports: ports.keys().map(|port| (port.clone(), Empty {})).collect(),
        host_config: CreateHost {
            mounts: config.mounts.iter().map(mount).collect(),
            cgroup_parent,
            cpu_shares: config.cpu_shares.unwrap_or_default(),
            memory: config.memory_limit.unwrap_or_default(),
            pids_limit: config.pids_limit.filter(|limit| *limit != 0).unwrap_or(PIDS_DEFAULT),
            pid_mode: of(&config.pid, ""),
            ipc_mode: of(&config.ipc, own_ipc),
            port_bindings: ports,
            storage_opt: parts
                .layer_bytes
                .map(|bytes| ("size".to_owned(), bytes.to_string()))
                .into_iter()
                .collect(),
            links: parts.links.iter().map(|(id, alias)| format!("{}:{alias}", neighbour(id))).collect(),
            host: HostConfig {
                network_mode: Some(network_mode),
                readonly_rootfs: Some(config.read_only_root),
                log_config: Some(log_config(config, parts)),
                // What belongs to a network belongs to the container that has it.
                dns: payload.dns.clone().filter(|_| !joins),
                dns_search: payload.dns_search.clone().filter(|_| !joins),
                extra_hosts: payload.extra_hosts.clone().filter(|_| !joins),
                ..payload.clone()
            },
        },
        config: Config {
            hostname: (bridge || !parts.docker.config.hostname.as_deref().unwrap_or_default().is_empty())
                .then(|| config.hostname.clone())
                .or_else(|| config.args.is_empty().then(|| config.hostname.clone()))
                .filter(|_| !joins),
            labels: Some(labels),
            // ECS ignores the image's check, and the definition's is run by the agent.
            healthcheck: Some(Healthcheck { test: Some(vec!["NONE".to_owned()]), ..Healthcheck::default() }),
            network_disabled: None,
            ..parts.docker.config.clone()
        },
    }
}

fn mount(mount: &crate::runtime::BindMount) -> Mount {
    let of_host = mount.source.is_absolute();
    Mount {
        kind: if of_host { "bind" } else { "volume" },
        source: mount.source.to_string_lossy().into_owned(),
        target: mount.target.clone(),
        read_only: mount.read_only,
    }
}

fn ports(ports: &[PortRequest]) -> BTreeMap<String, Vec<PortBinding>> {
    let mut all: BTreeMap<String, Vec<PortBinding>> = BTreeMap::new();
    for port in ports {
        for step in 0..=port.more {
            let (container, host) =
                (port.container_port.saturating_add(step), port.host_port.saturating_add(step));
            let binding = PortBinding { host_ip: String::new(), host_port: host.to_string() };
            all.entry(format!("{container}/{}", port.protocol.as_str())).or_default().push(binding);
        }
    }
    all
}

/// Where Docker puts the output: where its own driver says, if the agent has none of the name; else into files, which
/// the agent follows. They are as large as the agent's own, so that what an agent missed is there when it comes back.
fn log_config(config: &ContainerConfig, parts: &EngineParts) -> LogConfig {
    let asked = parts.docker.host_config.log_config.clone().unwrap_or_default();
    if parts.own_log_driver {
        return asked;
    }
    if config.log.max_files == 0 {
        return LogConfig { driver: Some("none".to_owned()), config: None };
    }
    let driver = asked.driver.as_deref().unwrap_or_default();
    let mut options = match driver {
        "" | "json-file" | "local" => asked.config.unwrap_or_default(),
        _ => BTreeMap::new(),
    };
    options.entry("max-size".to_owned()).or_insert_with(|| config.log.max_bytes.to_string());
    options.entry("max-file".to_owned()).or_insert_with(|| config.log.max_files.to_string());
    let driver = if driver == "local" { "local" } else { "json-file" };
    LogConfig { driver: Some(driver.to_owned()), config: Some(options) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::runtime::BindMount;
    use gantry_decide::task::TransportProtocol;

    fn made(config: &ContainerConfig, parts: &EngineParts) -> serde_json::Value {
        let neighbour = |id: &ContainerId| format!("id-of-{id}");
        serde_json::to_value(create("agent", config, parts, "/gantry/agent/t".to_owned(), &neighbour))
            .unwrap()
    }

    fn parts(host: &str, config: &str) -> EngineParts {
        let mut parts = EngineParts { image: "app:1".to_owned(), ..EngineParts::default() };
        parts.docker.host_config = serde_json::from_str(host).unwrap();
        parts.docker.config = serde_json::from_str(config).unwrap();
        parts
    }

    fn other() -> ContainerId {
        ContainerId::try_from("other".to_owned()).unwrap()
    }

    #[test]
    fn a_container_on_docker_s_bridge_has_its_ports_and_links() {
        let mut parts = parts(r#"{"Dns":["10.0.0.2"],"CapDrop":["CHOWN"]}"#, r#"{"Labels":{"mine":"yes"}}"#);
        let port = |host_port, protocol| PortRequest { container_port: 53, host_port, protocol, more: 0 };
        parts.ports = vec![port(5300, TransportProtocol::Tcp), port(53, TransportProtocol::Udp)];
        parts.links = vec![(other(), "db".to_owned())];
        parts.labels = BTreeMap::from([("com.amazonaws.ecs.cluster".to_owned(), "c".to_owned())]);
        let config = ContainerConfig {
            network: NetworkNamespace::Bridge,
            args: vec!["run".to_owned(), "it".to_owned()],
            mounts: vec![
                BindMount { source: "/host".into(), target: "/a".to_owned(), read_only: true },
                BindMount { source: "kept".into(), target: "/b".to_owned(), read_only: false },
            ],
            ..crate::runtime::spec::tests::config()
        };
        let made = made(&config, &parts);
        let host = &made["HostConfig"];
        assert_eq!(host["PortBindings"]["53/tcp"][0]["HostPort"], "5300");
        assert_eq!(host["PortBindings"]["53/udp"][0]["HostPort"], "53");
        assert_eq!(made["ExposedPorts"]["53/udp"], serde_json::json!({}));
        assert_eq!((&host["NetworkMode"], &host["Links"][0]), (&"bridge".into(), &"id-of-other:db".into()));
        assert_eq!((&host["Dns"][0], &host["CapDrop"][0]), (&"10.0.0.2".into(), &"CHOWN".into()));
        assert_eq!(host["Mounts"][0]["Type"], "bind");
        assert_eq!(
            (&host["Mounts"][1]["Type"], &host["Mounts"][1]["Source"]),
            (&"volume".into(), &"kept".into())
        );
        assert_eq!(host["LogConfig"]["Type"], "json-file");
        assert_eq!(host["LogConfig"]["Config"]["max-file"], config.log.max_files.to_string());
        assert_eq!((&made["Entrypoint"][0], &made["Cmd"][0]), (&"run".into(), &"it".into()));
        assert_eq!(
            (&made["Labels"]["mine"], &made["Labels"]["gantry.agent"]),
            (&"yes".into(), &"agent".into())
        );
        assert_eq!(made["Labels"]["com.amazonaws.ecs.cluster"], "c");
        assert_eq!(made["Healthcheck"]["Test"][0], "NONE");
    }

    #[test]
    fn a_layer_has_the_size_that_its_task_asks_for() {
        let mut parts = parts("{}", "{}");
        let config = crate::runtime::spec::tests::config();
        assert!(made(&config, &parts)["HostConfig"]["StorageOpt"].is_null());
        parts.layer_bytes = Some(21 << 30);
        assert_eq!(made(&config, &parts)["HostConfig"]["StorageOpt"]["size"], "22548578304");
    }

    #[test]
    fn one_in_another_s_network_leaves_names_to_that() {
        let parts = parts(r#"{"Dns":["10.0.0.2"],"ExtraHosts":["a:1.2.3.4"]}"#, r#"{"Hostname":"own"}"#);
        let config = ContainerConfig {
            network: NetworkNamespace::Container(other()),
            pid: Namespace::Container(other()),
            ipc: Namespace::Host,
            ..crate::runtime::spec::tests::config()
        };
        let made = made(&config, &parts);
        let host = &made["HostConfig"];
        assert_eq!(host["NetworkMode"], "container:id-of-other");
        assert_eq!((&host["PidMode"], &host["IpcMode"]), (&"container:id-of-other".into(), &"host".into()));
        assert!(made["Hostname"].is_null() && host["Dns"].is_null() && host["ExtraHosts"].is_null());
        assert_eq!(host["PortBindings"], serde_json::json!({}));
    }

    #[test]
    fn drivers_that_only_docker_has_are_docker_s() {
        let mut parts = parts(r#"{"LogConfig":{"Type":"gelf","Config":{"gelf-address":"udp://h:1"}}}"#, "{}");
        parts.own_log_driver = true;
        let config = crate::runtime::spec::tests::config();
        assert_eq!(made(&config, &parts)["HostConfig"]["LogConfig"]["Config"]["gelf-address"], "udp://h:1");
        parts.own_log_driver = false;
        let config =
            ContainerConfig { log: crate::runtime::LogFile { max_files: 0, ..config.log.clone() }, ..config };
        assert_eq!(made(&config, &parts)["HostConfig"]["LogConfig"]["Type"], "none");
    }
}
