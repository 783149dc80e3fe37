//! The demo's load balancer: made by the API as Terraform would, found by its address and its name.

use super::story::page;
use crate::api::Api;
use anyhow::{Context, Result, bail};
use gantry_api::{ec2, elbv2};
use std::time::{Duration, Instant};

/// From a task that runs to a page through the load balancer: its first health check, on a busy machine.
const SERVED_MAX: Duration = Duration::from_secs(60);
/// Between two attempts.
const LOOK_EVERY: Duration = Duration::from_millis(40);

/// A load balancer that forwards to a target group.
pub struct Balancer {
    pub target_group: String,
    /// Where it listens on this machine.
    pub address: String,
}

impl Balancer {
    /// Makes it, with a listener on port 80 and a group of addresses.
    ///
    /// # Errors
    /// When the API refuses.
    pub async fn make(api: &Api, name: &str) -> Result<Balancer> {
        let networks = api.query(ec2::SERVICE, "DescribeVpcs", &[]).await?;
        let vpc = value(&networks, "vpcId")?;
        let group = [
            ("Name", name),
            ("Protocol", "HTTP"),
            ("Port", "80"),
            ("TargetType", "ip"),
            ("VpcId", vpc),
            ("HealthCheckIntervalSeconds", "5"),
            ("HealthCheckTimeoutSeconds", "2"),
        ];
        let group = api.query(elbv2::SERVICE, "CreateTargetGroup", &group).await?;
        let target_group = value(&group, "TargetGroupArn")?.to_owned();
        let balancer = [("Name", name), ("Subnets.member.1", "subnet-1"), ("Subnets.member.2", "subnet-2")];
        let balancer = api.query(elbv2::SERVICE, "CreateLoadBalancer", &balancer).await?;
        let listener = [
            ("LoadBalancerArn", value(&balancer, "LoadBalancerArn")?),
            ("Protocol", "HTTP"),
            ("Port", "80"),
            ("DefaultActions.member.1.Type", "forward"),
            ("DefaultActions.member.1.TargetGroupArn", target_group.as_str()),
        ];
        api.query(elbv2::SERVICE, "CreateListener", &listener).await?;
        let address = value(&balancer, "IpAddress")?.to_owned();
        Ok(Balancer { target_group, address })
    }

    /// A page through it, once a target is healthy.
    ///
    /// # Errors
    /// When none comes in [`SERVED_MAX`].
    pub async fn page(&self) -> Result<String> {
        let start = Instant::now();
        loop {
            match page(&format!("{}:80", self.address)).await {
                Ok(page) if page.contains(" 200 ") => return Ok(page),
                other if start.elapsed() > SERVED_MAX => {
                    bail!("no page through the load balancer: {other:?}")
                }
                _ => tokio::time::sleep(LOOK_EVERY).await,
            }
        }
    }
}

/// The first value of that name in an answer. Ids and ARNs have nothing in them that XML would write otherwise.
fn value<'x>(xml: &'x str, name: &str) -> Result<&'x str> {
    let found = xml.split_once(&format!("<{name}>")).and_then(|(_, rest)| rest.split_once("</"));
    found.map(|(value, _)| value).with_context(|| format!("the answer has no {name}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_value_is_found_by_its_name() {
        assert_eq!(value("<a><vpcId>vpc-1</vpcId><vpcId>vpc-2</vpcId></a>", "vpcId").unwrap(), "vpc-1");
        assert!(value("<a/>", "vpcId").is_err());
    }
}
