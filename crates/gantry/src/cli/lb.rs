//! `gantry lb`: load balancers on this machine for a control plane elsewhere.

use super::server::StopSignal;
use crate::config::balancers::LbListen;
use crate::lb::{self, LbConfig};
use anyhow::{Context, Result};
use clap::Args;
use gantry_decide::ids::Region;
use gantry_wire::Secret;
use gantry_wire::sigv4::Credentials;
use std::path::PathBuf;

/// Carry load balancers' traffic on this machine for a control plane elsewhere
///
/// It listens on the load balancers' addresses that this machine has, and goes on with what it knows while the control
/// plane is away. Another one that is started on the same data directory takes its place without losing a request.
///
/// The key comes from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY: `gantry env --balancer` on the server's machine prints
/// one that may do nothing else.
#[derive(Debug, Args)]
pub struct LbArgs {
    /// The control plane, http://HOST:PORT
    #[arg(long, value_name = "URL", env = "AWS_ENDPOINT_URL")]
    endpoint: String,
    #[arg(long, value_name = "REGION", env = "AWS_DEFAULT_REGION", default_value = "us-east-1")]
    region: Region,
    /// Directory of what it was told last, certificates' keys among it, and of access logs
    #[arg(long, value_name = "DIR", env = "GANTRY_LB_DATA_DIR", default_value = "/var/lib/gantry-lb")]
    data_dir: PathBuf,
    /// Where load balancers are found by the host name that a client asks for, or `off`
    /// [default: 127.0.0.1:4581 where it is free]
    #[arg(long, value_name = "ADDRESS:PORT|off", env = "GANTRY_LB_LISTEN")]
    lb_listen: Option<LbListen>,
}

pub fn run(arguments: LbArgs) -> Result<()> {
    let variable = |name: &str| {
        std::env::var(name).with_context(|| {
            format!("{name} is not set: `gantry env --balancer` on the server's machine prints it")
        })
    };
    let config = LbConfig {
        endpoint: arguments.endpoint,
        region: arguments.region.to_string(),
        credentials: Credentials {
            access_key_id: variable("AWS_ACCESS_KEY_ID")?,
            secret_access_key: Secret::new(&variable("AWS_SECRET_ACCESS_KEY")?),
            session_token: None,
        },
        data_dir: arguments.data_dir,
        listen: arguments.lb_listen.unwrap_or_default(),
    };
    let runtime = tokio::runtime::Runtime::new().context("cannot start threads")?;
    runtime.block_on(async {
        let mut stop = StopSignal::listen()?;
        lb::run(config, stop.received()).await
    })
}
