//! Security groups; their rules are in [`super::rule`].

use crate::call::Call;
use crate::services::ec2::errors::{Ec2Error, Limit};
use crate::services::ec2::filter::{self, Filters};
use crate::services::ec2::state::{DEFAULT_GROUP, SecurityGroup};
use crate::services::ec2::{check, views};
use crate::services::elbv2;
use crate::tx::{Tx, View};
use gantry_api::ec2;
use gantry_decide::ids::SecurityGroupId;

/// Groups of one scope: EC2's quota.
const GROUPS_MAX: usize = 2500;
/// Characters of a name and of a description: EC2's limits.
const NAME_LENGTH_MAX: usize = 255;

/// The characters that EC2 allows in names and descriptions.
fn allowed(c: char) -> bool {
    c.is_ascii_alphanumeric() || " ._-:/()#,@[]+=&;{}!$*".contains(c)
}

/// # Errors
/// For an empty or long text and for characters that EC2 does not take.
pub fn check_text(text: &str, parameter: &str) -> Result<(), Ec2Error> {
    if text.is_empty() || text.chars().count() > NAME_LENGTH_MAX {
        let why = format!("It must have 1 to {NAME_LENGTH_MAX} characters.");
        return Err(Ec2Error::value(text, parameter, &why));
    }
    if !text.chars().all(allowed) {
        let why = "Character sets beyond ASCII are not supported, and of ASCII only letters, digits, spaces and \
                   ._-:/()#,@[]+=&;{}!$*";
        return Err(Ec2Error::value(text, parameter, why));
    }
    Ok(())
}

pub fn create_security_group(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: ec2::CreateSecurityGroupRequest,
) -> Result<ec2::CreateSecurityGroupResult, Ec2Error> {
    let (name, description) = (request.group_name.as_str(), request.description.as_str());
    check_text(name, "GroupName")?;
    check_text(description, "GroupDescription")?;
    if name.starts_with(SecurityGroupId::PREFIX) {
        return Err(Ec2Error::value(name, "GroupName", "Group names may not be in the format sg-*."));
    }
    let given = request.tag_specifications.as_deref();
    let tags = check::tag_specifications(given, ec2::ResourceType::SecurityGroup)?;
    let ec2 = tx.state.ec2.seen_mut(tx.scope);
    let vpc = match &request.vpc_id {
        Some(id) => check::vpc(ec2, id)?,
        None => ec2.default_vpc().ok_or(Ec2Error::NoDefaultVpc)?,
    };
    let (vpc, has_ipv6) = (vpc.id, vpc.ipv6.is_some());
    if name == DEFAULT_GROUP {
        return Err(Ec2Error::ReservedGroup(name.to_owned()));
    }
    if ec2.security_group_named(vpc, name).is_some() {
        return Err(Ec2Error::DuplicateGroup { name: name.to_owned(), vpc: vpc.to_string() });
    }
    if ec2.security_groups.len() >= GROUPS_MAX {
        return Err(Ec2Error::Limit(Limit::SecurityGroups));
    }
    check::unless_dry(request.dry_run)?;
    let id = SecurityGroupId::random(tx.random);
    let mut group = SecurityGroup { tags, ..SecurityGroup::new(id, vpc, name, description) };
    if has_ipv6 {
        group.let_ipv6_out();
    }
    let tags = views::tags(&group.tags);
    ec2.security_groups.put(group);
    Ok(ec2::CreateSecurityGroupResult {
        group_id: Some(id.to_string()),
        security_group_arn: Some(views::arn(tx.scope, "security-group", id)),
        tags,
    })
}

pub fn describe_security_groups(
    view: View<'_>,
    _call: &Call,
    request: ec2::DescribeSecurityGroupsRequest,
) -> Result<ec2::DescribeSecurityGroupsResult, Ec2Error> {
    let ec2 = view.state.ec2.seen(view.scope);
    let mut wanted = filter::wanted::<SecurityGroupId>(request.group_ids.as_deref())?;
    for name in request.group_names.iter().flatten() {
        let id = check::group_by_id_or_name(&ec2, None, Some(name))?.id;
        wanted.push((id.to_string(), check::not_found::<SecurityGroupId>(id)));
    }
    let filters = Filters::read::<SecurityGroup>(request.filters.as_deref())?;
    let page = filter::page(request.next_token.as_deref(), request.max_results, !wanted.is_empty())?;
    check::unless_dry(request.dry_run)?;
    let all = ec2.security_groups.values().map(AsRef::as_ref);
    let show = |group: &SecurityGroup| views::security_group(view.scope, group);
    let (security_groups, next_token) = filter::describe(view.scope, all, &wanted, &filters, &page, show)?;
    Ok(ec2::DescribeSecurityGroupsResult { security_groups, next_token })
}

pub fn delete_security_group(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: ec2::DeleteSecurityGroupRequest,
) -> Result<ec2::DeleteSecurityGroupResult, Ec2Error> {
    tx.state.ec2.seen_mut(tx.scope);
    let ec2 = &tx.state.ec2;
    let (id, name) = (request.group_id.as_deref(), request.group_name.as_deref());
    let group = check::group_by_id_or_name(ec2, id, name)?;
    let id = group.id;
    if group.is_default() {
        return Err(Ec2Error::CannotDelete { id: id.to_string(), name: group.name.clone() });
    }
    let named = ec2.security_groups.values().any(|other| other.id != id && other.refers_to(id));
    let in_use = tx.state.ecs.interfaces().in_group(&id.to_string()).next().is_some()
        || elbv2::links::uses_security_group(tx.view(), id);
    if named || in_use {
        return Err(Ec2Error::Dependency(format!("resource {id} has a dependent object")));
    }
    check::unless_dry(request.dry_run)?;
    tx.state.ec2.security_groups.remove(&id);
    Ok(ec2::DeleteSecurityGroupResult { return_: Some(true), group_id: Some(id.to_string()) })
}
