//! What containers write, on its way to their logs.

use super::terminal;
use crate::runtime::LogFile;
use crate::runtime::logs::{Stream, Writer};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// Bytes taken at once: what a pipe holds.
const READ_MAX: usize = 64 << 10;
/// Reads from each source after the end: a process that lives on, beside the container's, could write forever.
const READS_AFTER_END: usize = 256;

/// Makes a named pipe for a container, and opens its end of it.
pub fn make_pipe(path: &Path) -> io::Result<OwnedFd> {
    nix::unistd::mkfifo(path, nix::sys::stat::Mode::from_bits_truncate(0o600))?;
    // For reading too: so a write never fails for want of a reader, and a read never ends for want of a writer.
    Ok(File::options().read(true).write(true).open(path)?.into())
}

/// A log and what it is fed from.
pub struct Output {
    log: Writer,
    sources: Vec<(File, Stream)>,
    /// The program's end of a terminal: as long as it is open, ours never is at its end.
    _terminal: Option<OwnedFd>,
}

impl Output {
    /// From the named pipes of a container's directory.
    pub fn of_pipes(directory: &Path, log: LogFile) -> io::Result<Output> {
        let open = |(name, stream)| {
            // For writing too: one that the container has closed would be readable all the time, with nothing to read.
            let options = File::options().read(true).write(true).custom_flags(libc::O_NONBLOCK).clone();
            options.open(directory.join(name)).map(|pipe| (pipe, stream))
        };
        let sources = [("stdout", Stream::Stdout), ("stderr", Stream::Stderr)].into_iter().map(open);
        Ok(Output { log: Writer::open(log)?, sources: sources.collect::<io::Result<_>>()?, _terminal: None })
    }

    /// From a terminal, of which it gets our end.
    pub fn of_terminal(ours: OwnedFd, log: LogFile) -> io::Result<Output> {
        let flags = OFlag::from_bits_retain(fcntl(&ours, FcntlArg::F_GETFL)?);
        fcntl(&ours, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        let program = terminal::other_end(&ours)?;
        let sources = vec![(File::from(ours), Stream::Stdout)];
        Ok(Output { log: Writer::open(log)?, sources, _terminal: Some(program) })
    }

    /// From nothing: the terminal went with the shim before.
    pub fn of_nothing(log: LogFile) -> io::Result<Output> {
        Ok(Output { log: Writer::open(log)?, sources: Vec::new(), _terminal: None })
    }

    /// Moves output to the log until the process has ended, and then what is left of it.
    pub fn keep_until_end(&mut self, process: &OwnedFd) -> io::Result<()> {
        let mut buffer = vec![0; READ_MAX];
        loop {
            let ended = {
                let sources = self.sources.iter().map(|(file, _)| file.as_fd());
                let mut fds: Vec<_> = std::iter::once(process.as_fd())
                    .chain(sources)
                    .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
                    .collect();
                match poll(&mut fds, PollTimeout::NONE) {
                    Err(nix::Error::EINTR) => continue,
                    Err(error) => return Err(error.into()),
                    Ok(_) => fds[0].revents().is_some_and(|events| !events.is_empty()),
                }
            };
            // A full disk must not stop the container: what cannot be written is lost.
            self.take(&mut buffer, if ended { READS_AFTER_END } else { 1 });
            if ended {
                let _ = self.log.finish(clock());
                return Ok(());
            }
        }
    }

    /// Takes up to so many reads from each source.
    fn take(&mut self, buffer: &mut [u8], reads: usize) {
        for (source, stream) in &mut self.sources {
            for _ in 0..reads {
                match source.read(buffer) {
                    Ok(0) | Err(_) => break,
                    Ok(count) => {
                        let _ = self.log.write(*stream, &buffer[..count], clock());
                    }
                }
            }
        }
    }
}

fn clock() -> (u64, u32) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    (now.as_secs(), now.subsec_nanos())
}
