//! The machines of a scope, whoever wants them: Auto Scaling groups, or capacity providers of Managed Instances.
//!
//! Whoever makes machines reads [`machines`] from a snapshot, does what is wanted as often as needed (each want stands
//! until its report came), and reports. Reports that come late or twice change nothing.

use crate::services::{autoscaling, ec2, ecs};
use crate::state::ScopeState;
use crate::tx::Tx;
use ec2::links::LaunchData;
use gantry_decide::ids::{AutoScalingGroupName, CapacityProviderName, ClusterName, Ec2InstanceId};
use std::collections::BTreeMap;

/// Who wants a machine.
#[derive(Clone, Debug, PartialEq)]
pub enum Owner {
    /// A group, whose launch template says how the machine joins.
    Group { name: AutoScalingGroupName, data: Option<LaunchData> },
    /// A provider of Managed Instances, whose machines join its cluster.
    Provider { name: CapacityProviderName, cluster: ClusterName, spot: bool },
}

/// How a machine is to be made.
#[derive(Clone, Debug, PartialEq)]
pub struct MachineSpec {
    pub owner: Owner,
    pub zone: String,
    pub subnet: Option<String>,
    pub instance_type: String,
    pub image_id: Option<String>,
    pub tags: BTreeMap<String, String>,
}

impl MachineSpec {
    /// Base64, as given.
    pub fn user_data(&self) -> Option<&str> {
        match &self.owner {
            Owner::Group { data, .. } => data.as_ref().and_then(LaunchData::user_data),
            Owner::Provider { .. } => None,
        }
    }

    /// The group that wants it, if one does.
    pub fn group(&self) -> Option<&AutoScalingGroupName> {
        match &self.owner {
            Owner::Group { name, .. } => Some(name),
            Owner::Provider { .. } => None,
        }
    }

    /// The provider of Managed Instances that wants it, if one does.
    pub fn capacity_provider(&self) -> Option<&CapacityProviderName> {
        match &self.owner {
            Owner::Group { .. } => None,
            Owner::Provider { name, .. } => Some(name),
        }
    }

    /// Whether it may be one that is taken away at any time.
    pub fn is_spot(&self) -> bool {
        matches!(self.owner, Owner::Provider { spot: true, .. })
    }

    /// The cluster that it joins, where that is not left to user data.
    pub fn cluster(&self) -> Option<&ClusterName> {
        match &self.owner {
            Owner::Group { .. } => None,
            Owner::Provider { cluster, .. } => Some(cluster),
        }
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
pub fn machines(state: &ScopeState) -> impl Iterator<Item = (Ec2InstanceId, Want)> {
    autoscaling::links::machines(&state.autoscaling).chain(ecs::links::machines(&state.ecs))
}

/// Takes in what became of a machine.
pub fn report(tx: &mut Tx<'_>, id: Ec2InstanceId, report: Report) {
    if tx.state.autoscaling.instance(&id).is_some() {
        autoscaling::links::report(tx, id, report);
    } else {
        ecs::links::report(tx, id, report);
    }
}
