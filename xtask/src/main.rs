//! The repository's chores: `cargo xtask CHORE`.

mod arrows;
mod models;
mod test;
mod tidy;
mod venv;

use anyhow::{Result, bail};
use std::path::Path;

const USAGE: &str = "usage: cargo xtask CHORE

  test     everything that must hold before a change lands; installs what it needs
  models   make models/*.json from the pinned botocore package
  arrows   check which crate depends on which
  tidy     check the house rules that no compiler knows";

fn main() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize()?;
    let chore = std::env::args().nth(1).unwrap_or_default();
    match chore.as_str() {
        "test" => test::run(&root),
        "models" => models::run(&root),
        "arrows" => arrows::run(&root),
        "tidy" => tidy::run(&root),
        _ => bail!("{USAGE}"),
    }
}
