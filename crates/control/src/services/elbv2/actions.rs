//! What a listener or a rule does with a request: actions and transforms, from requests and to answers.

use super::check;
use super::errors::{Elbv2Error, Limit, shortened};
use super::state::TargetGroup;
use super::views;
use crate::tx::View;
use gantry_api::elbv2;
use gantry_decide::ids::{BalancerKind, LoadBalancerId};
use gantry_decide::routing::config::{
    Action, FixedResponse, Forward, Protocol, ProtocolVersion, Redirect, Rewrite, TargetGroupArn, Transform,
    WeightedGroup,
};
use std::time::Duration;

/// Target groups of one action: AWS's limit.
const GROUPS_MAX: usize = 5;
/// Actions of one rule, those before the last included: AWS's limit.
const ACTIONS_MAX: usize = 5;
const WEIGHT_MAX: u16 = 999;
/// Seconds that a client may stay with a group: AWS's limit.
const STICKINESS_MAX: i32 = 604_800;
const CONTENT_TYPES: &[&str] =
    &["text/plain", "text/css", "text/html", "application/javascript", "application/json"];
/// Characters of an expression and of its replacement.
const REWRITE_LENGTH_MAX: usize = 1024;

/// The listener that an action is for.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    pub balancer: &'a LoadBalancerId,
    pub protocol: Protocol,
}

/// Reads the actions of a listener or a rule: exactly one of them says where requests go, and it is the last.
///
/// # Errors
/// For what AWS refuses, and for authentication, which Gantry does not do.
pub fn read(view: View<'_>, place: Place<'_>, given: &[elbv2::Action]) -> Result<Action, Elbv2Error> {
    if given.len() > ACTIONS_MAX {
        return Err(Elbv2Error::TooMany(Limit::Actions));
    }
    for action in given {
        use elbv2::ActionTypeEnum as Type;
        if matches!(action.type_, Type::AuthenticateOidc | Type::AuthenticateCognito | Type::JwtValidation) {
            return Err(Elbv2Error::InvalidAction(format!(
                "Gantry's load balancers do not authenticate: actions of type '{}' are not supported.",
                action.type_.as_str()
            )));
        }
    }
    let [action] = given else {
        let message = "You must specify exactly one action of type forward, redirect or fixed-response";
        return Err(Elbv2Error::InvalidAction(message.to_owned()));
    };
    let is_forward = action.type_ == elbv2::ActionTypeEnum::Forward;
    if place.balancer.kind == BalancerKind::Network && !is_forward {
        return Err(Elbv2Error::InvalidAction(format!(
            "Actions of type '{}' are supported only on HTTP and HTTPS listeners",
            action.type_.as_str()
        )));
    }
    match action.type_ {
        elbv2::ActionTypeEnum::Redirect => {
            redirect(place, action.redirect_config.as_ref()).map(Action::Redirect)
        }
        elbv2::ActionTypeEnum::FixedResponse => {
            fixed_response(action.fixed_response_config.as_ref()).map(Action::FixedResponse)
        }
        _ => forward(view, place, action).map(Action::Forward),
    }
}

fn forward(view: View<'_>, place: Place<'_>, action: &elbv2::Action) -> Result<Forward, Elbv2Error> {
    let config = action.forward_config.as_ref();
    let listed = config.and_then(|config| config.target_groups.as_deref()).unwrap_or_default();
    let mut groups: Vec<(&str, i32)> = Vec::new();
    for tuple in listed {
        let arn = tuple.target_group_arn.as_deref();
        let arn = arn.ok_or_else(|| Elbv2Error::validation("A target group ARN must be specified"))?;
        groups.push((arn, tuple.weight.unwrap_or(1)));
    }
    match (action.target_group_arn.as_deref(), groups.as_slice()) {
        (Some(arn), []) => groups.push((arn, 1)),
        (None, []) => return Err(Elbv2Error::validation("A target group ARN must be specified")),
        (Some(arn), [(only, _)]) if arn == *only => {}
        (Some(_), _) => {
            let message =
                "You cannot specify both a target group ARN and other target groups in a forward action";
            return Err(Elbv2Error::InvalidAction(message.to_owned()));
        }
        (None, _) => {}
    }
    if groups.len() > GROUPS_MAX {
        return Err(Elbv2Error::TooMany(Limit::GroupsOfAction));
    }
    let mut weighted: Vec<WeightedGroup> = Vec::new();
    for (arn, weight) in groups {
        fits(view, place, check::target_group(view, arn)?)?;
        let weight = u16::try_from(weight).ok().filter(|weight| *weight <= WEIGHT_MAX);
        let weight = weight.ok_or_else(|| {
            Elbv2Error::validation(format!("The weight of a target group must be between 0 and {WEIGHT_MAX}"))
        })?;
        if weighted.iter().any(|group| group.group.as_str() == arn) {
            return Err(Elbv2Error::validation(format!(
                "Target group '{}' is named more than once",
                shortened(arn)
            )));
        }
        weighted.push(WeightedGroup { group: TargetGroupArn::new(arn), weight });
    }
    let stickiness = config.and_then(|config| config.target_group_stickiness_config.as_ref());
    let enabled = stickiness.is_some_and(|config| config.enabled == Some(true));
    let seconds = stickiness.and_then(|config| config.duration_seconds).or(enabled.then_some(0));
    if seconds.is_some_and(|seconds| !(1..=STICKINESS_MAX).contains(&seconds)) {
        return Err(Elbv2Error::validation(format!(
            "The stickiness duration must be between 1 and {STICKINESS_MAX} seconds"
        )));
    }
    let duration = seconds.map(|seconds| Duration::from_secs(seconds.unsigned_abs().into()));
    let (stickiness, unused_stickiness) = if enabled { (duration, None) } else { (None, duration) };
    Ok(Forward { groups: weighted, stickiness, unused_stickiness })
}

/// Whether a listener can send requests to a group.
fn fits(view: View<'_>, place: Place<'_>, group: &TargetGroup) -> Result<(), Elbv2Error> {
    let arn = || view.scope.balancing(group.id.clone()).to_string();
    let compatible: &[Protocol] = match place.protocol {
        Protocol::Http | Protocol::Https => &[Protocol::Http, Protocol::Https],
        Protocol::Tcp => &[Protocol::Tcp, Protocol::TcpUdp],
        Protocol::Tls => &[Protocol::Tcp, Protocol::Tls],
        Protocol::Udp => &[Protocol::Udp, Protocol::TcpUdp],
        Protocol::TcpUdp => &[Protocol::TcpUdp],
    };
    if !compatible.contains(&group.protocol) {
        let name = |protocol| views::protocol(protocol).as_str();
        let (listener, protocol) = (name(place.protocol), name(group.protocol));
        return Err(Elbv2Error::IncompatibleProtocols { group: arn(), listener, protocol });
    }
    if place.protocol == Protocol::Http && group.version == Some(ProtocolVersion::Grpc) {
        return Err(Elbv2Error::configuration(
            "Listener protocol 'HTTP' is not supported with a target group with the protocol-version 'GRPC'",
        ));
    }
    let elbv2 = &view.state.elbv2;
    if elbv2.load_balancer(place.balancer).is_some_and(|balancer| balancer.vpc != group.vpc) {
        let balancer = view.scope.balancing(place.balancer.clone());
        return Err(Elbv2Error::configuration(format!(
            "The target group '{}' is not in the VPC of the load balancer '{balancer}'",
            arn()
        )));
    }
    if elbv2.balancers_of(view.scope, &group.id).iter().any(|user| user != place.balancer) {
        return Err(Elbv2Error::AssociationLimit(arn()));
    }
    Ok(())
}

fn redirect(place: Place<'_>, given: Option<&elbv2::RedirectActionConfig>) -> Result<Redirect, Elbv2Error> {
    let given = given.ok_or_else(|| Elbv2Error::validation("A redirect configuration must be specified"))?;
    let kept = Redirect::default();
    let or = |given: &Option<String>, default: &String| given.clone().unwrap_or_else(|| default.clone());
    let redirect = Redirect {
        permanent: given.status_code == elbv2::RedirectActionStatusCodeEnum::Http301,
        protocol: or(&given.protocol, &kept.protocol),
        host: or(&given.host, &kept.host),
        port: or(&given.port, &kept.port),
        path: or(&given.path, &kept.path),
        query: or(&given.query, &kept.query),
    };
    if !redirect.path.starts_with('/') {
        return Err(Elbv2Error::validation("The path of a redirect must start with '/'"));
    }
    if redirect.port != kept.port && !redirect.port.parse::<u16>().is_ok_and(|port| port > 0) {
        return Err(Elbv2Error::validation(
            "The port of a redirect must be a number from 1 to 65535 or #{port}",
        ));
    }
    if place.protocol == Protocol::Https && redirect.protocol == "HTTP" {
        return Err(Elbv2Error::InvalidAction("You cannot redirect HTTPS to HTTP".to_owned()));
    }
    // The query and the status alone would send clients round in a circle.
    let same_protocol =
        redirect.protocol == kept.protocol || redirect.protocol == views::protocol(place.protocol).as_str();
    if same_protocol && redirect.host == kept.host && redirect.port == kept.port && redirect.path == kept.path
    {
        let message =
            "The RedirectConfig must modify at least one of the following: protocol, hostname, port or path";
        return Err(Elbv2Error::InvalidAction(message.to_owned()));
    }
    Ok(redirect)
}

fn fixed_response(given: Option<&elbv2::FixedResponseActionConfig>) -> Result<FixedResponse, Elbv2Error> {
    let given =
        given.ok_or_else(|| Elbv2Error::validation("A fixed response configuration must be specified"))?;
    if let Some(content_type) = given.content_type.as_deref()
        && !CONTENT_TYPES.contains(&content_type)
    {
        return Err(Elbv2Error::validation(format!(
            "The content type '{}' must be one of '{}'",
            shortened(content_type),
            CONTENT_TYPES.join(", ")
        )));
    }
    let status = given.status_code.parse();
    Ok(FixedResponse {
        status: status.map_err(|_| Elbv2Error::validation("The status code must be 2XX, 4XX or 5XX"))?,
        content_type: given.content_type.clone(),
        body: given.message_body.clone().unwrap_or_default(),
    })
}

pub fn view(action: &Action) -> elbv2::Action {
    match action {
        Action::Forward(forward) => {
            let tuple = |group: &WeightedGroup| elbv2::TargetGroupTuple {
                target_group_arn: Some(group.group.to_string()),
                weight: Some(i32::from(group.weight)),
            };
            let only = match forward.groups.as_slice() {
                [only] => Some(only.group.to_string()),
                _ => None,
            };
            elbv2::Action {
                type_: elbv2::ActionTypeEnum::Forward,
                target_group_arn: only,
                order: Some(1),
                forward_config: Some(elbv2::ForwardActionConfig {
                    target_groups: Some(forward.groups.iter().map(tuple).collect()),
                    target_group_stickiness_config: Some(elbv2::TargetGroupStickinessConfig {
                        enabled: Some(forward.stickiness.is_some()),
                        duration_seconds: forward
                            .stickiness
                            .or(forward.unused_stickiness)
                            .and_then(|duration| i32::try_from(duration.as_secs()).ok()),
                    }),
                }),
                ..Default::default()
            }
        }
        Action::Redirect(redirect) => elbv2::Action {
            type_: elbv2::ActionTypeEnum::Redirect,
            order: Some(1),
            redirect_config: Some(elbv2::RedirectActionConfig {
                protocol: Some(redirect.protocol.clone()),
                host: Some(redirect.host.clone()),
                port: Some(redirect.port.clone()),
                path: Some(redirect.path.clone()),
                query: Some(redirect.query.clone()),
                status_code: match redirect.permanent {
                    true => elbv2::RedirectActionStatusCodeEnum::Http301,
                    false => elbv2::RedirectActionStatusCodeEnum::Http302,
                },
            }),
            ..Default::default()
        },
        Action::FixedResponse(response) => elbv2::Action {
            type_: elbv2::ActionTypeEnum::FixedResponse,
            order: Some(1),
            fixed_response_config: Some(elbv2::FixedResponseActionConfig {
                status_code: response.status.to_string(),
                content_type: response.content_type.clone(),
                message_body: (!response.body.is_empty()).then(|| response.body.clone()),
            }),
            ..Default::default()
        },
    }
}

/// Reads the transforms of a rule: at most one of each kind.
///
/// # Errors
/// For what AWS refuses.
pub fn transforms(given: Option<&[elbv2::RuleTransform]>) -> Result<Vec<Transform>, Elbv2Error> {
    let mut transforms = Vec::new();
    for transform in given.unwrap_or_default() {
        let rewrites = match transform.type_ {
            elbv2::TransformTypeEnum::HostHeaderRewrite => {
                transform.host_header_rewrite_config.as_ref().and_then(|config| config.rewrites.as_deref())
            }
            elbv2::TransformTypeEnum::UrlRewrite => {
                transform.url_rewrite_config.as_ref().and_then(|config| config.rewrites.as_deref())
            }
        };
        let [rewrite] = rewrites.unwrap_or_default() else {
            return Err(Elbv2Error::validation("A transform must have exactly one rewrite"));
        };
        if rewrite.regex.len() > REWRITE_LENGTH_MAX || rewrite.replace.len() > REWRITE_LENGTH_MAX {
            let message =
                format!("The regex and the replacement can have at most {REWRITE_LENGTH_MAX} characters");
            return Err(Elbv2Error::validation(message));
        }
        super::conditions::check_regex(&rewrite.regex)?;
        let rewrites = vec![Rewrite { regex: rewrite.regex.clone(), replace: rewrite.replace.clone() }];
        transforms.push(match transform.type_ {
            elbv2::TransformTypeEnum::HostHeaderRewrite => Transform::Host(rewrites),
            elbv2::TransformTypeEnum::UrlRewrite => Transform::Url(rewrites),
        });
    }
    let of = |host: bool| transforms.iter().filter(|t| matches!(t, Transform::Host(_)) == host).count();
    if of(true) > 1 || of(false) > 1 {
        return Err(Elbv2Error::validation("A rule can have one transform of each type"));
    }
    Ok(transforms)
}

pub fn transform_view(transform: &Transform) -> elbv2::RuleTransform {
    let rewrites = |all: &[Rewrite]| {
        let one = |r: &Rewrite| elbv2::RewriteConfig { regex: r.regex.clone(), replace: r.replace.clone() };
        Some(all.iter().map(one).collect())
    };
    match transform {
        Transform::Host(all) => elbv2::RuleTransform {
            type_: elbv2::TransformTypeEnum::HostHeaderRewrite,
            host_header_rewrite_config: Some(elbv2::HostHeaderRewriteConfig { rewrites: rewrites(all) }),
            url_rewrite_config: None,
        },
        Transform::Url(all) => elbv2::RuleTransform {
            type_: elbv2::TransformTypeEnum::UrlRewrite,
            host_header_rewrite_config: None,
            url_rewrite_config: Some(elbv2::UrlRewriteConfig { rewrites: rewrites(all) }),
        },
    }
}
