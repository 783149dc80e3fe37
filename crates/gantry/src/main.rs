//! The `gantry` binary: command line and composition.

mod cli_image;
mod sample;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Amazon ECS that you run yourself
#[derive(Debug, Parser)]
#[command(name = "gantry", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Image(cli_image::ImageArgs),
}

fn main() -> ExitCode {
    // The programs in the sample images: before anything else, so that they start at once.
    let arguments: Vec<String> = std::env::args_os().map(|a| a.to_string_lossy().into_owned()).collect();
    if arguments.get(1).is_some_and(|a| a == "sample") {
        return sample::main(&arguments[2..]);
    }
    let result = match Cli::parse().command {
        Command::Image(arguments) => cli_image::run(&arguments, &mut std::io::stdout()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("gantry: {error:#}");
            ExitCode::FAILURE
        }
    }
}
