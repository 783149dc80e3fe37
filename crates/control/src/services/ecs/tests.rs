//! Scripts: calls in, replies and table changes out.

mod advanced;
mod alarms;
mod balanced;
mod capacity;
mod capacity_provider;
mod cluster;
mod code_deploy;
mod container_instance;
mod daemon;
mod events;
mod rebalance;
pub(crate) mod service;
mod service_deployment;
mod shifting;
mod tag;
mod task;
mod task_definition;
mod task_set;
pub(crate) mod world;

use super::SERVICE;

#[test]
fn every_operation_of_the_model_is_served_or_listed_as_later() {
    for model in SERVICE.model.operations {
        let served = SERVICE.operations.iter().filter(|operation| operation.name == model.name).count();
        let later = SERVICE.later.iter().filter(|name| **name == model.name).count();
        assert_eq!(served + later, 1, "{}", model.name);
    }
    assert_eq!(SERVICE.operations.len() + SERVICE.later.len(), SERVICE.model.operations.len());
}
