//! Who makes the containers of this machine: flags, environment variables, the file.

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use gantry_agent::config::RuntimeKind;
use gantry_agent::docker;
use serde::Deserialize;

/// The runtimes by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RuntimeName {
    /// Gantry itself; nothing else is needed
    Native,
    /// Docker Engine, which shows the containers, has the images and keeps volumes
    Docker,
}

/// What the command line, the environment or the file say.
#[derive(Clone, Debug, Default, Args)]
pub struct RuntimeFlags {
    /// Who makes the containers; native unless told otherwise
    #[arg(id = "runtime", long, value_enum, env = "GANTRY_RUNTIME", global = true)]
    pub name: Option<RuntimeName>,
    /// Where Docker listens, with --runtime docker: unix:///var/run/docker.sock unless told otherwise
    #[arg(long, value_name = "ADDRESS", env = "DOCKER_HOST", global = true)]
    pub docker_host: Option<String>,
}

impl RuntimeFlags {
    /// These, and those of the file where they say nothing.
    pub fn over(self, file: &RuntimeFlags) -> RuntimeFlags {
        RuntimeFlags {
            name: self.name.or(file.name),
            docker_host: self.docker_host.or_else(|| file.docker_host.clone()),
        }
    }

    /// The runtime to use.
    ///
    /// # Errors
    /// For an address that is no socket of this machine.
    pub fn kind(&self) -> Result<RuntimeKind> {
        if self.name != Some(RuntimeName::Docker) {
            return Ok(RuntimeKind::Native);
        }
        let address = self.docker_host.as_deref().unwrap_or(docker::SOCKET);
        match docker::socket(address) {
            Some(socket) => Ok(RuntimeKind::Docker { socket }),
            None => bail!(
                "--docker-host {address}: containers' networks need a socket of this machine, unix:///PATH"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn docker_is_used_where_it_is_asked_for() {
        let file = RuntimeFlags { name: Some(RuntimeName::Docker), docker_host: None };
        let socket = |flags: RuntimeFlags| match flags.kind().unwrap() {
            RuntimeKind::Docker { socket } => Some(socket.display().to_string()),
            RuntimeKind::Native => None,
        };
        assert_eq!(socket(RuntimeFlags::default()), None);
        assert_eq!(socket(RuntimeFlags::default().over(&file)).as_deref(), Some("/var/run/docker.sock"));
        let own =
            RuntimeFlags { docker_host: Some("unix:///run/d.sock".to_owned()), ..RuntimeFlags::default() };
        assert_eq!(socket(own.clone()), None, "an address alone asks for nothing");
        assert_eq!(socket(own.over(&file)).as_deref(), Some("/run/d.sock"));
        let far = RuntimeFlags { docker_host: Some("tcp://host:2375".to_owned()), ..file };
        assert!(far.kind().unwrap_err().to_string().contains("tcp://host:2375"));
    }
}
