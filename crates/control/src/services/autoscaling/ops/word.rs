//! The words that other requests may use.

use crate::call::Call;
use crate::services::autoscaling::errors::AutoScalingError;
use crate::tx::View;
use gantry_api::autoscaling as shape;
use gantry_decide::scaling::lifecycle::{Process, Transition};
use gantry_decide::scaling::termination::TerminationPolicy;

pub fn describe_lifecycle_hook_types(
    _view: View<'_>,
    _call: &Call,
    _request: shape::DescribeLifecycleHookTypesRequest,
) -> Result<shape::DescribeLifecycleHookTypesAnswer, AutoScalingError> {
    let types = Transition::ALL.iter().map(|transition| transition.as_str().to_owned());
    Ok(shape::DescribeLifecycleHookTypesAnswer { lifecycle_hook_types: Some(types.collect()) })
}

pub fn describe_scaling_process_types(
    _view: View<'_>,
    _call: &Call,
    _request: shape::DescribeScalingProcessTypesRequest,
) -> Result<shape::ProcessesType, AutoScalingError> {
    let processes = Process::ALL.iter();
    let processes = processes.map(|process| shape::ProcessType { process_name: process.as_str().to_owned() });
    Ok(shape::ProcessesType { processes: Some(processes.collect()) })
}

pub fn describe_termination_policy_types(
    _view: View<'_>,
    _call: &Call,
    _request: shape::DescribeTerminationPolicyTypesRequest,
) -> Result<shape::DescribeTerminationPolicyTypesAnswer, AutoScalingError> {
    let types = TerminationPolicy::ALL.iter().map(|policy| policy.as_str().to_owned());
    Ok(shape::DescribeTerminationPolicyTypesAnswer { termination_policy_types: Some(types.collect()) })
}
