//! What is asked alike of the deployments and revisions of services and of daemons.

use crate::services::ecs::errors::EcsError;
use gantry_api::ecs;
use gantry_decide::deployment::status::ServiceDeploymentStatus;
use gantry_decide::ids::ServiceDeploymentId;
use gantry_decide::time::Timestamp;

/// ARNs that the describing operations take.
const DESCRIBE_MAX: usize = 20;
/// The listing operations show this many unless asked for more.
pub const LIST_DEFAULT: i32 = 20;

/// Looks up each of the ARNs: what is there, and which are missing. `what` is the member that names them.
///
/// # Errors
/// For none and for too many ARNs, and as `find`.
pub fn described<T>(
    arns: &[String],
    what: &str,
    find: impl Fn(&str) -> Result<Option<T>, EcsError>,
) -> Result<(Vec<T>, Vec<ecs::Failure>), EcsError> {
    if arns.is_empty() {
        return Err(EcsError::invalid(format!("{what} cannot be empty.")));
    }
    if arns.len() > DESCRIBE_MAX {
        return Err(EcsError::invalid(format!(
            "At most {DESCRIBE_MAX} {what} can be described in one call."
        )));
    }
    let (mut found, mut failures) = (Vec::new(), Vec::new());
    for arn in arns {
        match find(arn)? {
            Some(one) => found.push(one),
            None => failures.push(ecs::Failure {
                arn: Some(arn.clone()),
                reason: Some("MISSING".to_owned()),
                detail: None,
            }),
        }
    }
    Ok((found, failures))
}

/// Whether an attempt is one that is asked for, by its status, unless none is named, and by when it was made.
pub fn asked_for(
    statuses: Vec<String>,
    created_at: Option<ecs::CreatedAt>,
) -> impl Fn(ServiceDeploymentStatus, Timestamp) -> bool {
    let within = created_at.unwrap_or_default();
    let after = within.after.map(|at| Timestamp::from_millis(at.0));
    let before = within.before.map(|at| Timestamp::from_millis(at.0));
    move |status, at| {
        (statuses.is_empty() || statuses.iter().any(|wanted| wanted == status.as_str()))
            && after.is_none_or(|after| at > after)
            && before.is_none_or(|before| at < before)
    }
}

/// By which attempts are listed.
pub fn order(created_at: Timestamp, id: ServiceDeploymentId) -> String {
    format!("{:016x}{id}", created_at.as_millis())
}
