//! What others may do with Auto Scaling: ECS's capacity providers with groups, and the acting side with machines.
//!
//! Whoever makes machines reads [`machines`] from a snapshot, does what is wanted as often as needed (each want stands
//! until its report came), and reports. Reports that come late or twice change nothing.

use super::state::{AutoScalingGroup, AutoScalingState, Instance};
use crate::services::ec2::links::LaunchData;
use crate::tx::{Tx, View};
use gantry_decide::ids::{AutoScalingGroupName, Ec2InstanceId};
use gantry_decide::scaling::lifecycle::MachineState;
use std::collections::BTreeMap;

/// How a machine is to be made.
#[derive(Clone, Debug, PartialEq)]
pub struct MachineSpec {
    pub group: AutoScalingGroupName,
    pub zone: String,
    pub subnet: Option<String>,
    pub instance_type: String,
    pub image_id: Option<String>,
    pub tags: BTreeMap<String, String>,
    data: Option<LaunchData>,
}

impl MachineSpec {
    /// Base64, as given.
    pub fn user_data(&self) -> Option<&str> {
        self.data.as_ref().and_then(LaunchData::user_data)
    }
}

/// What is wanted of a machine.
#[derive(Clone, Debug, PartialEq)]
pub enum Want {
    Create(Box<MachineSpec>),
    Keep,
    Destroy,
}

/// What became of a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// It runs; by which address hosts reach it, where that is known.
    Running { address: Option<String> },
    /// It could not be made, and nothing of it is left; why.
    Failed(String),
    /// It ran, and does no more; why.
    Lost(String),
    /// Nothing of it is left.
    Gone,
}

/// Every machine of a scope, and what is wanted of it.
pub fn machines(state: &AutoScalingState) -> impl Iterator<Item = (Ec2InstanceId, Want)> {
    state.instances.values().filter_map(|instance| Some((instance.id, want(instance)?)))
}

fn want(instance: &Instance) -> Option<Want> {
    Some(match instance.machine {
        MachineState::Wanted => Want::Create(Box::new(MachineSpec {
            group: instance.group.clone(),
            zone: instance.zone.clone(),
            subnet: instance.subnet.clone(),
            instance_type: instance.instance_type.clone(),
            image_id: instance.image_id.clone(),
            tags: instance.tags.clone(),
            data: instance.data.clone(),
        })),
        MachineState::Running | MachineState::Failed => Want::Keep,
        MachineState::Unwanted => Want::Destroy,
        MachineState::Gone => return None,
    })
}

/// Takes in what became of a machine.
pub fn report(tx: &mut Tx<'_>, id: Ec2InstanceId, report: Report) {
    let Some(mut instance) = tx.state.autoscaling.instance(&id).cloned() else { return };
    match (instance.machine, report) {
        (MachineState::Wanted, Report::Running { address }) => {
            instance.machine = MachineState::Running;
            instance.address = address;
            // It may hold secrets, and nobody needs it any more.
            instance.data = None;
        }
        (MachineState::Wanted, Report::Failed(why)) | (MachineState::Running, Report::Lost(why)) => {
            instance.machine = MachineState::Failed;
            instance.failure = Some(why);
        }
        (MachineState::Unwanted, Report::Gone) => instance.machine = MachineState::Gone,
        _ => return,
    }
    tx.state.autoscaling.instances.put(instance);
}

/// The group that an ARN names, or a name alone.
pub fn group<'a>(view: View<'a>, text: &str) -> Option<&'a AutoScalingGroup> {
    let name = text.rsplit_once("autoScalingGroupName/").map_or(text, |(_, name)| name);
    let group = view.state.autoscaling.group(&name.parse().ok()?)?;
    (name == text || group.arn(view.scope) == text).then_some(group)
}
