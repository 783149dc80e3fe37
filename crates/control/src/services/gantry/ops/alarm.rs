//! What alarms say: whoever watches a system tells it here, and deployments that name the alarms listen.

use crate::call::Call;
use crate::page::{LIST_MAX, Page};
use crate::services::cloudwatch::links;
use crate::services::gantry::errors::GantryError;
use crate::services::gantry::views;
use crate::tx::{Tx, View};
use gantry_api::gantry;
use gantry_decide::deployment::alarms::AlarmState;
use gantry_decide::ids::{AlarmName, InvalidId};

/// An alarm says OK, ALARM or INSUFFICIENT_DATA from now on. One that nobody knew is known with that.
///
/// # Errors
/// For a name or a state that there cannot be, and for one alarm too many.
pub fn set_alarm_state(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: gantry::SetAlarmStateRequest,
) -> Result<gantry::SetAlarmStateResponse, GantryError> {
    let name = name(&request.alarm_name)?;
    let wanted = request.state_value.as_str();
    let state = AlarmState::ALL.into_iter().find(|state| state.as_str() == wanted);
    let state = state.ok_or_else(|| {
        GantryError::InvalidParameter("The state must be OK, ALARM or INSUFFICIENT_DATA.".to_owned())
    })?;
    links::set(tx, name, state, request.state_reason.unwrap_or_default())
        .map_err(|error| GantryError::InvalidParameter(error.to_string()))?;
    Ok(gantry::SetAlarmStateResponse::default())
}

/// Forgets an alarm. One that nobody knows is no error: it is as wanted.
///
/// # Errors
/// For a name that no alarm can have.
pub fn delete_alarm(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: gantry::DeleteAlarmRequest,
) -> Result<gantry::DeleteAlarmResponse, GantryError> {
    let name = name(&request.alarm_name)?;
    links::remove(tx, &name);
    Ok(gantry::DeleteAlarmResponse::default())
}

/// The alarms that are known, by name.
///
/// # Errors
/// For a token that is none of ours, and a page too large.
pub fn list_alarms(
    view: View<'_>,
    _call: &Call,
    request: gantry::ListAlarmsRequest,
) -> Result<gantry::ListAlarmsResponse, GantryError> {
    let page = Page::read(request.next_token.as_deref(), request.max_results, LIST_MAX, LIST_MAX)
        .map_err(|error| GantryError::InvalidParameter(error.to_string()))?;
    let (alarms, next_token) = page.cut(links::alarms(view), |alarm| alarm.name.to_string(), views::alarm);
    Ok(gantry::ListAlarmsResponse { alarms: Some(alarms), next_token })
}

fn name(text: &str) -> Result<AlarmName, GantryError> {
    text.parse().map_err(|error: InvalidId| GantryError::InvalidParameter(error.to_string()))
}
