//! What may come into the dependency tree, by the rules of `deny.toml`: licences, banned crates, where crates come from.
//! The same file serves cargo-deny, where it is installed; this check needs nothing but cargo's own metadata.

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

#[derive(Deserialize)]
struct Rules {
    graph: Graph,
    licenses: Licenses,
    bans: Bans,
}

#[derive(Deserialize)]
struct Graph {
    targets: Vec<String>,
}

#[derive(Deserialize)]
struct Licenses {
    allow: Vec<String>,
    #[serde(default)]
    exceptions: Vec<Exception>,
    #[serde(default)]
    clarify: Vec<Clarification>,
}

#[derive(Deserialize)]
struct Exception {
    allow: Vec<String>,
    #[serde(rename = "crate")]
    name: String,
}

#[derive(Deserialize)]
struct Clarification {
    #[serde(rename = "crate")]
    name: String,
    expression: String,
}

#[derive(Deserialize)]
struct Bans {
    deny: Vec<Ban>,
}

#[derive(Deserialize)]
struct Ban {
    #[serde(rename = "crate")]
    name: String,
}

pub fn run(root: &Path) -> Result<()> {
    let written = std::fs::read_to_string(root.join("deny.toml")).context("deny.toml")?;
    let rules: Rules = toml::from_str(&written).context("deny.toml")?;
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked"])
        .current_dir(root)
        .output()
        .context("running cargo metadata")?;
    let metadata: Value = serde_json::from_slice(&output.stdout).context("reading cargo metadata")?;
    let reached = reached(root, &rules.graph.targets)?;
    let packages: Vec<&Value> = metadata["packages"]
        .as_array()
        .context("packages")?
        .iter()
        .filter(|package| reached.contains(&(text(package, "name"), text(package, "version"))))
        .collect();
    let problems: Vec<String> = packages.iter().filter_map(|package| judge(package, &rules)).collect();
    if !problems.is_empty() {
        bail!("deny.toml does not allow:\n  {}", problems.join("\n  "));
    }
    println!("deny: {} packages may be here", packages.len());
    Ok(())
}

fn text(package: &Value, member: &str) -> String {
    package[member].as_str().unwrap_or_default().to_owned()
}

/// Names and versions of what is built on any of the targets. The lock file holds more: optional dependencies that no
/// feature asks for.
fn reached(root: &Path, targets: &[String]) -> Result<BTreeSet<(String, String)>> {
    let mut reached = BTreeSet::new();
    for target in targets {
        let output = Command::new(env!("CARGO"))
            .args(["tree", "--workspace", "--locked", "--edges", "normal,build,dev", "--prefix", "none"])
            .args(["--no-dedupe", "--format", "{p}", "--target", target])
            .current_dir(root)
            .output()
            .context("running cargo tree")?;
        if !output.status.success() {
            bail!("cargo tree failed: {}", String::from_utf8_lossy(&output.stderr));
        }
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            let mut words = line.split_whitespace();
            if let (Some(name), Some(version)) = (words.next(), words.next()) {
                reached.insert((name.to_owned(), version.trim_start_matches('v').to_owned()));
            }
        }
    }
    Ok(reached)
}

/// What is wrong with a package.
fn judge(package: &Value, rules: &Rules) -> Option<String> {
    let name = package["name"].as_str().unwrap_or_default();
    let shown = format!("{name} {}", package["version"].as_str().unwrap_or_default());
    if rules.bans.deny.iter().any(|ban| ban.name == name) {
        return Some(format!("{shown}: it is banned"));
    }
    match package["source"].as_str() {
        None | Some("registry+https://github.com/rust-lang/crates.io-index") => {}
        Some(source) => return Some(format!("{shown}: it comes from {source}")),
    }
    let clarified: BTreeMap<&str, &str> =
        rules.licenses.clarify.iter().map(|c| (c.name.as_str(), c.expression.as_str())).collect();
    let licence = clarified.get(name).copied().or(package["license"].as_str()).unwrap_or_default();
    let exceptions = rules.licenses.exceptions.iter().filter(|exception| exception.name == name);
    let allowed: Vec<&str> =
        rules.licenses.allow.iter().chain(exceptions.flat_map(|e| &e.allow)).map(String::as_str).collect();
    (!satisfies(licence, &allowed)).then(|| format!("{shown}: its licence is '{licence}'"))
}

/// Whether an SPDX expression can be satisfied with these licences. `/` is the old way to write OR.
fn satisfies(expression: &str, allowed: &[&str]) -> bool {
    let text = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let tokens: Vec<&str> = text.split_whitespace().collect();
    let mut at = 0;
    let holds = either(&tokens, &mut at, allowed);
    holds && at == tokens.len() && !tokens.is_empty()
}

fn either(tokens: &[&str], at: &mut usize, allowed: &[&str]) -> bool {
    let mut holds = both(tokens, at, allowed);
    while tokens.get(*at) == Some(&"OR") {
        *at += 1;
        holds |= both(tokens, at, allowed);
    }
    holds
}

fn both(tokens: &[&str], at: &mut usize, allowed: &[&str]) -> bool {
    let mut holds = one(tokens, at, allowed);
    while tokens.get(*at) == Some(&"AND") {
        *at += 1;
        holds &= one(tokens, at, allowed);
    }
    holds
}

fn one(tokens: &[&str], at: &mut usize, allowed: &[&str]) -> bool {
    let Some(token) = tokens.get(*at) else { return false };
    *at += 1;
    if *token == "(" {
        let holds = either(tokens, at, allowed);
        *at += 1;
        return holds;
    }
    if tokens.get(*at) == Some(&"WITH") {
        let with = format!("{token} WITH {}", tokens.get(*at + 1).unwrap_or(&""));
        *at += 2;
        return allowed.contains(&with.as_str());
    }
    allowed.contains(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_understood() {
        let allowed = ["MIT", "Apache-2.0", "Apache-2.0 WITH LLVM-exception"];
        for good in [
            "MIT",
            "MIT OR GPL-3.0",
            "MIT/Apache-2.0",
            "(GPL-3.0 OR MIT) AND Apache-2.0",
            "Apache-2.0 WITH LLVM-exception OR X",
        ] {
            assert!(satisfies(good, &allowed), "{good}");
        }
        for bad in ["", "GPL-3.0", "MIT AND GPL-3.0", "(MIT", "MIT MIT", "X WITH LLVM-exception"] {
            assert!(!satisfies(bad, &allowed), "{bad}");
        }
    }
}
