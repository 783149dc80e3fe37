//! Feeds damaged input to everything that reads from outside: `cargo xtask fuzz [TARGET] [SECONDS]`.
//!
//! Good samples are bent (bits, bytes, pieces cut, doubled and exchanged) and handed to the reader. An error is an
//! answer; a panic or a reader that takes long is a finding, printed with the input and the seed that made it.

mod balancing;
mod mutate;
mod targets;

use anyhow::{Result, bail};
use gantry_decide::random::{Random, Seeded};
use mutate::mutate;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use targets::{TARGETS, Target};

const SECONDS: u64 = 3;
/// No reader needs as long for inputs of some kilobytes, however busy the machine is.
const HANG: Duration = Duration::from_secs(5);

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let name = arguments.first().map(String::as_str).filter(|name| *name != "all");
    let seconds = arguments.get(1).map_or(Ok(SECONDS), |text| text.parse())?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos() as u64;
    let seed = arguments.get(2).map_or(Ok(now), |text| text.parse())?;
    let chosen: Vec<&Target> =
        TARGETS.iter().filter(|target| name.is_none_or(|name| name == target.name)).collect();
    if chosen.is_empty() {
        let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
        bail!("no target {}; there are {names:?}", name.unwrap_or_default());
    }
    for target in chosen {
        let tried = run(target, Duration::from_secs(seconds), seed)?;
        println!("{:12} {tried:>9} inputs, none makes it panic or hang", target.name);
    }
    Ok(())
}

fn run(target: &Target, time: Duration, seed: u64) -> Result<u64> {
    let samples = (target.samples)();
    let read = (target.reader)();
    let mut random = Seeded::new(seed);
    let start = Instant::now();
    let mut tried = 0;
    while start.elapsed() < time {
        let mut input = samples[random.below(samples.len())].clone();
        for _ in 0..=random.below(6) {
            mutate(&mut input, &samples, &mut random);
        }
        let begun = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(|| read(&input)));
        if outcome.is_err() || begun.elapsed() > HANG {
            let how = if outcome.is_err() { "makes it panic" } else { "makes it hang" };
            let shown = String::from_utf8_lossy(&input);
            bail!(
                "{}: an input of {} bytes {how} (seed {seed}):\n{shown}\n{input:?}",
                target.name,
                input.len()
            );
        }
        tried += 1;
    }
    Ok(tried)
}
