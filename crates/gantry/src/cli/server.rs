//! `gantry server`: the control plane on one machine, until SIGINT or SIGTERM.

use crate::config::{Auth, ServerFlags, ServerSettings};
use anyhow::{Context, Result};
use clap::Args;
use gantry_server::keys;
use gantry_server::server::{Config, Server};
use gantry_server::transport::Options;
use std::path::Path;
use tokio::signal::unix::{SignalKind, signal};

/// In the data directory while a server runs: its base URL, for `gantry env`.
pub const ENDPOINT_FILE: &str = "endpoint";

/// Run the control plane and serve the AWS APIs
#[derive(Debug, Args)]
pub struct ServerArgs {
    #[command(flatten)]
    flags: ServerFlags,
}

pub fn run(arguments: ServerArgs) -> Result<()> {
    let settings = ServerSettings::read(arguments.flags)?;
    let runtime = tokio::runtime::Runtime::new().context("cannot start threads")?;
    runtime.block_on(serve(settings))
}

async fn serve(settings: ServerSettings) -> Result<()> {
    // Listening for signals first: one that comes during the start must not kill the process half-way.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let endpoint_file = settings.data_dir.join(ENDPOINT_FILE);
    let data_dir = settings.data_dir.display().to_string();
    let mut server = Server::start(Config {
        data_dir: settings.data_dir,
        address: settings.listen,
        auth: match settings.auth {
            Auth::Strict => keys::Auth::Strict,
            Auth::Open => keys::Auth::Open,
        },
        account: settings.account,
        transport: Options { host_names: settings.host_names, ..Options::default() },
    })
    .await?;
    let endpoint = format!("http://{}", server.address());
    write_endpoint(&endpoint_file, &endpoint)?;
    eprintln!("Gantry serves the AWS APIs on {endpoint}, state in {data_dir}.");
    eprintln!("In another shell: eval \"$(gantry env --data-dir {data_dir})\" && aws ecs list-clusters");
    let failed = tokio::select! {
        _ = interrupt.recv() => None,
        _ = terminate.recv() => None,
        failed = server.failed() => Some(failed),
    };
    // A file that is gone already is what is wanted.
    let _ = std::fs::remove_file(&endpoint_file);
    match failed {
        Some(reason) => anyhow::bail!("the server had to stop: {reason}"),
        None => {
            server.shutdown().await?;
            eprintln!("Gantry stopped; everything that was acknowledged is on disk.");
            Ok(())
        }
    }
}

fn write_endpoint(path: &Path, endpoint: &str) -> Result<()> {
    std::fs::write(path, format!("{endpoint}\n")).with_context(|| format!("cannot write {}", path.display()))
}
