//! Blocks that a VPC or a subnet gets and loses: those of IPv6, one of each. That of IPv4 stays as it was made.

use crate::call::Call;
use crate::services::ec2::errors::Ec2Error;
use crate::services::ec2::state::{Ec2State, SecurityGroup, Subnet, Vpc};
use crate::services::ec2::{check, views};
use crate::services::elbv2;
use crate::tx::Tx;
use gantry_api::ec2;
use gantry_decide::ids::VpcId;
use gantry_decide::network::{Ipv6Block, random_ipv6_block};

pub const NO_POOLS: &str = "Gantry has no address pools: a VPC may have an IPv6 block that is provided.";
pub const NO_BLOCK: &str = "The subnet has no IPv6 CIDR block.";
/// Bits of the prefix of a subnet that EC2 takes, in steps of four.
const SUBNET_BITS: std::ops::RangeInclusive<u8> = 44..=64;

/// Reads the block that a subnet of `vpc` is to have.
///
/// # Errors
/// When it is none, is not one of the VPC's, or another subnet has some of it.
pub fn for_subnet(ec2: &Ec2State, vpc: &Vpc, text: &str) -> Result<Ipv6Block, Ec2Error> {
    let block: Ipv6Block = text
        .parse()
        .map_err(|_| Ec2Error::value(text, "ipv6CidrBlock", "This is not a valid IPv6 CIDR block."))?;
    let fits = SUBNET_BITS.contains(&block.bits()) && block.bits().is_multiple_of(4);
    if !fits || !vpc.ipv6.is_some_and(|whole| whole.covers(block)) {
        return Err(Ec2Error::SubnetRange(block.to_string()));
    }
    if ec2.subnets_of(vpc.id).filter_map(|subnet| subnet.ipv6).any(|other| other.overlaps(block)) {
        return Err(Ec2Error::SubnetConflict(block.to_string()));
    }
    Ok(block)
}

pub fn associate_vpc_cidr_block(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: ec2::AssociateVpcCidrBlockRequest,
) -> Result<ec2::AssociateVpcCidrBlockResult, Ec2Error> {
    let ec2 = tx.state.ec2.seen_mut(tx.scope);
    let mut vpc = check::vpc(ec2, &request.vpc_id)?.clone();
    if request.cidr_block.is_some() {
        return Err(Ec2Error::unsupported("Gantry's VPCs have one IPv4 block."));
    }
    if request.amazon_provided_ipv6_cidr_block != Some(true) {
        return Err(Ec2Error::unsupported(NO_POOLS));
    }
    if let Some(block) = vpc.ipv6 {
        let message = format!("The vpc '{}' has the IPv6 CIDR block {block} already.", vpc.id);
        return Err(Ec2Error::BlockLimit(message));
    }
    vpc.ipv6 = Some(random_ipv6_block(tx.random));
    let groups: Vec<SecurityGroup> = ec2.security_groups_of(vpc.id).cloned().collect();
    for mut group in groups {
        let before = group.rules.len();
        group.let_ipv6_out();
        if group.rules.len() > before {
            ec2.security_groups.put(group);
        }
    }
    let ipv6_cidr_block_association = views::vpc_ipv6(tx.scope, &vpc);
    let vpc_id = Some(vpc.id.to_string());
    ec2.vpcs.put(vpc);
    Ok(ec2::AssociateVpcCidrBlockResult { ipv6_cidr_block_association, vpc_id, cidr_block_association: None })
}

pub fn disassociate_vpc_cidr_block(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: ec2::DisassociateVpcCidrBlockRequest,
) -> Result<ec2::DisassociateVpcCidrBlockResult, Ec2Error> {
    let ec2 = tx.state.ec2.seen_mut(tx.scope);
    let id = request.association_id;
    let all = || ec2.vpcs.values().map(AsRef::as_ref);
    if all().any(|vpc: &Vpc| views::vpc_association(vpc) == id) {
        return Err(Ec2Error::PrimaryBlock(id));
    }
    let with_ipv6 = all().find(|vpc| views::vpc_ipv6_association(vpc).as_ref() == Some(&id));
    let mut vpc = with_ipv6.cloned().ok_or(Ec2Error::NoVpcBlock(id))?;
    if let Some(block) = vpc.ipv6.filter(|_| has_ipv6_subnet(ec2, vpc.id)) {
        return Err(Ec2Error::BlockInUse { vpc: vpc.id.to_string(), block: block.to_string() });
    }
    let ipv6_cidr_block_association = views::vpc_ipv6(tx.scope, &vpc).map(|shown| {
        let state = ec2::VpcCidrBlockStateCode::Disassociating;
        let state = ec2::VpcCidrBlockState { state: Some(state), status_message: None };
        ec2::VpcIpv6CidrBlockAssociation { ipv6_cidr_block_state: Some(state), ..shown }
    });
    vpc.ipv6 = None;
    let vpc_id = Some(vpc.id.to_string());
    ec2.vpcs.put(vpc);
    Ok(ec2::DisassociateVpcCidrBlockResult {
        ipv6_cidr_block_association,
        vpc_id,
        cidr_block_association: None,
    })
}

fn has_ipv6_subnet(ec2: &Ec2State, vpc: VpcId) -> bool {
    ec2.subnets_of(vpc).any(|subnet| subnet.ipv6.is_some())
}

pub fn associate_subnet_cidr_block(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: ec2::AssociateSubnetCidrBlockRequest,
) -> Result<ec2::AssociateSubnetCidrBlockResult, Ec2Error> {
    if request.ipv6_ipam_pool_id.is_some() || request.ipv6_netmask_length.is_some() {
        return Err(Ec2Error::unsupported(NO_POOLS));
    }
    let ec2 = tx.state.ec2.seen_mut(tx.scope);
    let mut subnet = check::subnet(ec2, &request.subnet_id)?.clone();
    let text = request.ipv6_cidr_block.as_deref().ok_or(Ec2Error::Missing("ipv6CidrBlock"))?;
    if let Some(block) = subnet.ipv6 {
        let message = format!("The subnet '{}' has the IPv6 CIDR block {block} already.", subnet.id);
        return Err(Ec2Error::BlockLimit(message));
    }
    let vpc = check::vpc(ec2, &subnet.vpc.to_string())?;
    subnet.ipv6 = Some(for_subnet(ec2, vpc, text)?);
    let ipv6_cidr_block_association = views::subnet_ipv6(&subnet);
    let subnet_id = Some(subnet.id.to_string());
    ec2.subnets.put(subnet);
    Ok(ec2::AssociateSubnetCidrBlockResult { ipv6_cidr_block_association, subnet_id })
}

pub fn disassociate_subnet_cidr_block(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: ec2::DisassociateSubnetCidrBlockRequest,
) -> Result<ec2::DisassociateSubnetCidrBlockResult, Ec2Error> {
    tx.state.ec2.seen_mut(tx.scope);
    let id = request.association_id;
    let is_meant = |subnet: &&Subnet| views::subnet_ipv6_association(subnet).as_ref() == Some(&id);
    let meant = tx.state.ec2.subnets.values().map(AsRef::as_ref).find(is_meant).cloned();
    let mut subnet = meant.ok_or(Ec2Error::NoSubnetBlock(id))?;
    if tx.state.ecs.interfaces().has_ipv6_in(&subnet.id.to_string(), &tx.state.ecs) {
        let message =
            format!("The subnet '{}' has interfaces with addresses of its IPv6 CIDR block.", subnet.id);
        return Err(Ec2Error::Dependency(message));
    }
    if elbv2::links::uses_ipv6_of(tx.view(), subnet.id) {
        let message = format!("The subnet '{}' has load balancers with IPv6 addresses.", subnet.id);
        return Err(Ec2Error::Dependency(message));
    }
    let ipv6_cidr_block_association = views::subnet_ipv6(&subnet).map(|shown| {
        let state = ec2::SubnetCidrBlockStateCode::Disassociating;
        let state = ec2::SubnetCidrBlockState { state: Some(state), status_message: None };
        ec2::SubnetIpv6CidrBlockAssociation { ipv6_cidr_block_state: Some(state), ..shown }
    });
    (subnet.ipv6, subnet.assign_ipv6) = (None, false);
    let subnet_id = Some(subnet.id.to_string());
    tx.state.ec2.subnets.put(subnet);
    Ok(ec2::DisassociateSubnetCidrBlockResult { ipv6_cidr_block_association, subnet_id })
}
