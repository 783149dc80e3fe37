//! AWS Systems Manager, of which there is what ECS needs: for machines of the user's own, activations by which they join
//! and the machines that have; for ECS Exec, sessions that go on after a connection broke.
//!
//! An activation has an id and a code. An agent that is started with both registers its machine as a container instance of
//! launch type EXTERNAL (see [`links::register`]); from then on it signs with a key of its own. Neither the code nor that
//! key is stored anywhere: see [`gantry_wire::sigv4::activation_code`].

mod authorize;
mod errors;
pub mod links;
mod ops;
pub mod state;
#[cfg(test)]
mod tests;
mod views;

use crate::service::Service;
use gantry_api::ssm;

pub static SERVICE: Service = Service {
    model: ssm::SERVICE,
    operations: crate::operations! { ssm;
        write CreateActivation => authorize::create_activation, ops::activation::create_activation;
        write DeleteActivation => authorize::delete_activation, ops::activation::delete_activation;
        read DescribeActivations => authorize::describe_activations, ops::activation::describe_activations;
        write DeregisterManagedInstance => authorize::deregister_managed_instance, ops::instance::deregister_managed_instance;
        read DescribeInstanceInformation => authorize::describe_instance_information, ops::instance::describe_instance_information;
        write ResumeSession => authorize::resume_session, ops::session::resume_session;
    },
    later: &[],
};
