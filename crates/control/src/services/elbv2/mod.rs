//! Elastic Load Balancing, version 2: application and network load balancers, listeners and rules, target groups.
//!
//! Handlers keep records in `state`; `routing` compiles them into what a balancer is told, and what a balancer says of its
//! targets comes back through `links`. Actions, conditions and transforms are stored as balancers understand them:
//! `actions` and `conditions` read them from requests and show them. Attributes are one table, in `state/attributes.rs`.

mod actions;
mod authorize;
mod check;
mod conditions;
mod errors;
pub mod links;
pub(crate) mod ops;
mod pem;
mod policies;
pub mod state;
#[cfg(test)]
pub(crate) mod tests;
mod views;

use crate::service::Service;
use gantry_api::elbv2;

pub static SERVICE: Service = Service {
    model: elbv2::SERVICE,
    operations: crate::operations! { elbv2;
        write AddListenerCertificates => authorize::add_listener_certificates, ops::certificate::add_listener_certificates;
        write AddTags => authorize::add_tags, ops::tag::add_tags;
        fetch AddTrustStoreRevocations => authorize::add_trust_store_revocations, ops::trust_store::add_trust_store_revocations;
        write CreateListener => authorize::create_listener, ops::listener::create_listener;
        write CreateLoadBalancer => authorize::create_load_balancer, ops::load_balancer::create_load_balancer;
        write CreateRule => authorize::create_rule, ops::rule::create_rule;
        write CreateTargetGroup => authorize::create_target_group, ops::target_group::create_target_group;
        fetch CreateTrustStore => authorize::create_trust_store, ops::trust_store::create_trust_store;
        write DeleteListener => authorize::delete_listener, ops::listener::delete_listener;
        write DeleteLoadBalancer => authorize::delete_load_balancer, ops::load_balancer::delete_load_balancer;
        write DeleteRule => authorize::delete_rule, ops::rule::delete_rule;
        write DeleteSharedTrustStoreAssociation => authorize::delete_shared_trust_store_association, ops::trust_store::delete_shared_trust_store_association;
        write DeleteTargetGroup => authorize::delete_target_group, ops::target_group::delete_target_group;
        write DeleteTrustStore => authorize::delete_trust_store, ops::trust_store::delete_trust_store;
        write DeregisterTargets => authorize::deregister_targets, ops::target::deregister_targets;
        read DescribeAccountLimits => authorize::describe_account_limits, ops::account::describe_account_limits;
        read DescribeCapacityReservation => authorize::describe_capacity_reservation, ops::account::describe_capacity_reservation;
        read DescribeListenerAttributes => authorize::describe_listener_attributes, ops::attribute::describe_listener_attributes;
        read DescribeListenerCertificates => authorize::describe_listener_certificates, ops::certificate::describe_listener_certificates;
        read DescribeListeners => authorize::describe_listeners, ops::listener::describe_listeners;
        read DescribeLoadBalancerAttributes => authorize::describe_load_balancer_attributes, ops::attribute::describe_load_balancer_attributes;
        read DescribeLoadBalancers => authorize::describe_load_balancers, ops::load_balancer::describe_load_balancers;
        read DescribeRules => authorize::describe_rules, ops::rule::describe_rules;
        read DescribeSSLPolicies => authorize::describe_ssl_policies, ops::account::describe_ssl_policies;
        read DescribeTags => authorize::describe_tags, ops::tag::describe_tags;
        read DescribeTargetGroupAttributes => authorize::describe_target_group_attributes, ops::attribute::describe_target_group_attributes;
        read DescribeTargetGroups => authorize::describe_target_groups, ops::target_group::describe_target_groups;
        read DescribeTargetHealth => authorize::describe_target_health, ops::target::describe_target_health;
        read DescribeTrustStoreAssociations => authorize::describe_trust_store_associations, ops::trust_store::describe_trust_store_associations;
        read DescribeTrustStoreRevocations => authorize::describe_trust_store_revocations, ops::trust_store::describe_trust_store_revocations;
        read DescribeTrustStores => authorize::describe_trust_stores, ops::trust_store::describe_trust_stores;
        read GetTrustStoreCaCertificatesBundle => authorize::get_trust_store_ca_certificates_bundle, ops::trust_store::get_trust_store_ca_certificates_bundle;
        read GetTrustStoreRevocationContent => authorize::get_trust_store_revocation_content, ops::trust_store::get_trust_store_revocation_content;
        write ModifyListener => authorize::modify_listener, ops::listener::modify_listener;
        write ModifyListenerAttributes => authorize::modify_listener_attributes, ops::attribute::modify_listener_attributes;
        write ModifyLoadBalancerAttributes => authorize::modify_load_balancer_attributes, ops::attribute::modify_load_balancer_attributes;
        write ModifyRule => authorize::modify_rule, ops::rule::modify_rule;
        write ModifyTargetGroup => authorize::modify_target_group, ops::target_group::modify_target_group;
        write ModifyTargetGroupAttributes => authorize::modify_target_group_attributes, ops::attribute::modify_target_group_attributes;
        fetch ModifyTrustStore => authorize::modify_trust_store, ops::trust_store::modify_trust_store;
        write RegisterTargets => authorize::register_targets, ops::target::register_targets;
        write RemoveListenerCertificates => authorize::remove_listener_certificates, ops::certificate::remove_listener_certificates;
        write RemoveTags => authorize::remove_tags, ops::tag::remove_tags;
        write RemoveTrustStoreRevocations => authorize::remove_trust_store_revocations, ops::trust_store::remove_trust_store_revocations;
        write SetIpAddressType => authorize::set_ip_address_type, ops::load_balancer::set_ip_address_type;
        write SetRulePriorities => authorize::set_rule_priorities, ops::rule::set_rule_priorities;
        write SetSecurityGroups => authorize::set_security_groups, ops::load_balancer::set_security_groups;
        write SetSubnets => authorize::set_subnets, ops::load_balancer::set_subnets;
    },
    // The model is a selection already: of what is not served it has only this.
    later: &["ModifyCapacityReservation"],
};
