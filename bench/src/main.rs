//! Measures Gantry beside its peers, in one run: `cargo xtask bench NAME`. Each benchmark prints a table and one line of
//! JSON. Nothing here decides over a test.

mod api;
mod foot;
mod host;
mod load;
mod place;
mod start;
mod table;

use anyhow::{Result, bail};

const USAGE: &str = "usage: cargo xtask bench NAME

  start   from RunTask to the container's program, beside runc and the bare unshare
  api     signed reads and durable writes per second, beside etcd
  foot    time to the first answer, memory
  place   placements per second in process, at 5,000 instances";

fn main() -> Result<()> {
    let name = std::env::args().nth(1).unwrap_or_default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match name.as_str() {
        "start" => runtime.block_on(start::run()),
        "api" => runtime.block_on(api::run()),
        "foot" => runtime.block_on(foot::run()),
        "place" => place::run(),
        _ => bail!("{USAGE}"),
    }
}
