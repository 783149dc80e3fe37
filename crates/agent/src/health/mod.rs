//! Health checks: a program run in a container again and again, and what its exits mean. What counts as healthy is
//! decided in `decide::task_engine`; here is the running of it.

use crate::protocol::docker::Healthcheck;
use crate::runtime::exec::{Exec, ExecRequest, Output};
use crate::runtime::{ContainerId, Runtime, RuntimeError};
use gantry_decide::lifecycle::HealthStatus;
use gantry_decide::task_engine::{Health, HealthRules};
use gantry_decide::time::Timestamp;
use std::future::Future;
use std::time::Duration;
use tokio::io::AsyncReadExt;

/// Bytes of a check's output that are kept: as many as Docker keeps.
const OUTPUT_MAX: usize = 4096;
/// What a check shows as exit code that came to none: Docker's.
const NO_EXIT_CODE: i32 = -1;
/// Docker's values where a check does not say.
const INTERVAL: Duration = Duration::from_secs(30);
const TIMEOUT: Duration = Duration::from_secs(30);
const RETRIES: u32 = 3;

/// A health check, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    rules: HealthRules,
    args: Vec<String>,
}

impl Check {
    /// `None` when there is nothing to run: the check of the image, which ECS ignores, is none.
    pub fn read(check: &Healthcheck) -> Option<Check> {
        let test = check.test.as_deref().unwrap_or_default();
        let args = match test.split_first() {
            Some((kind, args)) if kind == "CMD" && !args.is_empty() => args.to_vec(),
            Some((kind, [line, ..])) if kind == "CMD-SHELL" => {
                vec!["/bin/sh".to_owned(), "-c".to_owned(), line.clone()]
            }
            _ => return None,
        };
        let nanos = |value: Option<i64>| {
            value
                .and_then(|nanos| u64::try_from(nanos).ok())
                .filter(|nanos| *nanos > 0)
                .map(Duration::from_nanos)
        };
        let retries = check.retries.and_then(|retries| u32::try_from(retries).ok());
        let rules = HealthRules {
            interval: nanos(check.interval).unwrap_or(INTERVAL),
            timeout: nanos(check.timeout).unwrap_or(TIMEOUT),
            retries: retries.filter(|retries| *retries > 0).unwrap_or(RETRIES),
            start_period: nanos(check.start_period).unwrap_or_default(),
        };
        Some(Check { rules, args })
    }
}

/// What the latest check showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    pub status: HealthStatus,
    /// When the status became this one.
    pub since: Timestamp,
    pub exit_code: i32,
    pub output: String,
}

/// Checks a container until it runs no more, and tells each result.
pub async fn keep_checking<R: Runtime, T: Future<Output = ()>>(
    runtime: R,
    id: ContainerId,
    check: Check,
    mut health: Health,
    tell: impl Fn(Report) -> T,
) {
    loop {
        tokio::time::sleep(check.rules.interval).await;
        let began = crate::driver::now();
        let (exit_code, output) = match probe(&runtime, &id, &check).await {
            Ok(result) => result,
            Err(RuntimeError::Unknown(_) | RuntimeError::NotRunning(_)) => return,
            Err(error) => (NO_EXIT_CODE, error.to_string()),
        };
        let now = crate::driver::now();
        health.checked(&check.rules, began, exit_code == 0, now);
        tell(Report { status: health.status, since: health.since, exit_code, output }).await;
    }
}

/// Runs the check once; its exit code and output.
async fn probe<R: Runtime>(
    runtime: &R,
    id: &ContainerId,
    check: &Check,
) -> Result<(i32, String), RuntimeError> {
    let request = ExecRequest { args: check.args.clone(), env: Vec::new(), cwd: None, user: None, tty: None };
    let run = async {
        let Exec { stdin, stdout, stderr, exit, .. } = runtime.exec(id, request).await?;
        // A check that reads finds its end of input at once.
        drop(stdin);
        let (out, err, code) = tokio::join!(head(stdout), head(stderr), exit);
        let mut output = out;
        output.extend_from_slice(&err);
        output.truncate(OUTPUT_MAX);
        Ok((code?, String::from_utf8_lossy(&output).into_owned()))
    };
    // Dropped at the end of its time, the program is killed.
    match tokio::time::timeout(check.rules.timeout, run).await {
        Ok(result) => result,
        Err(_) => {
            let text = format!("Health check exceeded timeout ({:?})", check.rules.timeout);
            Ok((NO_EXIT_CODE, text))
        }
    }
}

/// The beginning of what a program writes. The rest is read and dropped, so that it does not wait for a reader.
async fn head(mut from: Output) -> Vec<u8> {
    let mut kept = Vec::new();
    let mut buffer = [0; 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        let room = OUTPUT_MAX - kept.len();
        kept.extend_from_slice(&buffer[..count.min(room)]);
    }
    kept
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn read(test: &[&str]) -> Option<Check> {
        let test = Some(test.iter().map(|word| (*word).to_owned()).collect());
        Check::read(&Healthcheck { test, interval: Some(5_000_000_000), ..Healthcheck::default() })
    }

    #[test]
    fn both_forms_of_a_command_are_run_and_none_is_none() {
        assert_eq!(read(&["CMD", "/bin/probe", "-v"]).unwrap().args, ["/bin/probe", "-v"]);
        let shell = read(&["CMD-SHELL", "exit 0"]).unwrap();
        assert_eq!(shell.args, ["/bin/sh", "-c", "exit 0"]);
        let expected = HealthRules {
            interval: Duration::from_secs(5),
            timeout: TIMEOUT,
            retries: RETRIES,
            start_period: Duration::ZERO,
        };
        assert_eq!(shell.rules, expected);
        for test in [&["NONE"][..], &[], &["CMD"], &["CMD-SHELL"], &["true"]] {
            assert_eq!(read(test), None, "{test:?}");
        }
    }
}
