//! Input rules beyond the model's constraints: ids, dry runs, tags.

use super::errors::{Ec2Error, Kind, Limit};
use super::state::{Ec2State, SecurityGroup, Subnet, Tags, Vpc};
use gantry_api::ec2;
use gantry_decide::ids::{
    EniId, InternetGatewayId, LaunchTemplateId, NetworkAclId, RouteTableId, SecurityGroupId,
    SecurityGroupRuleId, SubnetId, VpcId,
};
use std::str::FromStr;

/// Tags of one resource: EC2's limit.
pub const TAGS_MAX: usize = 50;
/// Characters of a key and of a value: EC2's limits.
const KEY_LENGTH_MAX: usize = 128;
const VALUE_LENGTH_MAX: usize = 256;
/// Characters of an id that an error repeats.
const SHOWN_MAX: usize = 64;

/// A type of id and what it is an id of.
pub trait Id: FromStr {
    const KIND: Kind;
}

macro_rules! ids {
    ($($id:ident $kind:ident,)*) => {$(
        impl Id for $id {
            const KIND: Kind = Kind::$kind;
        }
    )*};
}

ids! {
    VpcId Vpc,
    SubnetId Subnet,
    SecurityGroupId SecurityGroup,
    SecurityGroupRuleId SecurityGroupRule,
    RouteTableId RouteTable,
    NetworkAclId NetworkAcl,
    InternetGatewayId InternetGateway,
    EniId NetworkInterface,
    LaunchTemplateId LaunchTemplate,
}

pub fn not_found<I: Id>(id: impl ToString) -> Ec2Error {
    Ec2Error::NotFound { kind: I::KIND, id: id.to_string().chars().take(SHOWN_MAX).collect() }
}

/// Reads an id.
///
/// # Errors
/// The kind's `Malformed`. Ids of the short form that AWS gave until 2018 are well-formed, but here they name nothing.
pub fn id<I: Id>(text: &str) -> Result<I, Ec2Error> {
    text.parse().map_err(|_| {
        let short = text.strip_prefix(I::KIND.prefix()).is_some_and(|digits| {
            digits.len() == 8 && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        });
        if short {
            return not_found::<I>(text);
        }
        Ec2Error::Malformed { kind: I::KIND, id: text.chars().take(SHOWN_MAX).collect() }
    })
}

/// Reads the ids that a request asks for. Empty when it names none.
///
/// # Errors
/// For the first that is none.
pub fn ids<I: Id>(texts: Option<&[String]>) -> Result<Vec<I>, Ec2Error> {
    texts.unwrap_or_default().iter().map(|text| id(text)).collect()
}

pub fn vpc<'a>(ec2: &'a Ec2State, text: &str) -> Result<&'a Vpc, Ec2Error> {
    let id = id::<VpcId>(text)?;
    ec2.vpc(&id).ok_or_else(|| not_found::<VpcId>(text))
}

pub fn subnet<'a>(ec2: &'a Ec2State, text: &str) -> Result<&'a Subnet, Ec2Error> {
    let id = id::<SubnetId>(text)?;
    ec2.subnet(&id).ok_or_else(|| not_found::<SubnetId>(text))
}

pub fn security_group<'a>(ec2: &'a Ec2State, text: &str) -> Result<&'a SecurityGroup, Ec2Error> {
    let id = id::<SecurityGroupId>(text)?;
    ec2.security_group(&id).ok_or_else(|| not_found::<SecurityGroupId>(text))
}

/// The group that a request means by its id, or by its name in the default VPC.
///
/// # Errors
/// When it names none, or there is none.
pub fn group_by_id_or_name<'a>(
    ec2: &'a Ec2State,
    id: Option<&str>,
    name: Option<&str>,
) -> Result<&'a SecurityGroup, Ec2Error> {
    match (id, name) {
        (Some(id), _) => security_group(ec2, id),
        (None, Some(name)) => {
            let vpc = ec2.default_vpc().ok_or(Ec2Error::NoDefaultVpc)?;
            let unknown = || Ec2Error::NoGroupInDefaultVpc {
                name: name.chars().take(SHOWN_MAX).collect(),
                vpc: vpc.id.to_string(),
            };
            ec2.security_group_named(vpc.id, name).ok_or_else(unknown)
        }
        (None, None) => Err(Ec2Error::Missing("groupName or groupId")),
    }
}

/// Ends a request that only asks whether it would succeed. Called once all of it has been checked.
///
/// # Errors
/// `DryRunOperation`, EC2's word for success here.
pub fn unless_dry(dry_run: Option<bool>) -> Result<(), Ec2Error> {
    if dry_run == Some(true) { Err(Ec2Error::DryRun) } else { Ok(()) }
}

/// The tags that a request puts on what it makes.
///
/// # Errors
/// For tags of another type of resource, and as [`tags`].
pub fn tag_specifications(
    given: Option<&[ec2::TagSpecification]>,
    of: ec2::ResourceType,
) -> Result<Tags, Ec2Error> {
    let mut all = Vec::new();
    for specification in given.unwrap_or_default() {
        let kind = specification.resource_type.ok_or(Ec2Error::Missing("tagSpecification resource type"))?;
        if kind != of {
            let message =
                format!("'{}' is not a valid taggable resource type for this operation.", kind.as_str());
            return Err(Ec2Error::invalid(message));
        }
        match specification.tags.as_deref().unwrap_or_default() {
            [] => return Err(Ec2Error::invalid("Tag specification must have at least one tag")),
            tags => all.extend_from_slice(tags),
        }
    }
    tags(&all)
}

/// Reads tags.
///
/// # Errors
/// For repeated, reserved or too long ones.
pub fn tags(given: &[ec2::Tag]) -> Result<Tags, Ec2Error> {
    let mut tags = Tags::new();
    for tag in given {
        let key = tag_key(tag.key.as_deref().unwrap_or_default())?;
        let value = tag.value.clone().unwrap_or_default();
        if value.chars().count() > VALUE_LENGTH_MAX {
            return Err(Ec2Error::invalid(format!(
                "Tag value exceeds the maximum length of {VALUE_LENGTH_MAX} characters"
            )));
        }
        if tags.insert(key.to_owned(), value).is_some() {
            return Err(Ec2Error::invalid(format!("Duplicate tag key '{key}' specified.")));
        }
    }
    if tags.len() > TAGS_MAX { Err(Ec2Error::Limit(Limit::Tags)) } else { Ok(tags) }
}

/// # Errors
/// For a key that no user may set.
pub fn tag_key(key: &str) -> Result<&str, Ec2Error> {
    if key.is_empty() {
        return Err(Ec2Error::MalformedTagKey("Tag keys cannot be empty.".to_owned()));
    }
    if key.get(..4).is_some_and(|prefix| prefix.eq_ignore_ascii_case("aws:")) {
        let message = "Tag keys starting with 'aws:' are reserved for internal use";
        return Err(Ec2Error::invalid(message));
    }
    if key.chars().count() > KEY_LENGTH_MAX {
        let message = format!("Tag key exceeds the maximum length of {KEY_LENGTH_MAX} characters");
        return Err(Ec2Error::invalid(message));
    }
    Ok(key)
}
