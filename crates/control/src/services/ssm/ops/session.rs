//! Sessions of ECS Exec, whose clients ask Session Manager when they have lost their connection.

use crate::call::Call;
use crate::services::ecs;
use crate::services::ssm::errors::SsmError;
use crate::tx::Tx;
use gantry_api::ssm;
use gantry_decide::ids::ExecSessionId;

/// Lets a client come back to its session. For one that has ended there is no token: clients take that for the end.
pub fn resume_session(
    tx: &mut Tx<'_>,
    call: &Call,
    request: ssm::ResumeSessionRequest,
) -> Result<ssm::ResumeSessionResponse, SsmError> {
    let text = &request.session_id;
    let id: ExecSessionId =
        text.parse().map_err(|_| SsmError::DoesNotExist(text.chars().take(96).collect()))?;
    let (stream_url, token_value) = ecs::links::resume_exec(tx, &call.endpoint, id).unzip();
    Ok(ssm::ResumeSessionResponse { session_id: Some(id.to_string()), stream_url, token_value })
}
