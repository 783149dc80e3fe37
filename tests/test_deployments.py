"""Deployments that shift traffic, with real containers: both revisions at work, pauses, ways on and back."""

import subprocess

from conftest import NETWORK, binary, needs_root, page, until
from test_ecs import WEB, refused
from test_services import tasks
from test_tasks import address

pytestmark = needs_root

# Tasks with a check need not run for forty seconds to count as healthy.
CHECKED = {**WEB, "containerDefinitions": [{
    **WEB["containerDefinitions"][0],
    "healthCheck": {"command": ["CMD", "/usr/bin/sample", "health", "80"], "interval": 5, "timeout": 2, "retries": 1}}]}


def attempt(ecs):
    arns = [d["serviceDeploymentArn"] for d in ecs.list_service_deployments(service="web")["serviceDeployments"]]
    return ecs.describe_service_deployments(serviceDeploymentArns=arns[:1])["serviceDeployments"][0]


def waiting(ecs, stage):
    """The hook that a deployment pauses at, once it does."""
    now = attempt(ecs)
    hooks = [hook for hook in now.get("lifecycleHookDetails", []) if hook["status"] == "AWAITING_ACTION"]
    return hooks[0] if now.get("lifecycleStage") == stage and hooks else None


def test_blue_and_green_serve_side_by_side_until_somebody_decides(platform):
    ecs = platform.client("ecs")
    blue = ecs.register_task_definition(**CHECKED)["taskDefinition"]["taskDefinitionArn"]
    ecs.create_service(serviceName="web", taskDefinition=blue, desiredCount=1, launchType="FARGATE",
                       networkConfiguration=NETWORK)
    until(lambda: attempt(ecs)["status"] == "SUCCESSFUL")
    green = ecs.register_task_definition(**CHECKED)["taskDefinition"]["taskDefinitionArn"]
    lambda_hook = {"hookTargetArn": "arn:aws:lambda:us-east-1:123456789012:function:check",
                   "roleArn": "arn:aws:iam::123456789012:role/hooks", "lifecycleStages": ["PRE_SCALE_UP"]}
    side_by_side = {"strategy": "BLUE_GREEN", "bakeTimeInMinutes": 0}
    refused("UnsupportedFeatureException", "AWS Lambda", ecs.update_service, service="web", taskDefinition=green,
            deploymentConfiguration={**side_by_side, "lifecycleHooks": [lambda_hook]})
    pause = {"targetType": "PAUSE", "lifecycleStages": ["POST_SCALE_UP", "POST_PRODUCTION_TRAFFIC_SHIFT"]}
    ecs.update_service(service="web", taskDefinition=green,
                       deploymentConfiguration={**side_by_side, "lifecycleHooks": [pause]})
    hook = until(lambda: waiting(ecs, "POST_SCALE_UP"))
    both = [task for task in tasks(ecs) if task["lastStatus"] == "RUNNING"]
    assert {task["taskDefinitionArn"] for task in both} == {blue, green}
    for task in both:
        assert "Hello from Gantry" in page(f"http://{address(task)}/")
    weights = attempt(ecs)
    assert weights["sourceServiceRevisions"][0]["requestedProductionTrafficWeight"] == 100.0
    assert weights["targetServiceRevision"]["requestedProductionTrafficWeight"] == 0.0

    # The deployment is part of what a killed server finds again.
    platform.end()
    platform.start()
    ecs = platform.client("ecs")
    assert until(lambda: waiting(ecs, "POST_SCALE_UP"))["hookId"] == hook["hookId"]
    deployment = attempt(ecs)["serviceDeploymentArn"]
    ecs.continue_service_deployment(serviceDeploymentArn=deployment, hookId=hook["hookId"])
    hook = until(lambda: waiting(ecs, "POST_PRODUCTION_TRAFFIC_SHIFT"))
    assert attempt(ecs)["targetServiceRevision"]["requestedProductionTrafficWeight"] == 100.0
    ecs.continue_service_deployment(serviceDeploymentArn=deployment, hookId=hook["hookId"], action="ROLLBACK")
    until(lambda: attempt(ecs)["status"] == "ROLLBACK_SUCCESSFUL")
    (left,) = [task for task in tasks(ecs) if task["desiredStatus"] == "RUNNING"]
    assert left["taskArn"] in {task["taskArn"] for task in both} and left["taskDefinitionArn"] == blue

    ecs.update_service(service="web", taskDefinition=green,
                       deploymentConfiguration={**side_by_side, "lifecycleHooks": []})
    until(lambda: attempt(ecs)["status"] == "SUCCESSFUL")
    (left,) = [task for task in tasks(ecs) if task["desiredStatus"] == "RUNNING"]
    assert left["taskDefinitionArn"] == green


def test_an_alarm_rolls_back_what_has_already_come_up(platform):
    ecs = platform.client("ecs")

    def alarm(*arguments):
        told = subprocess.run([binary(), "alarm", *arguments, "--data-dir", platform.directory], check=True,
                              capture_output=True, text=True, timeout=60)
        return told.stdout

    good = ecs.register_task_definition(**CHECKED)["taskDefinition"]["taskDefinitionArn"]
    alarms = {"alarmNames": ["errors"], "enable": True, "rollback": True}
    alarm("errors", "OK")
    ecs.create_service(serviceName="web", taskDefinition=good, desiredCount=1, launchType="FARGATE",
                       networkConfiguration=NETWORK,
                       deploymentConfiguration={"alarms": alarms, "bakeTimeInMinutes": 0})
    until(lambda: attempt(ecs)["status"] == "SUCCESSFUL")
    assert attempt(ecs)["alarms"] == {"alarmNames": ["errors"], "status": "MONITORING_COMPLETE",
                                      "triggeredAlarmNames": []}
    bad = ecs.register_task_definition(**CHECKED)["taskDefinition"]["taskDefinitionArn"]
    ecs.update_service(service="web", taskDefinition=bad,
                       deploymentConfiguration={"alarms": alarms, "bakeTimeInMinutes": 60})

    def only(definition):
        wanted = [task for task in tasks(ecs) if task["desiredStatus"] == "RUNNING"]
        return [task["taskDefinitionArn"] for task in wanted if task["lastStatus"] == "RUNNING"] == [definition]

    until(lambda: only(bad))
    assert attempt(ecs)["status"] == "IN_PROGRESS"
    alarm("errors", "ALARM", "--reason", "7 of 100 requests failed")
    assert "7 of 100 requests failed" in alarm()
    until(lambda: attempt(ecs)["status"] == "ROLLBACK_SUCCESSFUL")
    assert only(good) and attempt(ecs)["alarms"]["triggeredAlarmNames"] == ["errors"]
    (service,) = ecs.describe_services(services=["web"])["services"]
    messages = [event["message"] for event in service["events"]]
    assert any(message.endswith("deployment failed: alarm detected.") for message in messages)
