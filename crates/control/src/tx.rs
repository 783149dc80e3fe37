//! What a handler works on: a read sees an immutable [`View`], a write a private copy of its caller's state in a
//! [`Tx`] that is dropped whole when it fails.

use crate::services::ecs::placement::Placers;
use crate::state::ScopeState;
use gantry_decide::ids::Scope;
use gantry_decide::random::Random;
use gantry_decide::time::Timestamp;

/// One scope's state at one instant, immutable.
#[derive(Clone, Copy)]
pub struct View<'a> {
    pub scope: &'a Scope,
    pub state: &'a ScopeState,
    pub now: Timestamp,
}

/// One serialisable transaction on one scope's state. Nothing it wrote exists until the engine commits it; an error
/// drops it.
pub struct Tx<'a> {
    pub scope: &'a Scope,
    pub state: &'a mut ScopeState,
    pub now: Timestamp,
    pub random: &'a mut dyn Random,
    /// Outlives the transaction, whatever becomes of it: it only saves time.
    pub placers: &'a mut Placers,
}

impl Tx<'_> {
    /// The same state, to be read only.
    pub fn view(&self) -> View<'_> {
        View { scope: self.scope, state: self.state, now: self.now }
    }
}
