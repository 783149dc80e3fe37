//! What Elastic Load Balancing's operations ask of IAM.

use crate::call::Demand;
use gantry_api::elbv2;
use gantry_decide::ids::Scope;

/// Operations that know no resource.
macro_rules! on_all {
    ($($name:ident $request:ident $action:literal;)*) => {$(
        pub fn $name(_: &elbv2::$request, _: &Scope) -> Demand {
            Demand::on_all(concat!("elasticloadbalancing:", $action))
        }
    )*};
}

on_all! {
    describe_account_limits DescribeAccountLimitsInput "DescribeAccountLimits";
    describe_listeners DescribeListenersInput "DescribeListeners";
    describe_load_balancers DescribeLoadBalancersInput "DescribeLoadBalancers";
    describe_rules DescribeRulesInput "DescribeRules";
    describe_ssl_policies DescribeSSLPoliciesInput "DescribeSSLPolicies";
    describe_tags DescribeTagsInput "DescribeTags";
    describe_target_groups DescribeTargetGroupsInput "DescribeTargetGroups";
    describe_trust_stores DescribeTrustStoresInput "DescribeTrustStores";
}

/// Operations on the resource whose ARN a request carries.
macro_rules! on_arn {
    ($($name:ident $request:ident $arn:ident $action:literal;)*) => {$(
        pub fn $name(request: &elbv2::$request, _: &Scope) -> Demand {
            Demand::on(concat!("elasticloadbalancing:", $action), &request.$arn)
        }
    )*};
}

on_arn! {
    add_listener_certificates AddListenerCertificatesInput listener_arn "AddListenerCertificates";
    add_trust_store_revocations AddTrustStoreRevocationsInput trust_store_arn "AddTrustStoreRevocations";
    create_listener CreateListenerInput load_balancer_arn "CreateListener";
    create_rule CreateRuleInput listener_arn "CreateRule";
    delete_listener DeleteListenerInput listener_arn "DeleteListener";
    delete_load_balancer DeleteLoadBalancerInput load_balancer_arn "DeleteLoadBalancer";
    delete_rule DeleteRuleInput rule_arn "DeleteRule";
    delete_shared_trust_store_association DeleteSharedTrustStoreAssociationInput trust_store_arn "DeleteSharedTrustStoreAssociation";
    delete_target_group DeleteTargetGroupInput target_group_arn "DeleteTargetGroup";
    delete_trust_store DeleteTrustStoreInput trust_store_arn "DeleteTrustStore";
    deregister_targets DeregisterTargetsInput target_group_arn "DeregisterTargets";
    describe_capacity_reservation DescribeCapacityReservationInput load_balancer_arn "DescribeCapacityReservation";
    describe_listener_attributes DescribeListenerAttributesInput listener_arn "DescribeListenerAttributes";
    describe_listener_certificates DescribeListenerCertificatesInput listener_arn "DescribeListenerCertificates";
    describe_load_balancer_attributes DescribeLoadBalancerAttributesInput load_balancer_arn "DescribeLoadBalancerAttributes";
    describe_target_group_attributes DescribeTargetGroupAttributesInput target_group_arn "DescribeTargetGroupAttributes";
    describe_target_health DescribeTargetHealthInput target_group_arn "DescribeTargetHealth";
    describe_trust_store_associations DescribeTrustStoreAssociationsInput trust_store_arn "DescribeTrustStoreAssociations";
    describe_trust_store_revocations DescribeTrustStoreRevocationsInput trust_store_arn "DescribeTrustStoreRevocations";
    get_trust_store_ca_certificates_bundle GetTrustStoreCaCertificatesBundleInput trust_store_arn "GetTrustStoreCaCertificatesBundle";
    get_trust_store_revocation_content GetTrustStoreRevocationContentInput trust_store_arn "GetTrustStoreRevocationContent";
    modify_listener ModifyListenerInput listener_arn "ModifyListener";
    modify_listener_attributes ModifyListenerAttributesInput listener_arn "ModifyListenerAttributes";
    modify_load_balancer_attributes ModifyLoadBalancerAttributesInput load_balancer_arn "ModifyLoadBalancerAttributes";
    modify_rule ModifyRuleInput rule_arn "ModifyRule";
    modify_target_group ModifyTargetGroupInput target_group_arn "ModifyTargetGroup";
    modify_target_group_attributes ModifyTargetGroupAttributesInput target_group_arn "ModifyTargetGroupAttributes";
    modify_trust_store ModifyTrustStoreInput trust_store_arn "ModifyTrustStore";
    register_targets RegisterTargetsInput target_group_arn "RegisterTargets";
    remove_listener_certificates RemoveListenerCertificatesInput listener_arn "RemoveListenerCertificates";
    remove_trust_store_revocations RemoveTrustStoreRevocationsInput trust_store_arn "RemoveTrustStoreRevocations";
    set_ip_address_type SetIpAddressTypeInput load_balancer_arn "SetIpAddressType";
    set_security_groups SetSecurityGroupsInput load_balancer_arn "SetSecurityGroups";
    set_subnets SetSubnetsInput load_balancer_arn "SetSubnets";
}

pub fn create_load_balancer(request: &elbv2::CreateLoadBalancerInput, scope: &Scope) -> Demand {
    let kind = match request.type_ {
        Some(elbv2::LoadBalancerTypeEnum::Network) => "net",
        _ => "app",
    };
    let resource = format!("loadbalancer/{kind}/{}/*", request.name);
    Demand::on("elasticloadbalancing:CreateLoadBalancer", arn(scope, &resource))
}

pub fn create_target_group(request: &elbv2::CreateTargetGroupInput, scope: &Scope) -> Demand {
    let resource = format!("targetgroup/{}/*", request.name);
    Demand::on("elasticloadbalancing:CreateTargetGroup", arn(scope, &resource))
}

pub fn create_trust_store(request: &elbv2::CreateTrustStoreInput, scope: &Scope) -> Demand {
    let resource = format!("truststore/{}/*", request.name);
    Demand::on("elasticloadbalancing:CreateTrustStore", arn(scope, &resource))
}

pub fn set_rule_priorities(request: &elbv2::SetRulePrioritiesInput, _: &Scope) -> Demand {
    let rules = request.rule_priorities.iter().filter_map(|pair| pair.rule_arn.clone());
    Demand { action: "elasticloadbalancing:SetRulePriorities", resources: rules.collect() }
}

pub fn add_tags(request: &elbv2::AddTagsInput, _: &Scope) -> Demand {
    Demand { action: "elasticloadbalancing:AddTags", resources: request.resource_arns.clone() }
}

pub fn remove_tags(request: &elbv2::RemoveTagsInput, _: &Scope) -> Demand {
    Demand { action: "elasticloadbalancing:RemoveTags", resources: request.resource_arns.clone() }
}

/// Of what has no id yet: a pattern.
fn arn(scope: &Scope, resource: &str) -> String {
    format!("arn:aws:elasticloadbalancing:{}:{}:{resource}", scope.region, scope.account)
}
