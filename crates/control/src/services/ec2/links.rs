//! What other services may know of EC2's networks and launch templates.
//!
//! Users of ECS copy examples whose ids nobody made: `subnet-1`, `sg-web`. An id that is not of EC2's form is taken as
//! a placeholder: of the default VPC's subnets it means one, always the same, and of its groups the default one. An id
//! of EC2's form means what has it, or nothing.

use super::check;
use super::errors::Ec2Error;
pub use super::state::LaunchData;
use super::state::{Ec2State, LaunchTemplate, LaunchTemplateVersion, SecurityGroup, Subnet};
use super::zones;
use gantry_decide::ids::{LaunchTemplateId, Region, SecurityGroupId, SubnetId, VpcId, derived_digits};
use std::net::IpAddr;

/// A network configuration that EC2 has no networks for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoSuchNetwork {
    /// As ECS passes on what EC2 says.
    #[error(
        "Error retrieving subnet information for [{0}]: The subnet ID '{0}' does not exist (ErrorCode: \
         InvalidSubnetID.NotFound)"
    )]
    Subnet(String),
    #[error(
        "Error retrieving security group information for [{0}]: The security group '{0}' does not exist (ErrorCode: \
         InvalidGroup.NotFound)"
    )]
    SecurityGroup(String),
    #[error("Subnet {0} is not in the same VPC as subnet {1}.")]
    Vpcs(String, String),
    #[error("Security group {0} and subnet {1} belong to different networks.")]
    OtherVpc(String, String),
}

/// Digits of EC2's ids, and of those that it gave out before 2016.
const ID_DIGITS: [usize; 2] = [17, 8];
/// Placeholders are read by people, and shown again.
const PLACEHOLDER_LENGTH_MAX: usize = 64;

fn is_placeholder(prefix: &str, name: &str) -> bool {
    let hex = |text: &str| text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    name.strip_prefix(prefix).is_some_and(|rest| {
        (1..=PLACEHOLDER_LENGTH_MAX).contains(&rest.len())
            && rest.is_ascii()
            && !(ID_DIGITS.contains(&rest.len()) && hex(rest))
    })
}

/// The subnet that a name means. `ec2` is the scope's state as seen.
pub fn subnet<'a>(ec2: &'a Ec2State, name: &str) -> Option<&'a Subnet> {
    if let Ok(id) = name.parse::<SubnetId>() {
        return ec2.subnet(&id);
    }
    let vpc = ec2.default_vpc().filter(|_| is_placeholder(SubnetId::PREFIX, name))?;
    let mut subnets: Vec<&Subnet> = ec2.subnets_of(vpc.id).filter(|subnet| subnet.default_for_zone).collect();
    subnets.sort_by(|one, other| one.zone.cmp(&other.zone));
    // `subnet-1` is the first, and what ends in no number is as good as any.
    let digits = name.len() - name.trim_end_matches(|c: char| c.is_ascii_digit()).len();
    let number = name[name.len() - digits..].parse::<usize>().ok().map(|number| number.wrapping_sub(1));
    let spread = || derived_digits(name).bytes().map(usize::from).sum();
    let number: usize = number.unwrap_or_else(spread);
    (!subnets.is_empty()).then(|| subnets[number % subnets.len()])
}

/// The security group that a name means to an interface in `vpc`.
fn group<'a>(ec2: &'a Ec2State, vpc: VpcId, name: &str) -> Option<&'a SecurityGroup> {
    match name.parse::<SecurityGroupId>() {
        Ok(id) => ec2.security_group(&id),
        Err(_) if is_placeholder(SecurityGroupId::PREFIX, name) => default_group(ec2, vpc),
        Err(_) => None,
    }
}

fn default_group(ec2: &Ec2State, vpc: VpcId) -> Option<&SecurityGroup> {
    ec2.security_groups_of(vpc).find(|group| group.is_default())
}

/// The subnets and groups that a network configuration means, all of one VPC: the subnets in the order given, of the
/// groups each once, the VPC's default one where none is named. `ec2` is the scope's state as seen.
///
/// # Errors
/// What of it does not exist, or not together.
pub fn networks<'a>(
    ec2: &'a Ec2State,
    subnets: &[String],
    groups: &[String],
) -> Result<(Vec<&'a Subnet>, Vec<SecurityGroupId>), NoSuchNetwork> {
    let found =
        subnets.iter().map(|name| subnet(ec2, name).ok_or_else(|| NoSuchNetwork::Subnet(shortened(name))));
    let found = found.collect::<Result<Vec<&Subnet>, _>>()?;
    let Some(first) = found.first() else { return Ok((found, Vec::new())) };
    if let Some(at) = found.iter().position(|subnet| subnet.vpc != first.vpc) {
        return Err(NoSuchNetwork::Vpcs(shortened(&subnets[at]), shortened(&subnets[0])));
    }
    let mut ids = Vec::with_capacity(groups.len());
    for name in groups {
        let group =
            group(ec2, first.vpc, name).ok_or_else(|| NoSuchNetwork::SecurityGroup(shortened(name)))?;
        if group.vpc != first.vpc {
            return Err(NoSuchNetwork::OtherVpc(shortened(name), shortened(&subnets[0])));
        }
        if !ids.contains(&group.id) {
            ids.push(group.id);
        }
    }
    if groups.is_empty() {
        ids.extend(default_group(ec2, first.vpc).map(|group| group.id));
    }
    Ok((found, ids))
}

/// The zone of the subnet that an address of a VPC belongs to.
pub fn zone_at(ec2: &Ec2State, vpc: VpcId, address: IpAddr) -> Option<&str> {
    let holds = |subnet: &Subnet| match address {
        IpAddr::V4(address) => subnet.block.contains(address),
        IpAddr::V6(address) => subnet.ipv6.is_some_and(|block| block.contains(address)),
    };
    let mut subnets = ec2.subnets.values().filter(|subnet| subnet.vpc == vpc);
    subnets.find(|subnet| holds(subnet)).map(|subnet| subnet.zone.as_str())
}

/// Whether an address is of some VPC's blocks.
pub fn is_of_vpc(ec2: &Ec2State, address: IpAddr) -> bool {
    ec2.vpcs.values().any(|vpc| match address {
        IpAddr::V4(address) => vpc.block.contains(address),
        IpAddr::V6(address) => vpc.ipv6.is_some_and(|block| block.contains(address)),
    })
}

/// Whether a subnet has IPv6 addresses.
pub fn has_ipv6(ec2: &Ec2State, subnet: &SubnetId) -> bool {
    ec2.subnet(subnet).is_some_and(|subnet| subnet.ipv6.is_some())
}

/// Whether there is such a VPC.
pub fn has_vpc(ec2: &Ec2State, vpc: VpcId) -> bool {
    ec2.vpc(&vpc).is_some()
}

/// Whether interfaces in a VPC have names of their own.
pub fn has_host_names(ec2: &Ec2State, vpc: VpcId) -> bool {
    ec2.vpc(&vpc).is_some_and(|vpc| vpc.dns_support && vpc.dns_hostnames)
}

/// The availability zones of a region, in the order of their names.
pub fn zones(region: &Region) -> Vec<String> {
    zones::of(region).into_iter().map(|zone| zone.name).collect()
}

/// The launch template that has this id or else this name.
///
/// # Errors
/// In EC2's words, when there is none.
pub fn launch_template<'a>(
    ec2: &'a Ec2State,
    id: Option<&str>,
    name: Option<&str>,
) -> Result<&'a LaunchTemplate, Ec2Error> {
    match id {
        Some(text) => {
            let id = check::id::<LaunchTemplateId>(text)?;
            ec2.launch_templates
                .get(&id)
                .map(AsRef::as_ref)
                .ok_or_else(|| Ec2Error::NoTemplate(id.to_string()))
        }
        None => {
            let name = name.unwrap_or_default();
            ec2.launch_template_named(name).ok_or_else(|| Ec2Error::NoTemplateNamed(shortened(name)))
        }
    }
}

/// The version of a template that a number, `$Default` or `$Latest` means.
///
/// # Errors
/// When there is none.
pub fn launch_template_version<'a>(
    ec2: &'a Ec2State,
    template: &LaunchTemplate,
    text: &str,
) -> Result<&'a LaunchTemplateVersion, Ec2Error> {
    let found = match text {
        "$Default" => ec2.launch_template_versions.get(&(template.id, template.default_version)),
        "$Latest" => return ec2.versions_of(template.id).last().ok_or_else(|| missing(template, text)),
        number => {
            number.parse().ok().and_then(|number| ec2.launch_template_versions.get(&(template.id, number)))
        }
    };
    found.map(AsRef::as_ref).ok_or_else(|| missing(template, text))
}

fn missing(template: &LaunchTemplate, version: &str) -> Ec2Error {
    Ec2Error::NoTemplateVersion { template: template.id.to_string(), version: shortened(version) }
}

fn shortened(text: &str) -> String {
    text.chars().take(PLACEHOLDER_LENGTH_MAX + SubnetId::PREFIX.len()).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use gantry_decide::ids::Scope;

    fn state() -> Ec2State {
        let scope: Scope =
            Scope { account: "123456789012".parse().unwrap(), region: "eu-north-1".parse().unwrap() };
        let mut ec2 = Ec2State::default();
        ec2.seen_mut(&scope);
        ec2
    }

    fn strings(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn placeholders_mean_the_default_networks() {
        let ec2 = state();
        let zone = |name| subnet(&ec2, name).map(|subnet| subnet.zone.as_str());
        assert_eq!(zone("subnet-1"), Some("eu-north-1a"));
        assert_eq!(zone("subnet-2"), Some("eu-north-1b"));
        assert_eq!(zone("subnet-public-3"), Some("eu-north-1c"));
        assert!(zone("subnet-abc").is_some() && zone("subnet-abc") == zone("subnet-abc"));
        assert!(zone("subnet-0").is_some(), "a number below the first is as good as any");
        for name in ["", "subnet-", "subnet", "vpc-1", "subnet-06b47bc4", "subnet-0123456789abcdef0"] {
            assert_eq!(zone(name), None, "{name}");
        }
        let default = default_group(&ec2, ec2.default_vpc().unwrap().id).unwrap().id;
        for groups in [&[][..], &["sg-1"], &["sg-1", "sg-web"]] {
            let (_, ids) = networks(&ec2, &strings(&["subnet-1"]), &strings(groups)).unwrap();
            assert_eq!(ids, [default]);
        }
    }

    #[test]
    fn what_is_not_there_is_named() {
        let ec2 = state();
        let error = |subnets: &[&str], groups: &[&str]| {
            networks(&ec2, &strings(subnets), &strings(groups)).unwrap_err().to_string()
        };
        assert!(
            error(&["subnet-1", "subnet-06b47bc4"], &[])
                .contains("The subnet ID 'subnet-06b47bc4' does not exist")
        );
        assert!(error(&["subnet-1"], &["sg-0123456789abcdef0"]).contains("InvalidGroup.NotFound"));
        assert!(error(&["subnet-1"], &["web"]).contains("'web' does not exist"));
    }
}
