//! VPCs and their attributes.

use super::cidr_block;
use crate::call::Call;
use crate::services::ec2::errors::{Ec2Error, Limit};
use crate::services::ec2::filter::{self, Filters};
use crate::services::ec2::state::{SecurityGroup, Vpc};
use crate::services::ec2::{check, views};
use crate::tx::{Tx, View};
use gantry_api::ec2;
use gantry_decide::ids::VpcId;
use gantry_decide::network::{Ipv4Block, random_ipv6_block};

/// VPCs of one scope. AWS begins with 5 and gives up to hundreds on request; here nobody is asked.
const VPCS_MAX: usize = 200;
/// Bits of the prefixes that EC2 takes, for VPCs and for subnets.
pub const BLOCK_BITS: std::ops::RangeInclusive<u8> = 16..=28;

/// Reads a block of a request.
///
/// # Errors
/// `InvalidParameterValue` for what is none.
pub fn block(text: &str) -> Result<Ipv4Block, Ec2Error> {
    text.parse().map_err(|_| Ec2Error::value(text, "cidrBlock", "This is not a valid CIDR block."))
}

pub fn create_vpc(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: ec2::CreateVpcRequest,
) -> Result<ec2::CreateVpcResult, Ec2Error> {
    let own = request.ipv6_cidr_block.is_some() || request.ipv6_pool.is_some();
    if own || request.ipv6_ipam_pool_id.is_some() || request.ipv6_netmask_length.is_some() {
        return Err(Ec2Error::unsupported(cidr_block::NO_POOLS));
    }
    if request.ipv4_ipam_pool_id.is_some() || request.ipv4_netmask_length.is_some() {
        return Err(Ec2Error::unsupported(cidr_block::NO_POOLS));
    }
    if request.instance_tenancy.is_some_and(|tenancy| tenancy != ec2::Tenancy::Default) {
        return Err(Ec2Error::unsupported("Gantry's VPCs have no tenancy but 'default'."));
    }
    if request.vpc_encryption_control.is_some() {
        return Err(Ec2Error::unsupported("Gantry does not control the encryption of VPCs."));
    }
    let block = block(request.cidr_block.as_deref().ok_or(Ec2Error::Missing("cidrBlock"))?)?;
    if !BLOCK_BITS.contains(&block.bits()) {
        return Err(Ec2Error::VpcRange(block.to_string()));
    }
    let tags = check::tag_specifications(request.tag_specifications.as_deref(), ec2::ResourceType::Vpc)?;
    let ec2 = tx.state.ec2.seen_mut(tx.scope);
    if ec2.vpcs.len() >= VPCS_MAX {
        return Err(Ec2Error::Limit(Limit::Vpcs));
    }
    check::unless_dry(request.dry_run)?;
    let mut vpc = Vpc { tags, ..Vpc::new(VpcId::random(tx.random), block) };
    let mut group = SecurityGroup::default_of(vpc.id);
    if request.amazon_provided_ipv6_cidr_block == Some(true) {
        vpc.ipv6 = Some(random_ipv6_block(tx.random));
        group.let_ipv6_out();
    }
    let shown = views::vpc(tx.scope, &vpc);
    ec2.security_groups.put(group);
    ec2.vpcs.put(vpc);
    Ok(ec2::CreateVpcResult { vpc: Some(shown) })
}

pub fn describe_vpcs(
    view: View<'_>,
    _call: &Call,
    request: ec2::DescribeVpcsRequest,
) -> Result<ec2::DescribeVpcsResult, Ec2Error> {
    let wanted = filter::wanted::<VpcId>(request.vpc_ids.as_deref())?;
    let filters = Filters::read::<Vpc>(request.filters.as_deref())?;
    let page = filter::page(request.next_token.as_deref(), request.max_results, !wanted.is_empty())?;
    check::unless_dry(request.dry_run)?;
    let ec2 = view.state.ec2.seen(view.scope);
    let all = ec2.vpcs.values().map(AsRef::as_ref);
    let show = |vpc: &Vpc| views::vpc(view.scope, vpc);
    let (vpcs, next_token) = filter::describe(view.scope, all, &wanted, &filters, &page, show)?;
    Ok(ec2::DescribeVpcsResult { vpcs, next_token })
}

pub fn delete_vpc(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: ec2::DeleteVpcRequest,
) -> Result<ec2::DeleteVpcResponse, Ec2Error> {
    let ec2 = tx.state.ec2.seen_mut(tx.scope);
    let vpc = check::vpc(ec2, &request.vpc_id)?;
    let id = vpc.id;
    let own = ec2.security_groups_of(id).find(|group| group.is_default()).map(|group| group.id);
    let others = ec2.security_groups_of(id).any(|group| !group.is_default());
    if vpc.internet_gateway.is_some() || others || ec2.subnets_of(id).next().is_some() {
        let message = format!("The vpc '{id}' has dependencies and cannot be deleted.");
        return Err(Ec2Error::Dependency(message));
    }
    check::unless_dry(request.dry_run)?;
    if let Some(own) = own {
        ec2.security_groups.remove(&own);
    }
    ec2.vpcs.remove(&id);
    Ok(ec2::DeleteVpcResponse::default())
}

pub fn describe_vpc_attribute(
    view: View<'_>,
    _call: &Call,
    request: ec2::DescribeVpcAttributeRequest,
) -> Result<ec2::DescribeVpcAttributeResult, Ec2Error> {
    let ec2 = view.state.ec2.seen(view.scope);
    let vpc = check::vpc(&ec2, &request.vpc_id)?;
    check::unless_dry(request.dry_run)?;
    let mut shown =
        ec2::DescribeVpcAttributeResult { vpc_id: Some(vpc.id.to_string()), ..Default::default() };
    let value = |truth| Some(ec2::AttributeBooleanValue { value: Some(truth) });
    match request.attribute {
        ec2::VpcAttributeName::EnableDnsSupport => shown.enable_dns_support = value(vpc.dns_support),
        ec2::VpcAttributeName::EnableDnsHostnames => shown.enable_dns_hostnames = value(vpc.dns_hostnames),
        ec2::VpcAttributeName::EnableNetworkAddressUsageMetrics => {
            shown.enable_network_address_usage_metrics = value(vpc.address_usage_metrics);
        }
    }
    Ok(shown)
}

pub fn modify_vpc_attribute(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: ec2::ModifyVpcAttributeRequest,
) -> Result<ec2::ModifyVpcAttributeResponse, Ec2Error> {
    let ec2 = tx.state.ec2.seen_mut(tx.scope);
    let mut vpc = check::vpc(ec2, &request.vpc_id)?.clone();
    let value = |given: Option<ec2::AttributeBooleanValue>| given.and_then(|given| given.value);
    let changes = [
        (value(request.enable_dns_support), &mut vpc.dns_support),
        (value(request.enable_dns_hostnames), &mut vpc.dns_hostnames),
        (value(request.enable_network_address_usage_metrics), &mut vpc.address_usage_metrics),
    ];
    let mut changed = 0;
    for (wanted, attribute) in changes {
        if let Some(wanted) = wanted {
            *attribute = wanted;
            changed += 1;
        }
    }
    if changed != 1 {
        let message = "One attribute of the VPC must be specified, and only one.";
        return Err(Ec2Error::InvalidCombination(message.to_owned()));
    }
    ec2.vpcs.put(vpc);
    Ok(ec2::ModifyVpcAttributeResponse::default())
}
