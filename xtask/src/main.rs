//! The repository's chores: `cargo xtask CHORE`.

mod models;
mod venv;

use anyhow::{Result, bail};
use std::path::Path;

const USAGE: &str = "usage: cargo xtask CHORE

  models   make models/*.json from the pinned botocore package";

fn main() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize()?;
    let chore = std::env::args().nth(1).unwrap_or_default();
    match chore.as_str() {
        "models" => models::run(&root),
        _ => bail!("{USAGE}"),
    }
}
