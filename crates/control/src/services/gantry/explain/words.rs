//! The words that explanations share: spans of time, counts, why containers and tasks ended.

use crate::services::ecs::state::{Container, Task};
use gantry_decide::lifecycle::StopCode;
use gantry_decide::time::Timestamp;
use gantry_wire::EpochMillis;
use gantry_wire::xml::iso8601;
use std::time::Duration;

/// `850 ms`, `12 s`, `3 min 5 s`, `2 h 10 min`, `4 d 3 h`.
pub fn span(span: Duration) -> String {
    let seconds = span.as_secs();
    let two = |large: u64, unit: &str, small: u64, smaller: &str| match small {
        0 => format!("{large} {unit}"),
        small => format!("{large} {unit} {small} {smaller}"),
    };
    match seconds {
        0 => format!("{} ms", span.as_millis()),
        1..60 => format!("{seconds} s"),
        60..3_600 => two(seconds / 60, "min", seconds % 60, "s"),
        3_600..86_400 => two(seconds / 3_600, "h", seconds / 60 % 60, "min"),
        _ => two(seconds / 86_400, "d", seconds / 3_600 % 24, "h"),
    }
}

/// `2026-11-21T10:00:00Z (3 min ago)`.
pub fn at(now: Timestamp, at: Timestamp) -> String {
    let when = match at > now {
        true => format!("in {}", span(at.since(now))),
        false => format!("{} ago", span(now.since(at))),
    };
    format!("{} ({when})", iso8601(EpochMillis(at.as_millis())))
}

/// `1 task`, `3 tasks`.
pub fn count(number: impl Into<u64>, noun: &str) -> String {
    let number = number.into();
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// What an exit code says beside its number.
fn exit_code(code: i32) -> Option<&'static str> {
    Some(match code {
        0 => "it ended by itself and without an error",
        126 => "the command was found but could not be executed",
        127 => "the command was not found in the image",
        129 => "SIGHUP ended it",
        130 => "SIGINT ended it",
        132 => "SIGILL: it was made for another kind of processor, or is damaged",
        134 => "SIGABRT: the program gave up by itself",
        135 => "SIGBUS: it used memory that is not there",
        136 => "SIGFPE: it divided by zero or the like",
        137 => "SIGKILL: it used more memory than it may have, or did not stop in time when it was asked to",
        139 => "SIGSEGV: the program used memory that is not its own",
        141 => "SIGPIPE: nobody read what it wrote",
        143 => "SIGTERM: it was asked to stop, and did",
        159 => "SIGSYS: it made a system call that containers may not make",
        _ => return None,
    })
}

/// How a container ended or why it did not start; nothing of one that says neither.
pub fn container_end(container: &Container) -> Option<String> {
    let code = container.exit_code.map(|code| match exit_code(code) {
        // The reason below says which of the two it was.
        Some(_) if code == 137 && out_of_memory(container) => {
            format!("exited with code {code} (the kernel killed it: it used more memory than it may have)")
        }
        Some(words) => format!("exited with code {code} ({words})"),
        None => format!("exited with code {code}"),
    });
    let name = &container.name;
    match (code, container.reason.as_deref().filter(|reason| !reason.is_empty())) {
        (Some(code), Some(reason)) => Some(format!("container {name} {code}: {reason}")),
        (Some(code), None) => Some(format!("container {name} {code}")),
        (None, Some(reason)) => Some(format!("container {name} has no exit code: {reason}")),
        (None, None) => None,
    }
}

pub fn out_of_memory(container: &Container) -> bool {
    container.reason.as_deref().is_some_and(|reason| reason.starts_with("OutOfMemory"))
}

/// What a stop code means, as the rest of a sentence about the task.
pub fn stop_code(code: StopCode) -> &'static str {
    match code {
        StopCode::TaskFailedToStart => "never got to run",
        StopCode::EssentialContainerExited => "ended because an essential container of it did",
        StopCode::UserInitiated => "was stopped by a user",
        StopCode::ServiceSchedulerInitiated => "was stopped by its service",
        StopCode::SpotInterruption => "was stopped because spot capacity was taken back",
        StopCode::TerminationNotice => "was stopped because its host went away",
    }
}

/// Why a task stopped, with its containers' ends: one line, for groups of failures and for the feed.
pub fn stop_facts(task: &Task) -> String {
    let said =
        |container: &&Container| container.reason != task.stopped_reason || container.exit_code.is_some();
    let mut parts = vec![match (task.stop_code, task.stopped_reason.as_deref()) {
        (Some(code), Some(reason)) if !reason.is_empty() => {
            format!("{} ({code})", reason.trim_end_matches('.'))
        }
        (Some(code), _) => code.to_string(),
        (None, reason) => reason.unwrap_or("no reason is known").to_owned(),
    }];
    // The reason of a task that failed to start is often one of its containers'.
    parts.extend(task.containers.iter().filter(said).filter_map(container_end));
    parts.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_told_in_two_units_at_most() {
        let told = |millis| span(Duration::from_millis(millis));
        assert_eq!(told(850), "850 ms");
        assert_eq!(told(12_999), "12 s");
        assert_eq!(told(180_000), "3 min");
        assert_eq!(told(185_000), "3 min 5 s");
        assert_eq!(told(7_800_000), "2 h 10 min");
        assert_eq!(told(356_400_000), "4 d 3 h");
        let now = Timestamp::from_millis(60_000);
        assert_eq!(at(now, Timestamp::EPOCH), "1970-01-01T00:00:00Z (1 min ago)");
        assert_eq!(at(Timestamp::EPOCH, now), "1970-01-01T00:01:00Z (in 1 min)");
        assert_eq!((count(1u32, "task"), count(0u32, "task")), ("1 task".to_owned(), "0 tasks".to_owned()));
    }
}
