//! What the agent asks shims for, and what they tell it: messages of JSON, one socket for each order.

use super::channel;
use crate::runtime::Step;
use crate::runtime::exec::ExecRequest;
use crate::runtime::process::Process;
use gantry_decide::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::io;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::path::PathBuf;

/// Bytes of a message: less than sockets take at once, and than programs take as arguments and variables.
const MESSAGE_MAX: usize = 120 << 10;

/// What a shim is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    /// Makes the container of this directory and stays with it. Tells [`Report::Running`].
    Run { directory: PathBuf },
    /// Stays with a container whose shim is gone. Tells [`Report::Running`].
    Resume { directory: PathBuf },
    /// Runs a program beside a container's. Input, output and error come along, unless there is to be a terminal, which
    /// goes back with [`Report::Executing`]. Tells [`Report::Ended`]; kills the program when nobody listens any more.
    Exec { directory: PathBuf, request: ExecRequest },
}

/// A container that runs, as the shim leaves it for whoever asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    pub container: Process,
    pub shim: Process,
    pub at: Timestamp,
}

/// What a shim tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Report {
    /// The first: its own process, as a descriptor.
    Shim,
    Running(Running),
    Executing,
    /// With the exit code.
    Ended(i32),
    Failed {
        step: Step,
        text: String,
    },
}

/// Hands the spawner the socket of an order.
///
/// # Errors
/// When nobody is at the other end; EAGAIN when it is busy and the socket does not block.
pub fn hand(spawner: &impl AsFd, socket: &[RawFd; 1]) -> io::Result<()> {
    channel::send(spawner, b"o", socket)
}

/// Sends a message.
///
/// # Errors
/// When nobody is at the other end, and for what is too long.
pub fn send(socket: &impl AsFd, message: &impl Serialize, fds: &[RawFd]) -> io::Result<()> {
    let bytes = serde_json::to_vec(message)?;
    if bytes.len() > MESSAGE_MAX {
        return Err(io::Error::new(
            io::ErrorKind::ArgumentListTooLong,
            "the command and its variables are too long",
        ));
    }
    channel::send(socket, &bytes, fds)
}

/// Receives one; `None` when nobody is at the other end any more.
///
/// # Errors
/// EAGAIN when there is none yet and the socket does not block; of one that makes no sense.
pub fn receive<T: for<'a> Deserialize<'a>>(socket: &impl AsFd) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let (bytes, fds) = channel::receive(socket, MESSAGE_MAX)?;
    if bytes.is_empty() {
        return Ok(None);
    }
    Ok(Some((serde_json::from_slice(&bytes)?, fds)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::fs::File;
    use std::io::Read;
    use std::os::fd::AsRawFd;

    #[test]
    fn messages_take_descriptors_along() {
        let (one, other) = channel::sockets().unwrap();
        let zeros = File::open("/dev/zero").unwrap();
        let order = Order::Run { directory: "/c".into() };
        send(&one, &order, &[zeros.as_raw_fd()]).unwrap();
        drop(zeros);
        let (heard, mut fds) = receive::<Order>(&other).unwrap().unwrap();
        assert_eq!((heard, fds.len()), (order, 1));
        let mut bytes = [7];
        File::from(fds.remove(0)).read_exact(&mut bytes).unwrap();
        assert_eq!(bytes, [0]);
        drop(one);
        assert!(receive::<Order>(&other).unwrap().is_none());
    }

    #[test]
    fn what_is_too_long_is_refused_and_not_cut() {
        let (one, _other) = channel::sockets().unwrap();
        let long = Report::Failed { step: Step::Start, text: "x".repeat(MESSAGE_MAX) };
        let error = send(&one, &long, &[]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ArgumentListTooLong);
    }
}
