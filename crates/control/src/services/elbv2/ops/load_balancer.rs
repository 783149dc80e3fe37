//! Load balancers.

use crate::call::Call;
use crate::services::ec2;
use crate::services::elbv2::errors::{Elbv2Error, Kind, Limit};
use crate::services::elbv2::state::{
    AddressType, Attributes, BalancerAddresses, DELETION_PROTECTION, LoadBalancer, Place, Read, Scheme,
    free_ipv6, of_load_balancer, own_ipv6_block,
};
use crate::services::elbv2::{check, views};
use crate::tx::{Tx, View};
use gantry_api::elbv2;
use gantry_decide::ids::{BalancerKind, LoadBalancerId, SecurityGroupId, SubnetId, VpcId};
use gantry_decide::network::Ipv6Block;
use gantry_decide::random::Random;
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};

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

/// The installation's pools of addresses, and which load balancers of the scope have already.
struct Pools {
    ipv4: BalancerAddresses,
    ipv6: Ipv6Block,
    taken: BTreeSet<Ipv4Addr>,
    taken_ipv6: BTreeSet<Ipv6Addr>,
}

impl Pools {
    fn of(view: View<'_>) -> Pools {
        let installation = &view.state.installation;
        let pool = installation.balancer_addresses;
        let places = || view.state.elbv2.load_balancers.values().flat_map(|balancer| &balancer.places);
        Pools {
            ipv4: pool,
            ipv6: pool.ipv6.unwrap_or_else(|| own_ipv6_block(installation)),
            taken: places().map(|place| place.address).collect(),
            taken_ipv6: places().filter_map(|place| place.ipv6).collect(),
        }
    }

    /// Gives each place the addresses that it is to have. `kept` are those that a load balancer has already.
    fn address(
        mut self,
        address_type: AddressType,
        kept: &[Place],
        wanted: Vec<(SubnetId, String)>,
        random: &mut dyn Random,
    ) -> Result<Vec<Place>, Elbv2Error> {
        let mut places = Vec::with_capacity(wanted.len());
        for (subnet, zone) in wanted {
            let had = kept.iter().find(|place| place.zone == zone);
            let none = |pool: String| Elbv2Error::NoAddress(subnet, pool);
            let address = match had {
                Some(place) => place.address,
                None => {
                    self.ipv4.free(&self.taken, random).ok_or_else(|| none(self.ipv4.ipv4.to_string()))?
                }
            };
            let ipv6 = match had.and_then(|place| place.ipv6) {
                _ if !address_type.has_ipv6() => None,
                Some(address) => Some(address),
                None => Some(
                    free_ipv6(self.ipv6, &self.taken_ipv6, random)
                        .ok_or_else(|| none(self.ipv6.to_string()))?,
                ),
            };
            self.taken.insert(address);
            self.taken_ipv6.extend(ipv6);
            places.push(Place { subnet, zone, address, ipv6 });
        }
        Ok(places)
    }
}

/// What a request asks for, of a load balancer of a kind.
fn address_type(
    given: elbv2::IpAddressType,
    kind: BalancerKind,
    scheme: Scheme,
) -> Result<AddressType, Elbv2Error> {
    match (given, kind, scheme) {
        (elbv2::IpAddressType::Ipv4, ..) => Ok(AddressType::Ipv4),
        (elbv2::IpAddressType::Dualstack, ..) => Ok(AddressType::DualStack),
        (_, BalancerKind::Application, Scheme::InternetFacing) => Ok(AddressType::WithoutPublicIpv4),
        (other, ..) => Err(Elbv2Error::configuration(format!(
            "The IP address type '{}' is supported only for internet-facing application load balancers",
            other.as_str()
        ))),
    }
}

/// Whether all places are in subnets that have IPv6 addresses, where these are wanted.
fn have_ipv6(
    view: View<'_>,
    address_type: AddressType,
    places: &[(SubnetId, String)],
) -> Result<(), Elbv2Error> {
    let ec2 = view.state.ec2.seen(view.scope);
    if address_type.has_ipv6() && !places.iter().all(|(subnet, _)| ec2::links::has_ipv6(&ec2, subnet)) {
        return Err(Elbv2Error::validation("You must specify subnets with an associated IPv6 CIDR block."));
    }
    Ok(())
}

/// Whether datagrams of IPv6 clients are asked to be let through.
fn source_nat(
    given: Option<elbv2::EnablePrefixForIpv6SourceNatEnum>,
    kind: BalancerKind,
    address_type: AddressType,
    had: bool,
) -> Result<bool, Elbv2Error> {
    let on = given.map_or(had, |given| given == elbv2::EnablePrefixForIpv6SourceNatEnum::On);
    if given.is_some() && on && (kind != BalancerKind::Network || address_type != AddressType::DualStack) {
        return Err(Elbv2Error::configuration(
            "A prefix for IPv6 source NAT can be enabled only for network load balancers with the IP address type \
             'dualstack'",
        ));
    }
    Ok(on && address_type == AddressType::DualStack)
}

/// Changes by which addresses a load balancer is reached.
fn readdress(
    tx: &mut Tx<'_>,
    balancer: &mut LoadBalancer,
    address_type: AddressType,
    source_nat: bool,
    places: Vec<(SubnetId, String)>,
) -> Result<(), Elbv2Error> {
    have_ipv6(tx.view(), address_type, &places)?;
    let datagrams =
        tx.state.elbv2.listeners_of(&balancer.id).any(|listener| listener.protocol.has_datagrams());
    if address_type.has_ipv6() && !source_nat && datagrams {
        return Err(Elbv2Error::configuration(NO_DATAGRAMS));
    }
    balancer.places = Pools::of(tx.view()).address(address_type, &balancer.places, places, tx.random)?;
    (balancer.address_type, balancer.source_nat) = (address_type, source_nat);
    tx.state.elbv2.load_balancers.put(balancer.clone());
    Ok(())
}

/// What AWS's dual-stack load balancers do not do by default.
pub const NO_DATAGRAMS: &str = "UDP and TCP_UDP listeners of a load balancer with the IP address type 'dualstack' need \
                                a prefix for IPv6 source NAT to be enabled";

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
    if request.customer_owned_ipv4_pool.is_some() || request.ipam_pools.is_some() {
        let message = "Gantry chooses the addresses of load balancers: pools of addresses are not supported.";
        return Err(Elbv2Error::configuration(message));
    }
    let scheme = match request.scheme {
        None | Some(elbv2::LoadBalancerSchemeEnum::InternetFacing) => Scheme::InternetFacing,
        Some(elbv2::LoadBalancerSchemeEnum::Internal) => Scheme::Internal,
    };
    let asked = request.ip_address_type.unwrap_or(elbv2::IpAddressType::Ipv4);
    let address_type = address_type(asked, kind, scheme)?;
    let source_nat = source_nat(request.enable_prefix_for_ipv6_source_nat, kind, address_type, false)?;
    let tags = check::tags(request.tags.as_deref())?;
    let subnets = subnets(request.subnets.as_deref(), request.subnet_mappings.as_deref())?;
    let groups = request.security_groups.as_deref().unwrap_or_default();
    let networks = networks(tx.view(), kind, &subnets, groups)?;
    have_ipv6(tx.view(), address_type, &networks.places)?;
    if let Some(existing) = tx.state.elbv2.load_balancer_named(name.as_str()) {
        let subnets = existing.places.iter().map(|place| (place.subnet, place.zone.clone()));
        let same = existing.id.kind == kind
            && existing.scheme == scheme
            && existing.address_type == address_type
            && existing.source_nat == source_nat
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
    let balancer = LoadBalancer {
        places: Pools::of(tx.view()).address(address_type, &[], networks.places, tx.random)?,
        address_type,
        source_nat,
        private_link_unfiltered: false,
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
    let mut balancer = check::load_balancer(tx.view(), &request.load_balancer_arn)?.clone();
    let address_type = address_type(request.ip_address_type, balancer.id.kind, balancer.scheme)?;
    let places = balancer.places.iter().map(|place| (place.subnet, place.zone.clone())).collect();
    let source_nat = source_nat(None, balancer.id.kind, address_type, balancer.source_nat)?;
    readdress(tx, &mut balancer, address_type, source_nat, places)?;
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
    if let Some(asked) = request.enforce_security_group_inbound_rules_on_private_link_traffic {
        if kind != BalancerKind::Network {
            return Err(Elbv2Error::validation(
                "'EnforceSecurityGroupInboundRulesOnPrivateLinkTraffic' can be specified only for Network Load Balancers",
            ));
        }
        balancer.private_link_unfiltered =
            asked == elbv2::EnforceSecurityGroupInboundRulesOnPrivateLinkTrafficEnum::Off;
    }
    let (shown, filters) =
        (views::load_balancer(tx.scope, &balancer), views::filters_private_link(&balancer));
    tx.state.elbv2.load_balancers.put(balancer);
    Ok(elbv2::SetSecurityGroupsOutput {
        security_group_ids: shown.security_groups,
        enforce_security_group_inbound_rules_on_private_link_traffic: filters,
    })
}

pub fn set_subnets(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: elbv2::SetSubnetsInput,
) -> Result<elbv2::SetSubnetsOutput, Elbv2Error> {
    let mut balancer = check::load_balancer(tx.view(), &request.load_balancer_arn)?.clone();
    let kind = balancer.id.kind;
    let asked =
        request.ip_address_type.map(|given| address_type(given, kind, balancer.scheme)).transpose()?;
    let address_type = asked.unwrap_or(balancer.address_type);
    let asked = request.enable_prefix_for_ipv6_source_nat;
    let source_nat = source_nat(asked, kind, address_type, balancer.source_nat)?;
    let subnets = subnets(request.subnets.as_deref(), request.subnet_mappings.as_deref())?;
    let networks = networks(tx.view(), kind, &subnets, &[])?;
    if networks.vpc != balancer.vpc {
        return Err(Elbv2Error::configuration("All subnets must belong to the VPC of the load balancer"));
    }
    readdress(tx, &mut balancer, address_type, source_nat, networks.places)?;
    let shown = views::load_balancer(tx.scope, &balancer);
    Ok(elbv2::SetSubnetsOutput {
        availability_zones: shown.availability_zones,
        ip_address_type: shown.ip_address_type,
        enable_prefix_for_ipv6_source_nat: shown.enable_prefix_for_ipv6_source_nat,
    })
}
