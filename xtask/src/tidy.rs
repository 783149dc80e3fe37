//! `cargo xtask tidy`: house rules that no compiler knows.

use anyhow::{Context, Result, bail};
use std::path::Path;
use std::process::Command;

/// Aim of a file's length; longer ones are named, not refused.
const LINES_AIM: usize = 500;
/// Beyond this nobody reads a file any more. Tables of tests may be long.
const LINES_MAX: usize = 900;

pub fn run(root: &Path) -> Result<()> {
    let output =
        Command::new("git").args(["ls-files", "-z"]).current_dir(root).output().context("running git")?;
    let listed = String::from_utf8(output.stdout)?;
    let (mut wrong, mut files) = (Vec::new(), 0);
    for file in listed.split('\0').filter(|file| !file.is_empty()) {
        // What is not UTF-8 is no text of ours; what was removed is not there.
        let Ok(text) = std::fs::read_to_string(root.join(file)) else { continue };
        files += 1;
        if file.ends_with(".rs") {
            rust(file, &text, &mut wrong);
        }
        if !file.ends_with(".lock") {
            everywhere(file, &text, &mut wrong);
        }
    }
    if wrong.is_empty() {
        println!("tidy: {files} files keep the house rules");
        return Ok(());
    }
    bail!("{}", wrong.join("\n"));
}

fn rust(file: &str, text: &str, wrong: &mut Vec<String>) {
    if !text.starts_with("//!") {
        wrong.push(format!("{file}: says nothing of its job: begin with a //! line"));
    }
    let lines = text.lines().count();
    if lines > LINES_MAX {
        wrong.push(format!(
            "{file}: {lines} lines; split it by job (aim below {LINES_AIM}, at most {LINES_MAX})"
        ));
    }
    let in_tests = file.contains("tests") || file.contains("/examples/");
    for (number, line) in text.lines().enumerate().filter(|_| !in_tests) {
        if line.trim_start().starts_with("todo!(") || line.contains(concat!("unimple", "mented!(")) {
            wrong.push(format!("{file}:{}: unfinished work stays on its branch", number + 1));
        }
    }
}

fn everywhere(file: &str, text: &str, wrong: &mut Vec<String>) {
    // Spelt in two parts, so that this file keeps its own rule.
    let machine_paths = [concat!("/ro", "ot/"), concat!("/wo", "rk/"), concat!("/home", "/")];
    let hostile_paths_are_its_matter = file.contains("tests");
    for (number, line) in text.lines().enumerate() {
        if !hostile_paths_are_its_matter && machine_paths.iter().any(|path| line.contains(path)) {
            wrong.push(format!("{file}:{}: names a path of somebody's machine", number + 1));
        }
        if line.ends_with(' ') && !file.ends_with(".md") {
            wrong.push(format!("{file}:{}: ends in blanks", number + 1));
        }
    }
}
