"""`gantry explain` and `gantry events`: why things are as they are, and what happened; real containers."""

import json
import signal
import subprocess
import threading

import pytest

from conftest import Platform, binary, leftovers, needs_root, until

pytestmark = needs_root


def definition(family, **container):
    return {"family": family, "networkMode": "bridge", "containerDefinitions": [
        {"name": "main", "image": "nginx:latest", "memory": 64, "cpu": 16, "versionConsistency": "disabled", **container}]}


class Explained:
    """A platform, and what its command line says of it."""

    def __init__(self, platform):
        self.platform = platform
        self.ecs = platform.client("ecs")

    def command(self, *arguments):
        return [binary(), *arguments, "--data-dir", self.platform.directory]

    def run(self, *arguments):
        ended = subprocess.run(self.command(*arguments), check=True, capture_output=True, text=True, timeout=60)
        return ended.stdout

    def explain(self, subject):
        return json.loads(self.run("explain", subject, "--json"))

    def events(self, *arguments):
        return [json.loads(line) for line in self.run("events", "--json", *arguments).splitlines()]

    def service(self, name, definition, count=1):
        self.ecs.register_task_definition(**definition)
        self.ecs.create_service(serviceName=name, taskDefinition=name, desiredCount=count, launchType="EC2")


@pytest.fixture(scope="module")
def explained(tmp_path_factory):
    installation = Platform(tmp_path_factory.mktemp("explain") / "gantry")
    installation.start()
    try:
        yield Explained(installation)
    finally:
        installation.sweep()
    assert leftovers(installation.directory) == []


def finding(explanation, topic):
    return next((found for found in explanation["findings"] if found["topic"] == topic), None)


def test_a_service_that_fits_nowhere_is_told_how_much_is_missing(explained):
    explained.service("huge", definition("huge", memory=50_000_000), count=2)
    why = explained.explain("huge")
    assert why["kind"] == "SERVICE"
    assert why["verdict"].startswith("0 of 2 tasks of the service huge run: the only container instance cannot take the task")
    [line] = finding(why, "placement")["details"]
    assert "MiB of memory free of the 50000000 that the task needs" in line and "too few" in line
    assert any("larger instance" in advice["message"] for advice in why["suggestions"])
    # The same for people, and from the instance's side.
    assert "50000000" in explained.run("explain", "huge")
    [instance] = explained.ecs.list_container_instances()["containerInstanceArns"]
    here = explained.explain(instance.rsplit("/", 1)[1][:12])
    assert here["kind"] == "CONTAINER_INSTANCE" and " takes tasks: " in here["verdict"]
    assert any(line.startswith("huge: it has ") for line in finding(here, "services")["details"])
    explained.ecs.delete_service(service="huge", force=True)


def test_tasks_that_crash_are_explained(explained):
    explained.service("crash", definition("crash", entryPoint=["/nowhere"]))
    patient = "in a row that failed, the next is tried in "
    why = until(lambda: patient in (told := explained.explain("crash"))["verdict"] and told)
    assert finding(why, "back-off")
    failures = finding(why, "failures")
    assert "CannotStartContainerError" in failures["details"][0] and "/nowhere" in failures["details"][0]
    command = next(c for advice in why["suggestions"] if (c := advice.get("command", "")).startswith("gantry explain "))
    task = explained.explain(command.split()[-1])
    assert " never got to run: CannotStartContainerError" in task["verdict"]
    assert any("entryPoint" in advice["message"] for advice in task["suggestions"])
    explained.ecs.delete_service(service="crash", force=True)


def test_followers_see_a_service_start(explained):
    follower = subprocess.Popen(explained.command("events", "--follow", "--filter", "service/default/seen"),
                                stdout=subprocess.PIPE, text=True)
    lines = []
    reader = threading.Thread(target=lambda: lines.extend(iter(follower.stdout.readline, "")))
    reader.start()
    try:
        explained.service("seen", definition("seen"))
        wanted = ["SERVICE_CREATED", "TASK_CREATED", "TASK_RUNNING"]
        until(lambda: all(any(kind in line for line in lines) for kind in wanted))
    finally:
        follower.kill()
        follower.wait()
        reader.join()
    assert all("seen" in line for line in lines)
    assert len(lines) == len(set(lines)), "nothing is shown twice"
    explained.ecs.delete_service(service="seen", force=True)


def test_a_stopped_task_has_a_history_that_outlives_the_server(explained):
    ecs = explained.ecs
    ecs.register_task_definition(**definition("job"))
    arn = ecs.run_task(taskDefinition="job", launchType="EC2")["tasks"][0]["taskArn"]
    until(lambda: ecs.describe_tasks(tasks=[arn])["tasks"][0]["lastStatus"] == "RUNNING")
    ecs.stop_task(task=arn, reason="enough of it")
    until(lambda: ecs.describe_tasks(tasks=[arn])["tasks"][0]["lastStatus"] == "STOPPED")

    def history():
        told = explained.explain(arn)
        assert " was stopped by a user: enough of it." in told["verdict"]
        kinds = [event["type"] for event in told.get("history", [])]
        return kinds == ["TASK_CREATED", "TASK_RUNNING", "TASK_STOPPING", "TASK_STOPPED"]

    until(history)
    explained.platform.end(signal.SIGKILL)
    explained.platform.start()
    assert history()
    name = arn.rsplit("/", 1)[1]
    stopped = explained.events("--filter", f"TASK_STOPPED {name}")
    assert [event["resourceArn"] for event in stopped] == [arn]
    assert "exited with code" in stopped[0]["message"]


def test_a_draining_instance_says_who_is_on_it(explained):
    ecs = explained.ecs = explained.platform.client("ecs")
    [instance] = ecs.list_container_instances()["containerInstanceArns"]
    # It may have come back from a restart of the server just now.
    until(lambda: ecs.describe_container_instances(containerInstances=[instance])
               ["containerInstances"][0]["agentConnected"])
    explained.service("stays", definition("stays"))
    until(lambda: ecs.describe_services(services=["stays"])["services"][0]["runningCount"] == 1)
    ecs.update_container_instances_state(containerInstances=[instance], status="DRAINING")
    why = explained.explain(instance)
    assert " is draining: it takes no new tasks, and 1 task of before " in why["verdict"]
    assert finding(why, "draining")
    assert "is draining or deregistered" in explained.run("explain", "stays")
    until(lambda: explained.events("--filter", "INSTANCE_DRAINING"))
    ecs.update_container_instances_state(containerInstances=[instance], status="ACTIVE")
    until(lambda: explained.events("--filter", "INSTANCE_ACTIVE"))
    ecs.delete_service(service="stays", force=True)


def test_what_means_nothing_or_too_much_is_said(explained):
    refused = subprocess.run(explained.command("explain", "nobody"), capture_output=True, text=True, timeout=60)
    assert refused.returncode == 1
    assert refused.stderr.startswith("gantry: Nothing that is there or was lately is meant by 'nobody'.")
