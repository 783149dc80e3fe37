//! Planted bugs, of the kinds that are told of after real failures: they show what the simulator would notice.
//!
//! Builds for development know them, so that every test run can see that the oracles are not blind, and optimised ones
//! with the feature `mutants`. In all others [`is`] is a constant, and nothing is left of its branches.

/// Every bug that can be planted.
pub const ALL: &[&str] = &[
    "minimum rounded down",
    "maximum rounded up",
    "stopping tasks not counted",
    "starting tasks count as healthy",
    "old tasks stopped at once",
    "one task too many stopped",
    "success before all are healthy",
    "daemon ignores the minimum",
    "daemon starts beside one that stops",
    "daemon stays where it may not be",
    "breaker never trips",
    "no end of a failed rollback",
    "superseded attempt goes on",
    "old revision stopped before the bake",
    "steps of traffic without a pause",
    "all of the traffic in the first step",
    "a share of the traffic lost",
    "traffic to tasks that are not well",
    "traffic left behind on the way back",
    "hooks not waited for",
    "hooks that time out pass",
    "hooks asked once more",
    "old revisions stopped before the source stands",
    "source of the traffic forgotten",
    "failed source started again",
    "shares of task sets rounded down",
    "deleted task sets keep their tasks",
    "deleted task sets stay",
    "zones never rebalanced",
    "rebalancing stops the old task first",
    "old deployments kept",
    "old tasks count as new",
    "one more chosen to stop",
    "ends of tasks not noted",
    "draining ignored",
    "memory not counted",
    "cpu not counted",
    "ports not counted",
    "ports never given back",
    "distinctInstance ignored",
    "memberOf ignored",
    "tasks placed on silent agents",
    "tasks placed on draining instances",
    "stale free capacity",
    "one address given twice",
    "answers before they are durable",
    "released one batch too early",
    "stops of strays not confirmed",
    "hand-over not remembered",
    "stop not told",
    "changes of tasks not told",
    "no news after a reconnect",
    "an old connection's end counts",
    "leaps of the clock counted",
    "lease shorter for the server",
    "lease counted from its answer",
    "lease never ends for the agent",
    "lost agents waited for for ever",
    "lost agents keep their tasks",
    "stopped without the agent's word",
    "stopped tasks forgotten at once",
    "late reports believed",
    "ends of tasks not believed",
    "failed reports dropped",
    "reports forgotten in a restart",
    "running containers started again",
    "stop forgotten in a restart",
    "draining not waited for",
    "deregistered after the stop",
    "unhealthy targets count as healthy",
    "targets count before anybody looked",
    "rules keep their weights",
    "dead balancers waited for for ever",
    "drained for one is drained for all",
    "machines go with their tasks",
    "protection forgotten",
    "maximum size ignored",
    "warm-up ignored",
    "groups shrink at once",
    "lost machines not replaced",
    "base ignored",
    "spot tasks go unwarned",
];

#[cfg(any(feature = "mutants", debug_assertions))]
thread_local! {
    static PLANTED: std::cell::Cell<&'static str> = const { std::cell::Cell::new("") };
}

/// Plants a bug in all that this thread runs; the empty name removes it.
#[cfg(any(feature = "mutants", debug_assertions))]
pub fn plant(name: &'static str) {
    PLANTED.set(name);
}

/// Whether this bug is planted.
#[cfg(any(feature = "mutants", debug_assertions))]
pub fn is(name: &str) -> bool {
    let planted = PLANTED.get();
    // Asked all the time, and nearly always in vain.
    if planted.is_empty() {
        return false;
    }
    debug_assert!(ALL.contains(&name), "{name} is on no list");
    planted == name
}

/// Whether this bug is planted: never.
#[cfg(not(any(feature = "mutants", debug_assertions)))]
#[inline(always)]
pub const fn is(_name: &str) -> bool {
    false
}
