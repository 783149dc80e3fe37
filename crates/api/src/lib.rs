//! The shapes and operation tables of the AWS APIs that Gantry speaks, generated from `models/` at build time, and the
//! messages between the control plane and the container agents. Only data: behaviour is written elsewhere.

pub use gantry_wire::ServiceModel;

macro_rules! services {
    ($($(#[$doc:meta])* $name:ident)*) => {$(
        $(#[$doc])*
        pub mod $name {
            include!(concat!(env!("OUT_DIR"), "/", stringify!($name), ".rs"));
        }
    )*};
}

services! {
    /// AWS Certificate Manager: certificates that are imported or asked for.
    acm
    /// Messages of the agent communication service: control plane and container agent, over a WebSocket.
    acs
    /// Amazon EC2 Auto Scaling.
    autoscaling
    /// Amazon Elastic Compute Cloud: its networks and launch templates.
    ec2
    /// Amazon Elastic Container Service.
    ecs
    /// Elastic Load Balancing, version 2: application and network load balancers.
    elbv2
    /// What Gantry answers beyond AWS: why something is as it is, and what happened.
    gantry
    /// Amazon CloudWatch Logs.
    logs
    /// AWS Systems Manager: machines of the user's own.
    ssm
    /// AWS Security Token Service.
    sts
    /// Messages of the telemetry service: health and metrics of an agent's tasks, over a WebSocket.
    tcs
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_pattern_is_known_to_the_engine() {
        for (service, limits) in [
            ("acm", super::acm::limits::ALL),
            ("autoscaling", super::autoscaling::limits::ALL),
            ("ec2", super::ec2::limits::ALL),
            ("ecs", super::ecs::limits::ALL),
            ("elbv2", super::elbv2::limits::ALL),
            ("sts", super::sts::limits::ALL),
        ] {
            assert!(!limits.is_empty(), "{service}");
            for (shape, limits) in limits {
                assert!(limits.pattern.as_ref().is_none_or(|p| p.is_valid()), "{service}: {shape}");
            }
        }
    }
}
