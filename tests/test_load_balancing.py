"""Elastic Load Balancing: its API by boto3, the AWS CLI and Terraform; traffic to real containers."""

import json
import shutil
import threading
import urllib.request

import botocore.exceptions
import pytest
from conftest import NETWORK, needs_root, page, until, wait
from test_ecs import WEB
from test_tasks import address
from test_terraform import PROVIDER, Terraform


def refused(code, call, **arguments):
    with pytest.raises(botocore.exceptions.ClientError) as error:
        call(**arguments)
    assert error.value.response["Error"]["Code"] == code
    return error.value.response["Error"]["Message"]


def balancer(elb, name="web", **arguments):
    made = elb.create_load_balancer(Name=name, Subnets=["subnet-1", "subnet-2"], **arguments)["LoadBalancers"][0]
    elb.get_waiter("load_balancer_available").wait(LoadBalancerArns=[made["LoadBalancerArn"]])
    return made


def group(gantry, elb, name="web", **arguments):
    vpc = gantry.client("ec2").describe_vpcs()["Vpcs"][0]["VpcId"]
    settings = {"Protocol": "HTTP", "Port": 80, "TargetType": "ip", **arguments}
    return elb.create_target_group(Name=name, VpcId=vpc, **settings)["TargetGroups"][0]["TargetGroupArn"]


def forward(arn):
    return [{"Type": "forward", "TargetGroupArn": arn}]


def test_the_api_by_boto3(gantry):
    elb = gantry.client("elbv2")
    web = balancer(elb, Tags=[{"Key": "team", "Value": "blue"}])
    arn, target_group = web["LoadBalancerArn"], group(gantry, elb)
    listener = elb.create_listener(LoadBalancerArn=arn, Protocol="HTTP", Port=80,
                                   DefaultActions=forward(target_group))["Listeners"][0]["ListenerArn"]
    rule = elb.create_rule(ListenerArn=listener, Priority=10, Actions=[{
        "Type": "fixed-response", "FixedResponseConfig": {"StatusCode": "410", "ContentType": "text/plain",
                                                          "MessageBody": "gone & <away>"},
    }], Conditions=[{"Field": "path-pattern", "PathPatternConfig": {"Values": ["/old/*"]}}])["Rules"][0]
    shown = elb.describe_rules(ListenerArn=listener)["Rules"]
    assert [entry["Priority"] for entry in shown] == ["10", "default"]
    assert shown[0] == rule and rule["Actions"][0]["FixedResponseConfig"]["MessageBody"] == "gone & <away>"
    assert refused("PriorityInUse", elb.create_rule, ListenerArn=listener, Priority=10,
                   Conditions=rule["Conditions"], Actions=forward(target_group)) == "Priority '10' is currently in use"

    elb.register_targets(TargetGroupArn=target_group, Targets=[{"Id": "10.0.0.1"}, {"Id": "10.0.0.2", "Port": 81}])
    health = elb.describe_target_health(TargetGroupArn=target_group)["TargetHealthDescriptions"]
    assert [(entry["Target"]["Id"], entry["Target"]["Port"]) for entry in health] == [("10.0.0.1", 80), ("10.0.0.2", 81)]
    attributes = elb.modify_target_group_attributes(TargetGroupArn=target_group, Attributes=[
        {"Key": "deregistration_delay.timeout_seconds", "Value": "0"}])["Attributes"]
    assert {"Key": "deregistration_delay.timeout_seconds", "Value": "0"} in attributes
    elb.deregister_targets(TargetGroupArn=target_group, Targets=[{"Id": "10.0.0.1"}])
    left = elb.describe_target_health(TargetGroupArn=target_group)["TargetHealthDescriptions"]
    assert [entry["Target"]["Id"] for entry in left] == ["10.0.0.2"]
    tags = elb.describe_tags(ResourceArns=[arn])["TagDescriptions"][0]
    assert tags == {"ResourceArn": arn, "Tags": [{"Key": "team", "Value": "blue"}]}

    # All of it outlives the server.
    gantry.end()
    gantry.start()
    elb = gantry.client("elbv2")
    assert elb.describe_load_balancers(Names=["web"])["LoadBalancers"] == [web]
    assert elb.describe_rules(ListenerArn=listener)["Rules"] == shown
    elb.delete_load_balancer(LoadBalancerArn=arn)
    elb.get_waiter("load_balancers_deleted").wait(LoadBalancerArns=[arn])
    refused("ListenerNotFound", elb.describe_listeners, ListenerArns=[listener])
    elb.delete_target_group(TargetGroupArn=target_group)
    assert elb.describe_target_groups()["TargetGroups"] == []


def test_the_api_by_the_cli(gantry):
    made = gantry.aws("elbv2", "create-load-balancer", "--name", "net", "--type", "network", "--subnets", "subnet-1")
    arn = json.loads(made.stdout)["LoadBalancers"][0]["LoadBalancerArn"]
    assert ":loadbalancer/net/net/" in arn
    gantry.aws("elbv2", "wait", "load-balancer-available", "--load-balancer-arns", arn)
    shown = gantry.aws("elbv2", "describe-load-balancer-attributes", "--load-balancer-arn", arn, "--query",
                       "Attributes[?Key=='load_balancing.cross_zone.enabled'].Value", "--output", "text")
    assert shown.stdout.strip() == "false"
    limits = json.loads(gantry.aws("elbv2", "describe-account-limits").stdout)["Limits"]
    assert {"Name": "target-groups", "Max": "3000"} in limits
    failed = gantry.aws("elbv2", "describe-load-balancers", "--names", "none", check=False)
    assert "(LoadBalancerNotFound)" in failed.stderr and "Load balancers '[none]' not found" in failed.stderr


BALANCING = """
data "aws_vpc" "default" { default = true }

data "aws_subnets" "default" {
  filter {
    name   = "vpc-id"
    values = [data.aws_vpc.default.id]
  }
}

resource "aws_lb" "web" {
  name         = "web"
  subnets      = data.aws_subnets.default.ids
  idle_timeout = 30
  tags         = { team = "blue" }
}

resource "aws_lb_target_group" "web" {
  count                = 2
  name                 = "web-${count.index}"
  port                 = 80
  protocol             = "HTTP"
  target_type          = "ip"
  vpc_id               = data.aws_vpc.default.id
  deregistration_delay = 5
  health_check {
    path     = "/health"
    interval = 10
    matcher  = "200-299"
  }
  stickiness {
    type            = "lb_cookie"
    cookie_duration = 600
  }
}

resource "aws_lb_target_group_attachment" "web" {
  target_group_arn = aws_lb_target_group.web[0].arn
  target_id        = "10.0.0.1"
}

resource "aws_lb_listener" "web" {
  load_balancer_arn = aws_lb.web.arn
  port              = 80
  protocol          = "HTTP"
  default_action {
    type             = "forward"
    target_group_arn = aws_lb_target_group.web[0].arn
  }
}

resource "aws_lb_listener" "old" {
  load_balancer_arn = aws_lb.web.arn
  port              = 8080
  protocol          = "HTTP"
  default_action {
    type = "redirect"
    redirect {
      port        = "80"
      status_code = "HTTP_301"
    }
  }
}

resource "aws_lb_listener_rule" "split" {
  listener_arn = aws_lb_listener.web.arn
  priority     = 10
  action {
    type = "forward"
    forward {
      target_group {
        arn    = aws_lb_target_group.web[0].arn
        weight = 90
      }
      target_group {
        arn    = aws_lb_target_group.web[1].arn
        weight = 10
      }
      stickiness {
        enabled  = true
        duration = 60
      }
    }
  }
  condition {
    path_pattern { values = ["/api/*", "/v1"] }
  }
  condition {
    http_header {
      http_header_name = "X-Team"
      values           = ["blue*"]
    }
  }
}

resource "aws_lb_listener_rule" "unstuck" {
  listener_arn = aws_lb_listener.web.arn
  priority     = 15
  action {
    type = "forward"
    forward {
      target_group { arn = aws_lb_target_group.web[0].arn }
      target_group { arn = aws_lb_target_group.web[1].arn }
      stickiness {
        enabled  = false
        duration = 600
      }
    }
  }
  condition {
    path_pattern { values = ["/unstuck/*"] }
  }
}

resource "aws_lb_listener_rule" "gone" {
  listener_arn = aws_lb_listener.web.arn
  priority     = 20
  action {
    type = "fixed-response"
    fixed_response {
      content_type = "text/plain"
      message_body = "gone"
      status_code  = "410"
    }
  }
  condition {
    host_header { values = ["old.example.com"] }
  }
  condition {
    query_string {
      key   = "v"
      value = "1"
    }
  }
  condition {
    source_ip { values = ["127.0.0.0/8"] }
  }
}

resource "aws_lb" "net" {
  name               = "net"
  load_balancer_type = "network"
  internal           = true
  subnets            = [data.aws_subnets.default.ids[0]]
  security_groups    = [data.aws_security_group.default.id]

  enforce_security_group_inbound_rules_on_private_link_traffic = "off"
}

data "aws_security_group" "default" {
  vpc_id = data.aws_vpc.default.id
  name   = "default"
}

resource "aws_lb_target_group" "tcp" {
  name     = "tcp"
  port     = 5432
  protocol = "TCP"
  vpc_id   = data.aws_vpc.default.id
}

resource "aws_lb_listener" "tcp" {
  load_balancer_arn = aws_lb.net.arn
  port              = 5432
  protocol          = "TCP"
  default_action {
    type             = "forward"
    target_group_arn = aws_lb_target_group.tcp.arn
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
  desired_count   = 0
  launch_type     = "FARGATE"
  network_configuration { subnets = aws_lb.web.subnets }
  dynamic "load_balancer" {
    for_each = aws_lb_target_group.web[*].arn
    content {
      target_group_arn = load_balancer.value
      container_name   = "web"
      container_port   = 80
    }
  }
  depends_on = [aws_lb_listener.web, aws_lb_listener_rule.split]
}

output "name" { value = aws_lb.web.dns_name }
"""


@pytest.mark.skipif(shutil.which("terraform") is None, reason="terraform is not installed")
def test_terraform_makes_load_balancers(gantry, tmp_path):
    provider = PROVIDER.replace("ecs = var.url", "ecs = var.url\n    elbv2 = var.url")
    with Terraform(gantry, tmp_path, provider + BALANCING):
        elb = gantry.client("elbv2")
        assert [b["LoadBalancerName"] for b in elb.describe_load_balancers()["LoadBalancers"]] == ["web", "net"]
        assert len(elb.describe_target_groups()["TargetGroups"]) == 3
        (service,) = gantry.client("ecs").describe_services(cluster="tf", services=["web"])["services"]
        assert len(service["loadBalancers"]) == 2
    assert gantry.client("elbv2").describe_load_balancers()["LoadBalancers"] == []


# With containers behind.

WEB_GROUP = {"HealthCheckIntervalSeconds": 5, "HealthCheckTimeoutSeconds": 2, "HealthyThresholdCount": 2}


def address_of(balancer):
    """Where a load balancer is on this machine."""
    return balancer["AvailabilityZones"][0]["LoadBalancerAddresses"][0]["IpAddress"]


def states(elb, arn):
    health = elb.describe_target_health(TargetGroupArn=arn)["TargetHealthDescriptions"]
    return {entry["Target"]["Id"]: entry["TargetHealth"]["State"] for entry in health}


@needs_root
def test_traffic_reaches_containers_by_rules(platform):
    ecs, elb = platform.client("ecs"), platform.client("elbv2")
    ecs.register_task_definition(**WEB)
    started = ecs.run_task(taskDefinition="web-app", launchType="FARGATE", count=2,
                           networkConfiguration=NETWORK)["tasks"]
    arns = [task["taskArn"] for task in started]
    wait(ecs, "tasks_running", tasks=arns)
    ips = [address(ecs.describe_tasks(tasks=[arn])["tasks"][0]) for arn in arns]
    web, targets = balancer(elb), group(platform, elb, **WEB_GROUP)
    listener = elb.create_listener(LoadBalancerArn=web["LoadBalancerArn"], Protocol="HTTP", Port=80,
                                   DefaultActions=forward(targets))["Listeners"][0]["ListenerArn"]
    elb.register_targets(TargetGroupArn=targets, Targets=[{"Id": ip} for ip in ips])
    until(lambda: states(elb, targets) == dict.fromkeys(ips, "healthy"))
    url = f"http://{address_of(web)}"
    assert "Hello from Gantry" in page(f"{url}/")

    elb.create_rule(ListenerArn=listener, Priority=1, Actions=[{
        "Type": "fixed-response", "FixedResponseConfig": {"StatusCode": "200", "MessageBody": "a rule speaks"},
    }], Conditions=[{"Field": "path-pattern", "Values": ["/fixed/*"]}])
    until(lambda: page(f"{url}/fixed/1") == "a rule speaks")
    assert "Hello from Gantry" in page(f"{url}/")

    # What the balancer finds is what is told: a target that is gone becomes unhealthy.
    ecs.stop_task(task=arns[0])
    gone = ips[0]
    until(lambda: states(elb, targets)[gone] == "unhealthy")
    assert "Hello from Gantry" in page(f"{url}/")
    # Nothing of it is under way: it need not drain for five minutes.
    elb.deregister_targets(TargetGroupArn=targets, Targets=[{"Id": gone}])
    until(lambda: gone not in states(elb, targets))

    # The same after a restart of everything but the containers.
    platform.end()
    platform.start()
    elb = platform.client("elbv2")
    assert "Hello from Gantry" in page(f"{url}/")
    elb.delete_load_balancer(LoadBalancerArn=web["LoadBalancerArn"])


@needs_root
def test_a_service_is_registered_drained_and_rolled_without_a_failed_request(platform):
    ecs, elb = platform.client("ecs"), platform.client("elbv2")
    web, targets = balancer(elb), group(platform, elb, **WEB_GROUP)
    elb.create_listener(LoadBalancerArn=web["LoadBalancerArn"], Protocol="HTTP", Port=80,
                        DefaultActions=forward(targets))
    ecs.register_task_definition(**WEB)
    ecs.create_service(serviceName="web", taskDefinition="web-app", desiredCount=2, launchType="FARGATE",
                       networkConfiguration=NETWORK, loadBalancers=[
                           {"targetGroupArn": targets, "containerName": "web-server", "containerPort": 80}])
    deployment = lambda: ecs.describe_services(services=["web"])["services"][0]["deployments"][0]
    until(lambda: deployment()["rolloutState"] == "COMPLETED")
    first = states(elb, targets)
    assert list(first.values()) == ["healthy"] * 2
    url = f"http://{address_of(web)}/"

    answers, stop = [], threading.Event()

    def ask():
        while not stop.is_set():
            try:
                with urllib.request.urlopen(url, timeout=10) as answer:
                    answers.append((answer.status, b"Hello from Gantry" in answer.read()))
            except OSError as error:
                answers.append(error)

    asking = [threading.Thread(target=ask) for _ in range(4)]
    for thread in asking:
        thread.start()
    try:
        ecs.update_service(service="web", forceNewDeployment=True)
        until(lambda: deployment()["rolloutState"] == "COMPLETED" and len(states(elb, targets)) == 2)
        ecs.update_service(service="web", desiredCount=1)
        until(lambda: len(states(elb, targets)) == 1)
    finally:
        stop.set()
        for thread in asking:
            thread.join()
    assert set(first) & set(states(elb, targets)) == set()
    assert set(answers) == {(200, True)}, [answer for answer in answers if answer != (200, True)]
    assert len(answers) > 100
    messages = [event["message"] for event in ecs.describe_services(services=["web"])["services"][0]["events"]]
    assert f"(service web) registered 1 targets in (target-group {targets})" in messages
    assert f"(service web) deregistered 1 targets in (target-group {targets})" in messages
