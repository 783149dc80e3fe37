//! FireLens: a task's log router, and the containers whose output goes through it.
//!
//! The router finds two things in its container that it did not bring: its configuration, made from the log options of
//! the other containers, and a directory where it makes the socket that this agent writes their output to. Where it
//! runs, containers may also send records by themselves: two variables say where.

mod configuration;

use crate::config::AgentConfig;
use crate::driver::Known;
use crate::driver::container::{cluster, task_id};
use crate::logs::{Fluentd, LogDriver};
use crate::network::Bridged;
use crate::protocol::docker::LogConfig;
use crate::runtime::BindMount;
use crate::secrets::{Fetched, log_options};
use configuration::{Configuration, PORT, Program};
use gantry_api::acs;
use gantry_decide::task::NetworkMode;
use gantry_decide::task_engine::{Failure, FailureKind, TaskArn};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// In the agent's directory: what routers of tasks share with it.
pub const DIRECTORY: &str = "firelens";
/// The log driver of containers whose output goes to the task's router.
pub const DRIVER: &str = "awsfirelens";

/// Where a router's image has its socket's directory.
const SOCKET_DIRECTORY: &str = "/var/run";
/// The socket, as [`configuration::SOCKET`] has it, in the directory that the agent sees.
const SOCKET_NAME: &str = "fluent.sock";

/// Whether a container's output goes to the task's router.
pub fn is_routed(log: Option<&LogConfig>) -> bool {
    log.and_then(|log| log.driver.as_deref()) == Some(DRIVER)
}

/// The task's router, if it has one.
pub fn router(task: &acs::Task) -> Option<&acs::Container> {
    task.containers.iter().flatten().find(|container| container.firelens_configuration.is_some())
}

fn name(container: &acs::Container) -> &str {
    container.name.as_deref().unwrap_or_default()
}

fn directory(data_dir: &Path, arn: &TaskArn) -> PathBuf {
    data_dir.join(DIRECTORY).join(task_id(arn))
}

fn socket_directory(data_dir: &Path, arn: &TaskArn) -> PathBuf {
    directory(data_dir, arn).join("socket")
}

/// The log driver of a container of the task whose output goes to the router: as the stock agent tells Docker, but that
/// Fluent Bit is asked to acknowledge, so that what it had not read when it ended is known and sent again. Fluentd's
/// socket knows no acknowledgements.
pub fn log_driver(
    config: &AgentConfig,
    arn: &TaskArn,
    task: &acs::Task,
    container: &str,
    id: &str,
) -> LogDriver {
    let kind = router(task).and_then(|router| router.firelens_configuration.as_ref()?.type_.as_deref());
    LogDriver::Fluentd(Fluentd {
        address: crate::logs::Address::Inside {
            directory: socket_directory(&config.data_dir, arn),
            name: SOCKET_NAME,
        },
        tag: format!("{container}-firelens-{}", task_id(arn)),
        container_id: id.to_owned(),
        container_name: format!("/{container}"),
        sub_second: true,
        ack: kind == Some("fluentbit"),
    })
}

/// The variables by which a container finds the router, if its output goes there. In the host's network the stock agent
/// sets none.
pub fn variables(
    known: &Known,
    container: &str,
    bridged: &BTreeMap<String, Bridged>,
) -> BTreeMap<String, String> {
    let log = known.log(container);
    let router = router(known.task()).filter(|_| is_routed(log));
    let host = match (known.mode(), router) {
        (NetworkMode::Awsvpc, Some(_)) => Some("127.0.0.1".to_owned()),
        (NetworkMode::Bridge, Some(router)) => {
            bridged.get(name(router)).map(|bridged| bridged.address.to_string())
        }
        _ => None,
    };
    host.map(|host| {
        [("FLUENT_HOST", host), ("FLUENT_PORT", PORT.to_string())]
            .map(|(name, value)| (name.to_owned(), value))
            .into()
    })
    .unwrap_or_default()
}

/// The router's variables that hold the log options which are secrets: its configuration only names them, as with the
/// stock agent, so that no file of this host's has their values.
pub fn secret_variables(
    known: &Known,
    container: &acs::Container,
    fetched: &Fetched,
) -> BTreeMap<String, String> {
    if container.firelens_configuration.is_none() {
        return BTreeMap::new();
    }
    let containers = known.task().containers.iter().flatten().enumerate();
    let routed = containers.filter(|(_, other)| is_routed(known.log(name(other))));
    let options =
        routed.filter_map(|(index, other)| Some((index, &fetched.container(name(other))?.log_options)));
    options
        .flat_map(|(index, options)| {
            options.iter().map(move |(option, value)| (variable(option, index), value.expose().to_owned()))
        })
        .collect()
}

/// The name of the router's variable with an option of the container that is at this place among the task's.
fn variable(option: &str, index: usize) -> String {
    format!("{option}_{index}")
}

/// Makes what the router finds in its container, and says where. Nothing for a container that is none.
///
/// # Errors
/// For a configuration that cannot be made.
pub fn provide(
    config: &AgentConfig,
    arn: &TaskArn,
    known: &Known,
    container: &acs::Container,
) -> Result<Vec<BindMount>, Failure> {
    let Some(router) = &container.firelens_configuration else { return Ok(Vec::new()) };
    let failed = |text: String| {
        Failure::new(
            FailureKind::ResourceInitializationError,
            format!("unable to initialize firelens: {text}"),
        )
    };
    let none = BTreeMap::new();
    let options = router.options.as_ref().unwrap_or(&none);
    let option = |name: &str| options.get(name).map(String::as_str);
    let program = match router.type_.as_deref() {
        Some("fluentd") => Program::Fluentd,
        Some("fluentbit") => Program::FluentBit,
        other => return Err(failed(format!("unknown type {}", other.unwrap_or_default().escape_default()))),
    };
    let include = match (option("config-file-type"), option("config-file-value")) {
        (None, _) => None,
        (Some("file"), Some(path)) => Some(path),
        (Some("file"), None) => return Err(failed("config-file-value is missing".to_owned())),
        (Some(kind), _) => {
            return Err(failed(format!(
                "configuration files of type {} cannot be had here",
                kind.escape_default()
            )));
        }
    };
    let task = known.task();
    let metadata = match option("enable-ecs-log-metadata") {
        Some("false") => Vec::new(),
        _ => vec![
            ("ecs_cluster", cluster(config, task).to_owned()),
            ("ecs_task_arn", arn.0.clone()),
            (
                "ecs_task_definition",
                format!(
                    "{}:{}",
                    task.family.as_deref().unwrap_or_default(),
                    task.version.as_deref().unwrap_or_default()
                ),
            ),
        ],
    };
    let routed = task.containers.iter().flatten().enumerate().filter_map(|(index, container)| {
        let log = known.log(name(container)).filter(|log| is_routed(Some(log)))?;
        let mut options = log.config.clone().unwrap_or_default();
        let secret = |option: &str| (option.to_owned(), program.of_variable(&variable(option, index)));
        options.extend(log_options(container).map(secret));
        Some((name(container), options))
    });
    let text = Configuration {
        program,
        listen: match known.mode() {
            NetworkMode::Awsvpc => Some("127.0.0.1"),
            NetworkMode::Bridge => Some("0.0.0.0"),
            NetworkMode::Host | NetworkMode::None => None,
        },
        metadata,
        include,
        containers: routed.collect(),
    };
    let text = text.text().map_err(|error| failed(error.to_string()))?;
    let user = known.docker(name(container)).and_then(|docker| docker.config.user.as_deref());
    let file = place(&config.data_dir, arn, &text, owner(user)).map_err(|error| failed(error.to_string()))?;
    let socket = socket_directory(&config.data_dir, arn);
    Ok(vec![
        BindMount { source: file, target: program.path().to_owned(), read_only: true },
        BindMount { source: socket, target: SOCKET_DIRECTORY.to_owned(), read_only: false },
    ])
}

/// Who makes the socket: the stock agent knows users by number only, and has all others for root.
fn owner(user: Option<&str>) -> u32 {
    user.and_then(|user| user.split(':').next()?.parse().ok()).unwrap_or(0)
}

/// Writes the configuration and makes the socket's directory; the file's path.
fn place(data_dir: &Path, arn: &TaskArn, text: &str, owner: u32) -> io::Result<PathBuf> {
    let directory = directory(data_dir, arn);
    let file = directory.join("router.conf");
    // Log options may hold keys of the services that logs go to.
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
    fs::write(&file, text)?;
    let socket = socket_directory(data_dir, arn);
    fs::create_dir_all(&socket)?;
    for path in [&file, &socket] {
        std::os::unix::fs::chown(path, Some(owner), None)?;
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sockets_directory_belongs_to_a_user_known_by_number() {
        assert_eq!([None, Some("1000:50"), Some("7"), Some("fluent")].map(owner), [0, 1000, 7, 0]);
        assert!(configuration::SOCKET.ends_with(&format!("{SOCKET_DIRECTORY}/{SOCKET_NAME}")));
    }
}
