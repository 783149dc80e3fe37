//! What other services may do with Systems Manager.

use super::state::ManagedInstance;
use crate::call::{Caller, Principal};
use crate::tx::{Tx, View};
use gantry_decide::ids::{ActivationId, ManagedInstanceId};
use gantry_wire::ApiError;

/// Why a machine cannot join.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CannotJoin {
    #[error("The activation does not exist in this region.")]
    Unknown,
    #[error("{0}")]
    Refused(&'static str),
}

/// Lets a machine join by an activation, and gives it its id.
///
/// # Errors
/// When there is no such activation, it has expired, or as many have joined as may.
pub fn register(tx: &mut Tx<'_>, id: ActivationId) -> Result<ManagedInstanceId, CannotJoin> {
    let activation = tx.state.ssm.activations.get(&id).ok_or(CannotJoin::Unknown)?;
    if let Some(why) = activation.refuses(tx.now) {
        return Err(CannotJoin::Refused(why));
    }
    let mut activation = activation.as_ref().clone();
    activation.count += 1;
    let machine = ManagedInstance {
        id: ManagedInstanceId::random(tx.random),
        activation: id,
        name: activation.default_instance_name.clone(),
        iam_role: activation.iam_role.clone(),
        registered_at: tx.now,
    };
    let id = machine.id;
    tx.state.ssm.activations.put(activation);
    tx.state.ssm.managed_instances.put(machine);
    Ok(id)
}

/// Whether the caller is still one of ours. Keys of machines follow from their ids: one that was deregistered has its own
/// for ever, and only this check tells.
///
/// # Errors
/// `AccessDeniedException` for a machine that is not, or no longer, registered.
pub fn check_caller(view: View<'_>, caller: &Caller) -> Result<(), ApiError> {
    let Principal::Machine(machine) = &caller.principal else { return Ok(()) };
    match view.state.ssm.managed_instances.get(&machine.id) {
        Some(known) if known.activation == machine.activation => Ok(()),
        _ => Err(ApiError::new(
            "AccessDeniedException",
            format!("The managed instance {} is not registered.", machine.id),
        )),
    }
}
