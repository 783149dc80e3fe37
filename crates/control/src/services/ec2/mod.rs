//! EC2, as far as networks go: VPCs, subnets, security groups, and the interfaces of ECS's tasks; and launch templates,
//! by which Auto Scaling groups make machines.
//!
//! Handlers are in `ops`, what they ask of IAM in `authorize`, response shapes in `views`. Records are in `state`, the
//! networks that every scope has from the start in `state/defaults.rs`. `filter` says which records a request wants
//! to see, `facts` by what it sees them; `interface` shows what ECS's tasks hold, `zones` how places are called.

mod authorize;
mod check;
pub mod errors;
mod facts;
mod filter;
mod interface;
pub mod links;
pub(crate) mod ops;
pub mod state;
#[cfg(test)]
mod tests;
mod views;
mod zones;

use crate::service::Service;
use gantry_api::ec2;

pub static SERVICE: Service = Service {
    model: ec2::SERVICE,
    operations: crate::operations! { ec2;
        write AssociateSubnetCidrBlock => authorize::associate_subnet_cidr_block, ops::cidr_block::associate_subnet_cidr_block;
        write AssociateVpcCidrBlock => authorize::associate_vpc_cidr_block, ops::cidr_block::associate_vpc_cidr_block;
        write AuthorizeSecurityGroupEgress => authorize::authorize_egress, ops::rule::authorize_egress;
        write AuthorizeSecurityGroupIngress => authorize::authorize_ingress, ops::rule::authorize_ingress;
        write CreateLaunchTemplate => authorize::create_launch_template, ops::launch_template::create_launch_template;
        write CreateLaunchTemplateVersion => authorize::create_launch_template_version, ops::launch_template::create_launch_template_version;
        write CreateSecurityGroup => authorize::create_security_group, ops::security_group::create_security_group;
        write CreateSubnet => authorize::create_subnet, ops::subnet::create_subnet;
        write CreateTags => authorize::create_tags, ops::tag::create_tags;
        write CreateVpc => authorize::create_vpc, ops::vpc::create_vpc;
        write DeleteLaunchTemplate => authorize::delete_launch_template, ops::launch_template::delete_launch_template;
        write DeleteLaunchTemplateVersions => authorize::delete_launch_template_versions, ops::launch_template::delete_launch_template_versions;
        write DeleteSecurityGroup => authorize::delete_security_group, ops::security_group::delete_security_group;
        write DeleteSubnet => authorize::delete_subnet, ops::subnet::delete_subnet;
        write DeleteTags => authorize::delete_tags, ops::tag::delete_tags;
        write DeleteVpc => authorize::delete_vpc, ops::vpc::delete_vpc;
        read DescribeAccountAttributes => authorize::describe_account_attributes, ops::place::describe_account_attributes;
        read DescribeAvailabilityZones => authorize::describe_availability_zones, ops::place::describe_availability_zones;
        read DescribeInternetGateways => authorize::describe_internet_gateways, ops::vpc_part::describe_internet_gateways;
        read DescribeLaunchTemplateVersions => authorize::describe_launch_template_versions, ops::launch_template::describe_launch_template_versions;
        read DescribeLaunchTemplates => authorize::describe_launch_templates, ops::launch_template::describe_launch_templates;
        read DescribeNetworkAcls => authorize::describe_network_acls, ops::vpc_part::describe_network_acls;
        read DescribeNetworkInterfaces => authorize::describe_network_interfaces, ops::network_interface::describe_network_interfaces;
        read DescribeRegions => authorize::describe_regions, ops::place::describe_regions;
        read DescribeRouteTables => authorize::describe_route_tables, ops::vpc_part::describe_route_tables;
        read DescribeSecurityGroupRules => authorize::describe_security_group_rules, ops::rule::describe_security_group_rules;
        read DescribeSecurityGroups => authorize::describe_security_groups, ops::security_group::describe_security_groups;
        read DescribeSubnets => authorize::describe_subnets, ops::subnet::describe_subnets;
        read DescribeTags => authorize::describe_tags, ops::tag::describe_tags;
        read DescribeVpcAttribute => authorize::describe_vpc_attribute, ops::vpc::describe_vpc_attribute;
        read DescribeVpcs => authorize::describe_vpcs, ops::vpc::describe_vpcs;
        write DisassociateSubnetCidrBlock => authorize::disassociate_subnet_cidr_block, ops::cidr_block::disassociate_subnet_cidr_block;
        write DisassociateVpcCidrBlock => authorize::disassociate_vpc_cidr_block, ops::cidr_block::disassociate_vpc_cidr_block;
        write ModifyLaunchTemplate => authorize::modify_launch_template, ops::launch_template::modify_launch_template;
        write ModifySecurityGroupRules => authorize::modify_rules, ops::rule_change::modify_security_group_rules;
        write ModifySubnetAttribute => authorize::modify_subnet_attribute, ops::subnet::modify_subnet_attribute;
        write ModifyVpcAttribute => authorize::modify_vpc_attribute, ops::vpc::modify_vpc_attribute;
        write RevokeSecurityGroupEgress => authorize::revoke_egress, ops::rule::revoke_egress;
        write RevokeSecurityGroupIngress => authorize::revoke_ingress, ops::rule::revoke_ingress;
        write UpdateSecurityGroupRuleDescriptionsEgress => authorize::describe_egress, ops::rule_change::update_security_group_rule_descriptions_egress;
        write UpdateSecurityGroupRuleDescriptionsIngress => authorize::describe_ingress, ops::rule_change::update_security_group_rule_descriptions_ingress;
    },
    // The model is a selection already: what is not served is not in it.
    later: &[],
};
