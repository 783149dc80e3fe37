//! The caller's own identity.

use crate::call::{Call, Principal};
use crate::tx::View;
use gantry_api::sts;
use gantry_wire::ApiError;

pub fn get_caller_identity(
    _view: View<'_>,
    call: &Call,
    _request: sts::GetCallerIdentityRequest,
) -> Result<sts::GetCallerIdentityResponse, ApiError> {
    let account = call.caller.scope.account.to_string();
    let user_id = match &call.caller.principal {
        // The account itself has its number for an id.
        Principal::Root => account.clone(),
        Principal::Agent | Principal::Balancer | Principal::Activation(_) | Principal::Machine(_) => {
            call.caller.access_key_id.clone()
        }
        Principal::Role(session) => session.user_id(),
    };
    Ok(sts::GetCallerIdentityResponse {
        user_id: Some(user_id),
        account: Some(account),
        arn: Some(call.caller.arn()),
    })
}
