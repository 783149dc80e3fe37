"""Networks of tasks beyond what single tasks need: second addresses, proxies, and what their host alone may ask."""

import contextlib
import ipaddress
import json
import os
import pathlib
import socket
import subprocess
import urllib.error
import urllib.request

import pytest
from botocore.utils import InstanceMetadataRegionFetcher
from conftest import Platform, engines, leftovers, needs_root, page, runs_once, until, wait
from test_capacity import Agent, instances
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
    return connects_from(inside(arn), target, port)


def connects_from(command, target, port):
    code = f"import socket; socket.create_connection(('{target}', {port}), timeout=0.5)"
    return subprocess.run([*command, "python3", "-c", code], capture_output=True).returncode == 0


@runs_once
def test_another_installation_of_the_host_has_addresses_of_its_own(platform, ecs, tmp_path):
    other = Platform(tmp_path / "other", "--vpc-cidr", "10.77.0.0/16")
    try:
        other.start()
        blocks = {"172.31.0.0/16": platform, "10.77.0.0/16": other}
        addresses, ports = [], []
        for block, installation in blocks.items():
            vpc, = installation.client("ec2").describe_vpcs()["Vpcs"]
            assert vpc["CidrBlock"] == block
            theirs = installation.client("ecs")
            arn = run(theirs, on_ec2("awsvpc"), subnets=["subnet-1"])
            addresses.append(describe(theirs, arn)["containers"][0]["networkInterfaces"][0]["privateIpv4Address"])
            assert ipaddress.ip_address(addresses[-1]) in ipaddress.ip_network(block)
            published = on_ec2("bridge", portMappings=[{"containerPort": 80}])
            ports.append(describe(theirs, run(theirs, published))["containers"][0]["networkBindings"][0]["hostPort"])
        hosts = addresses + [f"127.0.0.1:{port}" for port in ports]
        assert all("Hello from Gantry" in page(f"http://{host}/") for host in hosts)
    finally:
        other.sweep()
    assert leftovers(other.directory) == []
    # What is taken off the host with one is not the other's.
    assert all("Hello from Gantry" in page(f"http://{host}/") for host in (hosts[0], hosts[2]))
    for arn in ecs.list_tasks()["taskArns"]:
        ecs.stop_task(task=arn)


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


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
def test_published_ports_are_ports_of_ipv6_too(ecs):
    own = "fd77:1::1"
    subprocess.run(["ip", "address", "add", f"{own}/128", "dev", "lo"], check=True)
    try:
        arn = run(ecs, on_ec2("bridge", portMappings=[{"containerPort": 80}]))
        # As the stock agent tells it: of both versions, one binding.
        binding, = describe(ecs, arn)["containers"][0]["networkBindings"]
        assert (binding["bindIP"], binding["containerPort"]) == ("0.0.0.0", 80)
        for host in "127.0.0.1", "[::1]", f"[{own}]":
            assert "Hello from Gantry" in page(f"http://{host}:{binding['hostPort']}/"), host
        with pytest.raises(OSError):
            socket.create_server(("::1", binding["hostPort"]), family=socket.AF_INET6).close()
        ecs.stop_task(task=arn)
        wait(ecs, "tasks_stopped", tasks=[arn])
        until(lambda: not connects_from([], "::1", binding["hostPort"]))
    finally:
        subprocess.run(["ip", "address", "delete", f"{own}/128", "dev", "lo"], check=True)


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


def told(path, method="GET", **headers):
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(f"http://169.254.169.254/latest/{path}", method=method, headers=headers)
    with urllib.request.urlopen(request, timeout=5) as answer:
        return answer.read().decode()


@runs_once
def test_programs_of_an_instance_ask_for_its_metadata_and_tasks_do_not(platform, ecs):
    agent = Agent(platform, 9, "--instance-metadata", "--availability-zone", "us-east-1c", "--attribute", "stack=imds")
    try:
        def mine(instance):
            return any((it["name"], it.get("value")) == ("stack", "imds") for it in instance["attributes"])

        instance, = until(lambda: [one for one in instances(ecs, "default") if mine(one)])
        # As AWS's SDKs ask.
        assert InstanceMetadataRegionFetcher(timeout=5, num_attempts=3, env={}).retrieve_region() == "us-east-1"
        with pytest.raises(urllib.error.HTTPError, match="401"):
            told("meta-data/instance-id")
        token = {"x_aws_ec2_metadata_token": told("api/token", "PUT", x_aws_ec2_metadata_token_ttl_seconds="60")}
        assert told("meta-data/instance-id", **token) == instance["ec2InstanceId"]
        document = json.loads(told("dynamic/instance-identity/document", **token))
        assert (document["region"], document["availabilityZone"]) == ("us-east-1", "us-east-1c")
        assert document["accountId"] == instance["containerInstanceArn"].split(":")[4]
        assert "placement/" in told("meta-data/", **token).split("\n")
        arn = run(ecs, on_ec2("awsvpc"), subnets=["subnet-1"])
        assert not connects(arn, "169.254.169.254", 80) and not connects(arn, "169.254.169.254", 51680)
        # The host's own programs do get there.
        assert connects_from([], "169.254.169.254", 80)
        ecs.stop_task(task=arn)
        wait(ecs, "tasks_stopped", tasks=[arn])
    finally:
        agent.sweep()
    assert not connects_from([], "169.254.169.254", 80)
