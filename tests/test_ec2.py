"""EC2's networks: the default VPC, VPCs, subnets and security groups of one's own, through boto3, the AWS CLI and
Terraform; and the interfaces of ECS's tasks."""

import json
import shutil

import botocore.exceptions
import pytest
from conftest import needs_root, wait
from test_terraform import PROVIDER, Terraform


@pytest.fixture
def ec2(gantry):
    return gantry.client("ec2")


def refused(call, **arguments):
    with pytest.raises(botocore.exceptions.ClientError) as error:
        call(**arguments)
    return error.value.response["Error"]["Code"]


def named(name, *values):
    return [{"Name": name, "Values": list(values)}]


def test_there_is_a_default_network(gantry, ec2):
    vpcs = ec2.describe_vpcs(Filters=named("is-default", "true"))["Vpcs"]
    assert [vpc["CidrBlock"] for vpc in vpcs] == ["172.31.0.0/16"]
    own = named("vpc-id", vpcs[0]["VpcId"])
    subnets = ec2.describe_subnets(Filters=own)["Subnets"]
    zones = [zone["ZoneName"] for zone in ec2.describe_availability_zones()["AvailabilityZones"]]
    assert sorted(subnet["AvailabilityZone"] for subnet in subnets) == zones
    assert all(subnet["DefaultForAz"] and subnet["MapPublicIpOnLaunch"] for subnet in subnets)
    assert [group["GroupName"] for group in ec2.describe_security_groups(Filters=own)["SecurityGroups"]] == ["default"]
    gateways = ec2.describe_internet_gateways(Filters=named("attachment.vpc-id", vpcs[0]["VpcId"]))
    tables = ec2.describe_route_tables(Filters=own)["RouteTables"]
    assert tables[0]["Routes"][1]["GatewayId"] == gateways["InternetGateways"][0]["InternetGatewayId"]
    assert gantry.environment["AWS_DEFAULT_REGION"] in [r["RegionName"] for r in ec2.describe_regions()["Regions"]]

    # It is the same after a restart, before and after something was written.
    for write in (False, True):
        if write:
            ec2.create_vpc(CidrBlock="10.0.0.0/16")
        gantry.end()
        gantry.start()
        ec2 = gantry.client("ec2")
        assert ec2.describe_vpcs(Filters=named("is-default", "true"))["Vpcs"] == vpcs
        assert ec2.describe_subnets(Filters=own)["Subnets"] == subnets


def test_networks_of_one_s_own(ec2):
    tags = [{"ResourceType": "vpc", "Tags": [{"Key": "Name", "Value": "blue"}]}]
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16", TagSpecifications=tags)["Vpc"]["VpcId"]
    ec2.get_waiter("vpc_available").wait(VpcIds=[vpc], WaiterConfig={"Delay": 1, "MaxAttempts": 3})
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.0.1.0/24")["Subnet"]["SubnetId"]
    group = ec2.create_security_group(GroupName="web", Description="web servers", VpcId=vpc)["GroupId"]
    ec2.create_tags(Resources=[subnet, group], Tags=[{"Key": "team", "Value": "blue"}])
    seen = ec2.describe_tags(Filters=named("value", "blue"))["Tags"]
    assert sorted(tag["ResourceType"] for tag in seen) == ["security-group", "subnet", "vpc"]

    web = {"IpProtocol": "tcp", "FromPort": 80, "ToPort": 80, "IpRanges": [{"CidrIp": "0.0.0.0/0", "Description": "all"}]}
    peers = {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": group}]}
    rules = ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[web, peers])["SecurityGroupRules"]
    assert len(rules) == 2
    assert refused(ec2.authorize_security_group_ingress, GroupId=group, IpPermissions=[web]) == "InvalidPermission.Duplicate"
    shown = ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"][0]
    assert {rule["IpProtocol"] for rule in shown["IpPermissions"]} == {"tcp", "-1"}
    pages = ec2.get_paginator("describe_security_group_rules").paginate(
        Filters=named("group-id", group), PaginationConfig={"PageSize": 5})
    assert sum(len(page["SecurityGroupRules"]) for page in pages) == 3
    first = rules[0]["SecurityGroupRuleId"]
    change = {"IpProtocol": "tcp", "FromPort": 8080, "ToPort": 8081, "CidrIpv4": "10.0.0.0/8"}
    assert ec2.modify_security_group_rules(GroupId=group, SecurityGroupRules=[
        {"SecurityGroupRuleId": first, "SecurityGroupRule": change}])["Return"] is True
    assert ec2.update_security_group_rule_descriptions_ingress(GroupId=group, SecurityGroupRuleDescriptions=[
        {"SecurityGroupRuleId": first, "Description": "inside"}])["Return"] is True
    rule, = ec2.describe_security_group_rules(SecurityGroupRuleIds=[first])["SecurityGroupRules"]
    assert (rule["ToPort"], rule["CidrIpv4"], rule["Description"]) == (8081, "10.0.0.0/8", "inside")
    ec2.revoke_security_group_ingress(GroupId=group, SecurityGroupRuleIds=[rule["SecurityGroupRuleId"] for rule in rules])

    assert refused(ec2.delete_vpc, VpcId=vpc) == "DependencyViolation"
    assert refused(ec2.delete_vpc, VpcId=vpc, DryRun=True) == "DependencyViolation"
    ec2.delete_security_group(GroupId=group)
    ec2.delete_subnet(SubnetId=subnet)
    assert refused(ec2.delete_vpc, VpcId=vpc, DryRun=True) == "DryRunOperation"
    ec2.delete_vpc(VpcId=vpc)
    assert refused(ec2.describe_vpcs, VpcIds=[vpc]) == "InvalidVpcID.NotFound"


def test_what_makes_no_sense_is_refused_in_ec2_s_words(gantry, ec2):
    assert refused(ec2.create_vpc, CidrBlock="10.0.0.0/8") == "InvalidVpc.Range"
    assert refused(ec2.create_vpc, CidrBlock="ten") == "InvalidParameterValue"
    assert refused(ec2.create_vpc) == "MissingParameter"
    assert refused(ec2.describe_subnets, SubnetIds=["x"]) == "InvalidSubnetID.Malformed"
    assert refused(ec2.describe_subnets, MaxResults=2000) == "InvalidParameterValue"
    assert refused(ec2.describe_vpcs, Filters=named("colour", "red")) == "InvalidParameterValue"
    with pytest.raises(ec2.exceptions.ClientError, match="InvalidAction.*Gantry does not support the action DescribeInst"):
        ec2.describe_instances()
    stranger = gantry.client("ec2", environment={"AWS_SECRET_ACCESS_KEY": "x" * 40})
    assert refused(stranger.describe_vpcs) == "SignatureDoesNotMatch"
    stranger = gantry.client("ec2", environment={"AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE"})
    assert refused(stranger.describe_vpcs) == "AuthFailure"


def test_the_aws_cli_reads_and_writes(gantry):
    vpc = json.loads(gantry.aws("ec2", "create-vpc", "--cidr-block", "10.2.0.0/16").stdout)["Vpc"]["VpcId"]
    gantry.aws("ec2", "modify-vpc-attribute", "--vpc-id", vpc, "--enable-dns-hostnames")
    shown = gantry.aws("ec2", "describe-vpc-attribute", "--vpc-id", vpc, "--attribute", "enableDnsHostnames")
    assert json.loads(shown.stdout)["EnableDnsHostnames"]["Value"] is True
    made = gantry.aws("ec2", "create-security-group", "--group-name", "cli", "--description", "x", "--vpc-id", vpc)
    group = json.loads(made.stdout)["GroupId"]
    gantry.aws("ec2", "authorize-security-group-ingress", "--group-id", group, "--protocol", "tcp", "--port", "22",
               "--cidr", "10.0.0.0/8")
    asked = "SecurityGroups[0].IpPermissions[0].[FromPort,IpRanges[0].CidrIp]"
    text = gantry.aws("ec2", "describe-security-groups", "--group-ids", group, "--query", asked, "--output", "text")
    assert text.stdout.split() == ["22", "10.0.0.0/8"]
    failed = gantry.aws("ec2", "delete-vpc", "--vpc-id", vpc, check=False)
    assert "(DependencyViolation)" in failed.stderr


NETWORK = """
resource "aws_vpc" "this" {
  cidr_block           = "10.3.0.0/16"
  enable_dns_hostnames = true
  tags                 = { Name = "tf" }
}

resource "aws_subnet" "this" {
  vpc_id                  = aws_vpc.this.id
  cidr_block              = "10.3.1.0/24"
  map_public_ip_on_launch = true
  tags                    = { Name = "tf" }
}

resource "aws_security_group" "this" {
  name        = "tf"
  description = "of Terraform"
  vpc_id      = aws_vpc.this.id
  ingress {
    from_port   = 80
    to_port     = 80
    protocol    = "tcp"
    cidr_blocks = ["0.0.0.0/0"]
  }
  ingress {
    from_port = 0
    to_port   = 0
    protocol  = "-1"
    self      = true
  }
  egress {
    from_port        = 0
    to_port          = 0
    protocol         = "-1"
    cidr_blocks      = ["0.0.0.0/0"]
    ipv6_cidr_blocks = ["::/0"]
  }
  tags = { Name = "tf" }
}

resource "aws_vpc_security_group_ingress_rule" "this" {
  security_group_id = aws_security_group.other.id
  cidr_ipv4         = "10.0.0.0/8"
  from_port         = 443
  to_port           = 443
  ip_protocol       = "tcp"
}

resource "aws_security_group" "other" {
  name   = "tf-other"
  vpc_id = aws_vpc.this.id
}
"""


@pytest.mark.skipif(shutil.which("terraform") is None, reason="terraform is not installed")
def test_terraform_makes_a_network(gantry, tmp_path):
    ec2 = gantry.client("ec2")
    before = len(ec2.describe_vpcs()["Vpcs"])
    with Terraform(gantry, tmp_path, PROVIDER + NETWORK):
        vpc = ec2.describe_vpcs(Filters=named("tag:Name", "tf"))["Vpcs"][0]
        subnet = ec2.describe_subnets(Filters=named("vpc-id", vpc["VpcId"]))["Subnets"][0]
        assert subnet["MapPublicIpOnLaunch"] is True
    assert len(ec2.describe_vpcs()["Vpcs"]) == before


@needs_root
def test_interfaces_of_tasks_are_network_interfaces(platform):
    ec2, ecs = platform.client("ec2"), platform.client("ecs")
    subnet = ec2.describe_subnets()["Subnets"][0]
    group = ec2.create_security_group(GroupName="web", Description="web")["GroupId"]
    ecs.register_task_definition(
        family="web", networkMode="awsvpc", requiresCompatibilities=["FARGATE"], cpu="256", memory="512",
        containerDefinitions=[{"name": "web", "image": "nginx:latest"}])
    network = {"awsvpcConfiguration": {"subnets": [subnet["SubnetId"]], "securityGroups": [group]}}
    task = ecs.run_task(taskDefinition="web", launchType="FARGATE", networkConfiguration=network)["tasks"][0]
    wait(ecs, "tasks_running", tasks=[task["taskArn"]])
    task = ecs.describe_tasks(tasks=[task["taskArn"]])["tasks"][0]
    details = {detail["name"]: detail["value"] for detail in task["attachments"][0]["details"]}
    shown = ec2.describe_network_interfaces(NetworkInterfaceIds=[details["networkInterfaceId"]])["NetworkInterfaces"][0]
    assert shown["PrivateIpAddress"] == details["privateIPv4Address"]
    assert (shown["SubnetId"], shown["VpcId"]) == (subnet["SubnetId"], subnet["VpcId"])
    assert shown["Groups"] == [{"GroupId": group, "GroupName": "web"}]
    assert refused(ec2.delete_subnet, SubnetId=subnet["SubnetId"]) == "DependencyViolation"
    ecs.stop_task(task=task["taskArn"])
    wait(ecs, "tasks_stopped", tasks=[task["taskArn"]])
    assert ec2.describe_network_interfaces()["NetworkInterfaces"] == []
    ec2.delete_security_group(GroupId=group)
