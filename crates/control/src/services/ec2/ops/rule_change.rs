//! Changes of a security group's rules in place: what they allow, and what is said of them. Their ids and tags stay.

use super::rule::{description, read, worded};
use crate::call::Call;
use crate::services::ec2::check;
use crate::services::ec2::errors::Ec2Error;
use crate::services::ec2::state::{Direction, Rule, SecurityGroup};
use crate::tx::Tx;
use gantry_api::ec2;
use gantry_decide::ids::SecurityGroupRuleId;

/// The permission that a rule written by itself stands for.
fn permission(request: ec2::SecurityGroupRuleRequest) -> Result<ec2::IpPermission, Ec2Error> {
    let ec2::SecurityGroupRuleRequest {
        ip_protocol,
        from_port,
        to_port,
        cidr_ipv4,
        cidr_ipv6,
        prefix_list_id,
        referenced_group_id,
        description,
        ..
    } = request;
    let peers = [&cidr_ipv4, &cidr_ipv6, &prefix_list_id, &referenced_group_id];
    if peers.into_iter().flatten().count() > 1 {
        let message = "Only one of CidrIpv4, CidrIpv6, PrefixListId and ReferencedGroupId can be specified";
        return Err(Ec2Error::InvalidCombination(message.to_owned()));
    }
    let said = || description.clone();
    Ok(ec2::IpPermission {
        ip_protocol,
        from_port,
        to_port,
        ip_ranges: cidr_ipv4.map(|cidr| vec![ec2::IpRange { cidr_ip: Some(cidr), description: said() }]),
        ipv6_ranges: cidr_ipv6
            .map(|cidr| vec![ec2::Ipv6Range { cidr_ipv6: Some(cidr), description: said() }]),
        prefix_list_ids: prefix_list_id
            .map(|id| vec![ec2::PrefixListId { prefix_list_id: Some(id), description: said() }]),
        user_id_group_pairs: referenced_group_id.map(|id| {
            vec![ec2::UserIdGroupPair { group_id: Some(id), description: said(), ..Default::default() }]
        }),
    })
}

fn rule_of<'a>(
    group: &'a mut SecurityGroup,
    id: &str,
) -> Result<(SecurityGroupRuleId, &'a mut Rule), Ec2Error> {
    let id = check::id::<SecurityGroupRuleId>(id)?;
    let rule = group.rules.get_mut(&id).ok_or_else(|| check::not_found::<SecurityGroupRuleId>(id))?;
    Ok((id, rule))
}

/// Each rule becomes what the request says of it, whole; only its direction stays.
pub fn modify_security_group_rules(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: ec2::ModifySecurityGroupRulesRequest,
) -> Result<ec2::ModifySecurityGroupRulesResult, Ec2Error> {
    tx.state.ec2.seen_mut(tx.scope);
    let ec2 = &tx.state.ec2;
    let mut group = check::security_group(ec2, &request.group_id)?.clone();
    let mut changed: Vec<SecurityGroupRuleId> = Vec::new();
    for update in request.security_group_rules {
        let (id, rule) = rule_of(&mut group, &update.security_group_rule_id)?;
        let direction = rule.direction;
        if changed.contains(&id) {
            return Err(Ec2Error::invalid("The same rule must not appear multiple times"));
        }
        changed.push(id);
        let wanted = update.security_group_rule.ok_or(Ec2Error::Missing("SecurityGroupRule"))?;
        let wanted = read(ec2, &group, direction, &permission(wanted)?)?;
        for new in wanted {
            let (_, rule) = rule_of(&mut group, &update.security_group_rule_id)?;
            *rule = Rule { tags: std::mem::take(&mut rule.tags), ..new };
        }
    }
    // Once all are changed: two may have exchanged what they allow.
    for id in changed {
        let Some(rule) = group.rules.get(&id) else { continue };
        if group.rules.iter().any(|(other, known)| *other != id && known.allows_the_same(rule)) {
            return Err(Ec2Error::DuplicateRule(worded(rule)));
        }
    }
    check::unless_dry(request.dry_run)?;
    tx.state.ec2.security_groups.put(group);
    Ok(ec2::ModifySecurityGroupRulesResult { return_: Some(true) })
}

/// Says something else of rules, named by their ids or by what they allow.
fn describe(
    tx: &mut Tx<'_>,
    (id, name): (Option<&str>, Option<&str>),
    direction: Direction,
    permissions: Option<Vec<ec2::IpPermission>>,
    descriptions: Option<Vec<ec2::SecurityGroupRuleDescription>>,
    dry_run: Option<bool>,
) -> Result<(), Ec2Error> {
    tx.state.ec2.seen_mut(tx.scope);
    let ec2 = &tx.state.ec2;
    let mut group = check::group_by_id_or_name(ec2, id, name)?.clone();
    let (permissions, descriptions) = (permissions.unwrap_or_default(), descriptions.unwrap_or_default());
    if permissions.is_empty() && descriptions.is_empty() {
        return Err(Ec2Error::Missing("ipPermissions or securityGroupRuleDescriptions"));
    }
    for permission in &permissions {
        for wanted in read(ec2, &group, direction, permission)? {
            let known = group.rules.values_mut().find(|known| known.allows_the_same(&wanted));
            known.ok_or(Ec2Error::NoSuchRule)?.description = wanted.description;
        }
    }
    for given in descriptions {
        let text = given.security_group_rule_id.as_deref().ok_or(Ec2Error::Missing("securityGroupRuleId"))?;
        let (id, rule) = rule_of(&mut group, text)?;
        if rule.direction != direction {
            return Err(check::not_found::<SecurityGroupRuleId>(id));
        }
        rule.description = description(given.description.as_deref())?;
    }
    check::unless_dry(dry_run)?;
    tx.state.ec2.security_groups.put(group);
    Ok(())
}

/// The two operations differ in their direction alone.
macro_rules! descriptions {
    ($($name:ident $request:ident $result:ident $direction:ident;)*) => {$(
        pub fn $name(tx: &mut Tx<'_>, _call: &Call, request: ec2::$request) -> Result<ec2::$result, Ec2Error> {
            let ec2::$request { group_id, group_name, ip_permissions, security_group_rule_descriptions, dry_run } = request;
            let named = (group_id.as_deref(), group_name.as_deref());
            let direction = Direction::$direction;
            describe(tx, named, direction, ip_permissions, security_group_rule_descriptions, dry_run)?;
            Ok(ec2::$result { return_: Some(true) })
        }
    )*};
}

descriptions! {
    update_security_group_rule_descriptions_ingress
        UpdateSecurityGroupRuleDescriptionsIngressRequest UpdateSecurityGroupRuleDescriptionsIngressResult Ingress;
    update_security_group_rule_descriptions_egress
        UpdateSecurityGroupRuleDescriptionsEgressRequest UpdateSecurityGroupRuleDescriptionsEgressResult Egress;
}
