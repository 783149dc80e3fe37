"""Tasks as an ECS user runs them: real containers behind RunTask, through boto3 and the AWS CLI."""

import json
import pathlib
import signal
import socket
import time

import pytest
from conftest import NETWORK, engines, needs_root, page, runs_once, until, wait
from test_ecs import WEB, refused

pytestmark = needs_root
engine = engines()

BATCH = {
    "family": "batch-processor",
    "networkMode": "awsvpc",
    "requiresCompatibilities": ["FARGATE"],
    "cpu": "1024",
    "memory": "2048",
    "containerDefinitions": [{
        "name": "data-processor",
        "image": "my-batch-job:latest",
        "environment": [{"name": "S3_BUCKET", "value": "my-data-bucket"}, {"name": "JOB_SECONDS", "value": "0"}],
        "logConfiguration": {"logDriver": "awslogs"},
    }],
}

MICROSERVICE = {
    "family": "microservice",
    "networkMode": "awsvpc",
    "requiresCompatibilities": ["EC2"],
    "containerDefinitions": [
        {"name": "api-service", "image": "my-api:latest", "cpu": 256, "memory": 512,
         "portMappings": [{"containerPort": 3000, "hostPort": 0}],
         "environment": [{"name": "NODE_ENV", "value": "production"}]},
        {"name": "redis-cache", "image": "redis:alpine", "cpu": 128, "memory": 256,
         "portMappings": [{"containerPort": 6379}]},
    ],
}


def on_ec2(mode, **container):
    """A small web server for a container instance."""
    return {
        "family": f"web-{mode}",
        "networkMode": mode,
        "containerDefinitions": [{"name": "web", "image": "nginx:latest", "memory": 64, "essential": True, **container}],
    }


def run(ecs, definition, **arguments):
    """Registers and runs one task; its ARN."""
    registered = ecs.register_task_definition(**definition)["taskDefinition"]["taskDefinitionArn"]
    if definition["networkMode"] == "awsvpc":
        arguments.setdefault("networkConfiguration", NETWORK)
    if "FARGATE" in definition.get("requiresCompatibilities", []):
        arguments.setdefault("launchType", "FARGATE")
    answer = ecs.run_task(taskDefinition=registered, **arguments)
    assert answer["failures"] == []
    return answer["tasks"][0]["taskArn"]


def describe(ecs, task):
    return ecs.describe_tasks(tasks=[task], include=["TAGS"])["tasks"][0]


def address(task):
    details = {d["name"]: d["value"] for d in task["attachments"][0]["details"]}
    return details["privateIPv4Address"]


def test_a_web_task_on_fargate_from_run_to_stop(platform):
    ecs = platform.client("ecs")
    arn = run(ecs, WEB, startedBy="me", tags=[{"key": "team", "value": "blue"}])
    wait(ecs, "tasks_running", tasks=[arn])
    task = describe(ecs, arn)
    assert (task["lastStatus"], task["desiredStatus"], task["launchType"]) == ("RUNNING", "RUNNING", "FARGATE")
    assert (task["cpu"], task["memory"], task["group"]) == ("256", "512", "family:web-app")
    assert task["tags"] == [{"key": "team", "value": "blue"}]
    assert "containerInstanceArn" not in task
    container = task["containers"][0]
    assert container["lastStatus"] == "RUNNING" and container["runtimeId"]
    assert container["networkInterfaces"][0]["privateIpv4Address"] == address(task)
    assert task["createdAt"] <= task["pullStartedAt"] <= task["pullStoppedAt"] <= task["startedAt"]
    assert "Hello from Gantry" in page(f"http://{address(task)}/")
    assert ecs.list_tasks(startedBy="me")["taskArns"] == [arn]
    assert ecs.list_tasks(family="other")["taskArns"] == []

    assert ecs.stop_task(task=arn, reason="enough")["task"]["desiredStatus"] == "STOPPED"
    wait(ecs, "tasks_stopped", tasks=[arn])
    task = describe(ecs, arn)
    assert (task["stopCode"], task["stoppedReason"]) == ("UserInitiated", "enough")
    assert task["containers"][0]["exitCode"] == 0
    assert task["startedAt"] <= task["stoppingAt"] <= task["stoppedAt"]
    assert ecs.list_tasks()["taskArns"] == []
    assert ecs.list_tasks(desiredStatus="STOPPED")["taskArns"] == [arn]


def test_a_batch_job_ends_with_its_exit_code(platform):
    ecs = platform.client("ecs")
    good = run(ecs, BATCH)
    environment = [{"name": "JOB_EXIT_CODE", "value": "3"}]
    bad = run(ecs, BATCH, overrides={"containerOverrides": [{"name": "data-processor", "environment": environment}]})
    wait(ecs, "tasks_stopped", tasks=[good, bad])
    for arn, code in (good, 0), (bad, 3):
        task = describe(ecs, arn)
        assert task["containers"][0]["exitCode"] == code
        assert task["stopCode"] == "EssentialContainerExited"
        assert task["stoppedReason"] == "Essential container in task exited"
    lines = platform.gantry("logs", good).stdout
    assert "working for bucket my-data-bucket" in lines and lines.rstrip().endswith("done")


def test_containers_of_a_task_share_localhost(platform):
    ecs = platform.client("ecs")
    arn = run(ecs, MICROSERVICE)
    wait(ecs, "tasks_running", tasks=[arn])
    task = describe(ecs, arn)
    assert {c["name"]: c["lastStatus"] for c in task["containers"]} == {"api-service": "RUNNING", "redis-cache": "RUNNING"}
    assert task["containerInstanceArn"]
    url = f"http://{address(task)}:3000/"
    page(url)
    # The page counts its visits in the key-value server next door.
    assert "<th>visits</th><td>2</td>" in page(url)


def test_bridge_mode_publishes_static_and_dynamic_ports(platform):
    ecs = platform.client("ecs")
    definition = on_ec2("bridge", portMappings=[{"containerPort": 80, "hostPort": 0}])
    first, second = run(ecs, definition), run(ecs, definition)
    wait(ecs, "tasks_running", tasks=[first, second])
    ports = set()
    for arn in first, second:
        binding, = describe(ecs, arn)["containers"][0]["networkBindings"]
        assert binding["containerPort"] == 80 and binding["hostPort"] >= 32768
        assert "Hello from Gantry" in page(f"http://127.0.0.1:{binding['hostPort']}/")
        ports.add(binding["hostPort"])
    assert len(ports) == 2

    static = run(ecs, on_ec2("bridge", portMappings=[{"containerPort": 80, "hostPort": 18080}]))
    wait(ecs, "tasks_running", tasks=[static])
    assert "Hello from Gantry" in page("http://127.0.0.1:18080/")
    taken = ecs.run_task(taskDefinition="web-bridge")
    assert [failure["reason"] for failure in taken["failures"]] == ["RESOURCE:PORTS"]


def test_bridge_mode_publishes_ranges_of_ports(platform):
    ecs = platform.client("ecs")
    mappings = [{"containerPortRange": "7000-7002"}, {"containerPort": 80, "hostPort": 0}]
    arn = run(ecs, on_ec2("bridge", command=["web", "7001"], portMappings=mappings))
    wait(ecs, "tasks_running", tasks=[arn])
    of_range, single = describe(ecs, arn)["containers"][0]["networkBindings"]
    assert of_range["containerPortRange"] == "7000-7002" and "containerPort" not in of_range
    first, last = map(int, of_range["hostPortRange"].split("-"))
    assert last - first == 2 and "hostPort" not in of_range
    assert single["containerPort"] == 80 and "hostPortRange" not in single
    assert "Hello from Gantry" in page(f"http://127.0.0.1:{first + 1}/")


def test_host_and_none_modes(platform):
    ecs = platform.client("ecs")
    host = run(ecs, on_ec2("host", command=["web", "18081"], portMappings=[{"containerPort": 18081}]))
    none = run(ecs, on_ec2("none"))
    wait(ecs, "tasks_running", tasks=[host, none])
    assert "Hello from Gantry" in page("http://127.0.0.1:18081/")
    assert describe(ecs, none)["containers"][0].get("networkBindings", []) == []


def test_an_image_that_cannot_be_had_says_so(platform):
    ecs = platform.client("ecs")
    arn = run(ecs, on_ec2("bridge", image="127.0.0.1:9/nowhere:1"))
    wait(ecs, "tasks_stopped", tasks=[arn])
    task = describe(ecs, arn)
    assert task["stopCode"] == "TaskFailedToStart"
    assert "CannotPullContainer" in task["stoppedReason"] or "CannotPullImage" in task["stoppedReason"]
    assert "127.0.0.1:9/v2/" in task["stoppedReason"]


def test_a_command_that_does_not_exist_says_so(platform):
    ecs = platform.client("ecs")
    arn = run(ecs, on_ec2("bridge", entryPoint=["/no/such/program"]))
    wait(ecs, "tasks_stopped", tasks=[arn])
    task = describe(ecs, arn)
    assert task["stopCode"] == "TaskFailedToStart"
    assert "/no/such/program" in task["containers"][0]["reason"]


@runs_once
def test_what_cannot_be_placed_is_explained(platform):
    ecs = platform.client("ecs")
    ecs.register_task_definition(**{**on_ec2("bridge"), "family": "huge", "memory": "900000"})
    reasons = {failure["reason"] for failure in ecs.run_task(taskDefinition="huge", count=2)["failures"]}
    assert reasons == {"RESOURCE:MEMORY"}
    ecs.create_cluster(clusterName="empty")
    refused("InvalidParameterException", "No Container Instances were found in your cluster.", ecs.run_task,
            taskDefinition="huge", cluster="empty")
    refused("InvalidParameterException", "Network Configuration must be provided", ecs.run_task,
            taskDefinition=ecs.register_task_definition(**WEB)["taskDefinition"]["taskDefinitionArn"], launchType="FARGATE")
    refused("ClientException", "TaskDefinition", ecs.run_task, taskDefinition="nowhere")
    refused("ClusterNotFoundException", "Cluster not found.", ecs.run_task, taskDefinition="huge", cluster="nowhere")


@runs_once
def test_many_tasks_are_listed_in_pages(platform):
    ecs = platform.client("ecs")
    ecs.register_task_definition(**on_ec2("none"))
    ran = ecs.run_task(taskDefinition="web-none", count=10)
    assert ran["failures"] == []
    pages = list(ecs.get_paginator("list_tasks").paginate(PaginationConfig={"PageSize": 4}))
    assert [len(part["taskArns"]) for part in pages] == [4, 4, 2]
    wait(ecs, "tasks_running", tasks=[task["taskArn"] for task in ran["tasks"]])
    assert ecs.describe_clusters(clusters=["default"])["clusters"][0]["runningTasksCount"] == 10


def test_running_tasks_outlive_a_crash_and_are_found_again(platform):
    ecs = platform.client("ecs")
    arn = run(ecs, WEB)
    wait(ecs, "tasks_running", tasks=[arn])
    before = describe(ecs, arn)
    platform.end(signal.SIGKILL)
    # The containers do not care.
    assert "Hello from Gantry" in page(f"http://{address(before)}/")
    platform.start()
    ecs = platform.client("ecs")
    after = describe(ecs, arn)
    assert after["lastStatus"] == "RUNNING"
    assert after["containers"][0]["runtimeId"] == before["containers"][0]["runtimeId"]
    ecs.stop_task(task=arn)
    wait(ecs, "tasks_stopped", tasks=[arn])
    assert describe(ecs, arn)["containers"][0]["exitCode"] == 0


def test_published_ports_outlive_a_crash_and_stay_taken(platform):
    ecs = platform.client("ecs")
    arn = run(ecs, on_ec2("bridge", portMappings=[{"containerPort": 80, "hostPort": 0}]))
    wait(ecs, "tasks_running", tasks=[arn])
    binding, = describe(ecs, arn)["containers"][0]["networkBindings"]
    port = binding["hostPort"]
    platform.end(signal.SIGKILL)
    assert "Hello from Gantry" in page(f"http://127.0.0.1:{port}/")
    platform.start()
    ecs = platform.client("ecs")
    assert describe(ecs, arn)["containers"][0]["networkBindings"] == [binding]
    assert "Hello from Gantry" in page(f"http://127.0.0.1:{port}/")

    def held():
        with socket.socket() as one:
            # Connections that were, such as those of Docker's proxy, hold nothing.
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                one.bind(("127.0.0.1", port))
            except OSError:
                return True
        return False

    # An agent that is connected has taken its networks over. A try before could come between it and its port.
    instance, = ecs.list_container_instances()["containerInstanceArns"]
    until(lambda: ecs.describe_container_instances(containerInstances=[instance])["containerInstances"][0]["agentConnected"])
    assert held()
    ecs.stop_task(task=arn)
    wait(ecs, "tasks_stopped", tasks=[arn])
    assert not held()


def test_what_ends_while_nobody_watches_is_reported(platform):
    ecs = platform.client("ecs")
    slow = {**BATCH, "containerDefinitions": [{**BATCH["containerDefinitions"][0],
                                               "environment": [{"name": "JOB_SECONDS", "value": "2"}]}]}
    arn = run(ecs, slow)
    wait(ecs, "tasks_running", tasks=[arn])
    platform.end(signal.SIGKILL)
    time.sleep(3)
    platform.start()
    ecs = platform.client("ecs")
    wait(ecs, "tasks_stopped", tasks=[arn])
    task = describe(ecs, arn)
    assert (task["stopCode"], task["containers"][0]["exitCode"]) == ("EssentialContainerExited", 0)


@runs_once
def test_the_aws_cli_does_it_all(platform):
    definition = platform.directory / "web.json"
    definition.write_text(json.dumps(WEB))
    platform.aws("ecs", "register-task-definition", "--cli-input-json", definition.as_uri())
    ran = platform.aws("ecs", "run-task", "--task-definition", "web-app", "--launch-type", "FARGATE",
                       "--network-configuration", "awsvpcConfiguration={subnets=[subnet-1]}",
                       "--query", "tasks[0].taskArn", "--output", "text")
    arn = ran.stdout.strip()
    platform.aws("ecs", "wait", "tasks-running", "--tasks", arn)
    status = platform.aws("ecs", "describe-tasks", "--tasks", arn, "--query", "tasks[0].lastStatus", "--output", "text")
    assert status.stdout.strip() == "RUNNING"
    assert arn.rsplit("/", 1)[1] in platform.gantry("status").stdout
    platform.aws("ecs", "stop-task", "--task", arn)
    platform.aws("ecs", "wait", "tasks-stopped", "--tasks", arn)


@runs_once
def test_an_agent_reports_only_what_is_its_own(platform):
    """A key of an agent opens nothing beyond what agents do."""
    keys = json.loads(pathlib.Path(platform.directory / "keys.json").read_text())["agent"]
    ecs = platform.client("ecs", environment={"AWS_ACCESS_KEY_ID": keys["access_key_id"],
                                              "AWS_SECRET_ACCESS_KEY": keys["secret_access_key"]})
    refused("AccessDeniedException", "ecs:RunTask", ecs.run_task, taskDefinition="web-app")
    refused("AccessDeniedException", "ecs:ListTasks", ecs.list_tasks)
