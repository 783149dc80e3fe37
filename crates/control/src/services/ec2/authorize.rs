//! What EC2's operations ask of IAM.

use super::views::arn;
use crate::call::Demand;
use gantry_api::ec2;
use gantry_decide::ids::Scope;

/// Operations that know no resource.
macro_rules! on_all {
    ($($name:ident $request:ident $action:literal;)*) => {$(
        pub fn $name(_: &ec2::$request, _: &Scope) -> Demand {
            Demand::on_all($action)
        }
    )*};
}

on_all! {
    describe_account_attributes DescribeAccountAttributesRequest "ec2:DescribeAccountAttributes";
    describe_availability_zones DescribeAvailabilityZonesRequest "ec2:DescribeAvailabilityZones";
    describe_internet_gateways DescribeInternetGatewaysRequest "ec2:DescribeInternetGateways";
    describe_launch_template_versions DescribeLaunchTemplateVersionsRequest "ec2:DescribeLaunchTemplateVersions";
    describe_launch_templates DescribeLaunchTemplatesRequest "ec2:DescribeLaunchTemplates";
    describe_network_acls DescribeNetworkAclsRequest "ec2:DescribeNetworkAcls";
    describe_network_interfaces DescribeNetworkInterfacesRequest "ec2:DescribeNetworkInterfaces";
    describe_regions DescribeRegionsRequest "ec2:DescribeRegions";
    describe_route_tables DescribeRouteTablesRequest "ec2:DescribeRouteTables";
    describe_security_group_rules DescribeSecurityGroupRulesRequest "ec2:DescribeSecurityGroupRules";
    describe_security_groups DescribeSecurityGroupsRequest "ec2:DescribeSecurityGroups";
    describe_subnets DescribeSubnetsRequest "ec2:DescribeSubnets";
    describe_tags DescribeTagsRequest "ec2:DescribeTags";
    describe_vpcs DescribeVpcsRequest "ec2:DescribeVpcs";
}

pub fn create_vpc(_: &ec2::CreateVpcRequest, scope: &Scope) -> Demand {
    Demand::on("ec2:CreateVpc", arn(scope, "vpc", "*"))
}

pub fn delete_vpc(request: &ec2::DeleteVpcRequest, scope: &Scope) -> Demand {
    Demand::on("ec2:DeleteVpc", arn(scope, "vpc", &request.vpc_id))
}

pub fn describe_vpc_attribute(request: &ec2::DescribeVpcAttributeRequest, scope: &Scope) -> Demand {
    Demand::on("ec2:DescribeVpcAttribute", arn(scope, "vpc", &request.vpc_id))
}

pub fn modify_vpc_attribute(request: &ec2::ModifyVpcAttributeRequest, scope: &Scope) -> Demand {
    Demand::on("ec2:ModifyVpcAttribute", arn(scope, "vpc", &request.vpc_id))
}

pub fn create_subnet(request: &ec2::CreateSubnetRequest, scope: &Scope) -> Demand {
    let resources = vec![arn(scope, "subnet", "*"), arn(scope, "vpc", &request.vpc_id)];
    Demand { action: "ec2:CreateSubnet", resources }
}

pub fn delete_subnet(request: &ec2::DeleteSubnetRequest, scope: &Scope) -> Demand {
    Demand::on("ec2:DeleteSubnet", arn(scope, "subnet", &request.subnet_id))
}

pub fn modify_subnet_attribute(request: &ec2::ModifySubnetAttributeRequest, scope: &Scope) -> Demand {
    Demand::on("ec2:ModifySubnetAttribute", arn(scope, "subnet", &request.subnet_id))
}

pub fn associate_vpc_cidr_block(request: &ec2::AssociateVpcCidrBlockRequest, scope: &Scope) -> Demand {
    Demand::on("ec2:AssociateVpcCidrBlock", arn(scope, "vpc", &request.vpc_id))
}

/// An association's id says nothing of whose it is.
pub fn disassociate_vpc_cidr_block(_: &ec2::DisassociateVpcCidrBlockRequest, scope: &Scope) -> Demand {
    Demand::on("ec2:DisassociateVpcCidrBlock", arn(scope, "vpc", "*"))
}

pub fn associate_subnet_cidr_block(request: &ec2::AssociateSubnetCidrBlockRequest, scope: &Scope) -> Demand {
    Demand::on("ec2:AssociateSubnetCidrBlock", arn(scope, "subnet", &request.subnet_id))
}

pub fn disassociate_subnet_cidr_block(_: &ec2::DisassociateSubnetCidrBlockRequest, scope: &Scope) -> Demand {
    Demand::on("ec2:DisassociateSubnetCidrBlock", arn(scope, "subnet", "*"))
}

fn group(scope: &Scope, id: Option<&str>) -> String {
    // A group named by its name may be any.
    arn(scope, "security-group", id.unwrap_or("*"))
}

pub fn create_security_group(request: &ec2::CreateSecurityGroupRequest, scope: &Scope) -> Demand {
    let vpc = request.vpc_id.as_ref().map(|vpc| arn(scope, "vpc", vpc));
    let resources = [group(scope, None)].into_iter().chain(vpc).collect();
    Demand { action: "ec2:CreateSecurityGroup", resources }
}

pub fn delete_security_group(request: &ec2::DeleteSecurityGroupRequest, scope: &Scope) -> Demand {
    Demand::on("ec2:DeleteSecurityGroup", group(scope, request.group_id.as_deref()))
}

pub fn authorize_ingress(request: &ec2::AuthorizeSecurityGroupIngressRequest, scope: &Scope) -> Demand {
    Demand::on("ec2:AuthorizeSecurityGroupIngress", group(scope, request.group_id.as_deref()))
}

pub fn authorize_egress(request: &ec2::AuthorizeSecurityGroupEgressRequest, scope: &Scope) -> Demand {
    Demand::on("ec2:AuthorizeSecurityGroupEgress", group(scope, Some(&request.group_id)))
}

pub fn revoke_ingress(request: &ec2::RevokeSecurityGroupIngressRequest, scope: &Scope) -> Demand {
    Demand::on("ec2:RevokeSecurityGroupIngress", group(scope, request.group_id.as_deref()))
}

pub fn revoke_egress(request: &ec2::RevokeSecurityGroupEgressRequest, scope: &Scope) -> Demand {
    Demand::on("ec2:RevokeSecurityGroupEgress", group(scope, Some(&request.group_id)))
}

pub fn modify_rules(request: &ec2::ModifySecurityGroupRulesRequest, scope: &Scope) -> Demand {
    Demand::on("ec2:ModifySecurityGroupRules", group(scope, Some(&request.group_id)))
}

pub fn describe_ingress(
    request: &ec2::UpdateSecurityGroupRuleDescriptionsIngressRequest,
    scope: &Scope,
) -> Demand {
    Demand::on("ec2:UpdateSecurityGroupRuleDescriptionsIngress", group(scope, request.group_id.as_deref()))
}

pub fn describe_egress(
    request: &ec2::UpdateSecurityGroupRuleDescriptionsEgressRequest,
    scope: &Scope,
) -> Demand {
    Demand::on("ec2:UpdateSecurityGroupRuleDescriptionsEgress", group(scope, request.group_id.as_deref()))
}

/// Operations on one launch template, named by its id; one named by its name may be any.
macro_rules! on_template {
    ($($name:ident $request:ident $action:literal;)*) => {$(
        pub fn $name(request: &ec2::$request, scope: &Scope) -> Demand {
            Demand::on($action, arn(scope, "launch-template", request.launch_template_id.as_deref().unwrap_or("*")))
        }
    )*};
}

on_template! {
    create_launch_template_version CreateLaunchTemplateVersionRequest "ec2:CreateLaunchTemplateVersion";
    delete_launch_template DeleteLaunchTemplateRequest "ec2:DeleteLaunchTemplate";
    delete_launch_template_versions DeleteLaunchTemplateVersionsRequest "ec2:DeleteLaunchTemplateVersions";
    modify_launch_template ModifyLaunchTemplateRequest "ec2:ModifyLaunchTemplate";
}

pub fn create_launch_template(_: &ec2::CreateLaunchTemplateRequest, scope: &Scope) -> Demand {
    Demand::on("ec2:CreateLaunchTemplate", arn(scope, "launch-template", "*"))
}

fn tagged(scope: &Scope, ids: &[String]) -> Vec<String> {
    ids.iter().map(|id| arn(scope, "*", id)).collect()
}

pub fn create_tags(request: &ec2::CreateTagsRequest, scope: &Scope) -> Demand {
    Demand { action: "ec2:CreateTags", resources: tagged(scope, &request.resources) }
}

pub fn delete_tags(request: &ec2::DeleteTagsRequest, scope: &Scope) -> Demand {
    Demand { action: "ec2:DeleteTags", resources: tagged(scope, &request.resources) }
}
