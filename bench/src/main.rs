//! Measures Gantry beside its peers, in one run: `cargo xtask bench NAME`. Each benchmark prints a table and one line of
//! JSON. Nothing here decides over a test.

mod api;
mod docker;
mod durable;
mod fill;
mod fleet;
mod foot;
mod host;
mod load;
mod place;
mod proxy;
mod replace;
mod ship;
mod start;
mod storm;
mod table;

use anyhow::{Result, bail};

const USAGE: &str = "usage: cargo xtask bench NAME

  start   from RunTask to the container's program, beside docker, runc and the bare unshare; then 500 at once; then
          both with containers of Docker Engine's
  storm   of `start` the 500 at once alone
  replace from the SIGKILL of a service's process to its replacement's RUNNING
  ship    lines per second from containers to CloudWatch Logs
  api     signed reads and durable writes per second, beside etcd
  foot    time to the first answer, memory
  place   placements per second: the judge alone, then durable with 5,000 agents on sockets
  fill    clusters of up to 10,000 instances in process: filled, some of them dying, all services updated
  proxy   the load balancer beside nginx and HAProxy; needs them, libnginx-mod-stream, wrk and nghttp2-client (Debian
          packages); nine minutes, or `proxy SECTION` below 100 seconds: http, rules, tls, h2, churn, idle, l4";

fn main() -> Result<()> {
    let name = std::env::args().nth(1).unwrap_or_default();
    // Thousands of agents hold a socket each, here and in the server, which inherits the limit.
    gantry_edge::descriptors::prepare()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match name.as_str() {
        "start" => runtime.block_on(start::run()),
        "storm" => runtime.block_on(start::storm()),
        "replace" => runtime.block_on(replace::run()),
        "ship" => runtime.block_on(ship::run()),
        "api" => runtime.block_on(api::run()),
        "foot" => runtime.block_on(foot::run()),
        "place" => {
            place::run()?;
            runtime.block_on(durable::run())
        }
        "fill" => fill::run(),
        "proxy" => runtime.block_on(proxy::run(std::env::args().nth(2).as_deref())),
        proxy::SERVE => proxy::serve(&std::env::args().skip(2).collect::<Vec<_>>()),
        proxy::COPY => proxy::copy(&std::env::args().skip(2).collect::<Vec<_>>()),
        _ => bail!("{USAGE}"),
    }
}
