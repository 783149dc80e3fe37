//! From a payload's task to what the task engine decides by and what each container is made of.
//!
//! What cannot be understood is answered, never dropped: the error becomes the reason of a STOPPED submission.

use super::docker::{Config, HostConfig};
use crate::firelens;
use gantry_api::acs;
use gantry_decide::lifecycle::DesiredStatus;
use gantry_decide::task::{ContainerCondition, IpcMode, NetworkMode, PidMode, TransportProtocol};
use gantry_decide::task_engine::{
    ContainerSpec, Dependency, Failure, FailureKind, HostPort, RestartPolicy, TaskArn, TaskSpec,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// CPU units of one core.
const CPU_UNITS_PER_VCPU: f64 = 1024.0;
/// The most vCPUs that a task may claim: far above any machine, low enough for every sum of units to fit.
const VCPUS_MAX: f64 = 100_000.0;
const BYTES_PER_MIB: i64 = 1 << 20;

/// A payload's task, understood.
#[derive(Clone, Debug, PartialEq)]
pub struct CompiledTask {
    pub spec: TaskSpec,
    pub desired: DesiredStatus,
    pub pid_mode: Option<PidMode>,
    pub ipc_mode: Option<IpcMode>,
    /// By name, as in `spec.containers`.
    pub containers: BTreeMap<String, ContainerConfig>,
}

/// The JSON parts of a container's payload, read. Its other parts are typed already.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerConfig {
    pub config: Config,
    pub host_config: HostConfig,
}

/// Why a task of a payload cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum PayloadError {
    #[error("the task has no ARN")]
    NoArn,
    #[error("{member} is missing")]
    Missing { member: &'static str },
    #[error("'{value}' is not a {member}")]
    Unknown { member: &'static str, value: String },
    #[error("container {container}: {member} is not valid JSON of the Docker API")]
    Json {
        container: String,
        member: &'static str,
        #[source]
        source: serde_json::Error,
    },
    #[error("container {container}: {member} {value} is out of range")]
    Range { container: String, member: &'static str, value: i64 },
    #[error("cpu {0} is out of range")]
    TaskCpu(f64),
    #[error("memory {0} is out of range")]
    TaskMemory(i32),
}

impl PayloadError {
    /// As the control plane is told, with the stock agent's words and spelling first.
    pub fn failure(&self) -> Failure {
        let mut text = format!("Error loading task - {self}");
        if let PayloadError::Json { source, .. } = self {
            text.push_str(&format!(": {source}"));
        }
        Failure::new(FailureKind::UnrecogniedTaskError, text)
    }
}

/// Reads one task of a payload.
pub fn compile(task: &acs::Task) -> Result<CompiledTask, PayloadError> {
    let arn = task.arn.clone().filter(|arn| !arn.is_empty()).ok_or(PayloadError::NoArn)?;
    let desired = match task.desired_status.as_deref() {
        None => return Err(PayloadError::Missing { member: "desiredStatus" }),
        Some(word) => parse("desiredStatus", word)?,
    };
    let network_mode = match task.network_mode.as_deref() {
        None | Some("") => NetworkMode::Bridge,
        Some(word) => parse("networkMode", word)?,
    };
    let pid_mode = word("pidMode", task.pid_mode.as_deref())?;
    let ipc_mode = word("ipcMode", task.ipc_mode.as_deref())?;
    let mut specs = Vec::new();
    let mut configs = BTreeMap::new();
    let mut host_ports = Vec::new();
    let (mut cpu, mut memory) = (0u32, 0u32);
    let router = firelens::router(task).and_then(|router| router.name.as_deref());
    for container in task.containers.as_deref().unwrap_or_default() {
        let (spec, config) = compile_container(container, router)?;
        let limit = natural(&spec.name, "memory", container.memory)?;
        let reserved = config.host_config.memory_reservation.unwrap_or_default() / BYTES_PER_MIB;
        let reserved =
            u32::try_from(reserved).map_err(|_| range(&spec.name, "MemoryReservation", reserved))?;
        cpu = cpu.saturating_add(natural(&spec.name, "cpu", container.cpu)?);
        memory = memory.saturating_add(if reserved > 0 { reserved } else { limit });
        for mapping in container.port_mappings.as_deref().unwrap_or_default() {
            let protocol = match mapping.protocol.as_deref() {
                None | Some("") => TransportProtocol::Tcp,
                Some(word) => parse("protocol", word)?,
            };
            port(&spec.name, "containerPort", mapping.container_port)?;
            let host_port = port(&spec.name, "hostPort", mapping.host_port)?;
            if host_port != 0 && network_mode != NetworkMode::Awsvpc {
                host_ports.push(HostPort { protocol, port: host_port });
            }
        }
        configs.insert(spec.name.clone(), config);
        specs.push(spec);
    }
    if let Some(vcpus) = task.cpu.filter(|vcpus| *vcpus != 0.0) {
        if !(0.0..=VCPUS_MAX).contains(&vcpus) {
            return Err(PayloadError::TaskCpu(vcpus));
        }
        cpu = (vcpus * CPU_UNITS_PER_VCPU).round() as u32;
    }
    if let Some(mib) = task.memory.filter(|mib| *mib != 0) {
        memory = u32::try_from(mib).map_err(|_| PayloadError::TaskMemory(mib))?;
    }
    let spec = TaskSpec {
        arn: TaskArn(arn),
        network_mode,
        pause: pid_mode == Some(PidMode::Task) || ipc_mode == Some(IpcMode::Task),
        waits_for_resources: task.launch_type.as_deref() != Some("FARGATE"),
        cpu,
        memory,
        host_ports,
        containers: specs,
    };
    Ok(CompiledTask { spec, desired, pid_mode, ipc_mode, containers: configs })
}

/// `router` is the container that the output of others may go through.
fn compile_container(
    container: &acs::Container,
    router: Option<&str>,
) -> Result<(ContainerSpec, ContainerConfig), PayloadError> {
    let name = container.name.clone().filter(|name| !name.is_empty());
    let name = name.ok_or(PayloadError::Missing { member: "container name" })?;
    let mut depends_on = Vec::new();
    for dependency in container.depends_on.as_deref().unwrap_or_default() {
        let other = dependency.container_name.clone().unwrap_or_default();
        let condition = parse("condition", dependency.condition.as_deref().unwrap_or_default())?;
        depends_on.push(Dependency { container: other, condition });
    }
    // A link is written into the container when it starts, so that its target has to be there: `target[:alias]`.
    for link in container.links.as_deref().unwrap_or_default() {
        let other = link.split(':').next().unwrap_or_default().to_owned();
        depends_on.push(Dependency { container: other, condition: ContainerCondition::Start });
    }
    let docker = container.docker_config.as_ref();
    let config = ContainerConfig {
        config: json(&name, "config", docker.and_then(|docker| docker.config.as_deref()))?,
        host_config: json(&name, "hostConfig", docker.and_then(|docker| docker.host_config.as_deref()))?,
    };
    if let (Some(router), true) = (router, firelens::is_routed(config.host_config.log_config.as_ref())) {
        // Its output has nowhere to go before, and the router is stopped after it.
        depends_on.push(Dependency { container: router.to_owned(), condition: ContainerCondition::Start });
    }
    let sources = container.volumes_from.iter().flatten().filter_map(|from| from.source_container.clone());
    let spec = ContainerSpec {
        volumes_from: sources.collect(),
        essential: container.essential.unwrap_or(false),
        depends_on,
        start_timeout: seconds(&name, "startTimeout", container.start_timeout)?,
        stop_timeout: seconds(&name, "stopTimeout", container.stop_timeout)?,
        restart: restart_policy(&name, container.restart_policy.as_ref())?,
        name,
    };
    Ok((spec, config))
}

fn restart_policy(
    container: &str,
    policy: Option<&acs::RestartPolicy>,
) -> Result<Option<RestartPolicy>, PayloadError> {
    let Some(policy) = policy.filter(|policy| policy.enabled == Some(true)) else { return Ok(None) };
    Ok(Some(RestartPolicy {
        ignored_exit_codes: policy.ignored_exit_codes.clone().unwrap_or_default(),
        attempt_period: seconds(container, "restartAttemptPeriod", policy.restart_attempt_period)?,
    }))
}

/// A word that may be left out.
fn word<T: std::str::FromStr>(member: &'static str, word: Option<&str>) -> Result<Option<T>, PayloadError> {
    word.filter(|word| !word.is_empty()).map(|word| parse(member, word)).transpose()
}

fn parse<T: std::str::FromStr>(member: &'static str, word: &str) -> Result<T, PayloadError> {
    // The word comes from outside and goes into a bounded reason.
    word.parse().map_err(|_| PayloadError::Unknown { member, value: word.chars().take(64).collect() })
}

fn json<T: Default + serde::de::DeserializeOwned>(
    container: &str,
    member: &'static str,
    text: Option<&str>,
) -> Result<T, PayloadError> {
    match text {
        None | Some("") => Ok(T::default()),
        Some(text) => serde_json::from_str(text).map_err(|source| PayloadError::Json {
            container: container.to_owned(),
            member,
            source,
        }),
    }
}

fn range(container: &str, member: &'static str, value: i64) -> PayloadError {
    PayloadError::Range { container: container.to_owned(), member, value }
}

fn natural(container: &str, member: &'static str, value: Option<i32>) -> Result<u32, PayloadError> {
    let value = value.unwrap_or_default();
    u32::try_from(value).map_err(|_| range(container, member, value.into()))
}

fn port(container: &str, member: &'static str, value: Option<i32>) -> Result<u16, PayloadError> {
    let value = value.unwrap_or_default();
    u16::try_from(value).map_err(|_| range(container, member, value.into()))
}

/// Zero counts as absent, as with the stock agent.
fn seconds(
    container: &str,
    member: &'static str,
    value: Option<i32>,
) -> Result<Option<Duration>, PayloadError> {
    let seconds = natural(container, member, value)?;
    Ok((seconds > 0).then(|| Duration::from_secs(seconds.into())))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn read(task: &str) -> Result<CompiledTask, PayloadError> {
        let message =
            format!(r#"{{"messageId":"m","clusterArn":"c","containerInstanceArn":"i","tasks":[{task}]}}"#);
        let message: acs::PayloadMessage = gantry_wire::json::from_slice(message.as_bytes()).unwrap();
        compile(&message.tasks.unwrap()[0])
    }

    fn with_container(members: &str) -> Result<CompiledTask, PayloadError> {
        read(&format!(r#"{{"arn":"t","desiredStatus":"RUNNING","containers":[{{"name":"app",{members}}}]}}"#))
    }

    #[test]
    fn a_whole_task_is_understood() {
        let task = read(
            r#"{"arn":"t","desiredStatus":"RUNNING","networkMode":"bridge","launchType":"EC2","containers":[
            {"name":"app","essential":true,"cpu":128,"memory":96,"stopTimeout":15,"links":["db:database"],
             "portMappings":[{"containerPort":8080,"hostPort":0,"protocol":"tcp"},{"containerPort":53,"hostPort":53,"protocol":"udp"}],
             "dependsOn":[{"containerName":"db","condition":"HEALTHY"}],
             "dockerConfig":{"version":"1.24","config":"{\"User\":\"1000\",\"Healthcheck\":{\"Test\":[\"CMD-SHELL\",\"true\"],\"Interval\":10000000000}}",
               "hostConfig":"{\"CapDrop\":[\"NET_RAW\"],\"LogConfig\":{\"Type\":\"json-file\",\"Config\":null},\"Novelty\":1}"}},
            {"name":"db","memory":512,"dockerConfig":{"hostConfig":"{\"MemoryReservation\":67108864}"}}]}"#,
        )
        .unwrap();
        assert_eq!((task.spec.cpu, task.spec.memory), (128, 96 + 64));
        assert_eq!(task.spec.host_ports, [HostPort { protocol: TransportProtocol::Udp, port: 53 }]);
        assert!(task.spec.waits_for_resources);
        let app = &task.spec.containers[0];
        assert_eq!(app.stop_timeout, Some(Duration::from_secs(15)));
        let conditions: Vec<_> = app.depends_on.iter().map(|d| (d.container.as_str(), d.condition)).collect();
        assert_eq!(conditions, [("db", ContainerCondition::Healthy), ("db", ContainerCondition::Start)]);
        assert!(!task.spec.containers[1].essential, "absent means not essential");
        let config = &task.containers["app"];
        assert_eq!(config.config.user.as_deref(), Some("1000"));
        assert_eq!(config.config.healthcheck.as_ref().unwrap().interval, Some(10_000_000_000));
        assert_eq!(config.host_config.cap_drop.as_ref().unwrap(), &["NET_RAW"]);
        assert_eq!(config.host_config.log_config.as_ref().unwrap().driver.as_deref(), Some("json-file"));
    }

    #[test]
    fn who_logs_through_a_router_waits_for_it() {
        let task = read(
            r#"{"arn":"t","desiredStatus":"RUNNING","containers":[
            {"name":"app","dockerConfig":{"hostConfig":"{\"LogConfig\":{\"Type\":\"awsfirelens\",\"Config\":{\"Name\":\"stdout\"}}}"}},
            {"name":"other"},
            {"name":"router","firelensConfiguration":{"type":"fluentbit"}}]}"#,
        )
        .unwrap();
        let on: Vec<Vec<_>> = task
            .spec
            .containers
            .iter()
            .map(|c| c.depends_on.iter().map(|d| (d.container.as_str(), d.condition)).collect())
            .collect();
        assert_eq!(on, [vec![("router", ContainerCondition::Start)], vec![], vec![]]);
    }

    #[test]
    fn limits_of_the_task_go_before_sums_of_containers() {
        let task = read(
            r#"{"arn":"t","desiredStatus":"STOPPED","networkMode":"awsvpc","launchType":"FARGATE","cpu":0.25,"memory":512,
            "containers":[{"name":"app","cpu":10,"memory":64,"portMappings":[{"containerPort":80,"hostPort":80}]}]}"#,
        )
        .unwrap();
        assert_eq!((task.spec.cpu, task.spec.memory), (256, 512));
        assert_eq!(task.spec.host_ports, [], "awsvpc tasks have ports of their own");
        assert!(!task.spec.waits_for_resources);
        assert_eq!(task.desired, DesiredStatus::Stopped);
    }

    #[test]
    fn nonsense_is_answered_with_a_reason() {
        for (members, expected) in [
            (r#""portMappings":[{"containerPort":1,"protocol":"sctp"}]"#, "'sctp' is not a protocol"),
            (
                r#""portMappings":[{"containerPort":70000}]"#,
                "container app: containerPort 70000 is out of range",
            ),
            (r#""dependsOn":[{"containerName":"x","condition":"SOON"}]"#, "'SOON' is not a condition"),
            (r#""memory":-1"#, "container app: memory -1 is out of range"),
            (
                r#""dockerConfig":{"config":"{"}"#,
                "container app: config is not valid JSON of the Docker API: EOF",
            ),
            (r#""dockerConfig":{"hostConfig":"{\"Privileged\":\"yes\"}"}"#, "hostConfig is not valid JSON"),
        ] {
            let reason = with_container(members).unwrap_err().failure().reason();
            assert!(reason.starts_with("UnrecogniedTaskError: Error loading task"), "{reason}");
            assert!(reason.contains(expected), "{reason}");
        }
        assert!(matches!(read(r#"{"desiredStatus":"RUNNING"}"#), Err(PayloadError::NoArn)));
        assert!(matches!(read(r#"{"arn":"t"}"#), Err(PayloadError::Missing { .. })));
        let enormous = r#"{"arn":"t","desiredStatus":"RUNNING","cpu":1e300}"#;
        assert!(matches!(read(enormous), Err(PayloadError::TaskCpu(_))));
    }
}
