//! Between the API's shapes and our own types that are spelled alike: both are the same JSON.

use super::errors::EcsError;
use gantry_wire::{Structure, json};
use serde_json::Value;

/// The JSON of an API shape, in ECS's spelling.
pub fn value_of<T: Structure>(shape: &T) -> Result<Value, EcsError> {
    serde_json::from_slice(&json::to_vec(shape)).map_err(|error| EcsError::invalid(error.to_string()))
}

/// The API shape of one of our own types.
pub fn shape_of<T: Structure + Default>(value: &impl serde::Serialize) -> Result<T, EcsError> {
    let text = serde_json::to_vec(value).map_err(|error| EcsError::invalid(error.to_string()))?;
    json::from_slice(&text).map_err(|error| EcsError::invalid(error.message))
}
