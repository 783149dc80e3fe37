//! Subnets.

use super::cidr_block;
use super::vpc::{BLOCK_BITS, block};
use crate::call::Call;
use crate::services::ec2::errors::{Ec2Error, Limit};
use crate::services::ec2::filter::{self, Filters};
use crate::services::ec2::state::{Ec2State, Subnet, Vpc};
use crate::services::ec2::{check, views, zones};
use crate::services::elbv2;
use crate::tx::{Tx, View};
use gantry_api::ec2;
use gantry_decide::ids::{Scope, SubnetId};

/// Subnets of one VPC: EC2's quota.
const SUBNETS_MAX: usize = 200;

pub fn create_subnet(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: ec2::CreateSubnetRequest,
) -> Result<ec2::CreateSubnetResult, Ec2Error> {
    if request.ipv6_native == Some(true) {
        return Err(Ec2Error::unsupported(
            "Gantry's subnets have an IPv4 block, with or without an IPv6 one.",
        ));
    }
    let pools = request.ipv4_ipam_pool_id.is_some() || request.ipv6_ipam_pool_id.is_some();
    if pools || request.ipv4_netmask_length.is_some() || request.ipv6_netmask_length.is_some() {
        return Err(Ec2Error::unsupported(cidr_block::NO_POOLS));
    }
    if request.outpost_arn.is_some() {
        return Err(Ec2Error::unsupported("Gantry has no outposts."));
    }
    let tags = check::tag_specifications(request.tag_specifications.as_deref(), ec2::ResourceType::Subnet)?;
    let block = block(request.cidr_block.as_deref().ok_or(Ec2Error::Missing("cidrBlock"))?)?;
    let ec2 = tx.state.ec2.seen_mut(tx.scope);
    let vpc = check::vpc(ec2, &request.vpc_id)?;
    if !BLOCK_BITS.contains(&block.bits()) || !vpc.block.covers(block) {
        return Err(Ec2Error::SubnetRange(block.to_string()));
    }
    if ec2.subnets_of(vpc.id).any(|subnet| subnet.block.overlaps(block)) {
        return Err(Ec2Error::SubnetConflict(block.to_string()));
    }
    if ec2.subnets_of(vpc.id).count() >= SUBNETS_MAX {
        return Err(Ec2Error::Limit(Limit::Subnets));
    }
    let ipv6 = request.ipv6_cidr_block.as_deref();
    let ipv6 = ipv6.map(|text| cidr_block::for_subnet(ec2, vpc, text)).transpose()?;
    let zone = zone(tx.scope, ec2, vpc, &request)?;
    check::unless_dry(request.dry_run)?;
    let subnet = Subnet {
        id: SubnetId::random(tx.random),
        vpc: vpc.id,
        block,
        ipv6,
        assign_ipv6: false,
        zone,
        default_for_zone: false,
        map_public_ip_on_launch: false,
        tags,
    };
    let shown = views::subnet(tx.scope, &subnet, 0);
    ec2.subnets.put(subnet);
    Ok(ec2::CreateSubnetResult { subnet: Some(shown) })
}

/// The zone that a request names; else the one in which the VPC has the fewest subnets.
fn zone(
    scope: &Scope,
    ec2: &Ec2State,
    vpc: &Vpc,
    request: &ec2::CreateSubnetRequest,
) -> Result<String, Ec2Error> {
    let zones = zones::of(&scope.region);
    let (wanted, parameter) = match (&request.availability_zone, &request.availability_zone_id) {
        (Some(name), _) => (name, "availabilityZone"),
        (None, Some(id)) => (id, "availabilityZoneId"),
        (None, None) => {
            let used = |zone: &str| ec2.subnets_of(vpc.id).filter(|subnet| subnet.zone == zone).count();
            let emptiest = zones.into_iter().map(|zone| zone.name).min_by_key(|zone| used(zone));
            return Ok(emptiest.expect("a region has zones"));
        }
    };
    let by_name = request.availability_zone.is_some();
    let known = zones.iter().find(|zone| *wanted == if by_name { &zone.name } else { &zone.id }.as_str());
    known.map(|zone| zone.name.clone()).ok_or_else(|| {
        let names: Vec<&str> =
            zones.iter().map(|zone| if by_name { zone.name.as_str() } else { zone.id.as_str() }).collect();
        let why = format!(
            "Subnets can currently only be created in the following availability zones: {}.",
            names.join(", ")
        );
        Ec2Error::value(wanted, parameter, &why)
    })
}

pub fn describe_subnets(
    view: View<'_>,
    _call: &Call,
    request: ec2::DescribeSubnetsRequest,
) -> Result<ec2::DescribeSubnetsResult, Ec2Error> {
    let wanted = filter::wanted::<SubnetId>(request.subnet_ids.as_deref())?;
    let filters = Filters::read::<Subnet>(request.filters.as_deref())?;
    let page = filter::page(request.next_token.as_deref(), request.max_results, !wanted.is_empty())?;
    check::unless_dry(request.dry_run)?;
    let ec2 = view.state.ec2.seen(view.scope);
    let interfaces = view.state.ecs.interfaces();
    let all = ec2.subnets.values().map(AsRef::as_ref);
    let show =
        |subnet: &Subnet| views::subnet(view.scope, subnet, interfaces.count_in(&subnet.id.to_string()));
    let (subnets, next_token) = filter::describe(view.scope, all, &wanted, &filters, &page, show)?;
    Ok(ec2::DescribeSubnetsResult { subnets, next_token })
}

pub fn delete_subnet(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: ec2::DeleteSubnetRequest,
) -> Result<ec2::DeleteSubnetResponse, Ec2Error> {
    tx.state.ec2.seen_mut(tx.scope);
    let ec2 = &tx.state.ec2;
    let id = check::subnet(ec2, &request.subnet_id)?.id;
    let has_tasks = tx.state.ecs.interfaces().count_in(&id.to_string()) > 0;
    if has_tasks || elbv2::links::uses_subnet(tx.view(), id) {
        let message = format!("The subnet '{id}' has dependencies and cannot be deleted.");
        return Err(Ec2Error::Dependency(message));
    }
    check::unless_dry(request.dry_run)?;
    tx.state.ec2.subnets.remove(&id);
    Ok(ec2::DeleteSubnetResponse::default())
}

/// Of the attributes, those that mean something here.
pub fn modify_subnet_attribute(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: ec2::ModifySubnetAttributeRequest,
) -> Result<ec2::ModifySubnetAttributeResponse, Ec2Error> {
    let ec2 = tx.state.ec2.seen_mut(tx.scope);
    let mut subnet = check::subnet(ec2, &request.subnet_id)?.clone();
    let value = |given: Option<ec2::AttributeBooleanValue>| given.and_then(|given| given.value);
    let ipv6 = value(request.assign_ipv6_address_on_creation);
    match (value(request.map_public_ip_on_launch), ipv6) {
        (Some(wanted), None) => subnet.map_public_ip_on_launch = wanted,
        (None, Some(true)) if subnet.ipv6.is_none() => {
            return Err(Ec2Error::value("true", "assignIpv6AddressOnCreation", cidr_block::NO_BLOCK));
        }
        (None, Some(wanted)) => subnet.assign_ipv6 = wanted,
        (Some(_), Some(_)) => {
            let message = "Only one attribute of a subnet can be changed at a time.";
            return Err(Ec2Error::InvalidCombination(message.to_owned()));
        }
        (None, None) => {
            return Err(Ec2Error::unsupported(
                "Of a subnet's attributes, Gantry changes MapPublicIpOnLaunch and AssignIpv6AddressOnCreation.",
            ));
        }
    }
    ec2.subnets.put(subnet);
    Ok(ec2::ModifySubnetAttributeResponse::default())
}
