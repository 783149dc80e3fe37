//! The ECS API as the command line uses it: with the root key of an installation on this machine.

use crate::cli::server::ENDPOINT_FILE;
use crate::platform::credentials;
use anyhow::{Context, Result};
use gantry_agent::client::Client;
use gantry_decide::ids::Region;
use gantry_server::keys::Keys;
use gantry_wire::Operation;
use std::path::Path;

/// A client with all rights.
pub struct Api(Client);

impl Api {
    /// Of the installation whose state is in `data_dir`.
    ///
    /// # Errors
    /// When there is none.
    pub fn root(data_dir: &Path, endpoint: &str, region: &Region) -> Result<Api> {
        let keys = Keys::open(data_dir).with_context(|| {
            format!(
                "no installation in {}: start `gantry up` first, or name its --data-dir",
                data_dir.display()
            )
        })?;
        Ok(Api(Client::new(endpoint, &region.to_string(), credentials(&keys.root))?))
    }

    /// Of the server that runs on `data_dir`.
    ///
    /// # Errors
    /// When none runs.
    pub fn running(data_dir: &Path, region: &Region) -> Result<Api> {
        let endpoint = std::fs::read_to_string(data_dir.join(ENDPOINT_FILE))
            .with_context(|| format!("no server runs on {}: start `gantry up`", data_dir.display()))?;
        Api::root(data_dir, endpoint.trim(), region)
    }

    /// Calls an operation of ECS.
    ///
    /// # Errors
    /// What the server answers, or why it does not.
    pub async fn call<O: Operation>(&self, request: O::Request) -> Result<O::Response> {
        Ok(self.0.ecs::<O>(&request).await?)
    }
}
