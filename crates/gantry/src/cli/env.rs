//! `gantry env`: what a shell needs so that AWS clients talk to this installation.

use crate::cli::server::ENDPOINT_FILE;
use crate::config::DATA_DIR;
use anyhow::{Context, Result};
use clap::Args;
use gantry_server::keys::Keys;
use std::io::Write;
use std::path::PathBuf;

/// Print export lines for AWS clients: eval "$(gantry env)"
#[derive(Debug, Args)]
pub struct EnvArgs {
    /// Directory of the server's state
    #[arg(long, value_name = "DIR", env = "GANTRY_DATA_DIR", default_value = DATA_DIR)]
    data_dir: PathBuf,
    /// Region to work in; every region name is served
    #[arg(long, value_name = "REGION", env = "GANTRY_REGION", default_value = "us-east-1")]
    region: gantry_decide::ids::Region,
    /// Print the agents' key instead of the root key: for `gantry agent` on another machine
    #[arg(long, conflicts_with = "balancer")]
    agent: bool,
    /// Print the load balancers' key instead of the root key: for `gantry lb` on another machine
    #[arg(long)]
    balancer: bool,
}

pub fn run(arguments: &EnvArgs, out: &mut impl Write) -> Result<()> {
    let directory = &arguments.data_dir;
    let keys = Keys::open(directory).with_context(|| {
        format!("no installation in {}: start `gantry up` first, or name its --data-dir", directory.display())
    })?;
    let endpoint = std::fs::read_to_string(directory.join(ENDPOINT_FILE))
        .with_context(|| format!("no server runs on {}: start `gantry up`", directory.display()))?;
    // Keys and URL consist of characters that no shell minds.
    let pair = match () {
        () if arguments.agent => &keys.agent,
        () if arguments.balancer => &keys.balancer,
        () => &keys.root,
    };
    writeln!(out, "export AWS_ACCESS_KEY_ID={}", pair.access_key_id)?;
    writeln!(out, "export AWS_SECRET_ACCESS_KEY={}", pair.secret_access_key)?;
    writeln!(out, "export AWS_DEFAULT_REGION={}", arguments.region)?;
    writeln!(out, "export AWS_ENDPOINT_URL={}", endpoint.trim())?;
    // `stream-` before the host of an address, as StartLiveTail has it, names no host.
    writeln!(out, "export AWS_DISABLE_HOST_PREFIX_INJECTION=true")?;
    writeln!(out, "unset AWS_SESSION_TOKEN AWS_PROFILE")?;
    Ok(())
}
