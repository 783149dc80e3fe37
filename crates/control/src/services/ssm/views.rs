//! Records as the API shows them.

use super::state::{Activation, ManagedInstance, Tags};
use crate::services::ecs;
use crate::tx::View;
use gantry_api::ssm;
use gantry_decide::time::Timestamp;
use gantry_wire::EpochMillis;

fn millis(at: Timestamp) -> Option<EpochMillis> {
    Some(EpochMillis(at.as_millis()))
}

fn tags(tags: &Tags) -> Vec<ssm::Tag> {
    tags.iter().map(|(key, value)| ssm::Tag { key: key.clone(), value: value.clone() }).collect()
}

pub fn activation(view: View<'_>, activation: &Activation) -> ssm::Activation {
    let number = |n: u32| i32::try_from(n).ok();
    ssm::Activation {
        activation_id: Some(activation.id.to_string()),
        description: activation.description.clone(),
        default_instance_name: activation.default_instance_name.clone(),
        iam_role: Some(activation.iam_role.clone()),
        registration_limit: number(activation.limit),
        registrations_count: number(activation.count),
        created_date: millis(activation.created_at),
        expiration_date: millis(activation.expires_at),
        expired: Some(activation.expires_at <= view.now),
        tags: Some(tags(&activation.tags)),
    }
}

/// A machine answers as long as its agent does: there is no other program of ours on it.
pub fn managed_instance(view: View<'_>, machine: &ManagedInstance) -> ssm::InstanceInformation {
    let id = machine.id.to_string();
    let instance = ecs::links::on_machine(view, &id).next();
    let (status, last_ping) = match instance {
        Some(instance) if instance.agent_connected => ("Online", view.now),
        Some(instance) => ("ConnectionLost", instance.disconnected_at.unwrap_or(machine.registered_at)),
        None => ("Inactive", machine.registered_at),
    };
    let version = instance.map(|instance| instance.agent.version.clone());
    ssm::InstanceInformation {
        instance_id: Some(id.clone()),
        activation_id: Some(machine.activation.to_string()),
        name: machine.name.clone(),
        iam_role: Some(machine.iam_role.clone()),
        registration_date: millis(machine.registered_at),
        last_ping_date_time: millis(last_ping),
        ping_status: status.parse().ok(),
        platform_type: "Linux".parse().ok(),
        resource_type: "ManagedInstance".parse().ok(),
        agent_version: version.filter(|version| !version.is_empty()),
        ..Default::default()
    }
}
