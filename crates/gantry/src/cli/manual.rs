//! `gantry completions` and `gantry man`: generated from the same definition as `--help`.

use anyhow::Result;
use clap::{Args, Command};
use clap_complete::Shell;
use std::io::Write;

/// Print a completion script for a shell
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    #[arg(value_enum)]
    shell: Shell,
}

/// Print the manual page
#[derive(Debug, Args)]
pub struct ManArgs {}

pub fn completions(arguments: &CompletionsArgs, mut command: Command, out: &mut impl Write) {
    clap_complete::generate(arguments.shell, &mut command, "gantry", out);
}

pub fn man(command: Command, out: &mut impl Write) -> Result<()> {
    clap_mangen::Man::new(command).render(out)?;
    Ok(())
}
