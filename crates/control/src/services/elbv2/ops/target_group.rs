//! Target groups and their health checks.

use crate::call::Call;
use crate::services::elbv2::errors::{Elbv2Error, Kind, Limit, shortened};
use crate::services::elbv2::state::{AddressFamily, Attributes, HealthCheck, TargetGroup, TargetType};
use crate::services::elbv2::{check, links, views};
use crate::tx::{Tx, View};
use gantry_api::elbv2;
use gantry_decide::ids::TargetGroupId;
use gantry_decide::routing::config::{Protocol, ProtocolVersion};

/// Target groups of one scope: AWS's quota.
pub const GROUPS_MAX: usize = 3000;
/// Where gRPC targets are asked, unless another path is given.
const GRPC_PATH: &str = "/AWS.ALB/healthcheck";

fn shown(view: View<'_>, group: &TargetGroup) -> elbv2::TargetGroup {
    views::target_group(view.scope, group, &view.state.elbv2.balancers_of(view.scope, &group.id))
}

fn version(protocol: Protocol, given: Option<&str>) -> Result<Option<ProtocolVersion>, Elbv2Error> {
    if !matches!(protocol, Protocol::Http | Protocol::Https) {
        return match given {
            None | Some("") => Ok(None),
            Some(_) => {
                Err(Elbv2Error::validation("The protocol version is supported only for HTTP and HTTPS"))
            }
        };
    }
    let all = [ProtocolVersion::Http1, ProtocolVersion::Http2, ProtocolVersion::Grpc];
    // Terraform sends an empty one for none.
    let given = given.filter(|given| !given.is_empty()).unwrap_or("HTTP1");
    let found = all.into_iter().find(|version| views::protocol_version(*version) == given);
    found.map(Some).ok_or_else(|| {
        let given = shortened(given);
        Elbv2Error::validation(format!("The protocol version '{given}' must be one of 'HTTP1, HTTP2, GRPC'"))
    })
}

/// A group's health check before anything was asked for.
fn default_check(protocol: Protocol, version: Option<ProtocolVersion>) -> HealthCheck {
    let is_http = matches!(protocol, Protocol::Http | Protocol::Https);
    let is_grpc = version == Some(ProtocolVersion::Grpc);
    let path = if is_grpc { GRPC_PATH } else { "/" };
    let codes = if is_grpc { "12" } else { "200" };
    HealthCheck {
        enabled: true,
        protocol: if is_http { protocol } else { Protocol::Tcp },
        port: None,
        path: is_http.then(|| path.to_owned()),
        interval: 30,
        timeout: if is_http { 5 } else { 10 },
        healthy_threshold: 5,
        unhealthy_threshold: 2,
        matcher: is_http.then(|| codes.to_owned()),
    }
}

/// What a request says of a health check: the same members in two operations.
struct Asked<'a> {
    enabled: Option<bool>,
    protocol: Option<elbv2::ProtocolEnum>,
    port: Option<&'a str>,
    path: Option<&'a str>,
    interval: Option<i32>,
    timeout: Option<i32>,
    healthy_threshold: Option<i32>,
    unhealthy_threshold: Option<i32>,
    matcher: Option<&'a elbv2::Matcher>,
}

macro_rules! asked {
    ($request:ident) => {
        Asked {
            enabled: $request.health_check_enabled,
            protocol: $request.health_check_protocol,
            port: $request.health_check_port.as_deref(),
            path: $request.health_check_path.as_deref(),
            interval: $request.health_check_interval_seconds,
            timeout: $request.health_check_timeout_seconds,
            healthy_threshold: $request.healthy_threshold_count,
            unhealthy_threshold: $request.unhealthy_threshold_count,
            matcher: $request.matcher.as_ref(),
        }
    };
}

/// Changes a health check as asked.
fn adjust(group: &mut TargetGroup, asked: &Asked<'_>) -> Result<(), Elbv2Error> {
    let (is_http_group, grpc) = (group.is_http(), group.version == Some(ProtocolVersion::Grpc));
    let check = &mut group.health_check;
    if let Some(given) = asked.protocol {
        let protocol = check::protocol(given).filter(|protocol| match protocol {
            Protocol::Http | Protocol::Https => true,
            Protocol::Tcp => !is_http_group,
            _ => false,
        });
        check.protocol = protocol.ok_or_else(|| {
            Elbv2Error::validation(format!("Health check protocol '{}' is not supported", given.as_str()))
        })?;
        // A network load balancer's check by HTTP has a path and codes of its own.
        let is_http = check.protocol != Protocol::Tcp;
        if is_http && check.path.is_none() {
            check.path = Some("/".to_owned());
            check.matcher = Some("200-399".to_owned());
            check.timeout = 6;
        } else if !is_http {
            (check.path, check.matcher) = (None, None);
        }
    }
    let is_http = check.protocol != Protocol::Tcp;
    if let Some(port) = asked.port {
        check.port = match port {
            "traffic-port" => None,
            port => Some(port.parse().ok().filter(|port| *port > 0).ok_or_else(|| {
                let port = shortened(port);
                Elbv2Error::validation(format!(
                    "Health check port '{port}' must be 'traffic-port' or 1 to 65535"
                ))
            })?),
        };
    }
    if let Some(path) = asked.path {
        if !is_http {
            return Err(Elbv2Error::validation(
                "Health check path cannot be specified for TCP health checks",
            ));
        }
        if !path.starts_with('/') || path.bytes().any(|b| !(b'!'..=b'~').contains(&b)) {
            return Err(Elbv2Error::validation(format!(
                "Health check path '{}' must begin with '/'",
                shortened(path)
            )));
        }
        check.path = Some(path.to_owned());
    }
    if let Some(matcher) = asked.matcher {
        let codes = match (&matcher.http_code, &matcher.grpc_code) {
            (Some(codes), None) if is_http && !grpc => codes,
            (None, Some(codes)) if grpc => codes,
            (None, None) => return Err(Elbv2Error::validation("A matcher must have codes")),
            _ => return Err(Elbv2Error::validation("The matcher does not fit the health check's protocol")),
        };
        let bounds = match (grpc, is_http_group) {
            (true, _) => 0..=99,
            (false, true) => 200..=499,
            (false, false) => 200..=599,
        };
        let codes_read = links::codes(codes);
        let within = |codes: &[(u16, u16)]| {
            codes.iter().all(|(from, to)| bounds.contains(from) && bounds.contains(to) && from <= to)
        };
        if !codes_read.is_some_and(|codes| within(&codes)) {
            let message = format!("Health check matcher codes '{}' are not valid", shortened(codes));
            return Err(Elbv2Error::validation(message));
        }
        check.matcher = Some(codes.clone());
    }
    let set = |value: &mut u32, given: Option<i32>| {
        if let Some(given) = given {
            // The model has bounds for it.
            *value = given.unsigned_abs();
        }
    };
    check.enabled = asked.enabled.unwrap_or(check.enabled);
    if asked.enabled == Some(false) {
        return Err(Elbv2Error::validation(format!(
            "Health check enabled must be true for target groups with target type '{}'",
            views::target_type(group.target_type).as_str()
        )));
    }
    set(&mut check.interval, asked.interval);
    set(&mut check.timeout, asked.timeout);
    set(&mut check.healthy_threshold, asked.healthy_threshold);
    set(&mut check.unhealthy_threshold, asked.unhealthy_threshold);
    if check.timeout >= check.interval && asked.timeout.is_none() {
        // A short interval that was asked for brings the default timeout below it.
        check.timeout = check.interval - 1;
    }
    if check.timeout >= check.interval {
        return Err(Elbv2Error::validation(format!(
            "Health check timeout '{}' must be smaller than the interval '{}'",
            check.timeout, check.interval
        )));
    }
    Ok(())
}

pub fn create_target_group(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: elbv2::CreateTargetGroupInput,
) -> Result<elbv2::CreateTargetGroupOutput, Elbv2Error> {
    let view = tx.view();
    let name = check::name(Kind::TargetGroup, &request.name)?;
    let target_type = match request.target_type {
        None | Some(elbv2::TargetTypeEnum::Instance) => TargetType::Instance,
        Some(elbv2::TargetTypeEnum::Ip) => TargetType::Ip,
        Some(other) => {
            return Err(Elbv2Error::configuration(format!(
                "Gantry's targets are instances and addresses: the target type '{}' is not supported.",
                other.as_str()
            )));
        }
    };
    let given = request.protocol.ok_or_else(|| Elbv2Error::validation("A protocol must be specified"))?;
    let protocol = check::protocol(given).ok_or_else(|| {
        Elbv2Error::configuration(format!("Gantry's load balancers do not speak '{}'.", given.as_str()))
    })?;
    let port = request.port.ok_or_else(|| Elbv2Error::validation("A port must be specified"))?;
    let port = u16::try_from(port).map_err(|_| Elbv2Error::validation("Port must be between 1 and 65535"))?;
    let vpc =
        request.vpc_id.as_deref().ok_or_else(|| Elbv2Error::validation("A VPC ID must be specified"))?;
    let vpc = check::vpc(view, vpc)?;
    let address_family = match request.ip_address_type {
        None | Some(elbv2::TargetGroupIpAddressTypeEnum::Ipv4) => AddressFamily::Ipv4,
        Some(elbv2::TargetGroupIpAddressTypeEnum::Ipv6) => AddressFamily::Ipv6,
    };
    if address_family == AddressFamily::Ipv6 && target_type == TargetType::Instance {
        return Err(Elbv2Error::configuration(
            "Gantry knows instances by their IPv4 addresses: targets with IPv6 addresses have the target type 'ip'.",
        ));
    }
    if request.target_control_port.is_some() {
        return Err(Elbv2Error::configuration("Gantry's targets have no control port."));
    }
    let version = version(protocol, request.protocol_version.as_deref())?;
    let mut group = TargetGroup {
        id: TargetGroupId::random(name, tx.random),
        protocol,
        version,
        port,
        vpc,
        target_type,
        address_family,
        health_check: default_check(protocol, version),
        attributes: Attributes::new(),
        tags: check::tags(request.tags.as_deref())?,
    };
    let asked = asked!(request);
    adjust(&mut group, &asked)?;
    if let Some(existing) = tx.state.elbv2.target_group_named(group.id.name.as_str()) {
        let same =
            TargetGroup { id: existing.id.clone(), attributes: existing.attributes.clone(), ..group.clone() };
        if same != *existing {
            return Err(Elbv2Error::DuplicateTargetGroupName(group.id.name.to_string()));
        }
        return Ok(elbv2::CreateTargetGroupOutput { target_groups: Some(vec![shown(tx.view(), existing)]) });
    }
    if tx.state.elbv2.target_groups.len() >= GROUPS_MAX {
        return Err(Elbv2Error::TooMany(Limit::TargetGroups));
    }
    let target_groups = Some(vec![shown(tx.view(), &group)]);
    tx.state.elbv2.target_groups.put(group);
    Ok(elbv2::CreateTargetGroupOutput { target_groups })
}

pub fn describe_target_groups(
    view: View<'_>,
    _call: &Call,
    request: elbv2::DescribeTargetGroupsInput,
) -> Result<elbv2::DescribeTargetGroupsOutput, Elbv2Error> {
    let elbv2 = &view.state.elbv2;
    let (arns, names) = (request.target_group_arns.unwrap_or_default(), request.names.unwrap_or_default());
    let page = check::page(request.marker.as_deref(), request.page_size)?;
    let ways = [request.load_balancer_arn.is_some(), !arns.is_empty(), !names.is_empty()];
    if ways.iter().filter(|way| **way).count() > 1 {
        let message =
            "Target group names, target group ARNs and a load balancer ARN cannot be specified together";
        return Err(Elbv2Error::validation(message));
    }
    let mut found: Vec<&TargetGroup> = Vec::new();
    for arn in &arns {
        found.push(check::target_group(view, arn)?);
    }
    for name in &names {
        found.push(elbv2.target_group_named(name).ok_or(Elbv2Error::TargetGroupNotFound)?);
    }
    if let Some(balancer) = &request.load_balancer_arn {
        let balancer = check::load_balancer(view, balancer)?;
        let all = elbv2.target_groups.values().map(AsRef::as_ref);
        found.extend(all.filter(|group| elbv2.balancers_of(view.scope, &group.id).contains(&balancer.id)));
    } else if arns.is_empty() && names.is_empty() {
        found.extend(elbv2.target_groups.values().map(AsRef::as_ref));
    }
    found.sort_by_cached_key(|group| group.id.to_string());
    found.dedup_by(|one, other| one.id == other.id);
    let show = |group: &TargetGroup| shown(view, group);
    let (groups, next_marker) = page.cut(found.into_iter(), |group| group.id.to_string(), show);
    Ok(elbv2::DescribeTargetGroupsOutput { target_groups: Some(groups), next_marker })
}

pub fn modify_target_group(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: elbv2::ModifyTargetGroupInput,
) -> Result<elbv2::ModifyTargetGroupOutput, Elbv2Error> {
    let mut group = check::target_group(tx.view(), &request.target_group_arn)?.clone();
    let asked = asked!(request);
    adjust(&mut group, &asked)?;
    let target_groups = Some(vec![shown(tx.view(), &group)]);
    tx.state.elbv2.target_groups.put(group);
    Ok(elbv2::ModifyTargetGroupOutput { target_groups })
}

/// Its targets go with it.
pub fn delete_target_group(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: elbv2::DeleteTargetGroupInput,
) -> Result<elbv2::DeleteTargetGroupOutput, Elbv2Error> {
    let id = check::target_group_id(tx.scope, &request.target_group_arn)?;
    if !tx.state.elbv2.balancers_of(tx.scope, &id).is_empty() {
        return Err(Elbv2Error::ResourceInUse(format!(
            "Target group '{}' is currently in use by a listener or a rule",
            request.target_group_arn
        )));
    }
    let targets: Vec<_> = tx.state.elbv2.targets_of(&id).map(|target| target.key.clone()).collect();
    for target in &targets {
        tx.state.elbv2.targets.remove(target);
    }
    tx.state.elbv2.target_groups.remove(&id);
    Ok(elbv2::DeleteTargetGroupOutput::default())
}
