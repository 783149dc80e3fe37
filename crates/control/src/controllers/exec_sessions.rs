//! Sessions of ECS Exec are forgotten once nobody may open them any more.

use super::{Controller, LookAgain};
use crate::services::ecs::state::EXEC_OPEN_MAX;
use crate::state::Change;
use crate::tx::{Tx, View};
use gantry_decide::ids::ExecSessionId;
use gantry_decide::random::Random;
use std::collections::BTreeSet;

/// See the module.
pub struct ExecSessions;

impl Controller for ExecSessions {
    const NAME: &'static str = "exec-sessions";
    type Key = ExecSessionId;
    type Plan = ();

    fn watches(_view: View<'_>, change: &Change, keys: &mut BTreeSet<ExecSessionId>) {
        if let Change::ExecSession(id) = change {
            keys.insert(*id);
        }
    }

    fn all(view: View<'_>) -> Vec<ExecSessionId> {
        view.state.ecs.exec_sessions.iter().map(|(id, _)| *id).collect()
    }

    fn plan(view: View<'_>, id: &ExecSessionId, _random: &mut dyn Random) -> (Option<()>, LookAgain) {
        let Some(session) = view.state.ecs.exec_sessions.get(id) else { return (None, None) };
        let until = session.made_at + EXEC_OPEN_MAX;
        if until <= view.now { (Some(()), None) } else { (None, Some(until)) }
    }

    fn apply(tx: &mut Tx<'_>, id: &ExecSessionId, (): ()) {
        tx.state.ecs.exec_sessions.remove(id);
    }
}
