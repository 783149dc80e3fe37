//! Sessions of ECS Exec are forgotten once nobody may open them any more, and those that went on with their tasks: the end
//! of a session is told by who carries it, who may have been away.

use super::{Controller, LookAgain};
use crate::services::ecs::state::{EXEC_LAST_MAX, EXEC_OPEN_MAX};
use crate::state::Change;
use crate::tx::{Tx, View};
use gantry_decide::ids::ExecSessionId;
use gantry_decide::lifecycle::LastStatus;
use gantry_decide::random::Random;
use std::collections::BTreeSet;
use std::time::Duration;

/// Between two looks at the task of a session that goes on.
const LOOK_EVERY: Duration = Duration::from_secs(60);

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
        let until = session.made_at + if session.opened { EXEC_LAST_MAX } else { EXEC_OPEN_MAX };
        let task = view.state.ecs.task(&session.task);
        let is_over = until <= view.now || task.is_none_or(|task| task.last_status == LastStatus::Stopped);
        let again = if session.opened { until.min(view.now + LOOK_EVERY) } else { until };
        if is_over { (Some(()), None) } else { (None, Some(again)) }
    }

    fn apply(tx: &mut Tx<'_>, id: &ExecSessionId, (): ()) {
        tx.state.ecs.exec_sessions.remove(id);
    }
}
