"""Auto Scaling groups whose instances are machines made of this one, with real agents and tasks; and a program that
makes machines."""

import base64
import json
import os
import stat
import textwrap
import time

import botocore.exceptions
import pytest
from conftest import Gantry, Platform, leftovers, needs_root

# For anything to come about on a loaded machine.
PATIENCE = 60


def until(condition, what="it"):
    deadline = time.monotonic() + PATIENCE
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < deadline, f"{what} did not come about"
        time.sleep(0.1)


def template(gantry, name, user_data="", instance_type="t3.micro"):
    gantry.client("ec2").create_launch_template(LaunchTemplateName=name, LaunchTemplateData={
        "ImageId": "ami-12345678", "InstanceType": instance_type,
        "UserData": base64.b64encode(user_data.encode()).decode()})


def group(gantry, name, size, **settings):
    gantry.client("autoscaling").create_auto_scaling_group(**{
        "AutoScalingGroupName": name, "MinSize": 0, "MaxSize": 4, "DesiredCapacity": size,
        "LaunchTemplate": {"LaunchTemplateName": name, "Version": "$Latest"},
        "VPCZoneIdentifier": "subnet-1,subnet-2", **settings})


def described(gantry, name):
    answer = gantry.client("autoscaling").describe_auto_scaling_groups(AutoScalingGroupNames=[name])
    return answer["AutoScalingGroups"][0] if answer["AutoScalingGroups"] else None


def in_service(gantry, name):
    instances = described(gantry, name)["Instances"]
    return sorted(i["InstanceId"] for i in instances if i["LifecycleState"] == "InService")


def delete(gantry, name):
    gantry.client("autoscaling").delete_auto_scaling_group(AutoScalingGroupName=name, ForceDelete=True)
    until(lambda: described(gantry, name) is None, "the end of the group")


def test_a_server_without_a_provider_says_so(gantry):
    template(gantry, "web")
    group(gantry, "web", 1)
    client = gantry.client("autoscaling")
    activities = lambda: client.describe_scaling_activities(AutoScalingGroupName="web")["Activities"]
    failed = until(lambda: [a for a in activities() if a["StatusCode"] == "Failed"])
    assert "--instance-provider" in failed[0]["StatusMessage"]
    assert described(gantry, "web")["Instances"] == []
    delete(gantry, "web")


PROGRAM = """
    import json, os, pathlib, sys
    verb, request = sys.argv[1], json.load(sys.stdin)
    machines = pathlib.Path(os.environ["MACHINES"])
    if verb == "create":
        if request["instanceType"] == "m5.large":
            sys.exit("no m5.large is left")
        (machines / request["instanceId"]).write_text(json.dumps(request))
        print(json.dumps({"privateIpAddress": "10.0.0.1"}))
    elif verb == "destroy":
        (machines / request["instanceId"]).unlink(missing_ok=True)
    elif verb == "list":
        print(json.dumps({"instanceIds": sorted(os.listdir(machines))}))
"""


@pytest.fixture
def with_program(tmp_path):
    machines, program = tmp_path / "machines", tmp_path / "provider"
    machines.mkdir()
    program.write_text(f"#!/usr/bin/env python3\n{textwrap.dedent(PROGRAM)}")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    server = Gantry(tmp_path / "gantry", "--instance-provider", f"exec:{program}",
                    variables={"MACHINES": str(machines)}).start()
    yield server, machines
    server.end()


def test_a_program_makes_and_destroys_machines(with_program):
    server, machines = with_program
    template(server, "web", "#!/bin/sh\necho ECS_CLUSTER=shop >> /etc/ecs/ecs.config\n")
    group(server, "web", 2, Tags=[{"Key": "team", "Value": "blue", "PropagateAtLaunch": True}])
    made = until(lambda: len(in_service(server, "web")) == 2 and in_service(server, "web"))
    assert sorted(os.listdir(machines)) == made
    told = json.loads((machines / made[0]).read_text())
    assert told["ecsConfig"] == {"ECS_CLUSTER": "shop"}
    assert (told["cpu"], told["memory"], told["tags"]["team"]) == (2048, 1024, "blue")
    assert told["endpoint"] == server.url
    assert told["capacityOptionType"] == "ON_DEMAND"

    # What nobody knows goes; what vanished is replaced, also over a restart.
    server.end()
    (machines / "i-0123456789abcdef0").write_text("")
    (machines / made[0]).unlink()
    server.start()
    until(lambda: not (machines / "i-0123456789abcdef0").exists(), "the end of a stranger")
    replaced = lambda: made[0] not in in_service(server, "web") and len(in_service(server, "web")) == 2
    until(replaced, "another machine in place of the one that vanished")

    # Why a machine cannot be made is told, in the program's words.
    server.client("ec2").create_launch_template_version(
        LaunchTemplateName="web", SourceVersion="1", LaunchTemplateData={"InstanceType": "m5.large"})
    client = server.client("autoscaling")
    client.set_desired_capacity(AutoScalingGroupName="web", DesiredCapacity=3)
    activities = lambda: client.describe_scaling_activities(AutoScalingGroupName="web")["Activities"]
    failed = until(lambda: [a for a in activities() if a["StatusCode"] == "Failed"], "a failed launch")
    assert "no m5.large is left" in failed[0]["StatusMessage"]
    delete(server, "web")
    assert os.listdir(machines) == []


def test_a_program_is_told_of_spot_machines(with_program):
    server, machines = with_program
    ecs = server.client("ecs")
    ecs.create_cluster(clusterName="spot")
    ecs.create_capacity_provider(name="spot", cluster="spot", managedInstancesProvider={
        "infrastructureRoleArn": "arn:aws:iam::123456789012:role/infrastructure",
        "instanceLaunchTemplate": {
            "ec2InstanceProfileArn": "arn:aws:iam::123456789012:instance-profile/hosts",
            "networkConfiguration": {"subnets": ["subnet-1"]}, "capacityOptionType": "SPOT",
            "instanceRequirements": {"vCpuCount": {"min": 2, "max": 8}, "memoryMiB": {"min": 1024},
                                     "memoryGiBPerVCpu": {"min": 4, "max": 4}, "cpuManufacturers": ["intel"]}}})
    ecs.register_task_definition(family="app", networkMode="host", containerDefinitions=[
        {"name": "app", "image": "app:1", "memory": 64}])
    ecs.run_task(cluster="spot", taskDefinition="app",
                 capacityProviderStrategy=[{"capacityProvider": "spot", "weight": 1}])
    (machine,) = until(lambda: list(machines.iterdir()), "a machine")
    told = until(lambda: machine.read_text() and json.loads(machine.read_text()), "what was told of it")
    assert (told["capacityProviderName"], told["capacityOptionType"], told["instanceType"]) == (
        "spot", "SPOT", "m7i.large")


@pytest.fixture(scope="module")
def platform(tmp_path_factory):
    installation = Platform(tmp_path_factory.mktemp("autoscaling") / "gantry", "--instance-provider", "local")
    try:
        yield installation.start()
    finally:
        installation.sweep()
    assert leftovers(installation.directory) == []


def instances(ecs, cluster):
    arns = ecs.list_container_instances(cluster=cluster)["containerInstanceArns"]
    found = ecs.describe_container_instances(cluster=cluster, containerInstances=arns) if arns else {}
    return [i for i in found.get("containerInstances", []) if i["agentConnected"]]


# On a port of the host: one to a machine.
WEB = {"name": "web", "image": "nginx:latest", "memory": 64, "portMappings": [{"containerPort": 80, "hostPort": 8080}]}


@needs_root
def test_local_machines_join_run_tasks_and_go(platform):
    ecs = platform.client("ecs")
    ecs.create_cluster(clusterName="shop")
    ecs.register_task_definition(family="web", containerDefinitions=[WEB])
    template(platform, "shop", "#!/bin/sh\necho ECS_CLUSTER=shop >> /etc/ecs/ecs.config\n")
    group(platform, "shop", 2)
    joined = until(lambda: len(instances(ecs, "shop")) == 2 and instances(ecs, "shop"), "two machines")
    assert sorted(i["ec2InstanceId"] for i in joined) == in_service(platform, "shop")
    sizes = {r["name"]: r["integerValue"] for r in joined[0]["registeredResources"]}
    assert (sizes["CPU"], sizes["MEMORY"]) == (2048, 1024)
    attributes = {a["name"]: a.get("value") for a in joined[0]["attributes"]}
    assert attributes["ecs.instance-type"] == "t3.micro"
    zones = {a["value"] for i in joined for a in i["attributes"] if a["name"] == "ecs.availability-zone"}
    assert len(zones) == 2

    # Each has a network of its own: the same port of the host, twice.
    ecs.create_service(cluster="shop", serviceName="web", taskDefinition="web", desiredCount=2, launchType="EC2")
    running = lambda: ecs.describe_services(cluster="shop", services=["web"])["services"][0]["runningCount"]
    until(lambda: running() == 2, "two tasks")

    # Agents come back with the platform, and find their containers.
    platform.end()
    platform.start()
    ecs = platform.client("ecs")
    until(lambda: len(instances(ecs, "shop")) == 2 and running() == 2, "the same after a restart")

    platform.client("autoscaling").set_desired_capacity(AutoScalingGroupName="shop", DesiredCapacity=1)
    until(lambda: len(described(platform, "shop")["Instances"]) == 1, "the end of a machine")
    until(lambda: len(instances(ecs, "shop")) == 1, "the end of its container instance")
    ecs.delete_service(cluster="shop", service="web", force=True)
    delete(platform, "shop")
    assert [path.name for path in (platform.directory / "instances").glob("i-*")] == []


@needs_root
def test_a_service_brings_its_machines_and_lets_them_go(platform):
    ecs = platform.client("ecs")
    template(platform, "metal", "ECS_CLUSTER=metal", instance_type="t3.nano")
    group(platform, "metal", 0)
    ecs.create_capacity_provider(
        name="metal", tags=[{"key": "gantry.scale-in-after", "value": "1"}],
        autoScalingGroupProvider={
            "autoScalingGroupArn": described(platform, "metal")["AutoScalingGroupARN"],
            "managedScaling": {"status": "ENABLED", "targetCapacity": 100, "instanceWarmupPeriod": 0}})
    strategy = [{"capacityProvider": "metal", "weight": 1}]
    ecs.create_cluster(clusterName="metal", capacityProviders=["metal"], defaultCapacityProviderStrategy=strategy)
    ecs.register_task_definition(family="web", containerDefinitions=[WEB])
    ecs.create_service(cluster="metal", serviceName="web", taskDefinition="web", desiredCount=2)
    service = lambda: ecs.describe_services(cluster="metal", services=["web"])["services"][0]
    until(lambda: service()["runningCount"] == 2, "two tasks on new machines")
    assert len(in_service(platform, "metal")) == 2
    until(lambda: [i["capacityProviderName"] for i in instances(ecs, "metal")] == ["metal", "metal"])
    until(lambda: described(platform, "metal")["DesiredCapacity"] == 2)

    ecs.update_service(cluster="metal", service="web", desiredCount=0)
    until(lambda: described(platform, "metal")["Instances"] == [], "the end of the machines")
    assert described(platform, "metal")["DesiredCapacity"] == 0
    assert instances(ecs, "metal") == []
    causes = platform.client("autoscaling").describe_scaling_activities(AutoScalingGroupName="metal")["Activities"]
    assert any("ECSManagedAutoScalingPolicy" in a["Cause"] and "from 0 to 2" in a["Cause"] for a in causes)
    ecs.delete_service(cluster="metal", service="web", force=True)
    delete(platform, "metal")


@needs_root
def test_managed_instances_come_with_the_tasks_and_go_without(platform):
    ecs = platform.client("ecs")
    ecs.create_cluster(clusterName="managed")
    role = "arn:aws:iam::123456789012:role/infrastructure"
    made = ecs.create_capacity_provider(name="managed", cluster="managed", managedInstancesProvider={
        "infrastructureRoleArn": role, "infrastructureOptimization": {"scaleInAfter": 1},
        "instanceLaunchTemplate": {
            "ec2InstanceProfileArn": "arn:aws:iam::123456789012:instance-profile/hosts",
            "networkConfiguration": {"subnets": ["subnet-1"]},
            "instanceRequirements": {"vCpuCount": {"min": 1}, "memoryMiB": {"min": 256},
                                     "allowedInstanceTypes": ["t3.micro", "t3.nano"]}}})["capacityProvider"]
    assert (made["type"], made["status"]) == ("MANAGED_INSTANCES", "ACTIVE")
    ecs.register_task_definition(family="managed", networkMode="host", containerDefinitions=[
        {"name": "web", "image": "nginx:latest", "memory": 100, "portMappings": [{"containerPort": 80}]}])
    ecs.register_daemon_task_definition(family="beside", containerDefinitions=[
        {"name": "beside", "image": "redis:alpine", "memory": 64}])
    daemon = ecs.create_daemon(clusterArn="managed", daemonName="beside", daemonTaskDefinitionArn="beside",
                               capacityProviderArns=["managed"])["daemonArn"]
    strategy = [{"capacityProvider": "managed", "weight": 1}]
    ecs.create_service(cluster="managed", serviceName="web", taskDefinition="managed", desiredCount=1,
                       capacityProviderStrategy=strategy)
    service = lambda: ecs.describe_services(cluster="managed", services=["web"])["services"][0]
    until(lambda: service()["runningCount"] == 1, "a task on a machine of its own")
    (host,) = instances(ecs, "managed")
    attributes = {a["name"]: a.get("value") for a in host["attributes"]}
    assert (host["capacityProviderName"], attributes["ecs.instance-type"]) == ("managed", "t3.nano")
    arns = ecs.list_tasks(cluster="managed", serviceName="web")["taskArns"]
    (task,) = ecs.describe_tasks(cluster="managed", tasks=arns)["tasks"]
    assert (task["launchType"], task["capacityProviderName"]) == ("MANAGED_INSTANCES", "managed")
    arns = ecs.list_tasks(cluster="managed", daemonName="beside")["taskArns"]
    (beside,) = ecs.describe_tasks(cluster="managed", tasks=arns)["tasks"]
    assert beside["lastStatus"] == "RUNNING" and beside["startedAt"] <= task["startedAt"]
    revision = ecs.describe_daemon(daemonArn=daemon)["daemon"]["currentRevisions"][0]
    assert revision["totalRunningCount"] == 1

    ecs.update_service(cluster="managed", service="web", desiredCount=0)
    until(lambda: ecs.list_container_instances(cluster="managed")["containerInstanceArns"] == [], "the end of the machine")
    ecs.delete_service(cluster="managed", service="web", force=True)
    until(lambda: service()["status"] == "INACTIVE", "the end of the service")
    ecs.delete_daemon(daemonArn=daemon)
    until(lambda: ecs.list_daemons(clusterArn="managed")["daemonSummariesList"] == [], "the end of the daemon")
    ecs.delete_capacity_provider(capacityProvider="managed", cluster="managed")
    ecs.delete_cluster(cluster="managed")
    assert [path.name for path in (platform.directory / "instances").glob("i-*")] == []


def test_bad_requests_are_refused_as_on_aws(gantry):
    client = gantry.client("autoscaling")
    with pytest.raises(botocore.exceptions.ClientError) as refused:
        client.set_desired_capacity(AutoScalingGroupName="none", DesiredCapacity=1)
    assert refused.value.response["Error"]["Code"] == "ValidationError"
    template(gantry, "web")
    with pytest.raises(botocore.exceptions.ClientError) as refused:
        group(gantry, "web", 9)
    assert "must be between" in refused.value.response["Error"]["Message"]
