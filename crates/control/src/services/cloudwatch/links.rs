//! What other services may ask of CloudWatch, and tell it.

use super::state::Alarm;
use crate::tx::{Tx, View};
use gantry_decide::deployment::alarms::AlarmState;
use gantry_decide::ids::AlarmName;

/// Alarms of a scope: a multiple of those that services can name, and small in memory.
const ALARMS_MAX: usize = 10_000;

/// There are as many alarms as may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("There can be at most {ALARMS_MAX} alarms.")]
pub struct TooManyAlarms;

/// What an alarm says; `None` of one that nobody knows.
pub fn state(view: View<'_>, name: &AlarmName) -> Option<AlarmState> {
    view.state.cloudwatch.alarms.get(name).map(|alarm| alarm.state)
}

/// All alarms, by name.
pub fn alarms(view: View<'_>) -> impl Iterator<Item = &Alarm> {
    view.state.cloudwatch.alarms.values().map(AsRef::as_ref)
}

/// An alarm says something now. One that nobody knew is known from then on.
///
/// # Errors
/// When it is one too many.
pub fn set(tx: &mut Tx<'_>, name: AlarmName, state: AlarmState, reason: String) -> Result<(), TooManyAlarms> {
    let known = tx.state.cloudwatch.alarms.get(&name);
    if known.is_none() && tx.state.cloudwatch.alarms.len() >= ALARMS_MAX {
        return Err(TooManyAlarms);
    }
    let since = known.filter(|known| known.state == state).map_or(tx.now, |known| known.since);
    tx.state.cloudwatch.alarms.put(Alarm { name, state, reason, since });
    Ok(())
}

/// Forgets an alarm; says whether it was known.
pub fn remove(tx: &mut Tx<'_>, name: &AlarmName) -> bool {
    tx.state.cloudwatch.alarms.remove(name).is_some()
}
