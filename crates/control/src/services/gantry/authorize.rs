//! What Gantry's own operations ask of IAM. They show more than one resource's state, so they are asked of all: roles of
//! tasks and agents' keys are not let in.

use crate::call::Demand;
use gantry_api::gantry;
use gantry_decide::ids::Scope;

pub fn explain(_: &gantry::ExplainRequest, _: &Scope) -> Demand {
    Demand::on_all("gantry:Explain")
}

pub fn list_events(_: &gantry::ListEventsRequest, _: &Scope) -> Demand {
    Demand::on_all("gantry:ListEvents")
}

pub fn list_alarms(_: &gantry::ListAlarmsRequest, _: &Scope) -> Demand {
    Demand::on_all("gantry:ListAlarms")
}

pub fn set_alarm_state(_: &gantry::SetAlarmStateRequest, _: &Scope) -> Demand {
    Demand::on_all("gantry:SetAlarmState")
}

pub fn delete_alarm(_: &gantry::DeleteAlarmRequest, _: &Scope) -> Demand {
    Demand::on_all("gantry:DeleteAlarm")
}
