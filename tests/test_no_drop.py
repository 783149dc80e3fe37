"""Nothing that operators or ECS do to a service behind its load balancer costs a request: the control plane, two
container instances and `gantry lb` run apart, and are asked without a pause."""

import collections
import contextlib
import http.client
import os
import pathlib
import signal
import subprocess
import threading
import time

import pytest
from conftest import PATIENCE_SECONDS, Gantry, binary, groups, needs_root, until

pytestmark = needs_root

WEB = {
    "family": "web",
    "networkMode": "bridge",
    "containerDefinitions": [{
        "name": "web", "image": "nginx:latest", "memory": 64, "essential": True,
        "portMappings": [{"containerPort": 80, "hostPort": 0}],
    }],
}


class Part:
    """A process of the installation beside its server."""

    def __init__(self, server, name, *command, environment=()):
        exported = server.gantry("env", *environment).stdout
        keys = dict(line.removeprefix("export ").split("=", 1) for line in exported.splitlines() if "export" in line)
        clean = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        self.variables = {"GANTRY_AGENT_LEASE": f"{PATIENCE_SECONDS}s", **clean, **keys}
        self.directory = server.directory.parent / name
        self.log = self.directory.with_suffix(".log")
        self.command = [binary(), *command, "--data-dir", self.directory]
        self.start()

    def start(self):
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log, env=self.variables)

    def end(self, how=signal.SIGTERM):
        self.process.send_signal(how)
        self.process.wait(timeout=PATIENCE_SECONDS)


class Load:
    """Clients that ask without a pause, half of them on one connection as long as it lasts."""

    def __init__(self, address, clients=6):
        self.address, self.stop = address, threading.Event()
        self.answers, self.failures = collections.Counter(), []
        self.threads = [threading.Thread(target=self.ask, args=(number % 2 == 0,)) for number in range(clients)]
        for thread in self.threads:
            thread.start()

    def ask(self, keep):
        connection = http.client.HTTPConnection(self.address, timeout=PATIENCE_SECONDS)
        while not self.stop.is_set():
            try:
                connection.request("GET", "/health", headers={} if keep else {"Connection": "close"})
                answer = connection.getresponse()
                found = answer.status, answer.read()
                self.answers[found] += 1
                if found != (200, b"ok\n"):
                    self.failures.append(found)
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(error)
                connection.close()
            time.sleep(0.002)
        connection.close()

    def count(self):
        return sum(self.answers.values())

    def goes_on(self, requests=100):
        """That so many more are answered."""
        before = self.count()
        until(lambda: self.count() >= before + requests)


@contextlib.contextmanager
def load(address):
    """Load meanwhile, of which not one request may fail."""
    asking = Load(address)
    try:
        asking.goes_on()
        yield asking
        asking.goes_on()
    finally:
        asking.stop.set()
        for thread in asking.threads:
            thread.join()
    assert asking.failures == [], (len(asking.failures), asking.count())


class Site:
    """A service of two tasks behind its load balancer."""

    def __init__(self, server, lb):
        self.server, self.lb = server, lb
        self.clients()
        vpc = server.client("ec2").describe_vpcs()["Vpcs"][0]["VpcId"]
        self.group = self.elb.create_target_group(
            Name="web", VpcId=vpc, Protocol="HTTP", Port=80, TargetType="instance", HealthCheckPath="/health",
            HealthCheckIntervalSeconds=5, HealthCheckTimeoutSeconds=4, UnhealthyThresholdCount=5,
        )["TargetGroups"][0]["TargetGroupArn"]
        balancer = self.elb.create_load_balancer(Name="web", Subnets=["subnet-1", "subnet-2"])["LoadBalancers"][0]
        self.balancer = balancer["LoadBalancerArn"]
        self.address = balancer["AvailabilityZones"][0]["LoadBalancerAddresses"][0]["IpAddress"]
        self.listener = self.elb.create_listener(
            LoadBalancerArn=self.balancer, Protocol="HTTP", Port=80, DefaultActions=self.forward(),
        )["Listeners"][0]["ListenerArn"]
        self.ecs.register_task_definition(**WEB)
        until(lambda: len(self.instances()) == 2)
        self.ecs.create_service(
            serviceName="web", taskDefinition="web", desiredCount=2, launchType="EC2",
            loadBalancers=[{"targetGroupArn": self.group, "containerName": "web", "containerPort": 80}],
            deploymentConfiguration={"minimumHealthyPercent": 100, "maximumPercent": 200})
        self.settled(2)

    def clients(self):
        self.ecs, self.elb = self.server.client("ecs"), self.server.client("elbv2")

    def forward(self):
        return [{"Type": "forward", "TargetGroupArn": self.group}]

    def instances(self):
        arns = self.ecs.list_container_instances()["containerInstanceArns"]
        found = self.ecs.describe_container_instances(containerInstances=arns)["containerInstances"] if arns else []
        return [instance for instance in found if instance["agentConnected"]]

    def tasks(self):
        return self.ecs.list_tasks(serviceName="web", desiredStatus="RUNNING")["taskArns"]

    def settled(self, count):
        """So many tasks, deployed, healthy, and none that still drains."""
        def is_so():
            service = self.ecs.describe_services(services=["web"])["services"][0]
            health = self.elb.describe_target_health(TargetGroupArn=self.group)["TargetHealthDescriptions"]
            return (service["runningCount"] == count and len(service["deployments"]) == 1
                    and service["deployments"][0]["rolloutState"] == "COMPLETED"
                    and [entry["TargetHealth"]["State"] for entry in health] == ["healthy"] * count)
        until(is_so)

    def roll(self, count=2):
        before = set(self.tasks())
        self.ecs.update_service(service="web", forceNewDeployment=True)
        until(lambda: not before & set(self.tasks()))
        self.settled(count)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    directory = tmp_path_factory.mktemp("nodrop")
    server = Gantry(directory / "server", listen="127.0.0.1:4580").start()
    parts = []
    try:
        lb = Part(server, "lb", "lb", "--lb-listen", "off", environment=["--balancer"])
        parts.append(lb)
        for number in 1, 2:
            subprocess.run([binary(), "image", "samples", "--data-dir", directory / f"nodrop{number}"], check=True,
                           timeout=120)
            parts.append(Part(
                server, f"nodrop{number}", "agent", "--name", f"nodrop{number}", "--instance-id", f"i-{number:017x}",
                "--address-block", f"10.98.{number * 16}.0/20", "--cpu", "2048", "--memory", "1024",
                environment=["--agent"]))
        site = Site(server, lb)
        site.successors = parts
        yield site
    finally:
        for part in parts:
            part.end(signal.SIGKILL)
        server.end(signal.SIGKILL)
        for number in 1, 2:
            subprocess.run([binary(), "sweep", "--data-dir", directory / f"nodrop{number}", "--agent",
                            f"nodrop{number}"], check=True, timeout=60)


def test_deployments_scaling_and_draining(site):
    with load(site.address):
        site.roll()
        site.ecs.update_service(service="web", desiredCount=4)
        site.settled(4)
        site.ecs.update_service(service="web", desiredCount=2)
        site.settled(2)
        drained = site.instances()[0]["containerInstanceArn"]
        state = lambda status: site.ecs.update_container_instances_state(containerInstances=[drained], status=status)
        state("DRAINING")
        until(lambda: not site.ecs.list_tasks(containerInstance=drained)["taskArns"])
        site.settled(2)
        state("ACTIVE")


def test_changes_of_listeners_and_rules(site):
    with load(site.address) as asking:
        path = [{"Field": "path-pattern", "Values": ["/health"]}]
        rules = [site.elb.create_rule(ListenerArn=site.listener, Priority=priority, Conditions=path,
                                      Actions=site.forward())["Rules"][0]["RuleArn"] for priority in (10, 20)]
        asking.goes_on()
        site.elb.set_rule_priorities(RulePriorities=[{"RuleArn": rules[0], "Priority": 30}])
        site.elb.delete_rule(RuleArn=rules[1])
        site.elb.modify_listener(ListenerArn=site.listener, DefaultActions=[{
            "Type": "fixed-response", "FixedResponseConfig": {"StatusCode": "404"}}])
        other = site.elb.create_listener(LoadBalancerArn=site.balancer, Protocol="HTTP", Port=81,
                                         DefaultActions=site.forward())["Listeners"][0]["ListenerArn"]
        asking.goes_on()
        site.elb.modify_listener(ListenerArn=site.listener, DefaultActions=site.forward())
        site.elb.delete_rule(RuleArn=rules[0])
        site.elb.delete_listener(ListenerArn=other)
        asking.goes_on()


def test_the_control_plane_is_killed(site):
    before = set(site.tasks())
    with load(site.address) as asking:
        site.server.end(signal.SIGKILL)
        asking.goes_on(300)
        site.server.start()
        site.clients()
        until(lambda: len(site.instances()) == 2)
        site.settled(2)
        assert set(site.tasks()) == before
        site.roll()


def test_another_load_balancer_takes_over(site):
    with load(site.address) as asking:
        for _ in range(2):
            successor = Part(site.server, "lb", "lb", "--lb-listen", "off", environment=["--balancer"])
            site.successors.append(successor)
            assert site.lb.process.wait(timeout=PATIENCE_SECONDS) == 0
            site.lb = successor
            asking.goes_on()
        site.roll()


def test_a_task_that_crashes_takes_only_its_own_requests_along(site):
    asking = Load(site.address)
    try:
        asking.goes_on()
        victim = site.tasks()[0]
        processes = {int(pid) for group in groups(victim) for path in [group, *group.iterdir()] if path.is_dir()
                     for pid in pathlib.Path(path, "cgroup.procs").read_text().split()}
        for pid in processes:
            os.kill(pid, signal.SIGKILL)
        until(lambda: victim not in site.tasks())
        site.settled(2)
        asking.goes_on()
    finally:
        asking.stop.set()
        for thread in asking.threads:
            thread.join()
    # One request of each client at most was under way.
    assert len(asking.failures) <= len(asking.threads), asking.failures
