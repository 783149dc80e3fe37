//! The Python environment of the chores, under `target/venv`, with the public packages that they need.

use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The environment's Python, with `packages` (pip requirements, pinned) installed.
///
/// # Errors
/// When there is no Python 3 with venv and pip, or a package cannot be had.
pub fn python(root: &Path, packages: &[&str]) -> Result<PathBuf> {
    let venv = root.join("target/venv");
    let python = venv.join("bin/python");
    if !python.exists() {
        run(Command::new("python3").args(["-m", "venv"]).arg(&venv))
            .context("making the Python environment")?;
    }
    let stamp = venv.join("installed");
    let installed = std::fs::read_to_string(&stamp).unwrap_or_default();
    let missing: Vec<&str> =
        packages.iter().copied().filter(|p| !installed.lines().any(|line| line == *p)).collect();
    if !missing.is_empty() {
        run(Command::new(&python).args(["-m", "pip", "install", "--quiet"]).args(&missing))
            .context("installing Python packages")?;
        std::fs::write(&stamp, format!("{installed}{}\n", missing.join("\n")))?;
    }
    Ok(python)
}

/// Runs a command to its end.
///
/// # Errors
/// When it cannot start or does not succeed.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start {:?}", command.get_program()))?;
    if !status.success() {
        bail!("{command:?} ended with {status}");
    }
    Ok(())
}
