//! The AWS services, one folder each, all of the same inner shape: who has read one has read all.

pub mod acm;
pub mod autoscaling;
pub mod cloudwatch;
pub mod ec2;
pub mod ecs;
pub mod elbv2;
pub mod gantry;
pub mod logs;
pub mod ssm;
pub mod sts;

use crate::service::Service;

/// Every service that the endpoint serves.
pub static SERVICES: &[&Service] = &[
    &acm::SERVICE,
    &autoscaling::SERVICE,
    &ec2::SERVICE,
    &ecs::SERVICE,
    &elbv2::SERVICE,
    &gantry::SERVICE,
    &logs::SERVICE,
    &ssm::SERVICE,
    &sts::SERVICE,
];
