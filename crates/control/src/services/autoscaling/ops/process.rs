//! Suspending what a group does by itself.

use crate::call::Call;
use crate::services::autoscaling::activity::at;
use crate::services::autoscaling::check;
use crate::services::autoscaling::errors::AutoScalingError;
use crate::tx::Tx;
use gantry_api::autoscaling as shape;
use gantry_decide::scaling::lifecycle::Process;

/// The processes that a request names; all where it names none.
fn named(given: Option<&[String]>) -> Result<Vec<Process>, AutoScalingError> {
    let given = given.unwrap_or_default();
    if given.is_empty() {
        return Ok(Process::ALL.to_vec());
    }
    let read = |text: &String| {
        let text: String = text.chars().take(64).collect();
        Process::read(&text)
            .ok_or_else(|| AutoScalingError::invalid(format!("{text} is not a valid scaling process type")))
    };
    given.iter().map(read).collect()
}

pub fn suspend_processes(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: shape::ScalingProcessQuery,
) -> Result<shape::SuspendProcessesResponse, AutoScalingError> {
    let mut group = check::living_group(&tx.state.autoscaling, &request.auto_scaling_group_name)?;
    let reason = format!("User suspended at {}", at(tx.now));
    for process in named(request.scaling_processes.as_deref())? {
        group.suspended.entry(process).or_insert_with(|| reason.clone());
    }
    tx.state.autoscaling.groups.put(group);
    Ok(shape::SuspendProcessesResponse::default())
}

pub fn resume_processes(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: shape::ScalingProcessQuery,
) -> Result<shape::ResumeProcessesResponse, AutoScalingError> {
    let mut group = check::living_group(&tx.state.autoscaling, &request.auto_scaling_group_name)?;
    for process in named(request.scaling_processes.as_deref())? {
        group.suspended.remove(&process);
    }
    tx.state.autoscaling.groups.put(group);
    Ok(shape::ResumeProcessesResponse::default())
}
