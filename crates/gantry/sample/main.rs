//! The program of the sample images: a small HTTP server, a key-value server, a log router and a batch job.
//!
//! Made by `build.rs` of the standard library alone, and carried by Gantry. A program of Gantry's size would take longer
//! to start than all that Gantry does for a container.

mod batch;
mod clients;
mod kv;
mod router;
mod signals;
mod web;

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args_os().map(|a| a.to_string_lossy().into_owned()).collect();
    let words: Vec<&str> = arguments.iter().skip(1).map(String::as_str).collect();
    let port = |text: &[&str]| text.first().and_then(|text| text.parse().ok()).unwrap_or(80);
    let result = match words.as_slice() {
        ["web", rest @ ..] => web::main(port(rest)),
        ["health", rest @ ..] => web::check(port(rest)),
        ["kv"] => kv::main(),
        ["router"] => router::main(),
        ["batch"] => return batch::main(),
        _ => {
            eprintln!("usage: sample web [PORT] | health [PORT] | kv | router | batch");
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
