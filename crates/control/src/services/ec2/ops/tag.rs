//! Tags of everything that has an id here.

use crate::call::Call;
use crate::services::ec2::check::{self, Id, TAGS_MAX};
use crate::services::ec2::errors::{Ec2Error, Kind, Limit};
use crate::services::ec2::facts::CarriedTag;
use crate::services::ec2::filter::{self, Filters};
use crate::services::ec2::links;
use crate::services::ec2::state::{Ec2State, Tags, Vpc};
use crate::tx::{Tx, View};
use gantry_api::ec2;
use gantry_decide::ids::{InternetGatewayId, NetworkAclId, RouteTableId, SecurityGroupRuleId};

/// Resources in one request: EC2's limit.
const RESOURCES_MAX: usize = 1000;

/// The word for a kind among EC2's types of resources.
fn resource_type(kind: Kind) -> ec2::ResourceType {
    match kind {
        Kind::Vpc => ec2::ResourceType::Vpc,
        Kind::Subnet => ec2::ResourceType::Subnet,
        Kind::SecurityGroup => ec2::ResourceType::SecurityGroup,
        Kind::SecurityGroupRule => ec2::ResourceType::SecurityGroupRule,
        Kind::RouteTable => ec2::ResourceType::RouteTable,
        Kind::NetworkAcl => ec2::ResourceType::NetworkAcl,
        Kind::InternetGateway => ec2::ResourceType::InternetGateway,
        Kind::NetworkInterface => ec2::ResourceType::NetworkInterface,
        Kind::LaunchTemplate => ec2::ResourceType::LaunchTemplate,
    }
}

/// Changes the tags of the resource that an id names.
fn change(
    ec2: &mut Ec2State,
    id: &str,
    change: impl FnOnce(&mut Tags) -> Result<(), Ec2Error>,
) -> Result<(), Ec2Error> {
    let kind = Kind::ALL.iter().find(|kind| id.starts_with(kind.prefix()));
    match kind.ok_or_else(|| Ec2Error::UnknownId(id.chars().take(64).collect()))? {
        Kind::Vpc => {
            let mut vpc = check::vpc(ec2, id)?.clone();
            change(&mut vpc.tags)?;
            ec2.vpcs.put(vpc);
        }
        Kind::Subnet => {
            let mut subnet = check::subnet(ec2, id)?.clone();
            change(&mut subnet.tags)?;
            ec2.subnets.put(subnet);
        }
        Kind::SecurityGroup => {
            let mut group = check::security_group(ec2, id)?.clone();
            change(&mut group.tags)?;
            ec2.security_groups.put(group);
        }
        Kind::SecurityGroupRule => {
            let rule = check::id::<SecurityGroupRuleId>(id)?;
            let group = ec2.security_groups.values().find(|group| group.rules.contains_key(&rule));
            let mut group = group.map(|group| group.as_ref().clone());
            let found = group.as_mut().and_then(|group| group.rules.get_mut(&rule));
            change(&mut found.ok_or_else(|| check::not_found::<SecurityGroupRuleId>(id))?.tags)?;
            ec2.security_groups.put(group.expect("a rule was found in it"));
        }
        Kind::RouteTable => {
            let table = check::id::<RouteTableId>(id)?;
            let mut vpc = owner::<RouteTableId>(ec2, id, |vpc| vpc.route_table.id == table)?;
            change(&mut vpc.route_table.tags)?;
            ec2.vpcs.put(vpc);
        }
        Kind::NetworkAcl => {
            let acl = check::id::<NetworkAclId>(id)?;
            let mut vpc = owner::<NetworkAclId>(ec2, id, |vpc| vpc.network_acl.id == acl)?;
            change(&mut vpc.network_acl.tags)?;
            ec2.vpcs.put(vpc);
        }
        Kind::InternetGateway => {
            let gateway = check::id::<InternetGatewayId>(id)?;
            let has = |vpc: &Vpc| vpc.internet_gateway.as_ref().is_some_and(|own| own.id == gateway);
            let mut vpc = owner::<InternetGatewayId>(ec2, id, has)?;
            if let Some(gateway) = &mut vpc.internet_gateway {
                change(&mut gateway.tags)?;
            }
            ec2.vpcs.put(vpc);
        }
        Kind::LaunchTemplate => {
            let mut template = links::launch_template(ec2, Some(id), None)?.clone();
            change(&mut template.tags)?;
            ec2.launch_templates.put(template);
        }
        Kind::NetworkInterface => {
            return Err(Ec2Error::unsupported(
                "Gantry keeps no tags of network interfaces: tag their tasks.",
            ));
        }
    }
    Ok(())
}

/// The VPC that a part belongs to.
fn owner<I: Id>(ec2: &Ec2State, id: &str, has: impl Fn(&Vpc) -> bool) -> Result<Vpc, Ec2Error> {
    let vpc = ec2.vpcs.values().find(|vpc| has(vpc));
    vpc.map(|vpc| vpc.as_ref().clone()).ok_or_else(|| check::not_found::<I>(id))
}

fn resources(given: &[String]) -> Result<&[String], Ec2Error> {
    match given.len() {
        0 => Err(Ec2Error::Missing("resourceIdSet")),
        count if count > RESOURCES_MAX => {
            Err(Ec2Error::invalid(format!("At most {RESOURCES_MAX} resources can be tagged at once.")))
        }
        _ => Ok(given),
    }
}

pub fn create_tags(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: ec2::CreateTagsRequest,
) -> Result<ec2::CreateTagsResponse, Ec2Error> {
    let tags = check::tags(&request.tags)?;
    if tags.is_empty() {
        return Err(Ec2Error::Missing("tagSet"));
    }
    let ec2 = tx.state.ec2.seen_mut(tx.scope);
    for id in resources(&request.resources)? {
        change(ec2, id, |own| {
            own.extend(tags.clone());
            if own.len() > TAGS_MAX { Err(Ec2Error::Limit(Limit::Tags)) } else { Ok(()) }
        })?;
    }
    check::unless_dry(request.dry_run)?;
    Ok(ec2::CreateTagsResponse::default())
}

/// A tag with a value goes only if it has that value; without tags all go.
pub fn delete_tags(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: ec2::DeleteTagsRequest,
) -> Result<ec2::DeleteTagsResponse, Ec2Error> {
    for tag in request.tags.iter().flatten() {
        check::tag_key(tag.key.as_deref().unwrap_or_default())?;
    }
    let ec2 = tx.state.ec2.seen_mut(tx.scope);
    for id in resources(&request.resources)? {
        change(ec2, id, |own| {
            let goes = |key: &String, value: &String| match &request.tags {
                None => true,
                Some(tags) => tags.iter().any(|tag| {
                    tag.key.as_ref() == Some(key) && tag.value.as_ref().is_none_or(|wanted| wanted == value)
                }),
            };
            own.retain(|key, value| !goes(key, value));
            Ok(())
        })?;
    }
    check::unless_dry(request.dry_run)?;
    Ok(ec2::DeleteTagsResponse::default())
}

/// All tags of a scope, in the order of the resources' ids and then their keys.
fn all(ec2: &Ec2State) -> Vec<CarriedTag> {
    let mut all = Vec::new();
    let mut carry = |kind, resource: String, tags: &Tags| {
        all.extend(tags.iter().map(|(key, value)| CarriedTag {
            kind,
            resource: resource.clone(),
            key: key.clone(),
            value: value.clone(),
        }));
    };
    for vpc in ec2.vpcs.values() {
        carry(Kind::Vpc, vpc.id.to_string(), &vpc.tags);
        carry(Kind::RouteTable, vpc.route_table.id.to_string(), &vpc.route_table.tags);
        carry(Kind::NetworkAcl, vpc.network_acl.id.to_string(), &vpc.network_acl.tags);
        if let Some(gateway) = &vpc.internet_gateway {
            carry(Kind::InternetGateway, gateway.id.to_string(), &gateway.tags);
        }
    }
    for subnet in ec2.subnets.values() {
        carry(Kind::Subnet, subnet.id.to_string(), &subnet.tags);
    }
    for template in ec2.launch_templates.values() {
        carry(Kind::LaunchTemplate, template.id.to_string(), &template.tags);
    }
    for group in ec2.security_groups.values() {
        carry(Kind::SecurityGroup, group.id.to_string(), &group.tags);
        for (id, rule) in &group.rules {
            carry(Kind::SecurityGroupRule, id.to_string(), &rule.tags);
        }
    }
    all.sort_by(|a, b| (&a.resource, &a.key).cmp(&(&b.resource, &b.key)));
    all
}

pub fn describe_tags(
    view: View<'_>,
    _call: &Call,
    request: ec2::DescribeTagsRequest,
) -> Result<ec2::DescribeTagsResult, Ec2Error> {
    let known = ["key", "resource-id", "resource-type", "value"];
    let filters = Filters::read_known(request.filters.as_deref(), &known, true)?;
    let page = filter::page(request.next_token.as_deref(), request.max_results, false)?;
    check::unless_dry(request.dry_run)?;
    let ec2 = view.state.ec2.seen(view.scope);
    let passes = |tag: &CarriedTag| {
        filters.pass_by(|name| match name {
            "key" | "tag-key" => vec![tag.key.clone()],
            "value" => vec![tag.value.clone()],
            "resource-id" => vec![tag.resource.clone()],
            "resource-type" => vec![resource_type(tag.kind).as_str().to_owned()],
            name if name.strip_prefix("tag:") == Some(&tag.key) => vec![tag.value.clone()],
            _ => Vec::new(),
        })
    };
    let show = |tag: CarriedTag| ec2::TagDescription {
        key: Some(tag.key),
        resource_id: Some(tag.resource),
        resource_type: Some(resource_type(tag.kind)),
        value: Some(tag.value),
    };
    // A space comes before every character that an id or a key begins with.
    let place = |tag: &CarriedTag| format!("{} {}", tag.resource, tag.key);
    let (tags, next_token) = page.cut(all(&ec2).into_iter().filter(passes), place, show);
    Ok(ec2::DescribeTagsResult { tags: Some(tags), next_token })
}
