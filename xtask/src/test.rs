//! `cargo xtask test`: everything that must hold before a change lands, in the order in which failures are cheapest.
//!
//! Installs what it needs, goes on after a failure so that one run shows all of them, and ends in a line of counts.

use crate::{arrows, deny, tidy, venv};
use anyhow::{Context, Result, bail};
use std::io::{BufRead, BufReader};
use std::num::NonZero;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

/// The foreign judges: real AWS clients, pinned.
const PYTHON_PACKAGES: &[&str] = &[
    "awscli==1.46.3",
    "boto3==1.44.5",
    "botocore==1.44.5",
    "pytest==8.4.2",
    "pytest-xdist==3.8.0",
    "websockets==15.0.1",
];

/// End-to-end tests that run at once, for each processor: they wait more than they work.
const TESTS_A_PROCESSOR: usize = 2;

/// Of each reader of outside input.
const FUZZ_SECONDS: &str = "3";

#[derive(Default)]
struct Counts {
    passed: u64,
    failed: u64,
    skipped: u64,
}

impl Counts {
    /// Adds the numbers of a runner's closing line: cargo's `N passed; M failed; K ignored`, pytest's `N passed, ...`.
    fn add(&mut self, line: &str) {
        let words: Vec<&str> = line.split([' ', ',', ';', '.']).filter(|word| !word.is_empty()).collect();
        for pair in words.windows(2) {
            let Ok(number) = pair[0].parse::<u64>() else { continue };
            match pair[1] {
                "passed" => self.passed += number,
                "failed" | "error" | "errors" => self.failed += number,
                "skipped" | "ignored" => self.skipped += number,
                _ => {}
            }
        }
    }
}

/// Programs that the tests of several hosts and of Docker are made with, and Debian's packages of them.
const DEBIAN_PACKAGES: &[(&str, &str)] = &[
    ("busybox", "busybox-static"),
    ("dockerd", "docker.io"),
    ("ip", "iproute2"),
    ("mkfs.btrfs", "btrfs-progs"),
    ("nsenter", "util-linux"),
];

/// Installs what is missing, where that can be done. Tests that still miss something say so and are skipped.
fn install_packages() {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there =
        |program: &str| std::env::split_paths(&path).any(|directory| directory.join(program).exists());
    let missing: Vec<&str> = DEBIAN_PACKAGES
        .iter()
        .filter(|(program, _)| !is_there(program))
        .map(|(_, package)| *package)
        .collect();
    if missing.is_empty() || !is_there("apt-get") {
        return;
    }
    for arguments in [vec!["update", "-qq"], [vec!["install", "-y", "-qq"], missing].concat()] {
        let done =
            venv::run(Command::new("apt-get").args(&arguments).env("DEBIAN_FRONTEND", "noninteractive"));
        if let Err(error) = done {
            eprintln!("installing Debian packages: {error:#}");
        }
    }
}

pub fn run(root: &Path) -> Result<()> {
    install_packages();
    let mut counts = Counts::default();
    let cargo = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO"));
        command.args(arguments).current_dir(root);
        command
    };
    check(&mut counts, "format", || venv::run(&mut cargo(&["fmt", "--all", "--check"])));
    check(&mut counts, "arrows", || arrows::run(root));
    check(&mut counts, "tidy", || tidy::run(root));
    check(&mut counts, "deny", || deny::run(root));
    check(&mut counts, "lints", || {
        venv::run(&mut cargo(&["clippy", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"]))
    });
    runner(&mut counts, "unit, property and crash tests", |counts| {
        counted(counts, &mut cargo(&["test", "--locked", "--workspace", "--no-fail-fast"]))
    });
    // The whole workspace, as the step before: with other features everything would be built once more.
    check(&mut counts, "programs", || {
        venv::run(&mut cargo(&["build", "--locked", "--workspace", "--bins", "--examples"]))
    });
    check(&mut counts, "fuzz", || {
        venv::run(Command::new(target(root)?.join("debug/gantry-fuzz")).args(["all", FUZZ_SECONDS]))
    });
    runner(&mut counts, "end to end", |counts| {
        let mut command = Command::new(venv::python(root, PYTHON_PACKAGES)?);
        let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
        let at_once = (processors * TESTS_A_PROCESSOR).to_string();
        command.args(["-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", "tests"]).current_dir(root);
        // In the order of tests/conftest.py.
        command.args(["--dist", "loadgroup", "--no-loadscope-reorder", "-n", &at_once]);
        // Platforms are large: what passed leaves nothing.
        command.args(["-o", "tmp_path_retention_policy=failed"]);
        command.env("GANTRY", target(root)?.join("debug/gantry"));
        counted(counts, &mut command)
    });
    println!("\n{} passed, {} failed, {} skipped", counts.passed, counts.failed, counts.skipped);
    if counts.failed > 0 {
        bail!("not everything holds");
    }
    Ok(())
}

/// Where cargo puts what it builds.
fn target(root: &Path) -> Result<std::path::PathBuf> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .current_dir(root)
        .output()
        .context("running cargo metadata")?;
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    Ok(metadata["target_directory"].as_str().context("cargo names its target directory")?.into())
}

fn step<T>(name: &str, work: impl FnOnce() -> T) -> T {
    println!("\n== {name}");
    let start = Instant::now();
    let result = work();
    println!("== {name}: {:.0} s", start.elapsed().as_secs_f64());
    result
}

/// A step that holds or does not, and counts as one test.
fn check(counts: &mut Counts, name: &str, work: impl FnOnce() -> Result<()>) {
    match step(name, work) {
        Ok(()) => counts.passed += 1,
        Err(error) => {
            eprintln!("{name}: {error:#}");
            counts.failed += 1;
        }
    }
}

/// A step that counts its own tests.
fn runner(counts: &mut Counts, name: &str, work: impl FnOnce(&mut Counts) -> Result<()>) {
    if let Err(error) = step(name, || work(counts)) {
        eprintln!("{name}: {error:#}");
        counts.failed += 1;
    }
}

/// Runs a test runner, shows what it prints, and adds its closing counts.
fn counted(counts: &mut Counts, command: &mut Command) -> Result<()> {
    let mut child =
        command.stdout(Stdio::piped()).spawn().with_context(|| format!("cannot start {command:?}"))?;
    let output = child.stdout.take().context("the output was asked for")?;
    let failed_before = counts.failed;
    for line in BufReader::new(output).lines() {
        let line = line?;
        println!("{line}");
        if line.starts_with("test result:")
            || line.contains(" in ") && (line.contains("passed") || line.contains("failed"))
        {
            counts.add(&line);
        }
    }
    let status = child.wait()?;
    if !status.success() && counts.failed == failed_before {
        // It failed without counting, as when it does not compile.
        counts.failed += 1;
    }
    Ok(())
}
