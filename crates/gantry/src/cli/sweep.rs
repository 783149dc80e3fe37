//! `gantry sweep`: takes everything of an installation off the host.

use super::image::image_directory;
use crate::config::DATA_DIR;
use crate::instances;
use crate::own_addresses;
use crate::platform::LocalAgent;
use anyhow::{Context, Result, bail};
use clap::Args;
use gantry_agent::images::ImageStore;
use gantry_agent::sweep;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Remove every container and network that an installation made on this machine
///
/// For after `gantry up` was ended, or crashed. What is stored (definitions, services, images) stays.
#[derive(Debug, Args)]
pub struct SweepArgs {
    /// Directory of its state
    #[arg(long, value_name = "DIR", env = "GANTRY_DATA_DIR", default_value = DATA_DIR)]
    data_dir: PathBuf,
    /// The directory is that of a `gantry agent` of this name
    #[arg(long, value_name = "NAME")]
    agent: Option<String>,
    /// Only say what is there
    #[arg(long)]
    list: bool,
}

pub fn run(arguments: &SweepArgs, out: &mut impl Write) -> Result<()> {
    let data_dir = &arguments.data_dir;
    let runtime = tokio::runtime::Runtime::new().context("cannot start threads")?;
    let found = runtime.block_on(async {
        match &arguments.agent {
            Some(name) => Ok(sweep::leftovers(data_dir, name).await?),
            None => leftovers(data_dir).await,
        }
    })?;
    for thing in &found {
        writeln!(out, "{thing}")?;
    }
    if arguments.list || found.is_empty() {
        return Ok(());
    }
    if is_served(data_dir) {
        bail!("Gantry runs on {}: end it first", data_dir.display());
    }
    match &arguments.agent {
        Some(name) => {
            runtime.block_on(sweep::sweep(data_dir, name, &program()?))?;
            release_images(data_dir, name)
        }
        None => runtime.block_on(remove(data_dir)),
    }
}

/// No container of the agent's is left that its images would be kept for.
fn release_images(data_dir: &Path, agent: &str) -> Result<()> {
    let directory = image_directory(data_dir);
    if directory.exists() {
        ImageStore::open(&directory)?.forget_holds(agent)?;
    }
    Ok(())
}

fn program() -> Result<PathBuf> {
    std::env::current_exe().context("cannot find this program's own file")
}

/// Whether somebody answers at the address that the last server left.
fn is_served(data_dir: &Path) -> bool {
    let endpoint = std::fs::read_to_string(data_dir.join(super::server::ENDPOINT_FILE)).unwrap_or_default();
    let address = endpoint.trim().strip_prefix("http://").and_then(|address| address.parse().ok());
    address.is_some_and(|address| {
        std::net::TcpStream::connect_timeout(&address, std::time::Duration::from_millis(500)).is_ok()
    })
}

/// What the installation has on this host.
///
/// # Errors
/// When a directory cannot be read.
pub async fn leftovers(data_dir: &Path) -> Result<Vec<String>> {
    let mut found = instances::leftovers(data_dir).await?;
    found.extend(own_addresses::leftovers(data_dir));
    for local in LocalAgent::ALL {
        found.extend(sweep::leftovers(&local.directory(data_dir), &local.name(data_dir)?).await?);
    }
    Ok(found)
}

/// Removes all of it.
///
/// # Errors
/// When something cannot be removed.
pub async fn remove(data_dir: &Path) -> Result<()> {
    let program = program()?;
    own_addresses::sweep(data_dir)?;
    instances::sweep(data_dir, &image_directory(data_dir), &program).await?;
    for local in LocalAgent::ALL {
        let directory = local.directory(data_dir);
        if directory.exists() {
            let name = local.name(data_dir)?;
            sweep::sweep(&directory, &name, &program).await?;
            release_images(data_dir, &name)?;
        }
    }
    Ok(())
}
