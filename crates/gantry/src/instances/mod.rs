//! Instance providers: who makes the machines of Auto Scaling groups, and destroys them.

pub mod exec;
pub mod local;
mod machines;

pub use machines::{leftovers, sweep};

use crate::cli::image::image_directory;
use crate::platform::choose_block;
use anyhow::{Context, Result, bail};
use gantry_agent::network::Ipv4Block;
use gantry_decide::scaling::user_data::ecs_config;
use gantry_server::instances::{Machine, NoProvider, ProviderError};
use gantry_server::server::Server;
use local::{Local, LocalConfig};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

/// The provider that an operator chose.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum ProviderChoice {
    /// Machines made of this one.
    Local,
    /// A program of the operator's.
    Exec(PathBuf),
}

/// Text that names no provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is `local` or `exec:` and the path of a program")]
pub struct UnknownProvider;

impl FromStr for ProviderChoice {
    type Err = UnknownProvider;

    fn from_str(text: &str) -> Result<ProviderChoice, UnknownProvider> {
        match (text, text.strip_prefix("exec:")) {
            ("local", _) => Ok(ProviderChoice::Local),
            (_, Some(path)) if !path.is_empty() => Ok(ProviderChoice::Exec(PathBuf::from(path))),
            _ => Err(UnknownProvider),
        }
    }
}

impl TryFrom<String> for ProviderChoice {
    type Error = UnknownProvider;

    fn try_from(text: String) -> Result<ProviderChoice, UnknownProvider> {
        text.parse()
    }
}

/// What an installation knows of itself when it starts a provider.
pub struct Installation<'a> {
    pub data_dir: &'a Path,
    /// The addresses of its own tasks, where it runs any itself.
    pub tasks: Option<Ipv4Block>,
    pub task_cleanup_wait: Duration,
}

/// The provider of a running server.
#[derive(Default)]
pub struct Provider {
    local: Option<Arc<Local>>,
}

impl Provider {
    /// Starts the provider that was chosen and has the server use it.
    ///
    /// # Errors
    /// When it cannot work here.
    pub async fn start(
        server: &mut Server,
        choice: Option<&ProviderChoice>,
        installation: Installation<'_>,
    ) -> Result<Provider> {
        let Some(choice) = choice else {
            server.provide_instances(Arc::new(NoProvider));
            return Ok(Provider::default());
        };
        let data_dir = installation.data_dir;
        match choice {
            ProviderChoice::Exec(program) => {
                server.provide_instances(Arc::new(exec::Exec {
                    program: program.clone(),
                    endpoint: format!("http://{}", server.address()),
                    installation: std::path::absolute(data_dir)?.display().to_string(),
                }));
                Ok(Provider::default())
            }
            ProviderChoice::Local => {
                if !nix::unistd::geteuid().is_root() {
                    bail!("the instance provider `local` runs containers and needs root");
                }
                let directory = machines::directory(data_dir);
                std::fs::create_dir_all(&directory)
                    .with_context(|| format!("cannot make {}", directory.display()))?;
                let tasks: Vec<Ipv4Block> = installation.tasks.into_iter().collect();
                let config = LocalConfig {
                    data_dir: std::path::absolute(data_dir)?,
                    image_dir: std::path::absolute(image_directory(data_dir))?,
                    program: std::env::current_exe().context("cannot find this program's own file")?,
                    server: server.address(),
                    account: server.keys().account,
                    key: server.keys().agent.clone(),
                    block: choose_block(&directory, None, &tasks)?,
                    task_cleanup_wait: installation.task_cleanup_wait,
                };
                let local = Local::open(config).await?;
                server.provide_instances(Arc::clone(&local) as Arc<_>);
                Ok(Provider { local: Some(local) })
            }
        }
    }

    /// Ends what it runs here; containers run on.
    pub async fn shutdown(self) {
        if let Some(local) = self.local {
            local.shutdown().await;
        }
    }
}

/// An error with its causes, for a group's activities.
fn failure(error: impl Into<anyhow::Error>) -> ProviderError {
    ProviderError(format!("{:#}", error.into()))
}

/// The settings of the agent of a machine, by name: those of its user data, which is sent in base64, or the cluster alone
/// where that is not the user's to say.
fn settings(machine: &Machine) -> BTreeMap<String, String> {
    use base64::Engine as _;
    if let Some(cluster) = machine.spec.cluster() {
        return BTreeMap::from([("ECS_CLUSTER".to_owned(), cluster.to_string())]);
    }
    let encoded = machine.spec.user_data().unwrap_or_default().trim();
    let bytes = base64::engine::general_purpose::STANDARD.decode(encoded).unwrap_or_default();
    ecs_config(&String::from_utf8_lossy(&bytes))
}
