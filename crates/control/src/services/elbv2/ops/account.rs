//! What holds for all load balancers: limits, security policies, and capacity, which nobody has to reserve here.

use super::{certificate, listener, load_balancer, rule, target_group};
use crate::call::Call;
use crate::services::elbv2::errors::{Elbv2Error, shortened};
use crate::services::elbv2::{check, links, policies};
use crate::tx::View;
use gantry_api::elbv2;

/// How often AWS lets a reservation be lowered in a day.
const DECREASES: i32 = 2;

pub fn describe_account_limits(
    _view: View<'_>,
    _call: &Call,
    request: elbv2::DescribeAccountLimitsInput,
) -> Result<elbv2::DescribeAccountLimitsOutput, Elbv2Error> {
    let page = check::page(request.marker.as_deref(), request.page_size)?;
    let mut limits = vec![
        ("application-load-balancers", load_balancer::BALANCERS_MAX),
        ("certificates-per-application-load-balancer", certificate::CERTIFICATES_MAX),
        ("certificates-per-network-load-balancer", certificate::CERTIFICATES_MAX),
        ("condition-values-per-alb-rule", 5),
        ("condition-wildcards-per-alb-rule", 5),
        ("listeners-per-application-load-balancer", listener::LISTENERS_MAX),
        ("listeners-per-network-load-balancer", listener::LISTENERS_MAX),
        ("network-load-balancers", load_balancer::BALANCERS_MAX),
        ("rules-per-application-load-balancer", rule::RULES_MAX),
        ("target-groups", target_group::GROUPS_MAX),
        ("target-groups-per-action-on-application-load-balancer", 5),
        ("target-groups-per-action-on-network-load-balancer", 5),
        ("targets-per-application-load-balancer", links::TARGETS_MAX),
        ("targets-per-network-load-balancer", links::TARGETS_MAX),
    ];
    limits.sort_unstable();
    let show =
        |(name, max): (&str, usize)| elbv2::Limit { name: Some(name.to_owned()), max: Some(max.to_string()) };
    let (limits, next_marker) = page.cut(limits.into_iter(), |(name, _)| (*name).to_owned(), show);
    Ok(elbv2::DescribeAccountLimitsOutput { limits: Some(limits), next_marker })
}

pub fn describe_ssl_policies(
    _view: View<'_>,
    _call: &Call,
    request: elbv2::DescribeSSLPoliciesInput,
) -> Result<elbv2::DescribeSSLPoliciesOutput, Elbv2Error> {
    let page = check::page(request.marker.as_deref(), request.page_size)?;
    let names = request.names.unwrap_or_default();
    if let Some(unknown) = names.iter().find(|name| policies::find(name).is_none()) {
        return Err(Elbv2Error::SslPolicyNotFound(shortened(unknown)));
    }
    let mut all: Vec<_> = policies::ALL.iter().collect();
    all.retain(|policy| names.is_empty() || names.iter().any(|name| name == policy.name));
    all.sort_unstable_by_key(|policy| policy.name);
    let (shown, next_marker) = page.cut(all.into_iter(), |policy| policy.name.to_owned(), policies::view);
    Ok(elbv2::DescribeSSLPoliciesOutput { ssl_policies: Some(shown), next_marker })
}

pub fn describe_capacity_reservation(
    view: View<'_>,
    _call: &Call,
    request: elbv2::DescribeCapacityReservationInput,
) -> Result<elbv2::DescribeCapacityReservationOutput, Elbv2Error> {
    check::load_balancer(view, &request.load_balancer_arn)?;
    Ok(elbv2::DescribeCapacityReservationOutput {
        decrease_requests_remaining: Some(DECREASES),
        capacity_reservation_state: Some(Vec::new()),
        ..Default::default()
    })
}
