//! Leases of agents' tasks, and what becomes of those whose agents are silent.
//!
//! An extension of ours: agents that announce [`ATTRIBUTE`] ask for leases, and end their tasks when they get none. Others
//! are waited for longer, because what runs on their hosts may run on.

use super::{Owner, SessionOutput};
use crate::services::ecs::state::{ContainerInstance, ContainerInstanceStatus};
use crate::state::State;
use gantry_api::acs;
use gantry_decide::lease::{Leases, Terms};
use gantry_decide::time::Timestamp;
use gantry_wire::envelope::seal;
use std::time::Duration;

/// What an agent announces that holds leases.
pub const ATTRIBUTE: &str = "gantry.lease";

/// Whether the instance's agent ends its tasks when it gets no lease.
pub fn is_held(instance: &ContainerInstance) -> bool {
    instance.attributes.contains_key(ATTRIBUTE)
}

/// A new process: everybody is waited for, whatever was before.
pub fn begin(leases: &mut Leases<Owner>, state: &State) {
    let terms = leases.terms();
    for (scope, scope_state) in state.scopes() {
        for (key, instance) in scope_state.ecs.container_instances().iter() {
            let knows = instance.agent_connected || instance.disconnected_at.is_some();
            if instance.status == ContainerInstanceStatus::Inactive || instance.lost_at.is_some() || !knows {
                continue;
            }
            let wait = if is_held(instance) || instance.agent_connected {
                terms.grace
            } else {
                terms.grace.max(terms.without)
            };
            leases.extend((scope.clone(), key.clone()), wait);
        }
    }
}

/// Takes a request in, and answers it.
pub fn grant(leases: &mut Leases<Owner>, owner: Owner, request: &acs::LeaseRequest) -> SessionOutput {
    let terms = leases.terms();
    let number = request.number.unwrap_or(0);
    if request.leaving.unwrap_or(false) {
        leases.extend(owner, terms.grace);
        return message(terms, number, terms.absence());
    }
    let held = u64::try_from(request.held_millis.unwrap_or(0)).unwrap_or(0);
    // No agent holds more than it was given.
    leases.grant(owner, Duration::from_millis(held).min(terms.grace));
    message(terms, number, terms.length)
}

pub fn message(terms: Terms, number: i64, length: Duration) -> SessionOutput {
    let millis = |time: Duration| i64::try_from(time.as_millis()).ok();
    let message = acs::LeaseMessage {
        number: Some(number),
        length_millis: millis(length),
        renew_millis: millis(terms.renew_every),
        absence_millis: millis(terms.absence()),
    };
    SessionOutput::Send(seal("LeaseMessage", &message))
}

/// The agent is there no more; its tasks run on for now.
pub fn disconnected(now: Timestamp, owner: &Owner, state: &mut State) {
    change(owner, state, |instance| {
        let was = std::mem::replace(&mut instance.agent_connected, false);
        if was {
            instance.disconnected_at = Some(now);
        }
        was
    });
}

/// The agent was waited for in vain: its tasks are given up.
pub fn lost(now: Timestamp, owner: &Owner, state: &mut State) {
    change(owner, state, |instance| {
        instance.agent_connected = false;
        instance.disconnected_at.get_or_insert(now);
        instance.lost_at.replace(now).is_none()
    });
}

fn change((scope, key): &Owner, state: &mut State, change: impl FnOnce(&mut ContainerInstance) -> bool) {
    let known = state.get(scope).and_then(|state| state.ecs.container_instance(key));
    let known = known.filter(|instance| instance.status != ContainerInstanceStatus::Inactive);
    if let Some(mut instance) = known.cloned()
        && change(&mut instance)
    {
        instance.version += 1;
        state.edit(scope).ecs.put_container_instance(instance);
    }
}
