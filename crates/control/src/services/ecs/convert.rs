//! Requests' shapes to our own types, under ECS's rules; shared by tasks and services.

use super::bridge;
use super::errors::EcsError;
use super::state::{NetworkConfiguration, PlacementConstraint, PlacementStrategy};
use crate::services::ec2;
use crate::tx::View;
use gantry_api::ecs;
use gantry_decide::placement::Strategy;
use gantry_decide::query::Query;
use gantry_decide::task::launch_volume::{self, VolumeConfiguration};
use gantry_decide::task::{NetworkMode, TaskDefinition, TaskOverride};
use gantry_wire::Structure;

/// ECS's limits.
const CONSTRAINTS_MAX: usize = 10;
const STRATEGIES_MAX: usize = 5;
const SUBNETS_MAX: usize = 16;
const SECURITY_GROUPS_MAX: usize = 5;
const EXPRESSION_LENGTH_MAX: usize = 2000;

/// The overrides of a request.
///
/// # Errors
/// When they are too long or malformed.
pub fn overrides(given: Option<&ecs::TaskOverride>) -> Result<TaskOverride, EcsError> {
    let Some(given) = given else { return Ok(TaskOverride::default()) };
    TaskOverride::read(bridge::value_of(given)?).map_err(override_error)
}

pub fn override_error(error: gantry_decide::task::OverrideError) -> EcsError {
    match error.code() {
        "ClientException" => EcsError::client(error.to_string()),
        _ => EcsError::invalid(error.to_string()),
    }
}

/// The network configuration: required by awsvpc, refused by the other modes.
///
/// # Errors
/// When it is missing, misplaced, beyond the limits, or names what EC2 does not have.
pub fn network(
    view: View<'_>,
    given: Option<&ecs::NetworkConfiguration>,
    mode: NetworkMode,
) -> Result<Option<NetworkConfiguration>, EcsError> {
    let given = given.and_then(|network| network.awsvpc_configuration.as_ref());
    let awsvpc = mode == NetworkMode::Awsvpc;
    let Some(given) = given else {
        return if awsvpc {
            Err(EcsError::invalid(
                "Network Configuration must be provided when networkMode 'awsvpc' is specified.",
            ))
        } else {
            Ok(None)
        };
    };
    if !awsvpc {
        return Err(EcsError::invalid(
            "Network Configuration is not valid for the given networkMode of this task definition.",
        ));
    }
    let security_groups = given.security_groups.clone().unwrap_or_default();
    if given.subnets.is_empty() {
        return Err(EcsError::invalid("subnets can not be empty."));
    }
    if given.subnets.len() > SUBNETS_MAX || security_groups.len() > SECURITY_GROUPS_MAX {
        return Err(EcsError::invalid(format!(
            "At most {SUBNETS_MAX} subnets and {SECURITY_GROUPS_MAX} security groups are allowed."
        )));
    }
    let ec2 = view.state.ec2.seen(view.scope);
    ec2::links::networks(&ec2, &given.subnets, &security_groups)
        .map_err(|error| EcsError::invalid(error.to_string()))?;
    Ok(Some(NetworkConfiguration {
        subnets: given.subnets.clone(),
        security_groups,
        assign_public_ip: given.assign_public_ip.as_ref().is_some_and(|assign| assign.as_str() == "ENABLED"),
    }))
}

/// The volume that a launch of this definition gets; `given` is the request's `volumeConfigurations`.
///
/// # Errors
/// When what is given is not what the definition needs, or EBS would not make it.
pub fn volume<T: Structure>(
    given: Option<&[T]>,
    definition: &TaskDefinition,
) -> Result<Option<VolumeConfiguration>, EcsError> {
    let read = |volume: &T| {
        let volume = serde_json::from_value(bridge::value_of(volume)?);
        volume
            .map_err(|_| EcsError::invalid("A volume configuration needs a managedEBSVolume with a roleArn."))
    };
    let given = given.unwrap_or_default().iter().map(read).collect::<Result<_, _>>()?;
    launch_volume::choose(given, definition).map_err(|error| match error.is_unsupported() {
        true => EcsError::UnsupportedFeature(error.to_string()),
        false => EcsError::invalid(error.to_string()),
    })
}

/// The placement constraints of a request; `own` is how many the task definition has.
///
/// # Errors
/// For too many, a missing or superfluous expression, or one that does not parse.
pub fn constraints(
    given: Option<&[ecs::PlacementConstraint]>,
    own: usize,
) -> Result<Vec<PlacementConstraint>, EcsError> {
    let given = given.unwrap_or_default();
    if given.len() + own > CONSTRAINTS_MAX {
        return Err(EcsError::invalid(format!(
            "At most {CONSTRAINTS_MAX} placement constraints are allowed."
        )));
    }
    let read = |constraint: &ecs::PlacementConstraint| {
        let kind = constraint.type_.as_ref().map(|kind| kind.as_str());
        match (kind, constraint.expression.as_deref().filter(|text| !text.is_empty())) {
            (Some("distinctInstance"), None) => Ok(PlacementConstraint::DistinctInstance),
            (Some("distinctInstance"), Some(_)) => {
                Err(EcsError::invalid("The distinctInstance placement constraint takes no expression."))
            }
            (Some("memberOf"), Some(text)) if text.len() > EXPRESSION_LENGTH_MAX => Err(EcsError::invalid(
                format!("Expressions are at most {EXPRESSION_LENGTH_MAX} characters long."),
            )),
            (Some("memberOf"), Some(text)) => match Query::parse(text) {
                Ok(_) => Ok(PlacementConstraint::MemberOf(text.to_owned())),
                Err(error) => Err(EcsError::invalid(error.to_string())),
            },
            (Some("memberOf"), None) => {
                Err(EcsError::invalid("The memberOf placement constraint needs an expression."))
            }
            _ => Err(EcsError::invalid("A placement constraint is distinctInstance or memberOf.")),
        }
    };
    given.iter().map(read).collect()
}

/// The placement strategy of a request.
///
/// # Errors
/// For too many parts or a field that its type does not know.
pub fn strategies(given: Option<&[ecs::PlacementStrategy]>) -> Result<Vec<PlacementStrategy>, EcsError> {
    let given = given.unwrap_or_default();
    if given.len() > STRATEGIES_MAX {
        return Err(EcsError::invalid(format!("At most {STRATEGIES_MAX} placement strategies are allowed.")));
    }
    let read = |strategy: &ecs::PlacementStrategy| {
        let field = strategy.field.as_deref().unwrap_or_default();
        match strategy.type_.as_ref().map(|kind| kind.as_str()) {
            Some("random") => Ok(PlacementStrategy::Random),
            Some("spread") if Strategy::spread(field).is_some() => {
                Ok(PlacementStrategy::Spread(field.to_owned()))
            }
            Some("binpack") if Strategy::binpack(field).is_some() => {
                Ok(PlacementStrategy::Binpack(field.to_owned()))
            }
            Some(kind) => Err(EcsError::invalid(format!(
                "'{}' is not a field of the placement strategy {kind}.",
                shortened(field)
            ))),
            None => Err(EcsError::invalid("A placement strategy is random, spread or binpack.")),
        }
    };
    given.iter().map(read).collect()
}

/// Text from outside, short enough for a message.
pub fn shortened(text: &str) -> String {
    text.chars().take(255).collect()
}
