//! `gantry demo`: the whole platform in a scratch directory, the task definitions of every ECS tutorial as real
//! containers, one of them killed and replaced, and nothing left behind.

mod balancing;
mod screen;
mod story;
mod watch;

use crate::api::Api;
use crate::cli::image::image_directory;
use crate::config::{Auth, File, HostFlags, HostSettings, ServerSettings};
use crate::platform::{Platform, PlatformConfig};
use crate::sample;
use anyhow::{Context, Result, bail};
use clap::Args;
use gantry_agent::config::AtEnd;
use gantry_agent::images::ImageStore;
use gantry_decide::ids::AccountId;
use gantry_decide::lease::Terms;
use gantry_server::server::{EVENT_RETENTION, EXEC_RETURN, ROLE_LIFETIME};
use screen::Screen;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use watch::Watch;

/// Run the task definitions of every ECS tutorial for real on this machine, and clean up
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Leave the platform up at the end, until Ctrl-C
    #[arg(long)]
    keep: bool,
    /// Take the images from their registries instead of the stand-ins that Gantry carries
    #[arg(long)]
    pull: bool,
}

pub fn run(arguments: &DemoArgs) -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("running containers needs root: try `sudo gantry demo`");
    }
    tokio::runtime::Runtime::new().context("cannot start threads")?.block_on(demo(arguments))
}

async fn demo(arguments: &DemoArgs) -> Result<()> {
    let mut stop = crate::cli::server::StopSignal::listen()?;
    let screen = Screen::start();
    let scratch = Scratch::make()?;
    screen.title(&format!(
        "Gantry {} on this machine, in {}",
        env!("CARGO_PKG_VERSION"),
        scratch.0.display()
    ));
    if !arguments.pull {
        let images = image_directory(&scratch.0);
        tokio::task::spawn_blocking(move || anyhow::Ok(sample::register(&ImageStore::open(&images)?)?))
            .await??;
        screen.done("sample images stand for nginx, redis, my-api and my-batch-job; no network is needed");
    }
    let mut platform = Platform::start(config(&scratch.0)?).await?;
    let endpoint = platform.endpoint().to_owned();
    screen.done(&format!(
        "the AWS APIs are served on {endpoint}; Fargate capacity and a container instance have joined"
    ));

    let api = Api::root(&scratch.0, &endpoint, platform.region())?;
    let by_name = platform.load_balancers();
    let told = tokio::select! {
        told = tell(arguments, &api, &screen, by_name) => told,
        failure = platform.failed() => Err(failure),
        () = stop.received() => Err(anyhow::anyhow!("interrupted; cleaned up")),
    };
    if told.is_ok() && arguments.keep {
        screen.title(&format!(
            "It stays up until Ctrl-C. In another shell: eval \"$(gantry env --data-dir {})\"",
            scratch.0.display()
        ));
        tokio::select! {
            () = stop.received() => {}
            failure = platform.failed() => return Err(failure),
        }
    }
    let stopped = platform.shutdown().await;
    let left = crate::cli::sweep::leftovers(&scratch.0).await?;
    crate::cli::sweep::remove(&scratch.0).await?;
    scratch.remove()?;
    told?;
    stopped?;
    if left.is_empty() {
        screen.done("no process, mount, namespace, link or firewall rule is left");
    } else {
        // The agents should have left nothing; what they left is gone now, but it is a fault.
        bail!("had to clean up what the agents left behind: {}", left.join(", "));
    }
    Ok(())
}

async fn tell(arguments: &DemoArgs, api: &Api, screen: &Screen, by_name: Option<SocketAddr>) -> Result<()> {
    let mut watch = Watch::default();
    story::tell(api, screen, &mut watch, "/gantry/", by_name).await?;
    screen.title("The same by hand, while `gantry up` runs");
    screen.quote(story::BY_HAND);
    if arguments.keep {
        return Ok(());
    }
    story::end(api, screen, &mut watch).await
}

fn config(data_dir: &Path) -> Result<PlatformConfig> {
    let server = ServerSettings {
        quotas: Default::default(),
        balancer_addresses: Default::default(),
        loopback_targets: false,
        default_vpc: Default::default(),
        exec_return: EXEC_RETURN,
        instance_provider: None,
        data_dir: data_dir.to_owned(),
        listen: "127.0.0.1:0".parse().expect("an address"),
        auth: Auth::Strict,
        account: AccountId::DEFAULT,
        role_lifetime: ROLE_LIFETIME,
        event_retention: EVENT_RETENTION,
        leases: Terms::USUAL,
        host_names: Vec::new(),
    };
    let host = HostSettings::combine(HostFlags::default(), &File::default())?;
    Ok(PlatformConfig { server, host, at_end: AtEnd::StopAll })
}

/// A directory of the demo's own, removed at its end.
struct Scratch(PathBuf);

impl Scratch {
    fn make() -> Result<Scratch> {
        let path = std::env::temp_dir().join(format!("gantry-demo-{}", std::process::id()));
        std::fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Scratch(path))
    }

    fn remove(self) -> Result<()> {
        std::fs::remove_dir_all(&self.0).with_context(|| format!("cannot remove {}", self.0.display()))
    }
}
