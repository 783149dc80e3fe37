//! The ECS API as the command line uses it: with the root key of an installation on this machine, or as AWS's own
//! environment variables say.

use crate::cli::server::ENDPOINT_FILE;
use crate::config::DATA_DIR;
use crate::platform::credentials;
use anyhow::{Context, Result, bail};
use clap::Args;
use gantry_agent::client::{Client, ClientError};
use gantry_api::ecs;
use gantry_decide::ids::Region;
use gantry_server::endpoint::{EngineStatus, STATUS_PATH};
use gantry_server::keys::Keys;
use gantry_wire::sigv4::Credentials;
use gantry_wire::{Operation, Secret, ServiceModel};
use std::path::{Path, PathBuf};

/// Which control plane a command talks to.
#[derive(Debug, Args)]
pub struct ApiArgs {
    /// Directory of the server's state [default: what AWS_ENDPOINT_URL and the AWS keys of the environment say, else
    /// /var/lib/gantry]
    #[arg(long, value_name = "DIR", env = "GANTRY_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// Region to work in [default: AWS_REGION, AWS_DEFAULT_REGION, else us-east-1]
    #[arg(long, value_name = "REGION", env = "GANTRY_REGION")]
    region: Option<Region>,
}

impl ApiArgs {
    /// A client of the control plane that is meant.
    ///
    /// # Errors
    /// When there is none.
    pub fn connect(&self) -> Result<Api> {
        let region = match &self.region {
            Some(region) => region.clone(),
            None => variable(&["AWS_REGION", "AWS_DEFAULT_REGION"])
                .unwrap_or_else(|| "us-east-1".to_owned())
                .parse()
                .context("AWS_REGION or AWS_DEFAULT_REGION of the environment")?,
        };
        let endpoint = variable(&["AWS_ENDPOINT_URL_ECS", "AWS_ENDPOINT_URL"]);
        match (&self.data_dir, endpoint) {
            (None, Some(endpoint)) => Api::of_environment(&endpoint, &region),
            (data_dir, _) => Api::running(data_dir.as_deref().unwrap_or(Path::new(DATA_DIR)), &region),
        }
    }
}

/// The first of these variables that says something.
fn variable(names: &[&str]) -> Option<String> {
    names.iter().find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
}

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

    fn of_environment(endpoint: &str, region: &Region) -> Result<Api> {
        let (id, key) = (variable(&["AWS_ACCESS_KEY_ID"]), variable(&["AWS_SECRET_ACCESS_KEY"]));
        let (Some(access_key_id), Some(secret_access_key)) = (id, key) else {
            bail!(
                "AWS_ENDPOINT_URL names {endpoint}, but AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not both set: \
                 eval \"$(gantry env)\", or name the server's --data-dir"
            );
        };
        let credentials = Credentials {
            access_key_id,
            secret_access_key: Secret::new(&secret_access_key),
            session_token: variable(&["AWS_SESSION_TOKEN"]).map(|token| Secret::new(&token)),
        };
        Ok(Api(Client::new(endpoint.trim_end_matches('/'), &region.to_string(), credentials)?))
    }

    /// Of the server that runs on `data_dir`.
    ///
    /// # Errors
    /// When none runs.
    fn running(data_dir: &Path, region: &Region) -> Result<Api> {
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

    /// Calls an operation of Systems Manager.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub async fn ssm<O: Operation>(&self, request: &O::Request) -> Result<O::Response, ClientError> {
        self.0.ssm::<O>(request).await
    }

    /// Calls an operation of Gantry's own.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub async fn gantry<O: Operation>(&self, request: &O::Request) -> Result<O::Response, ClientError> {
        self.0.gantry::<O>(request).await
    }

    /// Calls an operation of a service that reads forms; the XML of its answer.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub async fn query(
        &self,
        service: &ServiceModel,
        operation: &'static str,
        pairs: &[(&str, &str)],
    ) -> Result<String> {
        Ok(self.0.query(service, operation, pairs).await?)
    }

    /// How the control plane does.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub async fn status(&self) -> Result<EngineStatus> {
        Ok(self.0.get("status", STATUS_PATH).await?)
    }

    /// The ARNs of all clusters.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub async fn clusters(&self) -> Result<Vec<String>> {
        let (mut all, mut next_token) = (Vec::new(), None);
        loop {
            let request = ecs::ListClustersRequest { next_token, ..Default::default() };
            let page = self.call::<ecs::ListClusters>(request).await?;
            all.extend(page.cluster_arns.unwrap_or_default());
            next_token = page.next_token;
            if next_token.is_none() {
                return Ok(all);
            }
        }
    }

    /// The ARNs of a cluster's tasks, page by page as the API gives them.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub async fn tasks(&self, cluster: &str, desired: ecs::DesiredStatus) -> Result<Vec<Vec<String>>> {
        let (mut pages, mut next_token) = (Vec::new(), None);
        loop {
            let request = ecs::ListTasksRequest {
                cluster: Some(cluster.to_owned()),
                desired_status: Some(desired),
                next_token,
                ..Default::default()
            };
            let page = self.call::<ecs::ListTasks>(request).await?;
            pages.extend(page.task_arns.filter(|arns| !arns.is_empty()));
            next_token = page.next_token;
            if next_token.is_none() {
                return Ok(pages);
            }
        }
    }

    /// The one running task that is meant: its ARN, from an ARN, an id, or the first characters of an id.
    ///
    /// # Errors
    /// When there is none or several.
    pub async fn running_task(&self, name: &str) -> Result<String> {
        if name.starts_with("arn:") {
            return Ok(name.to_owned());
        }
        let mut found = Vec::new();
        for cluster in self.clusters().await? {
            let pages = self.tasks(&cluster, ecs::DesiredStatus::Running).await?;
            found.extend(pages.into_iter().flatten().filter(|arn| last(arn).starts_with(name)));
        }
        match found.as_slice() {
            [arn] => Ok(arn.clone()),
            [] => bail!("no running task has an id that begins with {name}: `gantry status` shows the tasks"),
            several => {
                bail!("{} running tasks have ids that begin with {name}: say more of it", several.len())
            }
        }
    }
}

/// The part of an ARN behind its last slash.
pub fn last(arn: &str) -> &str {
    arn.rsplit('/').next().unwrap_or_default()
}
