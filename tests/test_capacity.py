"""Capacity as operators give it and ECS users see it: groups, the Fargate pool, machines of one's own, spot machines."""

import contextlib
import http.server
import os
import signal
import socket
import subprocess
import threading

import pytest
from conftest import NETWORK, PATIENCE_SECONDS, Gantry, binary, needs_root, until
from test_ecs import refused
from test_tasks import address

pytestmark = needs_root

GROUP = "arn:aws:autoscaling:us-east-1:123456789012:autoScalingGroup:1:autoScalingGroupName/metal"


class Agent:
    """`gantry agent` on this machine, with its own name, directory and addresses."""

    def __init__(self, capacity, number, *flags, variables=None):
        self.name = f"cap{number}"
        self.directory = capacity.directory.parent / self.name
        self.log = self.directory.with_suffix(".log")
        self.command = [
            binary(), "agent", "--endpoint", capacity.url, "--data-dir", self.directory, "--name", self.name,
            "--address-block", f"10.97.{number * 16}.0/20", "--cpu", "1024", "--memory", "2048", *flags]
        own = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"}
        clean = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        keys = {name: value for name, value in capacity.environment.items() if name in own}
        self.variables = {**clean, **(keys if variables is None else variables)}
        subprocess.run([binary(), "image", "samples", "--data-dir", self.directory], check=True, timeout=120)
        self.start()

    def start(self):
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log, env=self.variables)

    def end(self, how=signal.SIGTERM):
        self.process.send_signal(how)
        self.process.wait(timeout=PATIENCE_SECONDS)

    def sweep(self):
        self.end(signal.SIGKILL)
        subprocess.run([binary(), "sweep", "--data-dir", self.directory, "--agent", self.name], check=True, timeout=60)


class Capacity(Gantry):
    """A server to which tests bring their agents."""

    @contextlib.contextmanager
    def agent(self, number, *flags, **options):
        agent = Agent(self, number, *flags, **options)
        try:
            yield agent
        finally:
            agent.sweep()


@pytest.fixture(scope="module")
def capacity(tmp_path_factory):
    server = Capacity(tmp_path_factory.mktemp("capacity") / "server").start()
    yield server
    server.end(signal.SIGKILL)


def instances(ecs, cluster):
    arns = ecs.list_container_instances(cluster=cluster)["containerInstanceArns"]
    if not arns:
        return []
    found = ecs.describe_container_instances(cluster=cluster, containerInstances=arns)["containerInstances"]
    return [instance for instance in found if instance["agentConnected"]]


def status(ecs, cluster, arn):
    return ecs.describe_tasks(cluster=cluster, tasks=[arn])["tasks"][0]["lastStatus"]


def answers(host, port):
    try:
        socket.create_connection((host, port), timeout=2).close()
        return True
    except OSError:
        return False


def define(ecs, family, mode, **more):
    # The sample ends by itself, and well, as soon as it is told to.
    container = {"name": "app", "image": "redis:alpine", "essential": True, "memory": 64}
    ecs.register_task_definition(family=family, networkMode=mode, containerDefinitions=[container], **more)


def test_tasks_of_a_provider_wait_for_instances_of_its_group(capacity):
    ecs = capacity.client("ecs")
    ecs.create_cluster(clusterName="metal")
    scaling = {"status": "ENABLED", "targetCapacity": 100}
    made = ecs.create_capacity_provider(
        name="metal", autoScalingGroupProvider={"autoScalingGroupArn": GROUP, "managedScaling": scaling})
    assert made["capacityProvider"]["autoScalingGroupProvider"]["managedScaling"]["instanceWarmupPeriod"] == 300
    strategy = [{"capacityProvider": "metal", "weight": 1}]
    ecs.put_cluster_capacity_providers(
        cluster="metal", capacityProviders=["metal"], defaultCapacityProviderStrategy=strategy)
    refused("InvalidParameterException", "Specifying both a launch type and capacity provider strategy",
            ecs.run_task, cluster="metal", taskDefinition="any", launchType="EC2", capacityProviderStrategy=strategy)
    define(ecs, "waits", "bridge")
    task = ecs.run_task(cluster="metal", taskDefinition="waits")["tasks"][0]
    assert (task["lastStatus"], task["capacityProviderName"]) == ("PROVISIONING", "metal")
    assert "containerInstanceArn" not in task
    with capacity.agent(1, "--cluster", "metal", "--auto-scaling-group", "metal"):
        until(lambda: status(ecs, "metal", task["taskArn"]) == "RUNNING")
        assert [instance["capacityProviderName"] for instance in instances(ecs, "metal")] == ["metal"]
        ecs.stop_task(cluster="metal", task=task["taskArn"])
        until(lambda: status(ecs, "metal", task["taskArn"]) == "STOPPED")
    kept = ecs.delete_capacity_provider(capacityProvider="metal")["capacityProvider"]
    assert (kept["status"], kept["updateStatus"]) == ("ACTIVE", "DELETE_FAILED")


def test_spot_tasks_make_room_for_others(capacity):
    ecs = capacity.client("ecs")
    ecs.create_cluster(clusterName="pool", capacityProviders=["FARGATE", "FARGATE_SPOT"])
    define(ecs, "fargate", "awsvpc", requiresCompatibilities=["FARGATE"], cpu="512", memory="1024")

    def run(provider):
        return ecs.run_task(cluster="pool", taskDefinition="fargate", networkConfiguration=NETWORK,
                            capacityProviderStrategy=[{"capacityProvider": provider, "weight": 1}])

    with capacity.agent(2, "--fargate"):
        def starts():
            tasks = run("FARGATE_SPOT")["tasks"]
            return tasks and tasks[0]["taskArn"]

        spot = [until(starts), until(starts)]
        for arn in spot:
            until(lambda: status(ecs, "pool", arn) == "RUNNING")
            # Only one that is up listens to SIGTERM.
            (task,) = ecs.describe_tasks(cluster="pool", tasks=[arn])["tasks"]
            until(lambda: answers(address(task), 6379))
        assert run("FARGATE_SPOT")["failures"][0]["reason"] == "RESOURCE:FARGATE"
        wanted = run("FARGATE")["tasks"][0]["taskArn"]
        until(lambda: status(ecs, "pool", wanted) == "RUNNING")
        shown = ecs.describe_tasks(cluster="pool", tasks=spot)["tasks"]
        gone = [task for task in shown if task["desiredStatus"] == "STOPPED"]
        assert [task["stoppedReason"] for task in gone] == ["Your Spot Task was interrupted."]
        until(lambda: status(ecs, "pool", gone[0]["taskArn"]) == "STOPPED")
        ended = ecs.describe_tasks(cluster="pool", tasks=[gone[0]["taskArn"]])["tasks"][0]
        assert ended["stopCode"] == "SpotInterruption"
        # It was asked to end, and did.
        assert ended["containers"][0]["exitCode"] == 0
        for task in ecs.list_tasks(cluster="pool")["taskArns"]:
            ecs.stop_task(cluster="pool", task=task)
        until(lambda: status(ecs, "pool", wanted) == "STOPPED")
    assert run("FARGATE")["failures"][0]["reason"] == "RESOURCE:FARGATE"


def test_a_machine_of_ones_own_joins_by_an_activation(capacity):
    ecs, ssm = capacity.client("ecs"), capacity.client("ssm")
    ecs.create_cluster(clusterName="edge")
    made = ssm.create_activation(IamRole="edge", DefaultInstanceName="till", RegistrationLimit=1)
    flags = ["--cluster", "edge", "--activation-id", made["ActivationId"], "--region", "us-east-1"]
    code = {"GANTRY_ACTIVATION_CODE": made["ActivationCode"]}
    wrong = {"GANTRY_ACTIVATION_CODE": "0" * 32}
    define(ecs, "edge", "host", requiresCompatibilities=["EXTERNAL"])
    define(ecs, "vpc", "awsvpc")
    define(ecs, "of-ec2", "host")
    with capacity.agent(3, *flags, variables=wrong) as stranger:
        assert stranger.process.wait(timeout=PATIENCE_SECONDS) != 0
    with capacity.agent(4, *flags, variables=code) as agent:
        instance = until(lambda: instances(ecs, "edge"))[0]
        assert instance["ec2InstanceId"].startswith("mi-")
        machine = ssm.describe_instance_information()["InstanceInformationList"][0]
        assert (machine["InstanceId"], machine["PingStatus"]) == (instance["ec2InstanceId"], "Online")
        task = ecs.run_task(cluster="edge", taskDefinition="edge", launchType="EXTERNAL")["tasks"][0]["taskArn"]
        until(lambda: status(ecs, "edge", task) == "RUNNING")
        refused("InvalidParameterException", "does not support launch_type EXTERNAL", ecs.run_task, cluster="edge",
                taskDefinition="vpc", launchType="EXTERNAL", networkConfiguration=NETWORK)
        # Tasks of another launch type have no business there.
        assert ecs.run_task(cluster="edge", taskDefinition="of-ec2", launchType="EC2")["tasks"] == []
        # It comes back as the machine that it is, although the activation is used up.
        agent.end()
        until(lambda: not instances(ecs, "edge"))
        agent.start()
        assert until(lambda: instances(ecs, "edge"))[0]["containerInstanceArn"] == instance["containerInstanceArn"]
        assert status(ecs, "edge", task) == "RUNNING"
        ecs.stop_task(cluster="edge", task=task)
        until(lambda: status(ecs, "edge", task) == "STOPPED")
        with capacity.agent(5, *flags, variables=code) as late:
            assert late.process.wait(timeout=PATIENCE_SECONDS) != 0
            assert "registration limit" in late.log.read_text()
        # Once deregistered, its key is worth nothing.
        ssm.deregister_managed_instance(InstanceId=instance["ec2InstanceId"])
        agent.end()
        agent.start()
        assert agent.process.wait(timeout=PATIENCE_SECONDS) != 0


class Notices(http.server.BaseHTTPRequestHandler):
    """A metadata service as EC2 has it, as far as spot notices go."""

    def do_PUT(self):
        self.answer(200, b"token")

    def do_GET(self):
        told = self.server.told and self.headers["x-aws-ec2-metadata-token"] == "token"
        self.answer(200 if told else 404, b'{"action": "terminate", "time": "2030-01-01T00:00:00Z"}' if told else b"")

    def answer(self, code, body):
        self.send_response(code)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def test_a_spot_machine_that_is_taken_away_drains(capacity):
    ecs = capacity.client("ecs")
    ecs.create_cluster(clusterName="spot")
    define(ecs, "moves", "bridge")
    metadata = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Notices)
    metadata.told = False
    threading.Thread(target=metadata.serve_forever, daemon=True).start()
    endpoint = f"http://127.0.0.1:{metadata.server_port}"
    spot = ["--cluster", "spot", "--spot-draining", "--metadata-endpoint", endpoint]
    try:
        with capacity.agent(6, *spot):
            first = until(lambda: instances(ecs, "spot"))[0]["containerInstanceArn"]
            ecs.create_service(cluster="spot", serviceName="web", taskDefinition="moves", desiredCount=1,
                               launchType="EC2")
            service = lambda: ecs.describe_services(cluster="spot", services=["web"])["services"][0]
            until(lambda: service()["runningCount"] == 1)
            with capacity.agent(7, "--cluster", "spot"):
                until(lambda: len(instances(ecs, "spot")) == 2)
                metadata.told = True

                def drained():
                    shown = ecs.describe_container_instances(cluster="spot", containerInstances=[first])
                    return shown["containerInstances"][0]["status"] == "DRAINING"

                until(drained)
                on_first = lambda: ecs.list_tasks(cluster="spot", containerInstance=first)["taskArns"]
                until(lambda: len(ecs.list_tasks(cluster="spot")["taskArns"]) > len(on_first()))
                refused_there = ecs.start_task(cluster="spot", taskDefinition="moves", containerInstances=[first])
                assert refused_there["failures"][0]["reason"] == "INACTIVE"
                ecs.update_service(cluster="spot", service="web", desiredCount=0)
                until(lambda: service()["runningCount"] == 0 and service()["pendingCount"] == 0)
                ecs.delete_service(cluster="spot", service="web")
    finally:
        metadata.shutdown()
