//! What leases promise, with the terms of real installations and under a virtual clock. `cargo xtask sim leases` measures
//! more of it.

use gantry_sim::fleet::silence::{Silence, measure};
use std::time::Duration;

#[test]
fn tasks_of_silent_agents_run_elsewhere_and_nobody_slow_is_given_up() {
    let mut all = Silence::default();
    (0..3).for_each(|seed| all.add(measure(seed, 12)));
    println!("{all:?}");
    assert!(all.elsewhere.len() > 5 && all.pauses > 5 && all.hangs > 5, "too little was tried");
    assert!(all.percentile(100) <= Duration::from_secs(3), "{:?}", all.elsewhere);
    assert_eq!(
        (all.false_deaths, all.fences),
        (0, 0),
        "who is slow for less than two seconds keeps its tasks"
    );
}
