//! Trials: runs whose failure is caught and told in a line, and failures shrunk to the steps that they need.

use crate::fleet::plan::{Case, Plan, Script};
use crate::fleet::{Fleet, Report};
use crate::metal;
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

thread_local! {
    static TRIES: Cell<bool> = const { Cell::new(false) };
    static SAID: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Keeps what trials panic with, of every thread for itself, instead of printing it. All other panics are told as before.
fn keep_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = take_hook();
        set_hook(Box::new(move |info| {
            if !TRIES.get() {
                return usual(info);
            }
            let place = info.location().map(|at| format!("{}:{}", at.file(), at.line())).unwrap_or_default();
            SAID.with_borrow_mut(|said| {
                *said = format!("{place}: {}", info.payload_as_str().unwrap_or_default());
            });
        }));
    });
}

/// Runs a case.
///
/// # Errors
/// What did not hold, in a line.
pub fn attempt(case: &Case, plan: Plan) -> Result<Report, String> {
    catch(|| Fleet::run(case, plan))
}

/// Runs a seed's fleet and its growing cluster, and adds up what they did.
///
/// # Errors
/// What did not hold, in a line.
pub fn attempt_all(seed: u64) -> Result<Report, String> {
    let mut report = attempt(&Case::of(seed), Plan::SMALL)?;
    let metal = catch(|| metal::run(seed))?;
    report.simulated += metal.simulated;
    report.events += metal.events;
    for (fault, count) in metal.faults {
        *report.faults.entry(fault).or_default() += count;
    }
    Ok(report)
}

fn catch<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    keep_panics();
    TRIES.set(true);
    let run = catch_unwind(AssertUnwindSafe(run));
    TRIES.set(false);
    run.map_err(|_| SAID.with_borrow(Clone::clone))
}

/// Where a failure was noticed, without the names and numbers that differ from run to run.
fn place(failure: &str) -> &str {
    failure.split(": ").next().unwrap_or_default()
}

/// Leaves out steps of a failing seed while it still fails at the same place: halves first, single steps last.
pub fn shrink(seed: u64, plan: Plan) -> Option<(Case, String)> {
    let mut failure = attempt(&Case::of(seed), plan).err()?;
    let all = Script::of(seed, plan).steps.len();
    let mut kept: BTreeSet<usize> = (0..all).collect();
    let mut chunk = all.div_ceil(2);
    while chunk > 0 {
        let list: Vec<usize> = kept.iter().copied().collect();
        for some in list.chunks(chunk) {
            let mut fewer = kept.clone();
            fewer.retain(|step| !some.contains(step));
            let case = Case { seed, only: Some(fewer.clone()) };
            if let Err(found) = attempt(&case, plan)
                && place(&found) == place(&failure)
            {
                (kept, failure) = (fewer, found);
            }
        }
        chunk = if chunk == 1 { 0 } else { chunk.div_ceil(2) };
    }
    Some((Case { seed, only: Some(kept) }, failure))
}
