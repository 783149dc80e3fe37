//! Leases: how long the control plane counts on an agent of which it hears nothing, and until when such an agent lets its
//! tasks run.
//!
//! An agent that holds a lease asks for a new one several times a second. It counts from when it asked, the control plane
//! from when it heard, which is later, and waits a margin on top: so the agent has ended its tasks before they are given
//! to others, however long messages take. Both measure time that no clock setting changes. An agent without a lease is
//! waited for as long as the operator says.

mod grantor;
mod holder;

pub use grantor::Leases;
pub use holder::Holder;

use std::time::Duration;

/// What the control plane grants, and how long it waits for whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// How long a lease is good, from the time at which its agent asked for it.
    pub length: Duration,
    /// How often agents are to ask.
    pub renew_every: Duration,
    /// What is waited on top of a lease before its tasks are given away: for the end of its tasks, and for clocks that are
    /// set by less than shows.
    pub margin: Duration,
    /// After which silence the tasks of an agent that holds no lease are given away.
    pub without: Duration,
    /// How long all agents have to come back after a start of the control plane. They try on after pauses, and what they
    /// held before is not known any more.
    pub grace: Duration,
    /// How often the control plane looks at its clock at least while anything runs out. What passes between two looks
    /// beyond [`Terms::leap`] counts as one look: it was no time to hear anything in, for it was stopped, or its clock set.
    pub look_every: Duration,
    pub leap: Duration,
}

impl Terms {
    /// An agent may be stopped for two seconds and keeps its tasks; when its host dies they run elsewhere within three.
    pub const USUAL: Terms = Terms {
        length: Duration::from_millis(2250),
        renew_every: Duration::from_millis(200),
        margin: Duration::from_millis(300),
        without: Duration::from_secs(300),
        grace: Duration::from_secs(130),
        look_every: Duration::from_millis(100),
        leap: Duration::from_millis(250),
    };

    /// The usual proportions for leases of another length.
    pub fn of(length: Duration, without: Duration) -> Terms {
        let share = |usual: Duration| usual.mul_f64(length.as_secs_f64() / Terms::USUAL.length.as_secs_f64());
        let renew_every = share(Terms::USUAL.renew_every);
        // Who waits longer for a lease to end waits longer for agents to come back.
        let grace = Terms::USUAL.grace.max(length * 2);
        Terms { length, without, renew_every, grace, ..Terms::USUAL }
    }

    /// How long the agent may go on when the control plane is known not to run: one that starts after this waits longer.
    pub fn absence(&self) -> Duration {
        self.grace.saturating_sub(self.margin + self.length)
    }
}
