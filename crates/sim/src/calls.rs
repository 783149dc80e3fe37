//! What worlds say to the control plane: calls of users and agents, and agents' connections.

use gantry_control::call::{Call, Caller, Principal};
use gantry_control::engine::Write;
use gantry_control::service::{Prepared, Service};
use gantry_control::services::ecs::state::ContainerInstanceKey;
use gantry_control::sessions::{Channel, Opening, SessionInput};
use gantry_decide::ids::{RequestId, Scope};
use gantry_decide::random::Random;
use serde_json::Value;

/// A write as the server hands it to the engine.
///
/// # Panics
/// When the operation is not served or refuses the request at once: worlds ask for neither.
pub fn prepare(
    scope: &Scope,
    service: &'static Service,
    (operation, request): (&str, &Value),
    principal: Principal,
    random: &mut dyn Random,
) -> Write {
    let caller = Caller { scope: scope.clone(), principal, access_key_id: "AKIASIM".to_owned() };
    let call = Call { caller, request_id: RequestId::random(random), endpoint: String::new() };
    let operation = service.operation(operation).expect("a served operation");
    let body = request.to_string();
    let prepared = (operation.prepare)(call, &mut |shape| gantry_wire::json::read(shape, body.as_bytes()));
    let Ok(Prepared::Write(write)) = prepared else { panic!("{request} is no acceptable write") };
    write
}

/// An agent's connection, on which it is told of its tasks.
pub fn opening(scope: &Scope, instance: ContainerInstanceKey) -> SessionInput {
    SessionInput::Opened(Opening {
        scope: scope.clone(),
        instance,
        channel: Channel::Acs,
        agent: Default::default(),
        endpoint: String::new(),
    })
}
