//! `gantry logs`: what a task's containers wrote, from the agents of this machine.

use crate::config::DATA_DIR;
use crate::platform::LocalAgent;
use anyhow::{Context, Result, bail};
use clap::Args;
use gantry_agent::runtime::logs::{Line, Reader};
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

/// Between two looks for new lines.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Show what a task's containers wrote
#[derive(Debug, Args)]
pub struct LogsArgs {
    /// Task id, its first characters, or its ARN
    task: String,
    /// One container of the task
    #[arg(short, long, value_name = "NAME")]
    container: Option<String>,
    /// Go on as more is written, until Ctrl-C
    #[arg(short, long)]
    follow: bool,
    /// Show when each line was written, in seconds since 1970
    #[arg(short, long)]
    timestamps: bool,
    /// Directory of the installation's state, or of one agent
    #[arg(long, value_name = "DIR", env = "GANTRY_DATA_DIR", default_value = DATA_DIR)]
    data_dir: PathBuf,
}

pub fn run(arguments: &LogsArgs, out: &mut impl Write) -> Result<()> {
    let id = arguments.task.rsplit('/').next().unwrap_or_default();
    let mut readers: Vec<(String, Reader)> = files(arguments, id)?;
    readers.sort_by(|(a, _), (b, _)| a.cmp(b));
    let several = readers.len() > 1;
    loop {
        let mut lines: Vec<(String, Line)> = Vec::new();
        for (name, reader) in &mut readers {
            while let Some(line) = reader.read().context("cannot read a log")? {
                lines.push((name.clone(), line));
            }
        }
        // Lines of one container keep their order whatever the clock did.
        lines.sort_by_key(|(_, line)| line.at);
        for (name, line) in lines {
            if arguments.timestamps {
                write!(out, "{}.{:09} ", line.at.0, line.at.1)?;
            }
            if several {
                write!(out, "{name} | ")?;
            }
            writeln!(out, "{}", line.text)?;
        }
        out.flush()?;
        if !arguments.follow {
            return Ok(());
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// The logs of the one task that is meant, by container.
fn files(arguments: &LogsArgs, id: &str) -> Result<Vec<(String, Reader)>> {
    let data_dir = &arguments.data_dir;
    let mut places: Vec<PathBuf> = LocalAgent::ALL.map(|local| local.directory(data_dir)).to_vec();
    places.push(data_dir.clone());
    let directories =
        places.iter().flat_map(|place| std::fs::read_dir(place.join("logs")).into_iter().flatten().flatten());
    let of_task: Vec<PathBuf> = directories
        .filter(|entry| !id.is_empty() && entry.file_name().to_string_lossy().starts_with(id))
        .map(|entry| entry.path())
        .collect();
    let directory = match of_task.as_slice() {
        [directory] => directory,
        [] => bail!("no agent of this machine has logs of a task {id} in {}", data_dir.display()),
        several => bail!("{} tasks begin with {id}: say more of it", several.len()),
    };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).context("cannot read the logs")?.flatten() {
        let file = entry.file_name().to_string_lossy().into_owned();
        let Some(name) = file.strip_suffix(".log") else { continue };
        if arguments.container.as_deref().is_none_or(|wanted| wanted == name) {
            found.push((name.to_owned(), Reader::open(&entry.path())));
        }
    }
    if found.is_empty() {
        bail!(
            "the task {id} has no logs of the container {}",
            arguments.container.as_deref().unwrap_or("(any)")
        );
    }
    Ok(found)
}
