//! The batch sample: counts primes range by range, reports as it goes, and ends.
//!
//! `JOB_RANGES` (default 10) and `JOB_SECONDS` (default 2) say how much and how slowly, `JOB_EXIT_CODE` how it ends.
//! `JOB_LINES` has it write so many numbered lines beside each range, to see what becomes of a lot of output.

use super::signals;
use std::io::{BufWriter, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Numbers per range: some milliseconds of work.
const RANGE: u64 = 20_000;
/// Exit code of a process that SIGTERM ended: 128 and the signal's number.
const TERMINATED: i32 = 143;

pub fn main() -> ExitCode {
    signals::exit_on_stop(TERMINATED, "stopped before the end\n");
    let ranges = setting("JOB_RANGES", 10).clamp(1, 1_000_000);
    let pace = Duration::from_secs(setting("JOB_SECONDS", 2)) / u32::try_from(ranges).unwrap_or(u32::MAX);
    if let Ok(bucket) = std::env::var("S3_BUCKET") {
        println!("working for bucket {bucket} (the sample reads and writes nothing there)");
    }
    let lines = setting("JOB_LINES", 0);
    let mut found = 0;
    for range in 0..ranges {
        let start = Instant::now();
        found += primes(range * RANGE, (range + 1) * RANGE);
        println!("{}% {found} primes below {}", (range + 1) * 100 / ranges, (range + 1) * RANGE);
        if let Err(error) = write_lines(range * lines, lines) {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
        std::thread::sleep(pace.saturating_sub(start.elapsed()));
    }
    println!("done");
    ExitCode::from(u8::try_from(setting("JOB_EXIT_CODE", 0)).unwrap_or(u8::MAX))
}

/// Lines of a hundred bytes, as applications write them.
fn write_lines(first: u64, count: u64) -> std::io::Result<()> {
    let mut out = BufWriter::new(std::io::stdout().lock());
    for number in first..first + count {
        writeln!(out, "line {number:010} {:.<83}", "of the batch sample ")?;
    }
    out.flush()
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

/// How many primes there are in `from..to`.
fn primes(from: u64, to: u64) -> usize {
    let is_prime = |n: u64| n >= 2 && (2..).take_while(|d| d * d <= n).all(|d| !n.is_multiple_of(d));
    (from..to).filter(|n| is_prime(*n)).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn primes_are_counted() {
        assert_eq!(primes(0, 100), 25);
        assert_eq!(primes(100, 1000) + primes(0, 100), 168);
        assert_eq!(primes(0, RANGE), 2262);
    }
}
