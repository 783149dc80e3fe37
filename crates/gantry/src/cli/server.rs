//! `gantry server`: the control plane on one machine, until SIGINT or SIGTERM.

use crate::config::images::TASK_CLEANUP_WAIT;
use crate::config::stores::S3Flags;
use crate::config::{ServerFlags, ServerSettings};
use crate::instances::{Installation, Provider};
use crate::platform::server_config;
use anyhow::{Context, Result};
use clap::Args;
use gantry_agent::secrets::StoreSettings;
use gantry_server::server::Server;
use std::path::Path;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// In the data directory while a server runs: its base URL, for `gantry env`.
pub const ENDPOINT_FILE: &str = "endpoint";

/// Run the control plane and serve the AWS APIs
#[derive(Debug, Args)]
pub struct ServerArgs {
    #[command(flatten)]
    flags: ServerFlags,
    #[command(flatten)]
    s3: S3Flags,
}

/// SIGINT or SIGTERM, listened for from the beginning: one that comes during the start must not kill the process
/// half-way.
pub struct StopSignal {
    interrupt: Signal,
    terminate: Signal,
}

impl StopSignal {
    pub fn listen() -> Result<StopSignal> {
        Ok(StopSignal {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    pub async fn received(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

pub fn run(arguments: ServerArgs) -> Result<()> {
    let (settings, _) = ServerSettings::read(arguments.flags)?;
    let runtime = tokio::runtime::Runtime::new().context("cannot start threads")?;
    runtime.block_on(serve(settings, arguments.s3.settings()?))
}

async fn serve(settings: ServerSettings, stores: StoreSettings) -> Result<()> {
    let mut stop = StopSignal::listen()?;
    let endpoint_file = settings.data_dir.join(ENDPOINT_FILE);
    let data_dir = settings.data_dir.display().to_string();
    let (directory, provider) = (settings.data_dir.clone(), settings.instance_provider.clone());
    let mut server = Server::start(server_config(settings, &stores)).await?;
    let installation =
        Installation { data_dir: &directory, tasks: None, task_cleanup_wait: TASK_CLEANUP_WAIT };
    let instances = Provider::start(&mut server, provider.as_ref(), installation).await?;
    let endpoint = format!("http://{}", server.address());
    write_endpoint(&endpoint_file, &endpoint)?;
    eprintln!("Gantry serves the AWS APIs on {endpoint}, state in {data_dir}.");
    eprintln!("In another shell: eval \"$(gantry env --data-dir {data_dir})\" && aws ecs list-clusters");
    let failed = tokio::select! {
        () = stop.received() => None,
        failed = server.failed() => Some(failed),
    };
    // A file that is gone already is what is wanted.
    let _ = std::fs::remove_file(&endpoint_file);
    instances.shutdown().await;
    match failed {
        Some(reason) => anyhow::bail!("the server had to stop: {reason}"),
        None => {
            server.shutdown().await?;
            eprintln!("Gantry stopped; everything that was acknowledged is on disk.");
            Ok(())
        }
    }
}

/// Leaves the base URL for commands on this machine.
pub fn write_endpoint(path: &Path, endpoint: &str) -> Result<()> {
    std::fs::write(path, format!("{endpoint}\n")).with_context(|| format!("cannot write {}", path.display()))
}
