"""Security groups of tasks' interfaces: what real containers reach, and how that changes while they run."""

import json
import socket
import subprocess

import pytest
from conftest import needs_root, until, wait
from test_tasks import address, describe, on_ec2

pytestmark = needs_root

ALL_TCP = {"IpProtocol": "tcp", "FromPort": 0, "ToPort": 65535}


def open_port(protocol, port, **peer):
    return [{"IpProtocol": protocol, "FromPort": port, "ToPort": port, **peer}]


ANYWHERE = {"IpRanges": [{"CidrIp": "0.0.0.0/0"}]}


@pytest.fixture
def ec2(platform):
    return platform.client("ec2")


def group(ec2, name):
    return ec2.create_security_group(GroupName=name, Description=name)["GroupId"]


def start(platform, groups):
    """A task that serves pages at port 80, with an interface in these groups; its ARN and address."""
    ecs = platform.client("ecs")
    definition = ecs.register_task_definition(**on_ec2("awsvpc"))["taskDefinition"]["taskDefinitionArn"]
    network = {"awsvpcConfiguration": {"subnets": ["subnet-1"], "securityGroups": groups}}
    arn = ecs.run_task(taskDefinition=definition, networkConfiguration=network)["tasks"][0]["taskArn"]
    wait(ecs, "tasks_running", tasks=[arn])
    return arn, address(describe(ecs, arn))


# Runs in the network of a task, as its programs would: connects, or sends a datagram and waits for its return.
PROBE = """
import socket, sys
kind, address, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
try:
    if kind == "tcp":
        socket.create_connection((address, port), timeout=0.5).close()
    else:
        probe = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        probe.settimeout(0.5)
        probe.sendto(b"?", (address, port))
        probe.recv(16)
except OSError as error:
    sys.exit(str(error))
"""


def inside(arn):
    """A command's beginning that puts it into the network of a task."""
    names = subprocess.run(["ls", "/run/netns"], check=True, capture_output=True, text=True).stdout.split()
    name, = [name for name in names if name.startswith("gantry-") and name.endswith(arn.rsplit("/", 1)[1])]
    return ["nsenter", f"--net=/run/netns/{name}", "--"]


def reaches(arn, target, port, kind="tcp"):
    done = subprocess.run([*inside(arn), "python3", "-c", PROBE, kind, target, str(port)], capture_output=True)
    return done.returncode == 0


def test_what_no_rule_allows_does_not_come_in(platform, ec2):
    web, client = group(ec2, "web"), group(ec2, "client")
    _, target = start(platform, [web])
    asking, _ = start(platform, [client])
    assert not reaches(asking, target, 80)
    # The machine itself may look at a page, whatever the groups are.
    socket.create_connection((target, 80), timeout=2).close()

    ec2.authorize_security_group_ingress(GroupId=web, IpPermissions=open_port("tcp", 80, **ANYWHERE))
    until(lambda: reaches(asking, target, 80))
    assert not reaches(asking, target, 81)

    # Without a group of one's own, it is the default one, whose members let each other in.
    _, first = start(platform, [])
    second, _ = start(platform, [])
    until(lambda: reaches(second, first, 80))
    assert not reaches(asking, first, 80)


def test_connections_outlive_the_rule_that_let_them_in(platform, ec2):
    web, client = group(ec2, "web"), group(ec2, "client")
    rule = open_port("tcp", 80, UserIdGroupPairs=[{"GroupId": client}])
    ec2.authorize_security_group_ingress(GroupId=web, IpPermissions=rule)
    _, target = start(platform, [web])
    asking, _ = start(platform, [client])
    # A request, then another on the same connection after the rule has gone.
    keep = ("import socket, sys\n"
            f"s = socket.create_connection(({target!r}, 80), timeout=5)\n"
            "s.sendall(b'GET / HT'); print('open', flush=True); sys.stdin.readline()\n"
            "s.sendall(b'TP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n')\n"
            "print(s.recv(12).decode(), flush=True)\n")
    held = subprocess.Popen([*inside(asking), "python3", "-c", keep], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                            text=True)
    try:
        assert held.stdout.readline() == "open\n"
        ec2.revoke_security_group_ingress(GroupId=web, IpPermissions=rule)
        until(lambda: not reaches(asking, target, 80))
        assert held.communicate("\n", timeout=10)[0] == "HTTP/1.1 200\n"
    finally:
        held.kill()


def test_a_rule_that_names_a_group_follows_its_members(platform, ec2):
    ecs = platform.client("ecs")
    db, app = group(ec2, "db"), group(ec2, "app")
    ec2.authorize_security_group_ingress(
        GroupId=db, IpPermissions=[{**ALL_TCP, "UserIdGroupPairs": [{"GroupId": app}]}])
    _, target = start(platform, [db])
    other, _ = start(platform, [])
    member, own = start(platform, [app])
    until(lambda: reaches(member, target, 80))
    assert not reaches(other, target, 80)
    # Its address is nobody's any more once it has stopped.
    interfaces = ec2.describe_network_interfaces(Filters=[{"Name": "group-id", "Values": [app]}])["NetworkInterfaces"]
    assert [interface["PrivateIpAddress"] for interface in interfaces] == [own]
    ecs.stop_task(task=member)
    wait(ecs, "tasks_stopped", tasks=[member])
    assert ec2.describe_network_interfaces(Filters=[{"Name": "group-id", "Values": [app]}])["NetworkInterfaces"] == []


def test_what_goes_out_and_datagrams(platform, ec2):
    web, narrow = group(ec2, "web"), group(ec2, "narrow")
    ec2.authorize_security_group_ingress(GroupId=web, IpPermissions=open_port("udp", 7000, **ANYWHERE))
    ec2.authorize_security_group_ingress(GroupId=web, IpPermissions=open_port("tcp", 80, **ANYWHERE))
    serving, target = start(platform, [web])
    asking, _ = start(platform, [narrow])
    echo = ("import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\ns.bind(('0.0.0.0', 7000))\n"
            "print('ready', flush=True)\n"
            "while True:\n data, who = s.recvfrom(64)\n s.sendto(data, who)\n")
    server = subprocess.Popen([*inside(serving), "python3", "-c", echo], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout.readline() == "ready\n"
        until(lambda: reaches(asking, target, 7000, "udp"))
        ec2.revoke_security_group_ingress(GroupId=web, IpPermissions=open_port("udp", 7000, **ANYWHERE))
        until(lambda: not reaches(asking, target, 7000, "udp"))
    finally:
        server.kill()
        server.wait()
    everything = [{"IpProtocol": "-1", **ANYWHERE}]
    ec2.revoke_security_group_egress(GroupId=narrow, IpPermissions=everything)
    until(lambda: not reaches(asking, target, 80))
    ec2.authorize_security_group_egress(
        GroupId=narrow, IpPermissions=open_port("tcp", 80, IpRanges=[{"CidrIp": f"{target}/32"}]))
    until(lambda: reaches(asking, target, 80))


def test_interfaces_are_of_the_subnets_that_were_asked_for(platform, ec2):
    vpc = ec2.create_vpc(CidrBlock="10.77.0.0/16")["Vpc"]["VpcId"]
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.77.3.0/28")["Subnet"]["SubnetId"]
    ecs = platform.client("ecs")
    ecs.register_task_definition(**on_ec2("awsvpc"))
    network = {"awsvpcConfiguration": {"subnets": [subnet]}}
    ran = ecs.run_task(taskDefinition="web-awsvpc", networkConfiguration=network, count=2)
    arns = [task["taskArn"] for task in ran["tasks"]]
    wait(ecs, "tasks_running", tasks=arns)
    first, second = (address(describe(ecs, arn)) for arn in arns)
    assert first.startswith("10.77.3.") and second.startswith("10.77.3.")
    details = {d["name"]: d["value"] for d in describe(ecs, arns[0])["attachments"][0]["details"]}
    assert details["subnetId"] == subnet and "privateDnsName" not in details
    assert reaches(arns[1], first, 80), "both are in the default group of their VPC"
    shown, = ec2.describe_network_interfaces(NetworkInterfaceIds=[details["networkInterfaceId"]])["NetworkInterfaces"]
    assert (shown["VpcId"], shown["MacAddress"], shown["PrivateIpAddress"]) == (vpc, details["macAddress"], first)
    assert shown["RequesterManaged"] and ":attachment/" in shown["Description"]
    assert ec2.describe_subnets(SubnetIds=[subnet])["Subnets"][0]["AvailableIpAddressCount"] == 9
    with pytest.raises(ecs.exceptions.InvalidParameterException) as refused:
        ecs.run_task(taskDefinition="web-awsvpc", networkConfiguration={
            "awsvpcConfiguration": {"subnets": ["subnet-0123456789abcdef0"]}})
    assert "does not exist (ErrorCode: InvalidSubnetID.NotFound)" in json.dumps(refused.value.response)
