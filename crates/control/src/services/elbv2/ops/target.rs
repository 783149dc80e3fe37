//! Targets: registered, deregistered, and what balancers found of them.

use crate::call::Call;
use crate::services::elbv2::errors::{Elbv2Error, shortened};
use crate::services::elbv2::state::{AddressFamily, TargetGroup, TargetId, TargetType};
use crate::services::elbv2::{check, links, views};
use crate::services::{ec2, ecs};
use crate::tx::{Tx, View};
use gantry_api::elbv2;
use gantry_decide::routing::{HealthState, Reason, TargetHealth};
use std::net::IpAddr;

/// The zone of targets that are in all of them.
const ALL_ZONES: &str = "all";

/// A target as a request names it.
struct Named {
    id: TargetId,
    port: u16,
    zone: Option<String>,
}

fn named(group: &TargetGroup, given: &elbv2::TargetDescription) -> Result<Named, Elbv2Error> {
    let text = given.id.as_str();
    let id = match group.target_type {
        TargetType::Instance => {
            let digits = text.strip_prefix("i-").unwrap_or_default();
            let hex = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
            if !(matches!(digits.len(), 8 | 17) && digits.bytes().all(hex)) {
                let message = format!("Instance ID '{}' is not valid", shortened(text));
                return Err(Elbv2Error::validation(message));
            }
            TargetId::Instance(text.to_owned())
        }
        TargetType::Ip => {
            let (address, family) = match group.address_family {
                AddressFamily::Ipv4 => (text.parse().map(IpAddr::V4), "IPv4"),
                AddressFamily::Ipv6 => (text.parse().map(IpAddr::V6), "IPv6"),
            };
            TargetId::Ip(address.map_err(|_| {
                Elbv2Error::validation(format!(
                    "The IP address '{}' is not a valid {family} address",
                    shortened(text)
                ))
            })?)
        }
    };
    let port = match given.port {
        None => group.port,
        Some(port) => u16::try_from(port)
            .ok()
            .filter(|port| *port > 0)
            .ok_or_else(|| Elbv2Error::validation("Port must be between 1 and 65535"))?,
    };
    Ok(Named { id, port, zone: given.availability_zone.clone() })
}

/// Whether requests may be sent to an address. As on AWS: those of VPCs, and private ones. Not those of this machine alone,
/// where whoever registers targets would publish what runs beside the balancer, unless its operator allows it.
fn may_be_target(view: View<'_>, address: IpAddr) -> bool {
    let in_vpc = || ec2::links::is_of_vpc(&view.state.ec2.seen(view.scope), address);
    match address.to_canonical() {
        address if address.is_loopback() => view.state.installation.loopback_targets,
        IpAddr::V4(v4) => {
            let shared = v4.octets()[0] == 100 && v4.octets()[1] & 0xc0 == 64;
            let usual =
                !v4.is_link_local() && !v4.is_multicast() && !v4.is_broadcast() && !v4.is_unspecified();
            usual && (v4.is_private() || shared || in_vpc())
        }
        IpAddr::V6(v6) => {
            let usual = !v6.is_unicast_link_local() && !v6.is_multicast() && !v6.is_unspecified();
            usual && (v6.is_unique_local() || in_vpc())
        }
    }
}

pub fn register_targets(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: elbv2::RegisterTargetsInput,
) -> Result<elbv2::RegisterTargetsOutput, Elbv2Error> {
    if request.targets.is_empty() {
        return Err(Elbv2Error::validation("At least one target must be specified"));
    }
    let group = check::target_group(tx.view(), &request.target_group_arn)?.clone();
    let targets =
        request.targets.iter().map(|target| named(&group, target)).collect::<Result<Vec<_>, _>>()?;
    let mut missing: Vec<&str> = Vec::new();
    for target in &targets {
        match &target.id {
            TargetId::Instance(id) if ecs::links::on_machine(tx.view(), id).next().is_none() => {
                missing.push(id)
            }
            TargetId::Ip(address) if !may_be_target(tx.view(), *address) => {
                let message = format!("The IP address '{address}' is not a valid target");
                return Err(Elbv2Error::InvalidTarget(message));
            }
            _ => {}
        }
        if let Some(zone) = target.zone.as_deref()
            && zone != ALL_ZONES
            && !ec2::links::zones(&tx.scope.region).iter().any(|known| known == zone)
        {
            let (zone, id) = (shortened(zone), target.id.to_string());
            return Err(Elbv2Error::validation(format!(
                "The Availability Zone '{zone}' of the target '{id}' is not one of the region's, nor '{ALL_ZONES}'"
            )));
        }
    }
    if !missing.is_empty() {
        return Err(Elbv2Error::InvalidTarget(format!(
            "The following targets are not in a running state and cannot be registered: '{}'",
            missing.join("', '")
        )));
    }
    for target in targets {
        links::register(tx, &group.id, target.id, target.port, target.zone, None)?;
    }
    Ok(elbv2::RegisterTargetsOutput::default())
}

/// A target that is not registered is deregistered already.
pub fn deregister_targets(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: elbv2::DeregisterTargetsInput,
) -> Result<elbv2::DeregisterTargetsOutput, Elbv2Error> {
    if request.targets.is_empty() {
        return Err(Elbv2Error::validation("At least one target must be specified"));
    }
    let group = check::target_group(tx.view(), &request.target_group_arn)?.clone();
    for target in &request.targets {
        let Named { id, port, .. } = named(&group, target)?;
        links::deregister(tx, &group.id, &id, port);
    }
    Ok(elbv2::DeregisterTargetsOutput::default())
}

pub fn describe_target_health(
    view: View<'_>,
    _call: &Call,
    request: elbv2::DescribeTargetHealthInput,
) -> Result<elbv2::DescribeTargetHealthOutput, Elbv2Error> {
    let group = check::target_group(view, &request.target_group_arn)?;
    let elbv2 = &view.state.elbv2;
    let in_use = !elbv2.balancers_of(view.scope, &group.id).is_empty();
    let check_port = |port: u16| group.health_check.port.unwrap_or(port);
    let mut shown = Vec::new();
    let asked = request.targets.unwrap_or_default();
    if asked.is_empty() {
        shown.extend(elbv2.targets_of(&group.id).map(|target| {
            let (port, zone) = (target.key.port, target.zone.clone());
            views::target(&target.key.id, port, zone, check_port(port), views::health_of(target, in_use))
        }));
    }
    for target in &asked {
        let Named { id, port, zone } = named(group, target)?;
        let registered = elbv2.targets_of(&group.id).find(|t| t.key.id == id && t.key.port == port);
        let unknown = TargetHealth { state: HealthState::Unused, reason: Some(Reason::NotRegistered) };
        let health = registered.map_or(unknown, |target| views::health_of(target, in_use));
        let zone = registered.and_then(|target| target.zone.clone()).or(zone);
        shown.push(views::target(&id, port, zone, check_port(port), health));
    }
    Ok(elbv2::DescribeTargetHealthOutput { target_health_descriptions: Some(shown) })
}
