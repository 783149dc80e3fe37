//! The `gantry` binary: command line and composition.

mod api;
mod balancer;
mod cli;
mod config;
mod demo;
mod instances;
mod lb;
mod objects;
mod own_addresses;
mod platform;
mod sample;
/// For its tests: who runs it is a container.
#[cfg(test)]
#[path = "../sample/main.rs"]
#[allow(dead_code)]
mod sample_program;

use clap::{CommandFactory, Parser, Subcommand};
use std::io::{IsTerminal, stderr, stdout};
use std::process::ExitCode;

/// Amazon ECS that you run yourself
#[derive(Debug, Parser)]
#[command(name = "gantry", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Up(cli::up::UpArgs),
    Demo(demo::DemoArgs),
    Server(cli::server::ServerArgs),
    Agent(cli::agent::AgentArgs),
    Lb(cli::lb::LbArgs),
    Status(cli::status::StatusArgs),
    Explain(cli::explain::ExplainArgs),
    Alarm(cli::alarm::AlarmArgs),
    Events(cli::events::EventsArgs),
    Logs(cli::logs::LogsArgs),
    Exec(cli::exec::ExecArgs),
    Env(cli::env::EnvArgs),
    Image(cli::image::ImageArgs),
    Sweep(cli::sweep::SweepArgs),
    Completions(cli::manual::CompletionsArgs),
    Man(cli::manual::ManArgs),
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args_os().map(|a| a.to_string_lossy().into_owned()).collect();
    match arguments.get(1).map(String::as_str) {
        // The agent's own, one for each container: before any thread exists.
        Some("shim") => return gantry_agent::shim::main(&arguments[2..]),
        Some("guard") => return gantry_agent::lease::guard::main(&arguments[2..]),
        _ => {}
    }
    let command = Cli::parse().command;
    log_to_stderr();
    if let Err(error) = gantry_edge::descriptors::prepare() {
        tracing::warn!(%error, "there may be fewer open files and connections than the system allows");
    }
    run(command).unwrap_or_else(|error| {
        eprintln!("gantry: {error:#}");
        ExitCode::FAILURE
    })
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        // Its exit code is that of the command in the container.
        Command::Exec(arguments) => return cli::exec::run(&arguments),
        Command::Up(arguments) => cli::up::run(arguments)?,
        Command::Demo(arguments) => demo::run(&arguments)?,
        Command::Server(arguments) => cli::server::run(arguments)?,
        Command::Agent(arguments) => cli::agent::run(arguments)?,
        Command::Lb(arguments) => cli::lb::run(arguments)?,
        Command::Status(arguments) => cli::status::run(&arguments, &mut stdout())?,
        Command::Explain(arguments) => cli::explain::run(&arguments, &mut stdout())?,
        Command::Alarm(arguments) => cli::alarm::run(&arguments, &mut stdout())?,
        Command::Events(arguments) => cli::events::run(&arguments, &mut stdout())?,
        Command::Logs(arguments) => cli::logs::run(&arguments, &mut stdout())?,
        Command::Sweep(arguments) => cli::sweep::run(&arguments, &mut stdout())?,
        Command::Env(arguments) => cli::env::run(&arguments, &mut stdout())?,
        Command::Image(arguments) => cli::image::run(&arguments, &mut stdout())?,
        Command::Completions(arguments) => {
            cli::manual::completions(&arguments, Cli::command(), &mut stdout());
        }
        Command::Man(_) => cli::manual::man(Cli::command(), &mut stdout())?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Logs go to standard error; `GANTRY_LOG` takes the usual filters (`info`, `gantry_server=debug`), and JSON lines
/// come where nobody reads along.
fn log_to_stderr() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("GANTRY_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr);
    if stderr().is_terminal() {
        subscriber.init();
    } else {
        subscriber.json().init();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
