"""Services behind load balancers, with real containers: traffic that shifts between revisions, groups that change, targets
by host port, targets that fail."""

import re
import socket
import threading
import urllib.request

import pytest
from conftest import NETWORK, Platform, leftovers, needs_root, page, until
from test_deployments import CHECKED, attempt, waiting
from test_ecs import WEB, refused
from test_load_balancing import WEB_GROUP, address_of, balancer, forward, group, states

pytestmark = needs_root

ROLE = "arn:aws:iam::123456789012:role/ecs-balancing"
REVISION = re.compile(r"<th>revision</th><td>(\d+)</td>")
HOST = re.compile(r"<th>host</th><td>ip-([\d-]+)")


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    installation = Platform(tmp_path_factory.mktemp("balanced") / "gantry").start()
    try:
        yield installation
    finally:
        installation.sweep()
    assert leftovers(installation.directory) == []


class Load:
    """Four clients that ask all the time, and what they were told: the revision that answered (or what else `who` finds),
    or an error."""

    def __init__(self, url, who=REVISION):
        self.url, self.who = url, who
        self.answers = []
        self.stopped = threading.Event()
        self.threads = [threading.Thread(target=self.ask) for _ in range(4)]

    def ask(self):
        while not self.stopped.is_set():
            try:
                with urllib.request.urlopen(self.url, timeout=10) as answer:
                    text = answer.read().decode()
            except OSError as error:
                self.answers.append(error)
                continue
            assert "Hello from Gantry" in text
            found = self.who.search(text)
            # A busy machine's container may answer before it has found out what it is.
            if found:
                self.answers.append(found[1])

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stopped.set()
        for thread in self.threads:
            thread.join()


def revision(url):
    found = REVISION.search(page(url))
    return found and found[1]


def define(ecs, family, **more):
    made = ecs.register_task_definition(**{**WEB, "family": family, **more})["taskDefinition"]
    return made["taskDefinitionArn"], str(made["revision"])


def lines(elb, arn, actions, *ports):
    return [elb.create_listener(LoadBalancerArn=arn, Protocol="HTTP", Port=port, DefaultActions=actions)["Listeners"][0]
            ["ListenerArn"] for port in ports]


def default_rule(elb, listener):
    return elb.describe_rules(ListenerArn=listener)["Rules"][0]["RuleArn"]


def weights(elb, listener):
    (action,) = elb.describe_listeners(ListenerArns=[listener])["Listeners"][0]["DefaultActions"]
    return [entry["Weight"] for entry in action["ForwardConfig"]["TargetGroups"]]


def remove(ecs, elb, arn, *services):
    for name in services:
        ecs.delete_service(service=name, force=True)
    elb.delete_load_balancer(LoadBalancerArn=arn)
    until(lambda: not ecs.list_tasks()["taskArns"])


def test_blue_and_green_take_turns_without_a_failed_request(shared):
    ecs, elb = shared.client("ecs"), shared.client("elbv2")
    web = balancer(elb, "turns")
    blue, green = (group(shared, elb, name, **WEB_GROUP) for name in ("turns-a", "turns-b"))
    production, test = lines(elb, web["LoadBalancerArn"], forward(blue), 80, 8080)
    advanced = {"alternateTargetGroupArn": green, "productionListenerRule": default_rule(elb, production),
                "testListenerRule": default_rule(elb, test), "roleArn": ROLE}
    balanced = {"targetGroupArn": blue, "containerName": "web-server", "containerPort": 80}
    first, one = define(ecs, "turns")
    create = dict(serviceName="web", taskDefinition=first, desiredCount=2, launchType="FARGATE",
                  networkConfiguration=NETWORK, deploymentConfiguration={"strategy": "BLUE_GREEN", "bakeTimeInMinutes": 0})
    refused("InvalidParameterException", "advancedConfiguration field is required", ecs.create_service,
            loadBalancers=[balanced], **create)
    service = ecs.create_service(loadBalancers=[{**balanced, "advancedConfiguration": advanced}], **create)["service"]
    assert service["loadBalancers"] == [{**balanced, "advancedConfiguration": advanced}]
    until(lambda: attempt(ecs)["status"] == "SUCCESSFUL")
    assert (weights(elb, production), len(states(elb, blue)), states(elb, green)) == ([100, 0], 2, {})
    url, side = (f"http://{address_of(web)}:{port}/" for port in (80, 8080))
    assert until(lambda: revision(url)) == one

    second, two = define(ecs, "turns")
    pause = {"targetType": "PAUSE", "lifecycleStages": ["POST_TEST_TRAFFIC_SHIFT", "POST_PRODUCTION_TRAFFIC_SHIFT"]}
    shifting = {"strategy": "BLUE_GREEN", "bakeTimeInMinutes": 0, "lifecycleHooks": [pause]}
    with Load(url) as load:
        ecs.update_service(service="web", taskDefinition=second, deploymentConfiguration=shifting)
        hook = until(lambda: waiting(ecs, "POST_TEST_TRAFFIC_SHIFT"))
        # Green answers those who test it, and nobody else.
        until(lambda: revision(side) == two)
        assert (weights(elb, production), weights(elb, test)) == ([100, 0], [0, 100])
        assert set(states(elb, green).values()) == {"healthy"} and set(load.answers) == {one}
        deployment = attempt(ecs)["serviceDeploymentArn"]
        ecs.continue_service_deployment(serviceDeploymentArn=deployment, hookId=hook["hookId"])
        hook = until(lambda: waiting(ecs, "POST_PRODUCTION_TRAFFIC_SHIFT"))
        until(lambda: load.answers[-20:] == [two] * 20)
        assert weights(elb, production) == [0, 100]
        # Back again.
        ecs.continue_service_deployment(serviceDeploymentArn=deployment, hookId=hook["hookId"], action="ROLLBACK")
        until(lambda: attempt(ecs)["status"] == "ROLLBACK_SUCCESSFUL")
        until(lambda: load.answers[-20:] == [one] * 20)
        assert (weights(elb, production), weights(elb, test)) == ([100, 0], [100, 0])
        assert until(lambda: not states(elb, green)) and len(states(elb, blue)) == 2

        # And over for good: the groups have changed their roles.
        ecs.update_service(service="web", taskDefinition=second,
                           deploymentConfiguration={"strategy": "BLUE_GREEN", "bakeTimeInMinutes": 0, "lifecycleHooks": []})
        until(lambda: attempt(ecs)["status"] == "SUCCESSFUL")
        assert (weights(elb, production), weights(elb, test)) == ([0, 100], [0, 100])
        until(lambda: load.answers[-20:] == [two] * 20 and not states(elb, blue))
        arn = attempt(ecs)["targetServiceRevision"]["arn"]
        (shown,) = ecs.describe_service_revisions(serviceRevisionArns=[arn])["serviceRevisions"]
        assert shown["resolvedConfiguration"]["loadBalancers"] == [
            {"targetGroupArn": green, "productionListenerRule": advanced["productionListenerRule"]}]
        third, three = define(ecs, "turns")
        ecs.update_service(service="web", taskDefinition=third)
        until(lambda: attempt(ecs)["status"] == "SUCCESSFUL" and weights(elb, production) == [100, 0])
        until(lambda: load.answers[-20:] == [three] * 20 and not states(elb, green))
    assert set(load.answers) == {one, two, three}, [answer for answer in load.answers if not isinstance(answer, str)]
    remove(ecs, elb, web["LoadBalancerArn"], "web")


def test_a_canary_gets_its_share(shared):
    ecs, elb = shared.client("ecs"), shared.client("elbv2")
    web = balancer(elb, "canary")
    own, other = (group(shared, elb, name, **WEB_GROUP) for name in ("canary-a", "canary-b"))
    (production,) = lines(elb, web["LoadBalancerArn"], forward(own), 80)
    advanced = {"alternateTargetGroupArn": other, "productionListenerRule": default_rule(elb, production), "roleArn": ROLE}
    first, one = define(ecs, "canary")
    canary = {"strategy": "CANARY", "bakeTimeInMinutes": 0,
              "canaryConfiguration": {"canaryPercent": 12.5, "canaryBakeTimeInMinutes": 1}}
    ecs.create_service(serviceName="web", taskDefinition=first, desiredCount=1, launchType="FARGATE",
                       networkConfiguration=NETWORK, loadBalancers=[
                           {"targetGroupArn": own, "containerName": "web-server", "containerPort": 80,
                            "advancedConfiguration": advanced}])
    until(lambda: attempt(ecs)["status"] == "SUCCESSFUL")
    second, two = define(ecs, "canary")
    ecs.update_service(service="web", taskDefinition=second, deploymentConfiguration=canary)
    until(lambda: weights(elb, production) == [875, 125])
    url = f"http://{address_of(web)}/"
    until(lambda: revision(url) == two)
    assert until(lambda: revision(url) == one)
    ecs.stop_service_deployment(serviceDeploymentArn=attempt(ecs)["serviceDeploymentArn"], stopType="ROLLBACK")
    until(lambda: attempt(ecs)["status"] == "ROLLBACK_SUCCESSFUL")
    assert weights(elb, production) == [100, 0]
    remove(ecs, elb, web["LoadBalancerArn"], "web")


def test_a_network_load_balancers_connections_go_over_in_steps(shared):
    ecs, elb = shared.client("ecs"), shared.client("elbv2")
    net = balancer(elb, "steps", Type="network")
    own, other = (group(shared, elb, name, Protocol="TCP", HealthCheckIntervalSeconds=5, HealthyThresholdCount=2)
                  for name in ("steps-a", "steps-b"))
    production, test = (elb.create_listener(LoadBalancerArn=net["LoadBalancerArn"], Protocol="TCP", Port=port,
                                            DefaultActions=forward(own))["Listeners"][0]["ListenerArn"] for port in (80, 8080))
    advanced = {"alternateTargetGroupArn": other, "productionListenerRule": production, "testListenerRule": test,
                "roleArn": ROLE}
    linear = {"strategy": "LINEAR", "bakeTimeInMinutes": 0,
              "linearConfiguration": {"stepPercent": 40.0, "stepBakeTimeInMinutes": 0}}
    first, one = define(ecs, "steps")
    ecs.create_service(
        serviceName="web", taskDefinition=first, desiredCount=2, launchType="FARGATE", networkConfiguration=NETWORK,
        deploymentConfiguration=linear,
        loadBalancers=[{"targetGroupArn": own, "containerName": "web-server", "containerPort": 80,
                        "advancedConfiguration": advanced}])

    until(lambda: attempt(ecs)["status"] == "SUCCESSFUL")
    assert weights(elb, production) == [100, 0]
    url, side = (f"http://{address_of(net)}:{port}/" for port in (80, 8080))
    until(lambda: revision(url) == one)

    def go_on(stage, shares, action="CONTINUE"):
        hook = until(lambda: weights(elb, production) == shares and waiting(ecs, stage))
        ecs.continue_service_deployment(serviceDeploymentArn=attempt(ecs)["serviceDeploymentArn"], hookId=hook["hookId"],
                                        action=action)

    second, two = define(ecs, "steps")
    # Before each step, and after the last.
    hooks = [{"targetType": "PAUSE", "lifecycleStages": ["PRE_PRODUCTION_TRAFFIC_SHIFT", "POST_PRODUCTION_TRAFFIC_SHIFT"]}]
    # Not every page says its revision: a task may ask what it is so and so often.
    with Load(url, HOST) as load:
        def share():
            """What part of connections goes to the other group now: each is for itself."""
            begun = len(load.answers)
            until(lambda: len(load.answers) >= begun + 300)
            there = {ip.replace(".", "-") for ip in states(elb, other)}
            return sum(answer in there for answer in load.answers[begun:]) / len(load.answers[begun:])

        ecs.update_service(service="web", taskDefinition=second, deploymentConfiguration={**linear, "lifecycleHooks": hooks})
        until(lambda: waiting(ecs, "PRODUCTION_TRAFFIC_SHIFT") and revision(side) == two)
        assert (weights(elb, test), share()) == ([0, 100], 0)
        kept = socket.create_connection((address_of(net), 80), timeout=60)
        go_on("PRODUCTION_TRAFFIC_SHIFT", [100, 0])
        for shares, least, most in ([60, 40], .25, .55), ([20, 80], .65, .95):
            until(lambda: weights(elb, production) == shares and waiting(ecs, "PRODUCTION_TRAFFIC_SHIFT"))
            assert least < share() < most
            go_on("PRODUCTION_TRAFFIC_SHIFT", shares)
        until(lambda: waiting(ecs, "POST_PRODUCTION_TRAFFIC_SHIFT") and share() == 1)
        # A connection stays with its task as long as that is there.
        with kept:
            kept.sendall(b"GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n")
            answer = b"".join(iter(lambda: kept.recv(65536), b""))
        assert HOST.search(answer.decode())[1] in {ip.replace(".", "-") for ip in states(elb, own)}
        go_on("POST_PRODUCTION_TRAFFIC_SHIFT", [0, 100])
        until(lambda: attempt(ecs)["status"] == "SUCCESSFUL" and not states(elb, own))

        third, _ = define(ecs, "steps")
        ecs.update_service(service="web", taskDefinition=third, deploymentConfiguration={
            "strategy": "CANARY", "canaryConfiguration": {"canaryPercent": 30.0, "canaryBakeTimeInMinutes": 0}})
        go_on("PRODUCTION_TRAFFIC_SHIFT", [0, 100])
        until(lambda: weights(elb, production) == [30, 70] and waiting(ecs, "PRODUCTION_TRAFFIC_SHIFT"))
        assert .55 < share() < .85
        go_on("PRODUCTION_TRAFFIC_SHIFT", [30, 70], action="ROLLBACK")
        until(lambda: attempt(ecs)["status"] == "ROLLBACK_SUCCESSFUL" and share() == 1)
        assert (weights(elb, production), weights(elb, test)) == ([0, 100], [0, 100])
    assert not [answer for answer in load.answers if not isinstance(answer, str)]
    remove(ecs, elb, net["LoadBalancerArn"], "web")


def test_load_balancers_of_a_service_come_change_and_go(shared):
    ecs, elb = shared.client("ecs"), shared.client("elbv2")
    web, net = balancer(elb, "changing"), balancer(elb, "changing-net", Type="network")
    http, more = (group(shared, elb, name, **WEB_GROUP) for name in ("changing-http", "changing-more"))
    tcp = group(shared, elb, "changing-tcp", Protocol="TCP", HealthCheckIntervalSeconds=5)
    lines(elb, web["LoadBalancerArn"], forward(http), 80)
    lines(elb, web["LoadBalancerArn"], forward(more), 81)
    elb.create_listener(LoadBalancerArn=net["LoadBalancerArn"], Protocol="TCP", Port=80, DefaultActions=forward(tcp))
    definition, one = define(ecs, "changing", containerDefinitions=CHECKED["containerDefinitions"])
    entry = lambda arn: {"targetGroupArn": arn, "containerName": "web-server", "containerPort": 80}
    ecs.create_service(serviceName="web", taskDefinition=definition, desiredCount=1, launchType="FARGATE",
                       networkConfiguration=NETWORK)
    until(lambda: ecs.describe_services(services=["web"])["services"][0]["runningCount"] == 1)
    ecs.update_service(service="web", loadBalancers=[entry(http), entry(more), entry(tcp)])
    until(lambda: attempt(ecs)["status"] == "SUCCESSFUL")
    # One task is a target of each, by the application's and by the network's.
    assert [set(states(elb, arn).values()) for arn in (http, more, tcp)] == [{"healthy"}] * 3
    urls = [f"http://{address_of(web)}/", f"http://{address_of(web)}:81/", f"http://{address_of(net)}/"]
    with Load(urls[2]) as load:
        assert [revision(url) for url in urls] == [one] * 3
        refused("InvalidParameterException", "did not have a container port 81", ecs.update_service, service="web",
                loadBalancers=[{**entry(tcp), "containerPort": 81}])
        ecs.update_service(service="web", loadBalancers=[entry(tcp)])
        until(lambda: attempt(ecs)["status"] == "SUCCESSFUL" and not states(elb, http) and not states(elb, more))
        assert ecs.describe_services(services=["web"])["services"][0]["loadBalancers"] == [entry(tcp)]
        until(lambda: set(states(elb, tcp).values()) == {"healthy"})
    assert set(load.answers) == {one}, [answer for answer in load.answers if not isinstance(answer, str)]
    ecs.update_service(service="web", loadBalancers=[])
    until(lambda: not states(elb, tcp) and "loadBalancers" in ecs.describe_services(services=["web"])["services"][0])
    assert ecs.describe_services(services=["web"])["services"][0]["loadBalancers"] == []
    elb.delete_load_balancer(LoadBalancerArn=net["LoadBalancerArn"])
    remove(ecs, elb, web["LoadBalancerArn"], "web")


def test_targets_are_host_ports_in_bridge_mode_and_replaced_when_unhealthy(shared):
    ecs, elb = shared.client("ecs"), shared.client("elbv2")
    web = balancer(elb, "ports")
    targets = group(shared, elb, "ports", TargetType="instance", HealthCheckPath="/health", UnhealthyThresholdCount=2,
                    **WEB_GROUP)
    lines(elb, web["LoadBalancerArn"], forward(targets), 80)
    container = {"name": "web-server", "image": "nginx:latest", "memory": 64,
                 "portMappings": [{"containerPort": 80, "hostPort": 0}]}
    definition = ecs.register_task_definition(family="ports", networkMode="bridge", containerDefinitions=[container])
    definition = definition["taskDefinition"]["taskDefinitionArn"]
    ecs.create_service(serviceName="ports", taskDefinition=definition, desiredCount=2, launchType="EC2",
                       healthCheckGracePeriodSeconds=0, loadBalancers=[
                           {"targetGroupArn": targets, "containerName": "web-server", "containerPort": 80}])
    describe = lambda: elb.describe_target_health(TargetGroupArn=targets)["TargetHealthDescriptions"]
    healthy = lambda: [entry["Target"] for entry in describe() if entry["TargetHealth"]["State"] == "healthy"]
    first = until(lambda: len(healthy()) == 2 and healthy())
    (instance,) = ecs.describe_container_instances(
        containerInstances=ecs.list_container_instances()["containerInstanceArns"])["containerInstances"]
    assert {target["Id"] for target in first} == {instance["ec2InstanceId"]}
    assert len({target["Port"] for target in first}) == 2
    assert "Hello from Gantry" in page(f"http://{address_of(web)}/")

    told = lambda: [event["message"] for event in ecs.describe_services(services=["ports"])["services"][0]["events"]]
    # Who is taken out of its group by somebody else is told of, and is in it again.
    elb.deregister_targets(TargetGroupArn=targets, Targets=first[:1])
    lost = f"is not healthy in (target-group {targets}) due to TARGET IS NOT FOUND"
    until(lambda: any(message.endswith(lost) for message in told()) and len(healthy()) == 2)

    before = set(ecs.list_tasks(serviceName="ports")["taskArns"])
    elb.modify_target_group(TargetGroupArn=targets, HealthCheckPath="/nothing")
    where = f"(instance {instance['ec2InstanceId']}) (port "
    until(lambda: any(where in message and f"is unhealthy in (target-group {targets}) due to (reason " in message
                      for message in told()))
    elb.modify_target_group(TargetGroupArn=targets, HealthCheckPath="/health")
    until(lambda: not before & set(ecs.list_tasks(serviceName="ports")["taskArns"]) or
          any("Health checks failed" in message for message in told()))
    until(lambda: len(healthy()) == 2 and len(describe()) == 2)
    remove(ecs, elb, web["LoadBalancerArn"], "ports")
