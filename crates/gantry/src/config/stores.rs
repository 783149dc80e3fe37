//! Where tasks' secrets, parameters and files of variables are, when not at the control plane, and trust stores: flags,
//! and the variables that AWS's SDKs have for it.

use anyhow::{Result, bail};
use clap::Args;
use gantry_agent::secrets::{StoreEndpoint, StoreSettings};
use gantry_wire::Secret;
use gantry_wire::sigv4::Credentials;

/// What the command line and the environment say.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Secrets")]
pub struct StoreFlags {
    /// Secrets Manager for tasks' secrets, instead of the control plane's
    #[arg(long, value_name = "URL", env = "AWS_ENDPOINT_URL_SECRETS_MANAGER")]
    secrets_manager: Option<StoreEndpoint>,
    /// Parameter Store for tasks' secrets, instead of the control plane's
    #[arg(long, value_name = "URL", env = "AWS_ENDPOINT_URL_SSM")]
    parameter_store: Option<StoreEndpoint>,
    #[command(flatten)]
    s3: S3Flags,
}

/// The part of it that a server has use for.
#[derive(Clone, Debug, Default, Args)]
pub struct S3Flags {
    /// S3 for tasks' environment files, instead of the control plane's, and for load balancers' trust stores
    #[arg(long, value_name = "URL", env = "AWS_ENDPOINT_URL_S3")]
    s3: Option<StoreEndpoint>,
    /// Key for the services named so, with GANTRY_STORES_SECRET_ACCESS_KEY and perhaps GANTRY_STORES_SESSION_TOKEN;
    /// without one they are asked with the task's execution role, and without any key where there is no task
    #[arg(long, value_name = "ID", env = "GANTRY_STORES_ACCESS_KEY_ID")]
    stores_access_key_id: Option<String>,
}

impl StoreFlags {
    /// Everything put together.
    ///
    /// # Errors
    /// For a key without its secret.
    pub fn settings(self) -> Result<StoreSettings> {
        let StoreFlags { secrets_manager, parameter_store, s3 } = self;
        Ok(StoreSettings { secrets_manager, parameter_store, ..s3.settings()? })
    }
}

impl S3Flags {
    /// S3 alone, with the secret that stands in the environment alone.
    ///
    /// # Errors
    /// For a key without its secret.
    pub fn settings(self) -> Result<StoreSettings> {
        let variable =
            |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty()).map(Secret::new);
        let credentials = match (self.stores_access_key_id, variable("GANTRY_STORES_SECRET_ACCESS_KEY")) {
            (None, _) => None,
            (Some(_), None) => {
                bail!("GANTRY_STORES_SECRET_ACCESS_KEY is not set: it belongs to --stores-access-key-id")
            }
            (Some(access_key_id), Some(secret_access_key)) => Some(Credentials {
                access_key_id,
                secret_access_key,
                session_token: variable("GANTRY_STORES_SESSION_TOKEN"),
            }),
        };
        Ok(StoreSettings { s3: self.s3, credentials, ..StoreSettings::default() })
    }
}
