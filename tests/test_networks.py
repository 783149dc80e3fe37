"""Networks of tasks beyond what single tasks need: a second address."""

import contextlib
import ipaddress
import json
import os
import pathlib
import socket
import subprocess

import pytest
from conftest import Platform, engines, leftovers, needs_root, until, wait
from test_security_groups import inside
from test_tasks import describe, on_ec2

pytestmark = needs_root
engine = engines()


@pytest.fixture(scope="module")
def platform(tmp_path_factory, engine):
    """One installation for all tests here: none depends on another's tasks."""
    installation = Platform(tmp_path_factory.mktemp("networks") / "gantry", docker=engine).start()
    try:
        yield installation
    finally:
        installation.sweep()
    assert leftovers(installation.directory) == []


@pytest.fixture
def ecs(platform):
    return platform.client("ecs")


def dual_stack(ec2, block):
    """A subnet with IPv4 and IPv6, all of its VPC; its id, and the block of addresses."""
    vpc = ec2.create_vpc(CidrBlock=block, AmazonProvidedIpv6CidrBlock=True)["Vpc"]
    whole = ipaddress.ip_network(vpc["Ipv6CidrBlockAssociationSet"][0]["Ipv6CidrBlock"])
    part = next(whole.subnets(new_prefix=64))
    subnet = ec2.create_subnet(VpcId=vpc["VpcId"], CidrBlock=block, Ipv6CidrBlock=str(part))["Subnet"]
    return subnet["SubnetId"], part


def run(ecs, definition, **network):
    definition = ecs.register_task_definition(**definition)["taskDefinition"]["taskDefinitionArn"]
    if network:
        network = {"networkConfiguration": {"awsvpcConfiguration": network}}
    ran = ecs.run_task(taskDefinition=definition, **network)
    assert ran["failures"] == []
    arn = ran["tasks"][0]["taskArn"]
    wait(ecs, "tasks_running", tasks=[arn])
    return arn


@contextlib.contextmanager
def serving(command, port):
    """Somebody who listens at a port of every address, of IPv6 too, started by `command` before the program."""
    code = (f"import socket; s = socket.create_server(('::', {port}), family=socket.AF_INET6, dualstack_ipv6=True)\n"
            "print(flush=True)\nwhile s.accept(): pass")
    with subprocess.Popen([*command, "python3", "-c", code], stdout=subprocess.PIPE) as server:
        server.stdout.readline()
        try:
            yield
        finally:
            server.kill()


def connects(arn, target, port):
    code = f"import socket; socket.create_connection(('{target}', {port}), timeout=0.5)"
    return subprocess.run([*inside(arn), "python3", "-c", code], capture_output=True).returncode == 0


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
def test_a_task_of_a_dual_stack_subnet_has_two_addresses(platform, ecs):
    ec2 = platform.client("ec2")
    subnet, part = dual_stack(ec2, "10.71.0.0/24")
    vpc = ec2.describe_subnets(SubnetIds=[subnet])["Subnets"][0]["VpcId"]
    web = ec2.create_security_group(GroupName="web", Description="web", VpcId=vpc)["GroupId"]
    one = run(ecs, on_ec2("awsvpc"), subnets=[subnet], securityGroups=[web])
    other = run(ecs, on_ec2("awsvpc"), subnets=[subnet])
    shown = {arn: describe(ecs, arn)["containers"][0]["networkInterfaces"][0] for arn in (one, other)}
    address = shown[one]["ipv6Address"]
    assert ipaddress.ip_address(address) in part and address != shown[other]["ipv6Address"]
    interface, = ec2.describe_network_interfaces(
        Filters=[{"Name": "private-ip-address", "Values": [shown[one]["privateIpv4Address"]]}])["NetworkInterfaces"]
    assert [it["Ipv6Address"] for it in interface["Ipv6Addresses"]] == [address]

    # The machine's owner may look; another task may when a rule says so, by that address.
    with serving(inside(one), 81):
        socket.create_connection((address, 81), timeout=5).close()
        assert not connects(other, address, 81)
        peer = {"Ipv6Ranges": [{"CidrIpv6": f"{shown[other]['ipv6Address']}/128"}]}
        ec2.authorize_security_group_ingress(
            GroupId=web, IpPermissions=[{"IpProtocol": "tcp", "FromPort": 81, "ToPort": 81, **peer}])
        until(lambda: connects(other, address, 81))
        assert not connects(other, shown[one]["privateIpv4Address"], 81)
    own = json.loads(metadata(one))["Containers"][0]["Networks"][0]
    assert own["IPv6Addresses"] == [address] and own["IPv6SubnetCIDRBlock"] == str(part)
    for arn in one, other:
        ecs.stop_task(task=arn)
    wait(ecs, "tasks_stopped", tasks=[one, other])


def metadata(arn):
    """What the task's own endpoint says of it, asked as its programs would."""
    namespace = os.stat(inside(arn)[1].removeprefix("--net=")).st_ino
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            variables = (process / "environ").read_bytes().split(b"\0")
            url = [it.partition(b"=")[2] for it in variables if it.startswith(b"ECS_CONTAINER_METADATA_URI_V4=")]
            if url and os.stat(process / "ns/net").st_ino == namespace:
                break
    code = f"import urllib.request; print(urllib.request.urlopen('{url[0].decode()}/task', timeout=5).read().decode())"
    done = subprocess.run([*inside(arn), "python3", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_proxy_stands_before_a_task(platform, ecs):
    properties = {"IgnoredUID": "1337", "ProxyIngressPort": "15000", "ProxyEgressPort": "15001", "AppPorts": "80",
                  "EgressIgnoredIPs": "169.254.170.2"}
    proxy = {"type": "APPMESH", "containerName": "web",
             "properties": [{"name": name, "value": value} for name, value in properties.items()]}
    meshed = run(ecs, {**on_ec2("awsvpc"), "family": "meshed", "proxyConfiguration": proxy}, subnets=["subnet-1"])
    other = run(ecs, on_ec2("awsvpc"), subnets=["subnet-1"])
    there = describe(ecs, other)["containers"][0]["networkInterfaces"][0]["privateIpv4Address"]
    own = describe(ecs, meshed)["containers"][0]["networkInterfaces"][0]["privateIpv4Address"]
    # Its web server is there, and is not what answers.
    assert connects(meshed, own, 80) and not connects(other, own, 80)
    with serving(inside(meshed), 15000):
        until(lambda: connects(other, own, 80))
    assert not connects(meshed, there, 80)
    with serving(inside(meshed), 15001):
        until(lambda: connects(meshed, there, 80))
    json.loads(metadata(meshed))
    for arn in meshed, other:
        ecs.stop_task(task=arn)
    wait(ecs, "tasks_stopped", tasks=[meshed, other])
