//! Builds the program of the sample images, which Gantry carries: the standard library alone, so that a compiler is all
//! that it takes.

use std::env;
use std::path::PathBuf;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=sample");
    println!("cargo::rerun-if-changed=build.rs");
    let variable = |name: &str| env::var_os(name).unwrap_or_else(|| panic!("cargo sets {name}"));
    let mut rustc = Command::new(variable("RUSTC"));
    rustc.args(["sample/main.rs", "--edition=2024", "--crate-name=sample", "-Copt-level=s", "-Cpanic=abort"]);
    rustc.arg("-Cstrip=symbols").arg("--target").arg(variable("TARGET"));
    if let Some(linker) = env::var_os("RUSTC_LINKER") {
        rustc.arg("--codegen=linker=".to_owned() + &linker.to_string_lossy());
    }
    rustc.arg("-o").arg(PathBuf::from(variable("OUT_DIR")).join("sample"));
    let status = rustc.status().unwrap_or_else(|error| panic!("{rustc:?}: {error}"));
    assert!(status.success(), "{rustc:?}: {status}");
}
