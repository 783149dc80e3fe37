//! Client tokens are forgotten once no client can mean them any more.

use super::{Controller, LookAgain};
use crate::services::ecs::state::{IdempotencyKey, TOKEN_MEMORY};
use crate::state::Change;
use crate::tx::{Tx, View};
use gantry_decide::random::Random;
use std::collections::BTreeSet;

/// See the module.
pub struct ClientTokens;

impl Controller for ClientTokens {
    const NAME: &'static str = "client-tokens";
    type Key = IdempotencyKey;
    type Plan = ();

    /// A token that is a resync too old does no harm.
    fn watches(_view: View<'_>, _change: &Change, _keys: &mut BTreeSet<IdempotencyKey>) {}

    fn all(view: View<'_>) -> Vec<IdempotencyKey> {
        let records = view.state.ecs.idempotency().iter();
        let old = records.filter(|(_, record)| record.made_at + TOKEN_MEMORY <= view.now);
        old.map(|(key, _)| key.clone()).collect()
    }

    fn plan(_view: View<'_>, _key: &IdempotencyKey, _random: &mut dyn Random) -> (Option<()>, LookAgain) {
        (Some(()), None)
    }

    fn apply(tx: &mut Tx<'_>, key: &IdempotencyKey, (): ()) {
        tx.state.ecs.remove_idempotency(key);
    }
}
