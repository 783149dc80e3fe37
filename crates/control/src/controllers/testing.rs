//! Controllers in the scripts of a service's tests: run on a world until nothing moves.
#![allow(clippy::unwrap_used)]

pub mod fleet;

use super::Controller;
use crate::services::ecs::tests::world::World;
use crate::tx::View;

/// More rounds than any chain of reactions needs.
const ROUNDS_MAX: usize = 50;

/// Looks at every key once. True if anything was changed.
pub fn round<C: Controller>(world: &mut World) -> bool {
    let mut changed = false;
    let keys = C::all(View { scope: &world.scope, state: &world.state, now: world.now });
    for key in keys {
        let view = View { scope: &world.scope, state: &world.state, now: world.now };
        if let (Some(plan), _) = C::plan(view, &key, &mut world.random) {
            world.edit(|tx| C::apply(tx, &key, plan));
            changed = true;
        }
    }
    changed
}

/// Looks at every key again and again until a whole round changes nothing.
pub fn settle<C: Controller>(world: &mut World) {
    for _ in 0..ROUNDS_MAX {
        if !round::<C>(world) {
            return;
        }
    }
    panic!("{} does not come to rest", C::NAME);
}
