//! `cargo xtask arrows`: who may depend on whom, checked from cargo's own metadata.

use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

/// The arrows between our crates. What is not listed is forbidden.
const ARROWS: &[(&str, &[&str])] = &[
    (
        "gantry",
        &["gantry-server", "gantry-agent", "gantry-edge", "gantry-api", "gantry-wire", "gantry-decide"],
    ),
    ("gantry-server", &["gantry-control", "gantry-store", "gantry-api", "gantry-wire", "gantry-decide"]),
    ("gantry-agent", &["gantry-api", "gantry-wire", "gantry-decide"]),
    ("gantry-edge", &["gantry-decide"]),
    ("gantry-control", &["gantry-decide", "gantry-store", "gantry-api", "gantry-wire"]),
    ("gantry-api", &["gantry-wire"]),
    ("gantry-decide", &[]),
    ("gantry-wire", &[]),
    ("gantry-store", &[]),
    ("gantry-fuzz", &["gantry-agent", "gantry-edge", "gantry-api", "gantry-wire", "gantry-decide"]),
    (
        "gantry-bench",
        &["gantry-agent", "gantry-control", "gantry-edge", "gantry-api", "gantry-wire", "gantry-decide"],
    ),
    ("gantry-sim", &["gantry-control", "gantry-decide", "gantry-store", "gantry-api", "gantry-wire"]),
    ("xtask", &[]),
];

/// Crates that decide: no IO, no async, no clock, no randomness of their own.
const PURE: &[&str] = &["gantry-decide", "gantry-wire", "gantry-api", "gantry-store", "gantry-control"];
/// Crates by which IO, threads, clocks or randomness would come in.
const IMPURE: &[&str] = &[
    "tokio",
    "hyper",
    "mio",
    "socket2",
    "nix",
    "rustix",
    "rusqlite",
    "rand",
    "getrandom",
    "tracing",
    "jiff",
];

pub fn run(root: &Path) -> Result<()> {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--format-version",
            "1",
            "--locked",
            "--filter-platform",
            "x86_64-unknown-linux-gnu",
        ])
        .current_dir(root)
        .output()
        .context("running cargo metadata")?;
    if !output.status.success() {
        bail!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    }
    let metadata: Value = serde_json::from_slice(&output.stdout)?;
    let graph = Graph::read(&metadata)?;
    let mut wrong = Vec::new();
    for member in &graph.members {
        let name = graph.name(member);
        let Some((_, allowed)) = ARROWS.iter().find(|(from, _)| *from == name) else {
            wrong.push(format!(
                "{name} is a crate without arrows: add it to xtask/src/arrows.rs and ARCHITECTURE.md"
            ));
            continue;
        };
        for to in graph.edges(member).filter(|to| graph.members.contains(*to)) {
            if !allowed.contains(&graph.name(to)) {
                wrong.push(format!("{name} must not depend on {}", graph.name(to)));
            }
        }
        if PURE.contains(&name) {
            let reached = graph.reachable(member);
            wrong.extend(
                IMPURE
                    .iter()
                    .filter(|i| reached.contains(**i))
                    .map(|i| format!("{name} decides, so it must not reach {i}")),
            );
        }
    }
    if wrong.is_empty() {
        println!("arrows: {} crates point only where they may", graph.members.len());
        return Ok(());
    }
    bail!("{}", wrong.join("\n"));
}

/// Normal dependencies (not of tests or build scripts) of every package.
struct Graph<'a> {
    names: BTreeMap<&'a str, &'a str>,
    members: BTreeSet<&'a str>,
    edges: BTreeMap<&'a str, Vec<&'a str>>,
}

impl<'a> Graph<'a> {
    fn read(metadata: &'a Value) -> Result<Graph<'a>> {
        let list = |value: &'a Value| value.as_array().into_iter().flatten();
        let text = |value: &'a Value| value.as_str().context("cargo metadata has a text here");
        let mut graph = Graph { names: BTreeMap::new(), members: BTreeSet::new(), edges: BTreeMap::new() };
        for package in list(&metadata["packages"]) {
            graph.names.insert(text(&package["id"])?, text(&package["name"])?);
        }
        for member in list(&metadata["workspace_members"]) {
            graph.members.insert(text(member)?);
        }
        for node in list(&metadata["resolve"]["nodes"]) {
            let normal =
                list(&node["deps"]).filter(|dep| list(&dep["dep_kinds"]).any(|kind| kind["kind"].is_null()));
            let normal = normal.map(|dep| text(&dep["pkg"])).collect::<Result<Vec<_>>>()?;
            graph.edges.insert(text(&node["id"])?, normal);
        }
        Ok(graph)
    }

    fn name(&self, id: &str) -> &'a str {
        self.names.get(id).copied().unwrap_or_default()
    }

    fn edges(&self, id: &str) -> impl Iterator<Item = &&'a str> {
        self.edges.get(id).into_iter().flatten()
    }

    fn reachable(&self, from: &'a str) -> BTreeSet<&'a str> {
        let (mut seen, mut todo) = (BTreeSet::new(), vec![from]);
        while let Some(id) = todo.pop() {
            todo.extend(self.edges(id).filter(|next| seen.insert(**next)));
        }
        seen.into_iter().map(|id| self.name(id)).collect()
    }
}
