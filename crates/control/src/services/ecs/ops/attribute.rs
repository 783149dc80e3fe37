//! Attributes that users give to container instances.

use crate::call::Call;
use crate::page::{LIST_MAX, Page};
use crate::services::ecs::check;
use crate::services::ecs::errors::EcsError;
use crate::services::ecs::state::{ContainerInstance, ContainerInstanceKey, ContainerInstanceStatus};
use crate::services::ecs::views::container_instance::show_attribute;
use crate::tx::{Tx, View};
use gantry_api::ecs;
use gantry_decide::ids::ClusterName;

/// Attributes in one call: ECS's limit.
const CALL_MAX: usize = 10;
/// Characters of a name and of a value: ECS's limit.
const LENGTH_MAX: usize = 128;

/// Whether a name is the agent's to announce rather than the user's to set.
pub fn is_reserved(name: &str) -> bool {
    ["ecs.", "com.amazonaws.", "gantry."].iter().any(|prefix| name.starts_with(prefix))
}

/// # Errors
/// `InvalidParameterException` for a name or a value with characters that ECS does not allow.
pub fn check_attribute(name: &str, value: Option<&str>) -> Result<(), EcsError> {
    let in_name = |c: char| c.is_ascii_alphanumeric() || "-_/\\.".contains(c);
    if name.is_empty() || name.len() > LENGTH_MAX || !name.chars().all(in_name) {
        let shown: String = name.chars().take(LENGTH_MAX).collect();
        return Err(EcsError::invalid(format!("Invalid attribute name: '{shown}'.")));
    }
    let value = value.unwrap_or_default();
    let in_value = |c: char| in_name(c) || "@: ,".contains(c);
    if value.len() > LENGTH_MAX || !value.chars().all(in_value) || value.trim() != value {
        return Err(EcsError::invalid(format!("Invalid value of the attribute '{name}'.")));
    }
    Ok(())
}

/// The instance that an attribute names as its target.
fn target(
    view: View<'_>,
    cluster: &ClusterName,
    attribute: &ecs::Attribute,
) -> Result<ContainerInstance, EcsError> {
    let missing = || EcsError::TargetNotFound("The specified target was not found.".to_owned());
    let text = attribute.target_id.as_deref().unwrap_or_default();
    if text.is_empty() {
        return Err(EcsError::invalid("An attribute needs a targetId."));
    }
    if !text.starts_with("arn:") && attribute.target_type.is_none() {
        return Err(EcsError::invalid("A short targetId needs a targetType."));
    }
    let key = check::container_instance(view, cluster, text)?.ok_or_else(missing)?;
    let instance = view.state.ecs.container_instance(&key);
    instance
        .filter(|instance| instance.status != ContainerInstanceStatus::Inactive)
        .cloned()
        .ok_or_else(missing)
}

fn check_count(attributes: &[ecs::Attribute]) -> Result<(), EcsError> {
    if attributes.is_empty() {
        return Err(EcsError::invalid("Attributes cannot be empty."));
    }
    if attributes.len() > CALL_MAX {
        return Err(EcsError::invalid(format!("At most {CALL_MAX} attributes are allowed in one call.")));
    }
    Ok(())
}

fn shown(view: View<'_>, instance: &ContainerInstance, name: &str, value: Option<&str>) -> ecs::Attribute {
    show_attribute(name, value, Some(instance.arn(view.scope).to_string()))
}

pub fn put_attributes(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: ecs::PutAttributesRequest,
) -> Result<ecs::PutAttributesResponse, EcsError> {
    let cluster = check::cluster(tx.view(), request.cluster.as_deref())?.name.clone();
    check_count(&request.attributes)?;
    let mut put = Vec::with_capacity(request.attributes.len());
    for attribute in &request.attributes {
        let (name, value) = (&attribute.name, attribute.value.as_deref().filter(|value| !value.is_empty()));
        check_attribute(name, value)?;
        if is_reserved(name) {
            return Err(EcsError::invalid(format!("The attribute '{name}' is set by the container agent.")));
        }
        let mut instance = target(tx.view(), &cluster, attribute)?;
        instance.attributes.insert(name.clone(), value.map(str::to_owned));
        instance.custom_attributes.insert(name.clone());
        let most = tx.state.installation.quotas.custom_attributes;
        if instance.custom_attributes.len() > most as usize {
            let message = format!("A container instance can have at most {most} custom attributes.");
            return Err(EcsError::AttributeLimitExceeded(message));
        }
        instance.version += 1;
        put.push(shown(tx.view(), &instance, name, value));
        tx.state.ecs.put_container_instance(instance);
    }
    Ok(ecs::PutAttributesResponse { attributes: Some(put) })
}

pub fn delete_attributes(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: ecs::DeleteAttributesRequest,
) -> Result<ecs::DeleteAttributesResponse, EcsError> {
    let cluster = check::cluster(tx.view(), request.cluster.as_deref())?.name.clone();
    check_count(&request.attributes)?;
    let mut deleted = Vec::with_capacity(request.attributes.len());
    for attribute in &request.attributes {
        let mut instance = target(tx.view(), &cluster, attribute)?;
        // Only what users may set can be taken away; deleting what is not there changes nothing.
        if instance.custom_attributes.remove(&attribute.name) {
            let value = instance.attributes.remove(&attribute.name).flatten();
            instance.version += 1;
            deleted.push(shown(tx.view(), &instance, &attribute.name, value.as_deref()));
            tx.state.ecs.put_container_instance(instance);
        }
    }
    Ok(ecs::DeleteAttributesResponse { attributes: Some(deleted) })
}

pub fn list_attributes(
    view: View<'_>,
    _call: &Call,
    request: ecs::ListAttributesRequest,
) -> Result<ecs::ListAttributesResponse, EcsError> {
    let cluster = &check::cluster(view, request.cluster.as_deref())?.name;
    if request.attribute_value.is_some() && request.attribute_name.is_none() {
        return Err(EcsError::invalid("attributeValue needs an attributeName."));
    }
    let page = Page::read(request.next_token.as_deref(), request.max_results, LIST_MAX, LIST_MAX)?;
    let fits = |name: &String, value: &Option<String>| {
        request.attribute_name.as_ref().is_none_or(|wanted| wanted == name)
            && request.attribute_value.as_ref().is_none_or(|wanted| Some(wanted) == value.as_ref())
    };
    let mine = |key: &ContainerInstanceKey| &key.cluster == cluster;
    let all = view
        .state
        .ecs
        .container_instances()
        .iter()
        .filter(|(key, instance)| mine(key) && instance.status != ContainerInstanceStatus::Inactive);
    let all = all.flat_map(|(_, instance)| {
        let attributes = instance.attributes.iter().filter(|(name, value)| fits(name, value));
        attributes.map(move |(name, value)| (instance, name, value))
    });
    let (attributes, next_token) = page.cut(
        all,
        // '!' sorts before every character of a name, so the text sorts as the pairs do.
        |(instance, name, _)| format!("{}!{name}", instance.id),
        |(instance, name, value)| shown(view, instance, name, value.as_deref()),
    );
    Ok(ecs::ListAttributesResponse { attributes: Some(attributes), next_token })
}
