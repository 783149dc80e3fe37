//! Takes over what Docker keeps of a container's output into the agent's own log file, from which all log drivers send.
//!
//! Docker's daemon could send to CloudWatch Logs itself, but needs credentials and an address of its own for that, knows
//! of no place to go on from, and loses what it has in memory when it ends. Its files lose nothing: they have a time for
//! each line, to the nanosecond, and the agent's own file, which has the same times, tells where to go on after a restart
//! of either.

use super::api::{self, instant};
use super::client::{Client, DockerError, LOOK_MAX};
use crate::runtime::LogFile;
use crate::runtime::logs::{LINE_MAX, Stream, Writer, rotated};
use http::Method;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

/// Bytes before each message of a stream: which one it is, and how many bytes follow.
const HEADER: usize = 8;
/// Characters of a time before a message, and the blank behind it.
const TIME: usize = 30;
/// Bytes of one message: 16 KiB of a line, its time, and room for drivers that cut elsewhere.
const MESSAGE_MAX: usize = 2 << 20;
/// Bytes of the agent's log in which its latest lines are looked for.
const TAIL: u64 = 256 << 10;
/// How far lines of one stream may stand before earlier ones of the other: both are written by threads of their own.
const DISORDER_SECONDS: u64 = 5;
/// After a stream that broke off.
const AGAIN: Duration = Duration::from_millis(250);
/// How long the end of a container's output may take to come once the container has ended.
const DRAIN_MAX: Duration = Duration::from_secs(10);

/// Seconds since the epoch and nanoseconds.
type Instant = (u64, u32);

/// A container's output, being taken over.
#[derive(Debug)]
pub struct Following {
    work: JoinHandle<()>,
    done: watch::Receiver<bool>,
}

impl Following {
    /// Follows a container's output until it has ended.
    pub fn start(client: Client, docker_id: String, file: LogFile) -> Following {
        let (told, done) = watch::channel(false);
        let work = tokio::spawn(async move {
            if let Err(error) = follow(&client, &docker_id, file).await {
                tracing::warn!(container = docker_id, %error, "a container's output cannot be read on");
            }
            told.send_replace(true);
        });
        Following { work, done }
    }

    /// Whether it is still at work.
    pub fn is_live(&self) -> bool {
        !*self.done.borrow()
    }

    /// Tells when all is there, which is some milliseconds after the container's end.
    pub fn done(&self) -> watch::Receiver<bool> {
        self.done.clone()
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.work.abort();
    }
}

/// Waits until the output of a container that has ended is all there, but not for ever.
pub async fn drained(mut done: watch::Receiver<bool>) {
    if timeout(DRAIN_MAX, done.wait_for(|done| *done)).await.is_err() {
        tracing::warn!("the end of a container's output is late");
    }
}

/// Why output cannot be taken over.
#[derive(Debug, thiserror::Error)]
enum LogError {
    #[error(transparent)]
    Docker(#[from] DockerError),
    #[error("writing the log")]
    Write(#[from] io::Error),
}

async fn follow(client: &Client, id: &str, file: LogFile) -> Result<(), LogError> {
    let mut progress = Progress::of_log(&file.path)?;
    if let Some(parent) = file.path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    let mut writer = Writer::open(file)?;
    loop {
        let container: api::Container = match client.get(&format!("containers/{id}/json"), LOOK_MAX).await {
            Err(error) if error.is_transient() => {
                sleep(AGAIN).await;
                continue;
            }
            Err(error) if error.is_absent() => break,
            other => other?,
        };
        let running = container.state.running;
        let (seconds, nanos) = progress.since;
        let path = format!(
            "containers/{id}/logs?follow=1&stdout=1&stderr=1&timestamps=1&since={seconds}.{nanos:09}"
        );
        let ended = match client.open(Method::GET, &path, None).await {
            Ok(answer) => {
                let read = copy(answer.into_body(), container.config.tty, &mut progress, &mut writer).await;
                match read {
                    // What a container that had ended before has written is all there.
                    Ok(()) => !running,
                    Err(LogError::Docker(_)) => false,
                    Err(error) => return Err(error),
                }
            }
            Err(error) if error.is_absent() => break,
            Err(error) if error.is_transient() && !is_unreadable(&error) => false,
            Err(error) => return Err(error.into()),
        };
        if ended {
            break;
        }
        progress.resume();
        if running {
            // It has ended, or the engine has; one more look tells.
            sleep(Duration::from_millis(5)).await;
        } else {
            sleep(AGAIN).await;
        }
    }
    writer.finish(progress.latest())?;
    Ok(())
}

/// Some drivers keep nothing that could be read.
fn is_unreadable(error: &DockerError) -> bool {
    error.to_string().contains("does not support reading")
}

/// Copies until the stream's end.
async fn copy(
    mut body: Incoming,
    tty: bool,
    progress: &mut Progress,
    writer: &mut Writer,
) -> Result<(), LogError> {
    let mut buffer: Vec<u8> = Vec::new();
    while let Some(frame) = body.frame().await {
        let broken = |source: hyper::Error| DockerError::Broken {
            doing: "following a container's output".to_owned(),
            source: source.into(),
        };
        let Ok(data) = frame.map_err(broken)?.into_data() else { continue };
        buffer.extend_from_slice(&data);
        let mut at = 0;
        while let Some(message) = if tty { raw(&buffer[at..]) } else { framed(&buffer[at..])? } {
            at += message.length;
            if progress.take(message.stream, message.at) {
                writer.write(message.stream, message.text, message.at)?;
            }
        }
        buffer.drain(..at);
    }
    Ok(())
}

struct Message<'a> {
    stream: Stream,
    at: Instant,
    text: &'a [u8],
    /// Of all of it.
    length: usize,
}

/// The next message of a container without a terminal.
fn framed(bytes: &[u8]) -> Result<Option<Message<'_>>, io::Error> {
    let Some((header, rest)) = bytes.split_at_checked(HEADER) else { return Ok(None) };
    let length = u32::from_be_bytes([header[4], header[5], header[6], header[7]]) as usize;
    let stream = match header[0] {
        2 => Stream::Stderr,
        _ => Stream::Stdout,
    };
    if length > MESSAGE_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a message of a log is too long"));
    }
    let Some(message) = rest.get(..length) else { return Ok(None) };
    let (at, text) = timed(message);
    Ok(Some(Message { stream, at, text, length: HEADER + length }))
}

/// The next message of a container with a terminal: a line, or as much of one as Docker takes at once.
fn raw(bytes: &[u8]) -> Option<Message<'_>> {
    let end = bytes.iter().take(TIME + 1 + LINE_MAX).position(|byte| *byte == b'\n').map(|at| at + 1);
    let length = end.or_else(|| (bytes.len() > TIME + 1 + LINE_MAX).then_some(TIME + 1 + LINE_MAX))?;
    let (at, text) = timed(&bytes[..length]);
    // What a terminal shows ends its lines twice.
    Some(Message { stream: Stream::Stdout, at, text, length })
}

/// A message without its time. One without a time, which Docker does not send, is taken as it is.
fn timed(message: &[u8]) -> (Instant, &[u8]) {
    let blank = message.iter().take(TIME + 6).position(|byte| *byte == b' ');
    let time = blank.and_then(|blank| std::str::from_utf8(&message[..blank]).ok()).and_then(instant);
    match (time, blank) {
        (Some(time), Some(blank)) => (time, &message[blank + 1..]),
        _ => ((0, 0), message),
    }
}

/// How far a log is.
#[derive(Debug, Default)]
struct Progress {
    /// From when on to ask.
    since: Instant,
    streams: [Place; 2],
}

/// How far one stream is.
#[derive(Clone, Copy, Debug, Default)]
struct Place {
    /// Of the latest message.
    latest: Instant,
    /// Messages with that time.
    count: u32,
    /// Messages with that time that have come again.
    seen: u32,
    /// Whether messages may come again.
    resuming: bool,
}

impl Progress {
    /// Reads from the agent's own log how far it is.
    fn of_log(path: &Path) -> io::Result<Progress> {
        let mut progress = Progress::default();
        let lines = latest_lines(path)?;
        let Some((first, _)) = lines.front().copied() else { return Ok(progress) };
        progress.streams = [Place { latest: first, ..Place::default() }; 2];
        for (at, stream) in &lines {
            progress.note(*stream, *at);
        }
        progress.resume();
        progress.since = progress.since.max(first);
        Ok(progress)
    }

    fn note(&mut self, stream: Stream, at: Instant) {
        let place = &mut self.streams[stream as usize];
        if at == place.latest {
            place.count += 1;
        } else {
            // A clock that was set back goes on from there.
            *place = Place { latest: at, count: 1, ..*place };
        }
    }

    /// What comes next may have come before.
    fn resume(&mut self) {
        for place in &mut self.streams {
            *place = Place { seen: 0, resuming: place.latest > (0, 0), ..*place };
        }
        let (seconds, nanos) = self.latest();
        self.since = (seconds.saturating_sub(DISORDER_SECONDS), nanos);
    }

    fn latest(&self) -> Instant {
        self.streams.iter().map(|place| place.latest).max().unwrap_or_default()
    }

    /// Whether a message is new.
    fn take(&mut self, stream: Stream, at: Instant) -> bool {
        let place = &mut self.streams[stream as usize];
        if place.resuming {
            if at < place.latest {
                return false;
            }
            if at == place.latest && place.seen < place.count {
                place.seen += 1;
                return false;
            }
            place.resuming = false;
        }
        self.note(stream, at);
        true
    }
}

/// Times and streams of the log's latest lines, the oldest first.
fn latest_lines(path: &Path) -> io::Result<VecDeque<(Instant, Stream)>> {
    let mut lines = VecDeque::new();
    let mut left = TAIL;
    for index in 0..2 {
        let file = match File::open(rotated(path, index)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => break,
            Err(error) => return Err(error),
        };
        let length = file.metadata()?.len();
        let take = length.min(left);
        let mut bytes = vec![0; usize::try_from(take).unwrap_or_default()];
        file.read_exact_at(&mut bytes, length - take)?;
        // The first may be the end of a line, and the last its beginning.
        for line in bytes.split(|byte| *byte == b'\n').rev() {
            let mut fields = line.splitn(3, |byte| *byte == b' ').map(std::str::from_utf8);
            let (Some(Ok(time)), Some(Ok(stream))) = (fields.next(), fields.next()) else { continue };
            let time = time.split_once('.').filter(|(_, nanos)| nanos.len() == 9);
            let time = time.and_then(|(seconds, nanos)| Some((seconds.parse().ok()?, nanos.parse().ok()?)));
            lines.extend(time.zip(Stream::from_name(stream)));
        }
        left -= take;
        if left == 0 {
            break;
        }
    }
    lines.make_contiguous().reverse();
    Ok(lines)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn file(path: &Path) -> LogFile {
        LogFile { path: path.to_owned(), max_bytes: 1 << 20, max_files: 2 }
    }

    #[test]
    fn messages_are_cut_out_of_the_stream() {
        let mut bytes = vec![1, 0, 0, 0, 0, 0, 0, 34];
        bytes.extend_from_slice(b"2026-11-21T11:42:32.883786482Z hi\n");
        let first = framed(&bytes).unwrap().unwrap();
        assert_eq!((first.stream, first.text, first.length), (Stream::Stdout, &b"hi\n"[..], bytes.len()));
        assert_eq!(first.at, (1_795_261_352, 883_786_482));
        for cut in [4, HEADER, bytes.len() - 1] {
            assert!(framed(&bytes[..cut]).unwrap().is_none(), "{cut}");
        }
        assert!(framed(&[2, 0, 0, 0, 255, 0, 0, 0]).is_err());
        let line = b"2026-11-21T11:42:32.883786482Z typed\r\n2026";
        assert_eq!(raw(line).unwrap().text, b"typed\r\n");
        let long = [b"2026-11-21T11:42:32.883786482Z ".as_slice(), &[b'x'; LINE_MAX + 100]].concat();
        assert_eq!(raw(&long).unwrap().text.len(), LINE_MAX);
        assert!(raw(&long[..LINE_MAX]).is_none());
    }

    /// Whatever is read again after a restart, each message is taken once: several at one time, one stream behind the
    /// other, in one file or two.
    #[test]
    fn what_was_taken_is_not_taken_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("app.log");
        let messages: Vec<(Stream, Instant, String)> = (0..200_u64)
            .map(|n| {
                let stream = if n % 7 == 0 { Stream::Stderr } else { Stream::Stdout };
                (stream, (100 + n / 20, (n / 3 * 1000) as u32), format!("line {n}\n"))
            })
            .collect();
        for stop in [0, 1, 19, 20, 21, 100, 199, 200] {
            let _ = std::fs::remove_file(&path);
            let _ = std::fs::remove_file(rotated(&path, 1));
            let small = LogFile { max_bytes: 4 << 10, ..file(&path) };
            let mut writer = Writer::open(small.clone()).unwrap();
            for (stream, at, text) in &messages[..stop] {
                writer.write(*stream, text.as_bytes(), *at).unwrap();
            }
            drop(writer);
            let mut progress = Progress::of_log(&path).unwrap();
            let again = messages.iter().filter(|(_, at, _)| *at >= progress.since);
            let again: Vec<_> = again.cloned().collect();
            let taken: Vec<_> =
                again.into_iter().filter(|(stream, at, _)| progress.take(*stream, *at)).collect();
            assert_eq!(taken, messages[stop..], "after {stop}");
        }
    }

    #[test]
    fn a_clock_that_is_set_back_loses_nothing() {
        let mut progress = Progress::default();
        for at in [(10, 0), (10, 5), (3, 0), (3, 0), (4, 0)] {
            assert!(progress.take(Stream::Stdout, at), "{at:?}");
        }
        assert_eq!(progress.latest(), (4, 0));
    }
}
