"""Services as an ECS user runs them: kept at their count, replaced, rolled, scaled, deleted; real containers."""

import time

from conftest import NETWORK, both_runtimes, needs_root, page, until, wait
from test_ecs import WEB, refused
from test_tasks import address

pytestmark = needs_root


def create(ecs, name="web", count=3, **arguments):
    ecs.register_task_definition(**WEB)
    return ecs.create_service(serviceName=name, taskDefinition="web-app", desiredCount=count, launchType="FARGATE",
                              networkConfiguration=NETWORK, **arguments)["service"]


def service(ecs, name="web"):
    return ecs.describe_services(services=[name])["services"][0]


def tasks(ecs, name="web"):
    arns = ecs.list_tasks(serviceName=name)["taskArns"]
    return ecs.describe_tasks(tasks=arns)["tasks"] if arns else []


@both_runtimes
def test_a_service_is_kept_at_its_count(platform):
    ecs = platform.client("ecs")
    created = create(ecs)
    assert (created["status"], created["desiredCount"], created["schedulingStrategy"]) == ("ACTIVE", 3, "REPLICA")
    wait(ecs, "services_stable", services=["web"])
    running = tasks(ecs)
    assert [task["lastStatus"] for task in running] == ["RUNNING"] * 3
    assert {task["group"] for task in running} == {"service:web"}
    assert len({address(task) for task in running}) == 3
    for task in running:
        assert "Hello from Gantry" in page(f"http://{address(task)}/")

    ecs.stop_task(task=running[0]["taskArn"])
    gone = running[0]["taskArn"]
    until(lambda: len([t for t in tasks(ecs) if t["lastStatus"] == "RUNNING" and t["taskArn"] != gone]) == 3)
    wait(ecs, "services_stable", services=["web"])
    # Tasks without a health check have to run for forty seconds first.
    steady = "(service web) has reached a steady state."
    until(lambda: steady in [event["message"] for event in service(ecs)["events"]], 120)
    messages = [event["message"] for event in service(ecs)["events"]]
    # The first one tells what its image is before the others start.
    assert any(message.startswith("(service web) has started 2 tasks: (task ") for message in messages)


def test_scaling_up_and_down_and_deleting(platform):
    ecs = platform.client("ecs")
    create(ecs, count=1)
    wait(ecs, "services_stable", services=["web"])
    ecs.update_service(service="web", desiredCount=4)
    wait(ecs, "services_stable", services=["web"])
    assert service(ecs)["runningCount"] == 4
    ecs.update_service(service="web", desiredCount=2)
    wait(ecs, "services_stable", services=["web"])
    assert service(ecs)["runningCount"] == 2

    refused("InvalidParameterException", "scaled above 0", ecs.delete_service, service="web")
    assert ecs.delete_service(service="web", force=True)["service"]["status"] == "DRAINING"
    wait(ecs, "services_inactive", services=["web"])
    assert tasks(ecs) == []
    assert ecs.list_services()["serviceArns"] == []


def test_a_new_revision_rolls_out_without_a_gap(platform):
    ecs = platform.client("ecs")
    create(ecs, count=2, deploymentConfiguration={"minimumHealthyPercent": 100, "maximumPercent": 200})
    wait(ecs, "services_stable", services=["web"])
    before = {task["taskArn"] for task in tasks(ecs)}
    revision = ecs.register_task_definition(**{**WEB, "cpu": "512", "memory": "1024"})["taskDefinition"]
    updated = ecs.update_service(service="web", taskDefinition="web-app")["service"]
    assert [d["status"] for d in updated["deployments"]] == ["PRIMARY", "ACTIVE"]

    def rolled():
        running = [task for task in tasks(ecs) if task["lastStatus"] == "RUNNING"]
        assert len(running) >= 2, "fewer than the minimum were healthy"
        return len(service(ecs)["deployments"]) == 1 and service(ecs)["deployments"][0]["rolloutState"] == "COMPLETED"

    until(rolled, 120)
    after = tasks(ecs)
    assert {task["taskDefinitionArn"] for task in after} == {revision["taskDefinitionArn"]}
    assert not before & {task["taskArn"] for task in after}

    ecs.update_service(service="web", forceNewDeployment=True)
    until(lambda: not {t["taskArn"] for t in after} & {t["taskArn"] for t in tasks(ecs)}, 120)
    wait(ecs, "services_stable", services=["web"])


def test_a_service_that_cannot_start_backs_off_and_says_why(platform):
    ecs = platform.client("ecs")
    ecs.register_task_definition(family="broken", networkMode="bridge", containerDefinitions=[
        {"name": "web", "image": "127.0.0.1:9/nowhere:1", "memory": 64}])
    ecs.create_service(serviceName="broken", taskDefinition="broken", desiredCount=2, launchType="EC2")
    until(lambda: service(ecs, "broken")["deployments"][0]["failedTasks"] >= 2)
    stopped = ecs.list_tasks(serviceName="broken", desiredStatus="STOPPED")["taskArns"]
    reason = ecs.describe_tasks(tasks=stopped[:1])["tasks"][0]["stoppedReason"]
    assert "127.0.0.1:9/v2/nowhere/manifests/1" in reason
    time.sleep(3)
    # Without back-off there would be dozens by now.
    assert service(ecs, "broken")["deployments"][0]["failedTasks"] < 12
    ecs.delete_service(service="broken", force=True)


def test_a_bad_deployment_goes_back_and_is_remembered(platform):
    ecs = platform.client("ecs")
    threshold = {"type": "COUNT", "value": 1}
    breaker = {"enable": True, "rollback": True, "thresholdConfiguration": threshold}
    create(ecs, count=1, deploymentConfiguration={"deploymentCircuitBreaker": breaker})
    # Tasks without a health check have to run for forty seconds first.
    until(lambda: service(ecs)["deployments"][0]["rolloutState"] == "COMPLETED", 90)
    running = tasks(ecs)[0]["taskArn"]

    def attempts():
        arns = [d["serviceDeploymentArn"] for d in ecs.list_service_deployments(service="web")["serviceDeployments"]]
        return ecs.describe_service_deployments(serviceDeploymentArns=arns)["serviceDeployments"]

    (first,) = attempts()
    assert (first["status"], first["targetServiceRevision"]["runningTaskCount"]) == ("SUCCESSFUL", 1)
    web = {**WEB, "containerDefinitions": [{**WEB["containerDefinitions"][0], "image": "127.0.0.1:9/nowhere:1"}]}
    broken = ecs.register_task_definition(**web)["taskDefinition"]["taskDefinitionArn"]
    ecs.update_service(service="web", taskDefinition=broken)
    until(lambda: attempts()[0]["status"] == "ROLLBACK_SUCCESSFUL")
    bad = attempts()[0]
    assert bad["rollback"]["serviceRevisionArn"] == first["targetServiceRevision"]["arn"]
    assert (bad["deploymentCircuitBreaker"]["status"], bad["deploymentCircuitBreaker"]["threshold"]) == ("TRIGGERED", 1)
    (revision,) = ecs.describe_service_revisions(
        serviceRevisionArns=[bad["targetServiceRevision"]["arn"]])["serviceRevisions"]
    assert revision["taskDefinition"] == broken
    assert [task["taskArn"] for task in tasks(ecs) if task["desiredStatus"] == "RUNNING"] == [running]
    refused("ConflictException", "cannot be stopped while it is ROLLBACK_SUCCESSFUL", ecs.stop_service_deployment,
            serviceDeploymentArn=bad["serviceDeploymentArn"])

    # The user turns one back that waits for capacity.
    ecs.update_service(service="web", forceNewDeployment=True, desiredCount=1)
    going = attempts()[0]["serviceDeploymentArn"]
    ecs.stop_service_deployment(serviceDeploymentArn=going, stopType="ROLLBACK")
    until(lambda: attempts()[0]["status"] == "ROLLBACK_SUCCESSFUL")
    assert [attempt["status"] for attempt in attempts()] == ["ROLLBACK_SUCCESSFUL"] * 2 + ["SUCCESSFUL"]


def test_a_daemon_is_wherever_an_instance_is(platform):
    ecs = platform.client("ecs")
    container = {**WEB["containerDefinitions"][0], "memory": 64, "portMappings": []}
    ecs.register_task_definition(family="watcher", networkMode="bridge", containerDefinitions=[container])
    ecs.create_service(serviceName="watcher", taskDefinition="watcher", schedulingStrategy="DAEMON", launchType="EC2")
    until(lambda: service(ecs, "watcher")["runningCount"] == 1)
    (instance,) = ecs.list_container_instances()["containerInstanceArns"]
    (task,) = tasks(ecs, "watcher")
    assert (task["containerInstanceArn"], service(ecs, "watcher")["desiredCount"]) == (instance, 1)
    ecs.update_container_instances_state(containerInstances=[instance], status="DRAINING")
    until(lambda: tasks(ecs, "watcher") == [] and service(ecs, "watcher")["desiredCount"] == 0)
    ecs.update_container_instances_state(containerInstances=[instance], status="ACTIVE")
    until(lambda: service(ecs, "watcher")["runningCount"] == 1)
    ecs.delete_service(service="watcher")
    wait(ecs, "services_inactive", services=["watcher"])


def test_services_outlive_a_restart(platform):
    ecs = platform.client("ecs")
    create(ecs, count=2)
    wait(ecs, "services_stable", services=["web"])
    before = {task["taskArn"] for task in tasks(ecs)}
    platform.end()
    platform.start()
    ecs = platform.client("ecs")
    wait(ecs, "services_stable", services=["web"])
    assert {task["taskArn"] for task in tasks(ecs)} == before
