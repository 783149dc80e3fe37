//! `gantry alarm`: what alarms say, for deployments that watch them.

use crate::api::ApiArgs;
use anyhow::Result;
use clap::{Args, ValueEnum};
use gantry_api::gantry::{
    AlarmStateValue, DeleteAlarm, DeleteAlarmRequest, ListAlarms, ListAlarmsRequest, SetAlarmState,
    SetAlarmStateRequest,
};
use std::io::Write;

/// Show what alarms say, or tell that one of them says something else
///
/// A deployment whose service names the alarm in deploymentConfiguration.alarms fails when it comes to say ALARM. Whatever
/// watches your systems can call this.
#[derive(Debug, Args)]
pub struct AlarmArgs {
    /// Name of the alarm
    #[arg(requires = "state")]
    name: Option<String>,
    /// What it says from now on
    #[arg(value_enum)]
    state: Option<State>,
    /// Why
    #[arg(long, default_value = "")]
    reason: String,
    #[command(flatten)]
    api: ApiArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum State {
    #[value(name = "OK", alias = "ok")]
    Ok,
    #[value(name = "ALARM", alias = "alarm")]
    Alarm,
    #[value(name = "INSUFFICIENT_DATA", alias = "insufficient_data")]
    InsufficientData,
    /// There is no such alarm any more
    #[value(name = "deleted")]
    Deleted,
}

pub fn run(arguments: &AlarmArgs, out: &mut impl Write) -> Result<()> {
    let api = arguments.api.connect()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (Some(alarm_name), Some(state)) = (arguments.name.clone(), arguments.state) else {
        return runtime.block_on(list(&api, out));
    };
    let state_value = match state {
        State::Ok => AlarmStateValue::Ok,
        State::Alarm => AlarmStateValue::Alarm,
        State::InsufficientData => AlarmStateValue::InsufficientData,
        State::Deleted => {
            runtime.block_on(api.gantry::<DeleteAlarm>(&DeleteAlarmRequest { alarm_name }))?;
            return Ok(());
        }
    };
    let state_reason = Some(arguments.reason.clone());
    let request = SetAlarmStateRequest { alarm_name, state_value, state_reason };
    runtime.block_on(api.gantry::<SetAlarmState>(&request))?;
    Ok(())
}

async fn list(api: &crate::api::Api, out: &mut impl Write) -> Result<()> {
    let mut request = ListAlarmsRequest::default();
    loop {
        let page = api.gantry::<ListAlarms>(&request).await?;
        for alarm in page.alarms.into_iter().flatten() {
            let reason = alarm.state_reason.unwrap_or_default();
            writeln!(out, "{:18} {}  {reason}", alarm.state_value.as_str(), alarm.alarm_name)?;
        }
        request.next_token = page.next_token;
        if request.next_token.is_none() {
            return Ok(());
        }
    }
}
