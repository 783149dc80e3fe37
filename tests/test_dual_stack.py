"""Load balancers that are reached by IPv6 too: their addresses, on a machine that has them from nobody else."""

import http.server
import ipaddress
import itertools
import json
import shutil
import signal
import socket
import subprocess
import threading

import pytest
from conftest import Platform, leftovers, needs_root, until, wait
from test_balancers import Headers, apart  # noqa: F401 (a fixture)
from test_load_balancing import refused, states
from test_terraform import PROVIDER, Terraform

pytestmark = [needs_root, pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")]

DUAL = PROVIDER.replace("ecs = var.url", "ecs = var.url\n    elbv2 = var.url") + """
variable "vpc" {}

variable "subnets" { type = list(string) }

resource "aws_lb" "web" {
  name            = "web"
  subnets         = var.subnets
  ip_address_type = "dualstack"
}

resource "aws_lb" "net" {
  name               = "net"
  load_balancer_type = "network"
  internal           = true
  subnets            = var.subnets
  ip_address_type    = "dualstack"
}

resource "aws_lb_target_group" "web" {
  name        = "web"
  port        = 80
  protocol    = "HTTP"
  target_type = "ip"
  vpc_id      = var.vpc
  health_check {
    interval          = 5
    timeout           = 2
    healthy_threshold = 2
  }
}

resource "aws_lb_listener" "web" {
  load_balancer_arn = aws_lb.web.arn
  port              = 80
  protocol          = "HTTP"
  default_action {
    type             = "forward"
    target_group_arn = aws_lb_target_group.web.arn
  }
}

resource "aws_lb_listener_rule" "nobody" {
  listener_arn = aws_lb_listener.web.arn
  priority     = 1
  action {
    type = "fixed-response"
    fixed_response {
      content_type = "text/plain"
      status_code  = "403"
      message_body = "not from there"
    }
  }
  condition {
    source_ip { values = ["2001:db8::/32"] }
  }
}

resource "aws_ecs_cluster" "this" { name = "tf" }

resource "aws_ecs_task_definition" "web" {
  family                   = "web"
  network_mode             = "awsvpc"
  requires_compatibilities = ["FARGATE"]
  cpu                      = 256
  memory                   = 512
  container_definitions    = jsonencode([{ name = "web", image = "nginx:latest", portMappings = [{ containerPort = 80 }] }])
}

resource "aws_ecs_service" "web" {
  name            = "web"
  cluster         = aws_ecs_cluster.this.id
  task_definition = aws_ecs_task_definition.web.arn
  desired_count   = 1
  launch_type     = "FARGATE"
  network_configuration { subnets = var.subnets }
  load_balancer {
    target_group_arn = aws_lb_target_group.web.arn
    container_name   = "web"
    container_port   = 80
  }
  depends_on = [aws_lb_listener.web]
}
"""


def addresses(elb, name):
    """Of each zone: by IPv4 and by IPv6."""
    (shown,) = elb.describe_load_balancers(Names=[name])["LoadBalancers"]
    each = [zone["LoadBalancerAddresses"][0] for zone in shown["AvailabilityZones"]]
    return [(address.get("IpAddress"), address.get("IPv6Address")) for address in each]


def curl(address, *more):
    """What is answered at an address; nothing where nobody listens."""
    host = f"[{address}]" if ":" in address else address
    done = subprocess.run(["curl", "--silent", "--globoff", "--max-time", "10", *more, f"http://{host}/"],
                          capture_output=True, text=True)
    return done.stdout


def routes():
    """Blocks that lead to this machine for load balancers."""
    shown = subprocess.run(["ip", "-6", "route", "show", "table", "local"], check=True, capture_output=True, text=True)
    found = [line.split()[1] for line in shown.stdout.splitlines() if line.startswith("local fd")]
    return [block for block in found if "/64" in block]


@pytest.fixture
def platform(tmp_path):
    installation = Platform(tmp_path / "gantry").start()
    try:
        yield installation
    finally:
        installation.sweep()
    assert leftovers(installation.directory) == [] and routes() == []


def dual(server):
    """Subnets with IPv6 of the default VPC."""
    ec2 = server.client("ec2")
    vpc = ec2.describe_vpcs()["Vpcs"][0]["VpcId"]
    made = ec2.associate_vpc_cidr_block(VpcId=vpc, AmazonProvidedIpv6CidrBlock=True)["Ipv6CidrBlockAssociation"]
    parts = ipaddress.ip_network(made["Ipv6CidrBlock"]).subnets(new_prefix=64)
    subnets = [subnet["SubnetId"] for subnet in ec2.describe_subnets()["Subnets"][:2]]
    for subnet in subnets:
        ec2.associate_subnet_cidr_block(SubnetId=subnet, Ipv6CidrBlock=str(next(parts)))
    return vpc, subnets


@pytest.mark.skipif(shutil.which("terraform") is None, reason="terraform is not installed")
def test_terraform_makes_them_and_containers_answer(platform, tmp_path):
    vpc, subnets = dual(platform)
    given = {"TF_VAR_vpc": vpc, "TF_VAR_subnets": json.dumps(subnets)}
    platform.environment.update(given)
    assert routes() == []
    with Terraform(platform, tmp_path, DUAL) as terraform:
        elb = platform.client("elbv2")
        wait(platform.client("ecs"), "services_stable", cluster="tf", services=["web"])
        first = addresses(elb, "web")
        assert len(first) == 2 and all(ipv4 and ipv6 for ipv4, ipv6 in first + addresses(elb, "net"))
        (block,) = routes()
        for ipv4, ipv6 in first:
            assert ipaddress.ip_address(ipv6) in ipaddress.ip_network(block)
            until(lambda: "Hello from Gantry" in curl(ipv6))
            assert "Hello from Gantry" in curl(ipv4)

        # It is so after a crash, too.
        platform.end(signal.SIGKILL)
        assert leftovers(platform.directory), "what is left is known"
        platform.start()
        terraform.environment["TF_VAR_url"] = platform.url
        until(lambda: "Hello from Gantry" in curl(first[0][1]))

        # By IPv4 alone, then by both again: its IPv4 addresses stay.
        elb = platform.client("elbv2")
        arn = elb.describe_load_balancers(Names=["web"])["LoadBalancers"][0]["LoadBalancerArn"]
        elb.set_ip_address_type(LoadBalancerArn=arn, IpAddressType="ipv4")
        assert addresses(elb, "web") == [(ipv4, None) for ipv4, _ in first]
        until(lambda: curl(first[0][1]) == "")
        assert "Hello from Gantry" in curl(first[0][0])
        elb.set_ip_address_type(LoadBalancerArn=arn, IpAddressType="dualstack")
        again = addresses(elb, "web")
        assert [ipv4 for ipv4, _ in again] == [ipv4 for ipv4, _ in first]
        until(lambda: "Hello from Gantry" in curl(again[1][1]))
    until(lambda: routes() == [])


@pytest.fixture
def echo():
    """Answers each datagram with itself."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as own:
        own.bind(("127.0.0.1", 0))

        def answer():
            while (heard := own.recvfrom(2048))[0] != b"the end":
                own.sendto(*heard)

        answering = threading.Thread(target=answer)
        answering.start()
        port = own.getsockname()[1]
        yield port
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"the end", ("127.0.0.1", port))
        answering.join()


def echoed(address, words):
    """What a datagram is answered with; nothing where nobody answers."""
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as own:
        own.settimeout(1)
        try:
            own.connect((address, 80))
            own.send(words)
            return own.recv(2048)
        except OSError:
            return None


@pytest.mark.parametrize("pool", [None, "2001:db8:78::/64"], ids=["its own", "the operator's"])
def test_datagrams_and_connections_come_to_addresses_of_a_pool(tmp_path, echo, pool):
    more = ["--lb-addresses", f"127.78.0.0/28,{pool}"] if pool else []
    platform = Platform(tmp_path / "gantry", "--lb-loopback-targets", *more).start()
    site = http.server.ThreadingHTTPServer(("127.0.0.1", echo), Headers)
    threading.Thread(target=site.serve_forever, daemon=True).start()
    try:
        vpc, subnets = dual(platform)
        elb = platform.client("elbv2")
        made = elb.create_load_balancer(Name="net", Type="network", Subnets=subnets, IpAddressType="dualstack",
                                        EnablePrefixForIpv6SourceNat="on")["LoadBalancers"][0]
        group = elb.create_target_group(Name="both", VpcId=vpc, Protocol="TCP_UDP", Port=echo, TargetType="ip")
        group = group["TargetGroups"][0]["TargetGroupArn"]
        elb.register_targets(TargetGroupArn=group, Targets=[{"Id": "127.0.0.1"}])
        elb.create_listener(LoadBalancerArn=made["LoadBalancerArn"], Protocol="TCP_UDP", Port=80,
                            DefaultActions=[{"Type": "forward", "TargetGroupArn": group}])
        if pool:
            assert routes() == [], "it is for the operator to give them to the machine"
            for _, ipv6 in addresses(elb, "net"):
                assert ipaddress.ip_address(ipv6) in ipaddress.ip_network(pool)
                subprocess.run(["ip", "address", "add", f"{ipv6}/128", "dev", "lo"], check=True)
        for address in itertools.chain(*addresses(elb, "net")):
            until(lambda: echoed(address, b"one") == b"one")
            assert echoed(address, b"x" * 1400) == b"x" * 1400
            until(lambda: "Host: " in curl(address))
    finally:
        platform.sweep()
        site.shutdown()
        site.server_close()
        if pool:
            subprocess.run(["ip", "-6", "address", "flush", "dev", "lo", "to", pool], check=True)
    assert leftovers(platform.directory) == [] and routes() == []


def test_a_load_balancer_apart_takes_its_addresses_along(apart):  # noqa: F811
    server, start = apart
    elb = server.client("elbv2")
    message = refused("ValidationError", elb.create_load_balancer, Name="web", Subnets=["subnet-1", "subnet-2"],
                      IpAddressType="dualstack")
    assert message == "You must specify subnets with an associated IPv6 CIDR block."
    vpc, subnets = dual(server)
    site = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Headers)
    threading.Thread(target=site.serve_forever, daemon=True).start()
    try:
        arn = elb.create_load_balancer(Name="web", Subnets=subnets,
                                       IpAddressType="dualstack")["LoadBalancers"][0]["LoadBalancerArn"]
        group = elb.create_target_group(Name="web", VpcId=vpc, Protocol="HTTP", Port=80, TargetType="ip",
                                        HealthCheckIntervalSeconds=5, HealthCheckTimeoutSeconds=4)["TargetGroups"][0]
        group = group["TargetGroupArn"]
        elb.register_targets(TargetGroupArn=group, Targets=[{"Id": "127.0.0.1", "Port": site.server_address[1]}])
        listener = elb.create_listener(LoadBalancerArn=arn, Protocol="HTTP", Port=80, DefaultActions=[
            {"Type": "forward", "TargetGroupArn": group}])["Listeners"][0]["ListenerArn"]
        own, other = (ipv6 for _, ipv6 in addresses(elb, "web"))
        assert routes() == [] and curl(own) == "", "the server alone carries no traffic"
        lb = start("lb", "--lb-listen", "off")
        until(lambda: "X-Forwarded-For: ::1\n" in curl(own))
        assert set(states(elb, group).values()) <= {"initial", "healthy"}

        # Rules tell who asks.
        subprocess.run(["ip", "-6", "address", "add", "2001:db8::7/128", "dev", "lo"], check=True)
        answer = {"Type": "fixed-response", "FixedResponseConfig": {"StatusCode": "200", "MessageBody": "a neighbour"}}
        elb.create_rule(ListenerArn=listener, Priority=1, Actions=[answer], Conditions=[
            {"Field": "source-ip", "SourceIpConfig": {"Values": ["2001:db8::/32"]}}])
        until(lambda: curl(own, "--interface", "2001:db8::7") == "a neighbour")
        ours = ["--interface", "::1"]
        assert all("X-Forwarded-For: ::1\n" in curl(address, *ours) for address in (own, other))
        key = "routing.http.xff_client_port.enabled"
        elb.modify_load_balancer_attributes(LoadBalancerArn=arn, Attributes=[{"Key": key, "Value": "true"}])
        until(lambda: "X-Forwarded-For: [::1]:" in curl(own, *ours))

        # Who takes its place has them as well, and after a crash they are led here still.
        successor = start("lb", "--lb-listen", "off")
        assert lb.process.wait(timeout=60) == 0
        assert "X-Forwarded-For: [::1]:" in curl(own, *ours) and len(routes()) == 1
        successor.end(signal.SIGKILL)
        assert curl(own) == "" and len(routes()) == 1
        successor.start()
        until(lambda: "X-Forwarded-For: [::1]:" in curl(own, *ours))
        assert successor.end() == 0
        assert routes() == []
    finally:
        site.shutdown()
        site.server_close()


def test_who_may_not_lead_addresses_here_says_what_to_do(apart):  # noqa: F811
    server, start = apart
    elb = server.client("elbv2")
    _, subnets = dual(server)
    made = elb.create_load_balancer(Name="web", Subnets=subnets, IpAddressType="dualstack")["LoadBalancers"][0]
    answer = {"Type": "fixed-response", "FixedResponseConfig": {"StatusCode": "200", "MessageBody": "from both"}}
    elb.create_listener(LoadBalancerArn=made["LoadBalancerArn"], Protocol="HTTP", Port=80, DefaultActions=[answer])
    (ipv4, ipv6), _ = addresses(elb, "web")
    lb = start("lb", "--lb-listen", "off")
    lb.end(signal.SIGKILL)
    subprocess.run(["ip", "-6", "route", "flush", "table", "local", "type", "local", "proto", "boot"], check=True)
    assert routes() == []
    lb.command = ["setpriv", "--bounding-set", "-net_admin", *lb.command]
    lb.start()
    until(lambda: curl(ipv4) == "from both")
    said = until(lambda: [line for line in lb.directory.with_suffix(".log").read_text().splitlines()
                          if "run `ip -6 route add local" in line])
    assert curl(ipv6) == "" and len(said) == 1
    words = said[0].partition("run `")[2].partition("`")[0].split()
    assert words[:5] == ["ip", "-6", "route", "add", "local"]
    subprocess.run(words, check=True)
    until(lambda: curl(ipv6) == "from both")
    subprocess.run([*words[:3], "delete", *words[4:]], check=True)
