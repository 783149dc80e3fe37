//! Carries traffic: the load balancer's data plane. It is given compiled, generation-stamped configuration, goes on
//! with the last one while nobody gives it another, and knows nothing of the control plane.

pub mod balancer;
pub mod descriptors;
