//! Activations: create, delete, describe.

use crate::call::Call;
use crate::page::Page;
use crate::services::ssm::errors::SsmError;
use crate::services::ssm::state::{Activation, Tags};
use crate::services::ssm::views::activation as show;
use crate::tx::{Tx, View};
use gantry_api::ssm;
use gantry_decide::ids::ActivationId;
use gantry_decide::time::Timestamp;
use gantry_wire::sigv4::activation_code;
use std::time::Duration;

/// How long an activation is good for that says nothing: Systems Manager's default.
const LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// The longest that one can be asked for: Systems Manager's limit.
const LIFETIME_MAX: Duration = Duration::from_secs(30 * 24 * 3600);
/// Activations of a scope, expired ones included: far more than anybody keeps, each some hundred bytes.
const ACTIVATIONS_MAX: usize = 10_000;
/// Items of a page: Systems Manager's limit.
pub const PAGE_MAX: i32 = 50;

pub fn create_activation(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: ssm::CreateActivationRequest,
) -> Result<ssm::CreateActivationResult, SsmError> {
    let invalid = |message: &str| SsmError::InvalidParameters(message.to_owned());
    let key =
        tx.state.installation.key.clone().ok_or(SsmError::UnsupportedFeature(
            "This server has no key from which activations could follow.",
        ))?;
    if request.iam_role.is_empty() {
        return Err(invalid("The IAM role must not be empty."));
    }
    let expires_at = request.expiration_date.map_or(tx.now + LIFETIME, |at| Timestamp::from_millis(at.0));
    if expires_at <= tx.now || expires_at > tx.now + LIFETIME_MAX {
        return Err(invalid("The expiration date must be in the future, and within 30 days."));
    }
    if tx.state.ssm.activations.len() >= ACTIVATIONS_MAX {
        return Err(SsmError::InvalidParameters(format!(
            "There are {ACTIVATIONS_MAX} activations already. Delete some that are not needed any more."
        )));
    }
    let id = ActivationId::random(tx.random);
    let mut tags = Tags::new();
    for tag in request.tags.into_iter().flatten() {
        tags.insert(tag.key, tag.value);
    }
    tx.state.ssm.activations.put(Activation {
        id,
        description: request.description,
        default_instance_name: request.default_instance_name,
        iam_role: request.iam_role,
        limit: request.registration_limit.map_or(1, i32::unsigned_abs),
        count: 0,
        created_at: tx.now,
        expires_at,
        tags,
    });
    let id = id.to_string();
    // Shown this once, and stored nowhere.
    let code = activation_code(&key, &id);
    Ok(ssm::CreateActivationResult {
        activation_id: Some(id),
        activation_code: Some(code.expose().to_owned()),
    })
}

pub fn delete_activation(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: ssm::DeleteActivationRequest,
) -> Result<ssm::DeleteActivationResult, SsmError> {
    let text = &request.activation_id;
    let id: Option<ActivationId> = text.parse().ok();
    let removed = id.and_then(|id| tx.state.ssm.activations.remove(&id));
    removed.ok_or_else(|| SsmError::InvalidActivationId(text.chars().take(64).collect()))?;
    Ok(ssm::DeleteActivationResult::default())
}

pub fn describe_activations(
    view: View<'_>,
    _call: &Call,
    request: ssm::DescribeActivationsRequest,
) -> Result<ssm::DescribeActivationsResult, SsmError> {
    let filters = request.filters.unwrap_or_default();
    let meant = |activation: &Activation| {
        filters.iter().all(|filter| {
            let values = filter.filter_values.as_deref().unwrap_or_default();
            let own = match filter.filter_key.map(|key| key.as_str()) {
                Some("ActivationIds") => Some(activation.id.to_string()),
                Some("DefaultInstanceName") => activation.default_instance_name.clone(),
                Some("IamRole") => Some(activation.iam_role.clone()),
                // The model's enum has no other, and a filter without a key says nothing.
                _ => return true,
            };
            own.is_some_and(|own| values.contains(&own))
        })
    };
    let page = Page::read(request.next_token.as_deref(), request.max_results, PAGE_MAX, PAGE_MAX)?;
    let activations = view.state.ssm.activations.values().filter(|activation| meant(activation));
    let (activation_list, next_token) =
        page.cut(activations, |activation| activation.id.to_string(), |activation| show(view, activation));
    Ok(ssm::DescribeActivationsResult { activation_list: Some(activation_list), next_token })
}
