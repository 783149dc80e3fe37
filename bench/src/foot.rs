//! The footprint: from exec to the first correct answer, and resident memory when idle.

use crate::host::{Host, endpoint, program, spawn};
use crate::table::{Row, print};
use anyhow::Result;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

const ROUNDS: usize = 20;

pub async fn run() -> Result<()> {
    let program = program()?;
    let mut rows = Vec::new();
    for command in ["server", "up"] {
        let mut times = Vec::new();
        let directory = tempfile::tempdir()?;
        for _ in 0..ROUNDS {
            let start = Instant::now();
            let mut child = spawn(&program, command, directory.path())?;
            let address = endpoint(directory.path())?;
            let mut stream = TcpStream::connect(address.trim_start_matches("http://"))?;
            stream
                .write_all(b"GET /_gantry/health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            anyhow::ensure!(answer.starts_with("HTTP/1.1 200"), "{answer}");
            times.push(start.elapsed().as_secs_f64() * 1000.0);
            child.kill()?;
            child.wait()?;
            std::fs::remove_file(directory.path().join("endpoint"))?;
        }
        let _ =
            std::process::Command::new(&program).args(["sweep", "--data-dir"]).arg(directory.path()).output();
        rows.push(Row::new(format!("gantry {command}: exec to the first answer"), "ms", times));
    }
    let host = Host::start("up")?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    rows.push(Row::new("gantry up: resident, idle", "MiB", vec![host.memory()?]));
    print("Footprint", &rows);
    Ok(())
}
