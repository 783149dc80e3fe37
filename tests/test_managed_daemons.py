"""Managed daemons on machines made of this one: on each before all others, renewed with the machines, rolled back when they
fail, and gone when they are deleted."""

import pytest
from conftest import Platform, leftovers, needs_root, until
from test_autoscaling import instances

pytestmark = needs_root

CLUSTER = "fleet"
# On a port of the host: one to a machine. Its check says when it is well; without one it had to run for forty seconds.
WEB = {"name": "web", "image": "nginx:latest", "memory": 64, "portMappings": [{"containerPort": 80}],
       "healthCheck": {"command": ["CMD", "/usr/bin/sample", "health", "80"], "interval": 5, "timeout": 4, "retries": 3}}
BOTH = 2
# Several machines come and go one after another, on one that has much else to do.
PATIENCE = 180


@pytest.fixture
def platform(tmp_path):
    installation = Platform(tmp_path / "gantry", "--instance-provider", "local")
    try:
        yield installation.start()
    finally:
        installation.sweep()
    assert leftovers(installation.directory) == []


@pytest.fixture
def ecs(platform):
    """A provider of Managed Instances, and what shall run there."""
    ecs = platform.client("ecs")
    ecs.create_cluster(clusterName=CLUSTER)
    ecs.create_capacity_provider(name=CLUSTER, cluster=CLUSTER, managedInstancesProvider={
        "infrastructureRoleArn": "arn:aws:iam::123456789012:role/infrastructure",
        "infrastructureOptimization": {"scaleInAfter": 1},
        "instanceLaunchTemplate": {
            "ec2InstanceProfileArn": "arn:aws:iam::123456789012:instance-profile/hosts",
            "networkConfiguration": {"subnets": ["subnet-1"]},
            "instanceRequirements": {"vCpuCount": {"min": 1}, "memoryMiB": {"min": 256},
                                     "allowedInstanceTypes": ["t3.nano"]}}})
    ecs.register_task_definition(family="web", networkMode="host", containerDefinitions=[WEB])
    return ecs


def comes(condition):
    return until(condition, PATIENCE)


def define(ecs, image="redis:alpine"):
    container = {"name": "beside", "image": image, "memory": 64}
    return ecs.register_daemon_task_definition(
        family="beside", containerDefinitions=[container])["daemonTaskDefinitionArn"]


def tasks(ecs, **which):
    """Those that shall run."""
    arns = ecs.list_tasks(cluster=CLUSTER, desiredStatus="RUNNING", **which)["taskArns"]
    return ecs.describe_tasks(cluster=CLUSTER, tasks=arns)["tasks"] if arns else []


def on_each(ecs, definition):
    """The machines, once there are two with one daemon's task and one of the service each, the daemon's of a definition."""
    hosts = {host["containerInstanceArn"] for host in instances(ecs, CLUSTER) if host["status"] == "ACTIVE"}
    of_daemon, of_service = tasks(ecs, daemonName="beside"), tasks(ecs, serviceName="web")
    runs = all(task["lastStatus"] == "RUNNING" for task in of_daemon + of_service)
    # What is not well yet is not waited for where it gives way.
    well = all(task["healthStatus"] == "HEALTHY" for task in of_service)
    own = all(task["taskDefinitionArn"] == definition for task in of_daemon)
    places = [sorted(task["containerInstanceArn"] for task in some) for some in (of_daemon, of_service) if runs and well]
    return hosts if own and len(hosts) == BOTH and places == [sorted(hosts)] * 2 else None


def deployment(ecs, arn):
    return ecs.describe_daemon_deployments(daemonDeploymentArns=[arn])["daemonDeployments"][0]


def test_a_daemon_from_its_first_task_to_its_end(ecs):
    first = define(ecs)
    share = {"drainPercent": 50.0}
    daemon = ecs.create_daemon(
        clusterArn=CLUSTER, daemonName="beside", daemonTaskDefinitionArn=first, capacityProviderArns=[CLUSTER],
        deploymentConfiguration=share)["daemonArn"]
    ecs.create_service(cluster=CLUSTER, serviceName="web", taskDefinition="web", desiredCount=BOTH,
                       capacityProviderStrategy=[{"capacityProvider": CLUSTER, "weight": 1}])
    comes(lambda: on_each(ecs, first))
    began = {task["containerInstanceArn"]: task["startedAt"] for task in tasks(ecs, daemonName="beside")}
    for task in tasks(ecs, serviceName="web"):
        assert began[task["containerInstanceArn"]] <= task["startedAt"]
    revision = ecs.describe_daemon(daemonArn=daemon)["daemon"]["currentRevisions"][0]
    assert revision["totalRunningCount"] == BOTH

    def update(definition):
        made = ecs.update_daemon(daemonArn=daemon, daemonTaskDefinitionArn=definition, capacityProviderArns=[CLUSTER],
                                 deploymentConfiguration=share)
        return made["deploymentArn"]

    def arrives(attempt, status, definition):
        """Half of the machines at a time give way, so that the service has a task all the while."""
        assert [task for task in tasks(ecs, serviceName="web") if task["lastStatus"] == "RUNNING"]
        return deployment(ecs, attempt)["status"] == status and on_each(ecs, definition)

    # A new revision comes with new machines, one at a time.
    before = on_each(ecs, first)
    second = define(ecs)
    attempt = update(second)
    after = comes(lambda: arrives(attempt, "SUCCESSFUL", second))
    assert not before & after

    # A machine that loses what it cannot be without is replaced.
    lost = tasks(ecs, daemonName="beside")[0]
    ecs.stop_task(cluster=CLUSTER, task=lost["taskArn"])
    without = lambda: (on_each(ecs, second) or set()) - {lost["containerInstanceArn"]}
    kept = comes(lambda: len(without()) == BOTH and without())
    assert len(after & kept) == 1

    # One that does not start goes back by itself.
    attempt = update(define(ecs, image="127.0.0.1:9/nowhere:1"))
    comes(lambda: arrives(attempt, "ROLLBACK_SUCCESSFUL", second))
    told = deployment(ecs, attempt)
    assert told["statusReason"] == "ECS deployment failed: tasks failed to start."
    assert "rollbackTargetDaemonRevisionArn" in told["rollback"]

    # Deleted, it goes with the machines that have it; the service goes on.
    before = on_each(ecs, second)
    assert ecs.delete_daemon(daemonArn=daemon)["status"] == "DELETE_IN_PROGRESS"
    comes(lambda: ecs.list_daemons(clusterArn=CLUSTER)["daemonSummariesList"] == [])
    web = lambda: [task for task in tasks(ecs, serviceName="web") if task["lastStatus"] == "RUNNING"]
    comes(lambda: len(web()) == BOTH and not before & {task["containerInstanceArn"] for task in web()})
    assert tasks(ecs, daemonName="beside") == []
    ecs.delete_service(cluster=CLUSTER, service="web", force=True)
    comes(lambda: ecs.list_container_instances(cluster=CLUSTER)["containerInstanceArns"] == [])
