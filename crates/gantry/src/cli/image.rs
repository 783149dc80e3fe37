//! `gantry image`: looks into and fills an agent's image store, whether or not the agent runs.

use crate::config::runtime::RuntimeFlags;
use crate::sample;
use anyhow::Context as _;
use clap::{Args, Subcommand};
use gantry_agent::config::RuntimeKind;
use gantry_agent::docker;
use gantry_agent::images::{ImageStore, Source, load};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// Load and list container images
#[derive(Debug, Args)]
pub struct ImageArgs {
    /// Where Gantry keeps its state
    #[arg(long, env = "GANTRY_DATA_DIR", default_value = "/var/lib/gantry", global = true)]
    data_dir: PathBuf,
    #[command(flatten)]
    runtime: RuntimeFlags,
    #[command(subcommand)]
    command: ImageCommand,
}

#[derive(Debug, Subcommand)]
enum ImageCommand {
    /// Load images from an archive made by `docker save` or in OCI layout, gzip or zstd packed or not
    Load {
        /// The archive; - reads standard input
        file: PathBuf,
    },
    /// List the images that tasks can start from without a pull
    #[command(visible_alias = "ls")]
    List,
    /// Make the sample images that stand for nginx, redis and the like in a first look
    Samples {
        /// Take them away instead, so that the images come from their registries
        #[arg(long)]
        remove: bool,
    },
}

/// Where the agent that keeps its state in `data_dir` has its images.
pub fn image_directory(data_dir: &Path) -> PathBuf {
    data_dir.join("images")
}

/// Runs the command and writes what it has to say to `output`.
pub fn run(arguments: &ImageArgs, output: &mut impl Write) -> anyhow::Result<()> {
    if let RuntimeKind::Docker { socket } = arguments.runtime.kind()? {
        let runtime = tokio::runtime::Runtime::new().context("cannot start threads")?;
        return runtime.block_on(in_docker(&socket, &arguments.command, output));
    }
    let directory = image_directory(&arguments.data_dir);
    let store =
        ImageStore::open(&directory).with_context(|| format!("cannot open {}", directory.display()))?;
    match &arguments.command {
        ImageCommand::Load { file } => {
            let reader: Box<dyn Read> = if file.as_os_str() == "-" {
                Box::new(io::stdin().lock())
            } else {
                Box::new(File::open(file).with_context(|| format!("cannot open {}", file.display()))?)
            };
            for name in load(&store, reader).with_context(|| format!("cannot load {}", file.display()))? {
                writeln!(output, "Loaded image: {}", name.familiar())?;
            }
        }
        ImageCommand::Samples { remove: false } => sample::register(&store)?,
        ImageCommand::Samples { remove: true } => sample::withdraw(&store)?,
        ImageCommand::List => {
            let records = store.list()?;
            let width = records.iter().map(|r| r.name.familiar().len()).max().unwrap_or(0).max("IMAGE".len());
            writeln!(output, "{:width$}  {:12}  {:>9}  ORIGIN", "IMAGE", "ID", "SIZE")?;
            for record in records {
                let origin = match record.source {
                    Source::Pulled => "pulled",
                    Source::Loaded => "loaded",
                    Source::Sample => "sample",
                };
                let (name, id) = (record.name.familiar(), record.config_digest.hex());
                writeln!(output, "{name:width$}  {:12}  {:>9}  {origin}", &id[..12], size(record.bytes()))?;
            }
        }
    }
    Ok(())
}

/// The same with the images that Docker keeps.
async fn in_docker(socket: &Path, command: &ImageCommand, output: &mut impl Write) -> anyhow::Result<()> {
    let docker = docker::Client::connect(socket).await?;
    match command {
        ImageCommand::Load { file } => {
            let reader: Box<dyn Read + Send> = if file.as_os_str() == "-" {
                Box::new(io::stdin())
            } else {
                Box::new(File::open(file).with_context(|| format!("cannot open {}", file.display()))?)
            };
            let said = docker::images::load(&docker, reader).await;
            for line in said.with_context(|| format!("cannot load {}", file.display()))? {
                writeln!(output, "{line}")?;
            }
        }
        ImageCommand::Samples { remove: false } => sample::register_in_docker(&docker).await?,
        ImageCommand::Samples { remove: true } => sample::withdraw_from_docker(&docker).await?,
        ImageCommand::List => {
            let images = docker::images::list(&docker).await?;
            let width = images.iter().map(|image| image.name.len()).max().unwrap_or(0).max("IMAGE".len());
            writeln!(output, "{:width$}  {:12}  {:>9}  ORIGIN", "IMAGE", "ID", "SIZE")?;
            for image in images {
                let origin = if image.is_sample { "sample" } else { "docker" };
                let id = image.id.strip_prefix("sha256:").unwrap_or(&image.id);
                writeln!(output, "{:width$}  {id:.12}  {:>9}  {origin}", image.name, size(image.bytes))?;
            }
        }
    }
    Ok(())
}

/// Bytes as people read them: `12.3 MB`.
fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["kB", "MB", "GB", "TB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1000.0;
    let mut unit = 0;
    while value >= 999.95 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use clap::Parser;
    use gantry_agent::images::{FileContent, ImageBuilder};

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        image: ImageArgs,
    }

    fn gantry_image(arguments: &[&str]) -> anyhow::Result<String> {
        let mut output = Vec::new();
        let cli = Cli::try_parse_from([&["image"], arguments].concat())?;
        run(&cli.image, &mut output)?;
        Ok(String::from_utf8(output)?)
    }

    #[test]
    fn what_was_loaded_is_listed() {
        let dir = tempfile::tempdir().unwrap();
        let (data, archive) = (dir.path().join("data"), dir.path().join("app.tar"));
        let elsewhere = ImageStore::open(dir.path().join("elsewhere")).unwrap();
        let image = ImageBuilder::new().file("f", 0o644, FileContent::Bytes(vec![0; 1500]));
        image
            .write_archive(&elsewhere, &"team/app:7".parse().unwrap(), File::create(&archive).unwrap())
            .unwrap();
        let (data, archive) = (data.to_str().unwrap(), archive.to_str().unwrap());
        let loaded = gantry_image(&["load", archive, "--data-dir", data]).unwrap();
        assert_eq!(loaded, "Loaded image: team/app:7\n");
        let listed = gantry_image(&["--data-dir", data, "list"]).unwrap();
        let line: Vec<&str> = listed.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!((line[0], &line[2..]), ("team/app:7", &["1.5", "kB", "loaded"][..]));
        assert!(gantry_image(&["load", "/missing", "--data-dir", data]).is_err());
    }

    #[test]
    fn sizes_are_short() {
        let shown = [0, 999, 1000, 12_345_678, 999_999, 5_000_000_000_000_000].map(size);
        assert_eq!(shown, ["0 B", "999 B", "1.0 kB", "12.3 MB", "1.0 MB", "5000.0 TB"]);
    }
}
