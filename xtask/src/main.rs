//! The repository's chores: `cargo xtask CHORE`.

mod arrows;
mod deny;
mod models;
mod test;
mod tidy;
mod venv;

use anyhow::{Result, bail};
use std::path::Path;
use std::process::Command;

const USAGE: &str = "usage: cargo xtask CHORE

  test     everything that must hold before a change lands; installs what it needs
  models   make models/*.json from the pinned botocore package
  arrows   check which crate depends on which
  deny     check licences and origins of all dependencies by deny.toml
  sim      simulate fleets for as long as one likes: cargo xtask sim run [SEEDS] [MINUTES] [FIRST], or shrink SEED
  mutants  plant bugs and see which of them the simulator finds: cargo xtask mutants [SEEDS]
  fuzz     feed damaged input to everything that reads: cargo xtask fuzz [TARGET] [SECONDS] [SEED]
  bench    measure Gantry beside its peers: cargo xtask bench NAME
  tidy     check the house rules that no compiler knows";

/// Builds and runs the fuzzer.
fn fuzz(root: &Path, arguments: &[String]) -> Result<()> {
    let mut run = Command::new(env!("CARGO"));
    run.args(["run", "--locked", "-q", "-p", "gantry-fuzz", "--"]).args(arguments).current_dir(root);
    venv::run(&mut run)
}

/// Builds the simulator optimised, as hours of it are worth, and runs it. Always able to plant bugs, so that there is one
/// such build.
fn sim(root: &Path, arguments: &[String]) -> Result<()> {
    let mut run = Command::new(env!("CARGO"));
    run.args([
        "run",
        "--profile",
        "sim",
        "--locked",
        "-q",
        "-p",
        "gantry-sim",
        "--features",
        "mutants",
        "--",
    ]);
    venv::run(run.args(arguments).current_dir(root))
}

/// Builds Gantry and the benchmarks as they are shipped, and runs one.
fn bench(root: &Path) -> Result<()> {
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--release", "--locked", "-p", "gantry", "-p", "gantry-bench"]).current_dir(root);
    venv::run(&mut build)?;
    let mut run = Command::new(env!("CARGO"));
    run.args(["run", "--release", "--locked", "-q", "-p", "gantry-bench", "--"]).current_dir(root);
    venv::run(run.args(std::env::args().skip(2)))
}

fn main() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize()?;
    let chore = std::env::args().nth(1).unwrap_or_default();
    match chore.as_str() {
        "test" => test::run(&root),
        "deny" => deny::run(&root),
        "fuzz" => fuzz(&root, &std::env::args().skip(2).collect::<Vec<_>>()),
        "sim" => sim(&root, &std::env::args().skip(2).collect::<Vec<_>>()),
        "mutants" => sim(&root, &std::env::args().skip(1).collect::<Vec<_>>()),
        "bench" => bench(&root),
        "models" => models::run(&root),
        "arrows" => arrows::run(&root),
        "tidy" => tidy::run(&root),
        _ => bail!("{USAGE}"),
    }
}
