//! Shims: small processes that containers belong to. One makes a container, keeps its output, sees its end and writes
//! that down, whether or not the agent runs; another runs a program beside a container's.
//!
//! They are copies of one process, the spawner, which the agent starts from its own binary: so a shim costs neither the
//! loading of a program nor memory of its own for it. Spawner and shims have one thread: copies of such a process can go
//! on in ordinary code.
//!
//! Files in a container's directory, all the agent's to remove: `container.json` (its configuration), `state.json`
//! (written when it runs), `exit.json` (written when it has ended), `stdin`, `stdout` and `stderr` (named pipes: they
//! outlive a killed shim, so that the container is not killed by SIGPIPE), `upper` and `work` (links to what it wrote), `l`
//! and `rootfs` (where its layers are mounted).

mod beside;
mod channel;
mod clone;
mod host;
mod init;
mod keeper;
mod launch;
pub(crate) mod mounts;
pub mod orders;
mod output;
mod overlay;
mod program;
mod rootfs;
mod spawner;
mod terminal;
mod user;

pub use channel::sockets;
pub use spawner::{GROUP, main};
pub(crate) use terminal::resize as resize_terminal;

use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

pub const CONFIG_FILE: &str = "container.json";
pub const STATE_FILE: &str = "state.json";
pub const EXIT_FILE: &str = "exit.json";
/// The directory of what the container writes. It outlives one run of it.
pub const UPPER: &str = "upper";
/// In it: what the file system above the image's layers keeps for itself.
pub const WORK: &str = "work";

/// Writes a file that is either complete or not there.
fn save(path: &Path, value: &impl Serialize) -> io::Result<()> {
    let unfinished: PathBuf = path.with_extension("tmp");
    fs::write(&unfinished, serde_json::to_vec(value)?)?;
    fs::rename(&unfinished, path)
}

fn load<T: DeserializeOwned>(path: &Path) -> io::Result<T> {
    Ok(serde_json::from_slice(&fs::read(path)?)?)
}
