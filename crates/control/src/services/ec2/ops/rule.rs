//! The rules of security groups: authorise, revoke, describe.

use crate::call::Call;
use crate::services::ec2::check;
use crate::services::ec2::errors::{Ec2Error, Limit};
use crate::services::ec2::facts::GroupRule;
use crate::services::ec2::filter::{self, Filters};
use crate::services::ec2::ops::security_group::check_text;
use crate::services::ec2::state::{Direction, Ec2State, Rule, SecurityGroup, Tags};
use crate::services::ec2::views;
use crate::tx::{Tx, View};
use gantry_api::ec2;
use gantry_decide::ids::{SecurityGroupId, SecurityGroupRuleId};
use gantry_decide::network::{Peer, Protocol, Traffic};

/// Rules of a group in one direction: EC2's quota.
const RULES_MAX: usize = 60;

/// The rules of a request: in permissions, or one in the request's own members as clients of old write it.
struct Given {
    permissions: Option<Vec<ec2::IpPermission>>,
    protocol: Option<String>,
    from_port: Option<i32>,
    to_port: Option<i32>,
    cidr: Option<String>,
    /// Named by EC2-Classic's members for groups.
    by_group_name: bool,
}

/// The members that the four requests have in common.
macro_rules! given {
    ($request:ident) => {
        Given {
            permissions: $request.ip_permissions,
            protocol: $request.ip_protocol,
            from_port: $request.from_port,
            to_port: $request.to_port,
            cidr: $request.cidr_ip,
            by_group_name: $request.source_security_group_name.is_some(),
        }
    };
}

impl Given {
    fn rules(self, ec2: &Ec2State, of: &SecurityGroup, direction: Direction) -> Result<Vec<Rule>, Ec2Error> {
        if self.by_group_name {
            let message = "Groups are named in IpPermissions, not in SourceSecurityGroupName.";
            return Err(Ec2Error::unsupported(message));
        }
        let mut permissions = self.permissions.unwrap_or_default();
        if let Some(cidr) = self.cidr {
            if !permissions.is_empty() {
                let message = "The parameter ipPermissions may not be used with the parameter cidrIp";
                return Err(Ec2Error::InvalidCombination(message.to_owned()));
            }
            permissions.push(ec2::IpPermission {
                ip_protocol: self.protocol,
                from_port: self.from_port,
                to_port: self.to_port,
                ip_ranges: Some(vec![ec2::IpRange { cidr_ip: Some(cidr), description: None }]),
                ..Default::default()
            });
        }
        let mut rules: Vec<Rule> = Vec::new();
        for permission in &permissions {
            for rule in read(ec2, of, direction, permission)? {
                if rules.iter().any(|other| other.allows_the_same(&rule)) {
                    let message = "The same permission must not appear multiple times";
                    return Err(Ec2Error::invalid(message));
                }
                rules.push(rule);
            }
        }
        Ok(rules)
    }
}

/// The rules that a permission stands for: one for each peer.
pub(super) fn read(
    ec2: &Ec2State,
    of: &SecurityGroup,
    direction: Direction,
    permission: &ec2::IpPermission,
) -> Result<Vec<Rule>, Ec2Error> {
    let protocol = permission.ip_protocol.as_deref().ok_or(Ec2Error::Missing("ipProtocol"))?;
    let traffic = Traffic::read(protocol, permission.from_port, permission.to_port)?;
    if permission.prefix_list_ids.as_ref().is_some_and(|lists| !lists.is_empty()) {
        return Err(Ec2Error::unsupported("Gantry has no prefix lists."));
    }
    let malformed = |block: &str| {
        let block: String = block.chars().take(64).collect();
        Ec2Error::invalid(format!("CIDR block {block} is malformed"))
    };
    let mut peers = Vec::new();
    for range in permission.ip_ranges.iter().flatten() {
        let text = range.cidr_ip.as_deref().ok_or(Ec2Error::Missing("cidrIp"))?;
        peers.push((Peer::Ipv4(text.parse().map_err(|_| malformed(text))?), &range.description));
    }
    for range in permission.ipv6_ranges.iter().flatten() {
        let text = range.cidr_ipv6.as_deref().ok_or(Ec2Error::Missing("cidrIpv6"))?;
        peers.push((Peer::Ipv6(text.parse().map_err(|_| malformed(text))?), &range.description));
    }
    for pair in permission.user_id_group_pairs.iter().flatten() {
        let peer = match (pair.group_id.as_deref(), pair.group_name.as_deref()) {
            (Some(id), _) => check::security_group(ec2, id)?,
            (None, Some(name)) => ec2
                .security_group_named(of.vpc, name)
                .ok_or_else(|| check::not_found::<SecurityGroupId>(name))?,
            (None, None) => return Err(Ec2Error::Missing("groupId")),
        };
        if peer.vpc != of.vpc {
            return Err(Ec2Error::OtherNetwork);
        }
        peers.push((Peer::Group(peer.id), &pair.description));
    }
    if peers.is_empty() {
        return Err(Ec2Error::Missing("cidrIp, cidrIpv6, groupId or prefixListId"));
    }
    let rule = |(peer, text): (Peer, &Option<String>)| {
        Ok(Rule { description: description(text.as_deref())?, ..Rule::new(direction, traffic, peer) })
    };
    peers.into_iter().map(rule).collect()
}

/// A rule's description; an empty one is none.
pub(super) fn description(given: Option<&str>) -> Result<Option<String>, Ec2Error> {
    let Some(text) = given.filter(|text| !text.is_empty()) else { return Ok(None) };
    check_text(text, "Description")?;
    Ok(Some(text.to_owned()))
}

/// A rule in the words of AWS's refusal of a second one.
pub(super) fn worded(rule: &Rule) -> String {
    let protocol = match rule.traffic.protocol {
        Protocol::All => "ALL".to_owned(),
        protocol => protocol.to_string().to_uppercase(),
    };
    let ports = rule.traffic.ports;
    let ports = ports.map(|ports| format!(", from port: {}, to port: {}", ports.from, ports.to));
    format!("peer: {}, {protocol}{}, ALLOW", rule.peer, ports.unwrap_or_default())
}

fn authorize(
    tx: &mut Tx<'_>,
    group: &SecurityGroup,
    direction: Direction,
    given: Given,
    tags: &Tags,
) -> Result<Vec<ec2::SecurityGroupRule>, Ec2Error> {
    let rules = given.rules(&tx.state.ec2, group, direction)?;
    if rules.is_empty() {
        return Err(Ec2Error::Missing("ipPermissions"));
    }
    let mut group = group.clone();
    let mut shown = Vec::new();
    for mut rule in rules {
        if group.rules.values().any(|other| other.allows_the_same(&rule)) {
            return Err(Ec2Error::DuplicateRule(worded(&rule)));
        }
        if group.rules_in(direction).count() >= RULES_MAX {
            return Err(Ec2Error::Limit(Limit::Rules));
        }
        rule.tags.clone_from(tags);
        let id = SecurityGroupRuleId::random(tx.random);
        shown.push(views::rule(tx.scope, group.id, id, &rule));
        group.rules.insert(id, rule);
    }
    tx.state.ec2.security_groups.put(group);
    Ok(shown)
}

pub fn authorize_ingress(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: ec2::AuthorizeSecurityGroupIngressRequest,
) -> Result<ec2::AuthorizeSecurityGroupIngressResult, Ec2Error> {
    tx.state.ec2.seen_mut(tx.scope);
    let (id, name) = (request.group_id.as_deref(), request.group_name.as_deref());
    let group = check::group_by_id_or_name(&tx.state.ec2, id, name)?.clone();
    let specified = request.tag_specifications.as_deref();
    let tags = check::tag_specifications(specified, ec2::ResourceType::SecurityGroupRule)?;
    let given = given!(request);
    let rules = authorize(tx, &group, Direction::Ingress, given, &tags)?;
    check::unless_dry(request.dry_run)?;
    Ok(ec2::AuthorizeSecurityGroupIngressResult { return_: Some(true), security_group_rules: Some(rules) })
}

pub fn authorize_egress(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: ec2::AuthorizeSecurityGroupEgressRequest,
) -> Result<ec2::AuthorizeSecurityGroupEgressResult, Ec2Error> {
    tx.state.ec2.seen_mut(tx.scope);
    let group = check::security_group(&tx.state.ec2, &request.group_id)?.clone();
    let specified = request.tag_specifications.as_deref();
    let tags = check::tag_specifications(specified, ec2::ResourceType::SecurityGroupRule)?;
    let given = given!(request);
    let rules = authorize(tx, &group, Direction::Egress, given, &tags)?;
    check::unless_dry(request.dry_run)?;
    Ok(ec2::AuthorizeSecurityGroupEgressResult { return_: Some(true), security_group_rules: Some(rules) })
}

/// Takes rules away by their ids or by what they allow; all of them or none.
fn revoke(
    tx: &mut Tx<'_>,
    mut group: SecurityGroup,
    direction: Direction,
    ids: Option<&[String]>,
    given: Given,
) -> Result<Vec<ec2::RevokedSecurityGroupRule>, Ec2Error> {
    let mut revoked: Vec<SecurityGroupRuleId> = Vec::new();
    for id in check::ids::<SecurityGroupRuleId>(ids)? {
        let known = group.rules.get(&id).is_some_and(|rule| rule.direction == direction);
        if !known {
            return Err(check::not_found::<SecurityGroupRuleId>(id));
        }
        revoked.push(id);
    }
    for rule in given.rules(&tx.state.ec2, &group, direction)? {
        let known = group.rules_in(direction).find(|(_, known)| known.allows_the_same(&rule));
        revoked.push(*known.ok_or(Ec2Error::NoSuchRule)?.0);
    }
    if revoked.is_empty() {
        return Err(Ec2Error::Missing("ipPermissions or securityGroupRuleIds"));
    }
    let remove = |id: SecurityGroupRuleId| {
        let rule = group.rules.remove(&id)?;
        Some(views::revoked_rule(group.id, id, &rule))
    };
    let shown = revoked.into_iter().filter_map(remove).collect();
    tx.state.ec2.security_groups.put(group);
    Ok(shown)
}

pub fn revoke_ingress(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: ec2::RevokeSecurityGroupIngressRequest,
) -> Result<ec2::RevokeSecurityGroupIngressResult, Ec2Error> {
    tx.state.ec2.seen_mut(tx.scope);
    let (id, name) = (request.group_id.as_deref(), request.group_name.as_deref());
    let group = check::group_by_id_or_name(&tx.state.ec2, id, name)?.clone();
    let given = given!(request);
    let ids = request.security_group_rule_ids.as_deref();
    let revoked = revoke(tx, group, Direction::Ingress, ids, given)?;
    check::unless_dry(request.dry_run)?;
    Ok(ec2::RevokeSecurityGroupIngressResult {
        return_: Some(true),
        revoked_security_group_rules: Some(revoked),
        unknown_ip_permissions: Some(Vec::new()),
    })
}

pub fn revoke_egress(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: ec2::RevokeSecurityGroupEgressRequest,
) -> Result<ec2::RevokeSecurityGroupEgressResult, Ec2Error> {
    tx.state.ec2.seen_mut(tx.scope);
    let group = check::security_group(&tx.state.ec2, &request.group_id)?.clone();
    let given = given!(request);
    let ids = request.security_group_rule_ids.as_deref();
    let revoked = revoke(tx, group, Direction::Egress, ids, given)?;
    check::unless_dry(request.dry_run)?;
    Ok(ec2::RevokeSecurityGroupEgressResult {
        return_: Some(true),
        revoked_security_group_rules: Some(revoked),
        unknown_ip_permissions: Some(Vec::new()),
    })
}

pub fn describe_security_group_rules(
    view: View<'_>,
    _call: &Call,
    request: ec2::DescribeSecurityGroupRulesRequest,
) -> Result<ec2::DescribeSecurityGroupRulesResult, Ec2Error> {
    let wanted = filter::wanted::<SecurityGroupRuleId>(request.security_group_rule_ids.as_deref())?;
    let filters = Filters::read::<GroupRule>(request.filters.as_deref())?;
    let page = filter::page(request.next_token.as_deref(), request.max_results, !wanted.is_empty())?;
    check::unless_dry(request.dry_run)?;
    let ec2 = view.state.ec2.seen(view.scope);
    let rules = |group: &SecurityGroup| {
        let group_id = group.id;
        let rule = move |(id, rule): (&SecurityGroupRuleId, &Rule)| GroupRule {
            group: group_id,
            id: *id,
            rule: rule.clone(),
        };
        group.rules.iter().map(rule).collect::<Vec<_>>()
    };
    let all: Vec<GroupRule> = ec2.security_groups.values().flat_map(|group| rules(group)).collect();
    let show = |rule: &GroupRule| views::rule(view.scope, rule.group, rule.id, &rule.rule);
    let (security_group_rules, next_token) =
        filter::describe(view.scope, all.iter(), &wanted, &filters, &page, show)?;
    Ok(ec2::DescribeSecurityGroupRulesResult { security_group_rules, next_token })
}
