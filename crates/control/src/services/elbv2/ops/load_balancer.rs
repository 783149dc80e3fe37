//! Load balancers.

use crate::call::Call;
use crate::services::ec2;
use crate::services::elbv2::errors::{Elbv2Error, Kind, Limit};
use crate::services::elbv2::state::{
    Attributes, BalancerAddresses, DELETION_PROTECTION, LoadBalancer, Place, Read, Scheme, of_load_balancer,
};
use crate::services::elbv2::{check, views};
use crate::tx::{Tx, View};
use gantry_api::elbv2;
use gantry_decide::ids::{BalancerKind, LoadBalancerId, SecurityGroupId, SubnetId, VpcId};
use gantry_decide::random::Random;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;

/// Load balancers of each kind in one scope: AWS's quota.
pub const BALANCERS_MAX: usize = 50;
/// Security groups of one load balancer: AWS's limit.
const SECURITY_GROUPS_MAX: usize = 5;

/// Where a load balancer is to be.
struct Networks {
    vpc: VpcId,
    /// Without addresses.
    places: Vec<(SubnetId, String)>,
    security_groups: Vec<SecurityGroupId>,
}

/// The subnets that a request names, in either of the two ways.
fn subnets(
    plain: Option<&[String]>,
    mappings: Option<&[elbv2::SubnetMapping]>,
) -> Result<Vec<String>, Elbv2Error> {
    let mut named = plain.unwrap_or_default().to_vec();
    if !named.is_empty() && mappings.is_some_and(|mappings| !mappings.is_empty()) {
        return Err(Elbv2Error::validation("You can specify either subnets or subnet mappings"));
    }
    for mapping in mappings.unwrap_or_default() {
        let fixed = [
            &mapping.allocation_id,
            &mapping.i_pv6_address,
            &mapping.private_i_pv4_address,
            &mapping.source_nat_ipv6_prefix,
        ];
        if fixed.iter().any(|fixed| fixed.is_some()) {
            return Err(Elbv2Error::configuration(
                "Gantry chooses the addresses of load balancers: subnet mappings can only name subnets.",
            ));
        }
        let id = mapping.subnet_id.clone();
        named.push(id.ok_or_else(|| Elbv2Error::validation("A subnet ID must be specified"))?);
    }
    Ok(named)
}

fn networks(
    view: View<'_>,
    kind: BalancerKind,
    subnets: &[String],
    groups: &[String],
) -> Result<Networks, Elbv2Error> {
    let least = if kind == BalancerKind::Application { 2 } else { 1 };
    if subnets.len() < least {
        let message = match kind {
            BalancerKind::Application => {
                "At least two subnets in two different Availability Zones must be specified"
            }
            BalancerKind::Network => "At least one subnet must be specified",
        };
        return Err(Elbv2Error::validation(message));
    }
    if groups.len() > SECURITY_GROUPS_MAX {
        let message = format!("A load balancer can have at most {SECURITY_GROUPS_MAX} security groups");
        return Err(Elbv2Error::configuration(message));
    }
    let ec2 = view.state.ec2.seen(view.scope);
    let (found, mut security_groups) = ec2::links::networks(&ec2, subnets, groups)?;
    let mut places: Vec<_> = found.iter().map(|subnet| (subnet.id, subnet.zone.clone())).collect();
    places.sort_by(|one, other| one.1.cmp(&other.1));
    if places.windows(2).any(|pair| pair[0].1 == pair[1].1) {
        return Err(Elbv2Error::configuration(
            "A load balancer cannot be attached to multiple subnets in the same Availability Zone",
        ));
    }
    // A network load balancer without security groups has none; an application load balancer has the VPC's.
    if kind == BalancerKind::Network && groups.is_empty() {
        security_groups.clear();
    }
    let first =
        found.first().ok_or_else(|| Elbv2Error::validation("At least one subnet must be specified"))?;
    Ok(Networks { vpc: first.vpc, places, security_groups })
}

/// Gives each place an address of the installation's pool that no load balancer of the scope has. `kept` are those that
/// a load balancer has already.
fn addressed(
    pool: BalancerAddresses,
    mut taken: BTreeSet<Ipv4Addr>,
    kept: &[Place],
    wanted: Vec<(SubnetId, String)>,
    random: &mut dyn Random,
) -> Result<Vec<Place>, Elbv2Error> {
    let mut places = Vec::with_capacity(wanted.len());
    for (subnet, zone) in wanted {
        let address = match kept.iter().find(|place| place.zone == zone) {
            Some(place) => place.address,
            None => pool.free(&taken, random).ok_or(Elbv2Error::NoAddress(subnet, pool.0))?,
        };
        taken.insert(address);
        places.push(Place { subnet, zone, address });
    }
    Ok(places)
}

fn taken(view: View<'_>) -> BTreeSet<Ipv4Addr> {
    let all = view.state.elbv2.load_balancers.values();
    all.flat_map(|balancer| balancer.places.iter().map(|place| place.address)).collect()
}

fn only_ipv4(given: Option<elbv2::IpAddressType>) -> Result<(), Elbv2Error> {
    match given {
        None | Some(elbv2::IpAddressType::Ipv4) => Ok(()),
        Some(other) => Err(Elbv2Error::configuration(format!(
            "Gantry's load balancers have IPv4 addresses: the IP address type '{}' is not supported.",
            other.as_str()
        ))),
    }
}

pub fn create_load_balancer(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: elbv2::CreateLoadBalancerInput,
) -> Result<elbv2::CreateLoadBalancerOutput, Elbv2Error> {
    let kind = match request.type_ {
        None | Some(elbv2::LoadBalancerTypeEnum::Application) => BalancerKind::Application,
        Some(elbv2::LoadBalancerTypeEnum::Network) => BalancerKind::Network,
        Some(elbv2::LoadBalancerTypeEnum::Gateway) => {
            let message = "Gantry has no gateway load balancers: the type must be application or network.";
            return Err(Elbv2Error::configuration(message));
        }
    };
    let name = check::name(Kind::LoadBalancer, &request.name)?;
    only_ipv4(request.ip_address_type)?;
    if request.customer_owned_ipv4_pool.is_some() || request.ipam_pools.is_some() {
        let message = "Gantry chooses the addresses of load balancers: pools of addresses are not supported.";
        return Err(Elbv2Error::configuration(message));
    }
    let scheme = match request.scheme {
        None | Some(elbv2::LoadBalancerSchemeEnum::InternetFacing) => Scheme::InternetFacing,
        Some(elbv2::LoadBalancerSchemeEnum::Internal) => Scheme::Internal,
    };
    let tags = check::tags(request.tags.as_deref())?;
    let subnets = subnets(request.subnets.as_deref(), request.subnet_mappings.as_deref())?;
    let groups = request.security_groups.as_deref().unwrap_or_default();
    let networks = networks(tx.view(), kind, &subnets, groups)?;
    if let Some(existing) = tx.state.elbv2.load_balancer_named(name.as_str()) {
        let subnets = existing.places.iter().map(|place| (place.subnet, place.zone.clone()));
        let same = existing.id.kind == kind
            && existing.scheme == scheme
            && subnets.eq(networks.places)
            && existing.security_groups == networks.security_groups
            && existing.tags == tags;
        if !same {
            return Err(Elbv2Error::DuplicateLoadBalancerName(name.to_string()));
        }
        let load_balancers = Some(vec![views::load_balancer(tx.scope, existing)]);
        return Ok(elbv2::CreateLoadBalancerOutput { load_balancers });
    }
    let of_kind = tx.state.elbv2.load_balancers.values().filter(|balancer| balancer.id.kind == kind).count();
    if of_kind >= BALANCERS_MAX {
        return Err(Elbv2Error::TooMany(Limit::LoadBalancers));
    }
    let (pool, taken) = (tx.state.installation.balancer_addresses, taken(tx.view()));
    let balancer = LoadBalancer {
        places: addressed(pool, taken, &[], networks.places, tx.random)?,
        id: LoadBalancerId::random(kind, name, tx.random),
        scheme,
        vpc: networks.vpc,
        security_groups: networks.security_groups,
        created_at: tx.now,
        attributes: Attributes::new(),
        tags,
    };
    let load_balancers = Some(vec![views::load_balancer(tx.scope, &balancer)]);
    tx.state.elbv2.load_balancers.put(balancer);
    Ok(elbv2::CreateLoadBalancerOutput { load_balancers })
}

pub fn describe_load_balancers(
    view: View<'_>,
    _call: &Call,
    request: elbv2::DescribeLoadBalancersInput,
) -> Result<elbv2::DescribeLoadBalancersOutput, Elbv2Error> {
    let elbv2 = &view.state.elbv2;
    let (arns, names) = (request.load_balancer_arns.unwrap_or_default(), request.names.unwrap_or_default());
    if !arns.is_empty() && !names.is_empty() {
        return Err(Elbv2Error::validation(
            "Load balancer names and load balancer ARNs cannot be specified together",
        ));
    }
    let page = check::page(request.marker.as_deref(), request.page_size)?;
    let mut found: Vec<&LoadBalancer> = Vec::new();
    for arn in &arns {
        found.push(check::load_balancer(view, arn)?);
    }
    for name in &names {
        let named = elbv2.load_balancer_named(name);
        found.push(named.ok_or_else(|| Elbv2Error::not_found(Kind::LoadBalancer, name))?);
    }
    if arns.is_empty() && names.is_empty() {
        found.extend(elbv2.load_balancers.values().map(AsRef::as_ref));
    }
    found.sort_by_cached_key(|balancer| balancer.id.to_string());
    found.dedup_by(|one, other| one.id == other.id);
    let show = |balancer: &LoadBalancer| views::load_balancer(view.scope, balancer);
    let (shown, next_marker) = page.cut(found.into_iter(), |balancer| balancer.id.to_string(), show);
    Ok(elbv2::DescribeLoadBalancersOutput { load_balancers: Some(shown), next_marker })
}

/// Its listeners and their rules go with it; its target groups stay.
pub fn delete_load_balancer(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: elbv2::DeleteLoadBalancerInput,
) -> Result<elbv2::DeleteLoadBalancerOutput, Elbv2Error> {
    let id = check::load_balancer_id(tx.scope, &request.load_balancer_arn)?;
    // What is not there is deleted already.
    let Some(balancer) = tx.state.elbv2.load_balancer(&id) else {
        return Ok(elbv2::DeleteLoadBalancerOutput::default());
    };
    if Read::new(of_load_balancer(id.kind), &balancer.attributes).is_on(DELETION_PROTECTION) {
        return Err(Elbv2Error::NotPermitted(format!(
            "Load balancer '{}' cannot be deleted because deletion protection is enabled",
            request.load_balancer_arn
        )));
    }
    let listeners: Vec<_> = tx.state.elbv2.listeners_of(&id).map(|listener| listener.id.clone()).collect();
    for listener in &listeners {
        super::listener::remove(tx, listener);
    }
    tx.state.elbv2.load_balancers.remove(&id);
    Ok(elbv2::DeleteLoadBalancerOutput::default())
}

pub fn set_ip_address_type(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: elbv2::SetIpAddressTypeInput,
) -> Result<elbv2::SetIpAddressTypeOutput, Elbv2Error> {
    check::load_balancer(tx.view(), &request.load_balancer_arn)?;
    only_ipv4(Some(request.ip_address_type))?;
    Ok(elbv2::SetIpAddressTypeOutput { ip_address_type: Some(request.ip_address_type) })
}

pub fn set_security_groups(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: elbv2::SetSecurityGroupsInput,
) -> Result<elbv2::SetSecurityGroupsOutput, Elbv2Error> {
    let mut balancer = check::load_balancer(tx.view(), &request.load_balancer_arn)?.clone();
    if balancer.id.kind == BalancerKind::Network && balancer.security_groups.is_empty() {
        return Err(Elbv2Error::configuration(
            "You cannot set security groups on a Network Load Balancer that was created without any",
        ));
    }
    if request.security_groups.is_empty() {
        return Err(Elbv2Error::validation("At least one security group must be specified"));
    }
    let subnets: Vec<String> = balancer.places.iter().map(|place| place.subnet.to_string()).collect();
    let kind = balancer.id.kind;
    balancer.security_groups = networks(tx.view(), kind, &subnets, &request.security_groups)?.security_groups;
    let ids = balancer.security_groups.iter().map(ToString::to_string).collect();
    tx.state.elbv2.load_balancers.put(balancer);
    Ok(elbv2::SetSecurityGroupsOutput { security_group_ids: Some(ids), ..Default::default() })
}

pub fn set_subnets(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: elbv2::SetSubnetsInput,
) -> Result<elbv2::SetSubnetsOutput, Elbv2Error> {
    let mut balancer = check::load_balancer(tx.view(), &request.load_balancer_arn)?.clone();
    only_ipv4(request.ip_address_type)?;
    let subnets = subnets(request.subnets.as_deref(), request.subnet_mappings.as_deref())?;
    let networks = networks(tx.view(), balancer.id.kind, &subnets, &[])?;
    if networks.vpc != balancer.vpc {
        return Err(Elbv2Error::configuration("All subnets must belong to the VPC of the load balancer"));
    }
    let (pool, taken) = (tx.state.installation.balancer_addresses, taken(tx.view()));
    balancer.places = addressed(pool, taken, &balancer.places, networks.places, tx.random)?;
    let shown = views::load_balancer(tx.scope, &balancer);
    tx.state.elbv2.load_balancers.put(balancer);
    Ok(elbv2::SetSubnetsOutput {
        availability_zones: shown.availability_zones,
        ip_address_type: shown.ip_address_type,
        ..Default::default()
    })
}
