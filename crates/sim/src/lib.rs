//! Doubts: runs the real control plane against a slow and crashing store under a virtual clock, everything drawn from
//! one seed, and checks what must always hold. The same seed gives the same run. Never shipped.

pub mod agent;
mod calls;
pub mod campaign;
pub mod fleet;
#[cfg(any(feature = "mutants", debug_assertions))]
pub mod hunt;
pub mod metal;
pub mod oracle;
mod rest;
pub mod trial;
pub mod workload;
pub mod world;

use gantry_control::load::{Loading, Row};
use gantry_control::roles::{LIFETIME, Roles};
use gantry_control::state::State;
use gantry_decide::random::{Random, Seeded};
use gantry_store::Backend;
use gantry_store::memory::MemoryBackend;
use gantry_wire::sigv4::SessionKey;
use std::ops::ControlFlow;
use world::World;

/// How often each thing happens, in shares of the sum.
#[derive(Clone, Copy, Debug)]
pub struct Faults {
    pub calls: usize,
    pub syncs: usize,
    pub ticks: usize,
    pub crashes: usize,
}

impl Default for Faults {
    fn default() -> Self {
        // A crash every hundred steps or so leaves time for batches to pile up before it.
        Faults { calls: 60, syncs: 30, ticks: 9, crashes: 1 }
    }
}

/// What a new process finds in the store: the state, and the number of its last batch.
pub(crate) fn stored(backend: &mut MemoryBackend) -> (State, u64) {
    let mut loading = Loading::default();
    let load = |key: &str, value: &[u8]| {
        let row = Row::read(key, value);
        loading.take(row.unwrap_or_else(|error| panic!("the store's own record: {error:?}")));
        ControlFlow::Continue(())
    };
    let last_seq = backend.load(&mut { load }).expect("memory can be read");
    let state = loading.finish().expect("definitions are stored with their tasks");
    (state, last_seq)
}

/// Runs `steps` steps from `seed` and checks the state after each, then lets everything settle and checks once more.
///
/// # Panics
/// When something does not hold; the message names the seed and the step.
pub fn run(seed: u64, steps: usize, faults: Faults) -> Summary {
    let mut random = Seeded::new(seed);
    let mut world = World::new(random.next_u64());
    let mut summary = Summary::default();
    for step in 0..steps {
        let at = random.below(faults.calls + faults.syncs + faults.ticks + faults.crashes);
        if at < faults.calls {
            world.call(workload::any(&mut random));
            summary.calls += 1;
        } else if at < faults.calls + faults.syncs {
            world.sync();
        } else if at < faults.calls + faults.syncs + faults.ticks {
            world.pass_time(random.below(120_000) as u64);
        } else {
            world.crash(random.below(4));
            summary.crashes += 1;
        }
        world.check(seed, step);
    }
    world.settle();
    world.check(seed, steps);
    summary.acknowledged = world.acknowledged();
    summary
}

/// What a run did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    pub calls: usize,
    pub crashes: usize,
    pub acknowledged: usize,
}

/// Issues credentials of tasks' roles; the same on every run.
fn roles() -> Roles {
    Roles::new(SessionKey::new(&[1; SessionKey::LENGTH]), LIFETIME)
}
