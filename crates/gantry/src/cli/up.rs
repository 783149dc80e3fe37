//! `gantry up`: the whole platform on this machine.

use super::server::{ENDPOINT_FILE, StopSignal, write_endpoint};
use crate::config::{HostFlags, HostSettings, ServerFlags, ServerSettings};
use crate::platform::{Platform, PlatformConfig};
use anyhow::{Context, Result, bail};
use clap::Args;
use gantry_agent::config::AtEnd;

/// Run everything on this machine: the AWS APIs, Fargate capacity and a container instance
///
/// Containers outlive it: the next `gantry up` finds them running. `gantry sweep` removes them.
#[derive(Debug, Args)]
pub struct UpArgs {
    #[command(flatten)]
    server: ServerFlags,
    #[command(flatten)]
    host: HostFlags,
}

pub fn run(arguments: UpArgs) -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("running containers needs root: try `sudo gantry up` (`gantry server` alone needs no rights)");
    }
    let (server, file) = ServerSettings::read(arguments.server)?;
    let host = HostSettings::combine(arguments.host, &file)?;
    let runtime = tokio::runtime::Runtime::new().context("cannot start threads")?;
    runtime.block_on(up(server, host))
}

async fn up(server: ServerSettings, host: HostSettings) -> Result<()> {
    let mut stop = StopSignal::listen()?;
    let data_dir = server.data_dir.clone();
    let mut platform = Platform::start(PlatformConfig { server, host, at_end: AtEnd::LeaveRunning }).await?;
    let endpoint_file = data_dir.join(ENDPOINT_FILE);
    write_endpoint(&endpoint_file, platform.endpoint())?;
    let shown = data_dir.display();
    eprintln!(
        "Gantry serves the AWS APIs on {} in {}, state in {shown}.",
        platform.endpoint(),
        platform.region()
    );
    eprintln!("In another shell: eval \"$(gantry env --data-dir {shown})\" && aws ecs list-clusters");
    if let Some(address) = platform.load_balancers() {
        eprintln!("A load balancer NAME answers at http://NAME.elb.localhost:{}/.", address.port());
    }
    let failed = tokio::select! {
        () = stop.received() => None,
        failure = platform.failed() => Some(failure),
    };
    // A file that is gone already is what is wanted.
    let _ = std::fs::remove_file(&endpoint_file);
    let ended = platform.shutdown().await;
    if let Some(failure) = failed {
        return Err(failure);
    }
    ended?;
    eprintln!(
        "Gantry stopped. Containers run on; `gantry up` finds them, `gantry sweep --data-dir {shown}` removes them."
    );
    Ok(())
}
