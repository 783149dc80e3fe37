//! Sample images that Gantry carries, so that a first look needs no network.
//!
//! The images that tutorials name (a web server, an API with a cache, a batch job) stand for images made from Gantry's
//! own binary: its hidden subcommand `sample` is a small HTTP server, a key-value server, a log router and a batch program.

mod batch;
mod image;
mod kv;
mod router;
mod signals;
mod web;

pub use image::{register, register_in_docker, withdraw, withdraw_from_docker};

use std::process::ExitCode;

/// Runs a sample program: what the sample images' entry points call. `arguments` are those after `sample`.
pub fn main(arguments: &[String]) -> ExitCode {
    let result = match arguments.first().map(String::as_str) {
        Some("web") => web::main(&arguments[1..]),
        Some("kv") => kv::main(),
        Some("router") => router::main(),
        Some("batch") => return batch::main(),
        _ => {
            eprintln!("usage: gantry sample web PORT | kv | router | batch");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
