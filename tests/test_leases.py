"""Agents that fall silent: their tasks end, and run elsewhere, and never in both places."""

import json
import os
import pathlib
import re
import signal
import subprocess
import time

import pytest
from conftest import binary, groups, needs_root, until
from test_hosts import Hosts, inside, run
from test_tasks import on_ec2

pytestmark = [needs_root, pytest.mark.skipif(
    not any(pathlib.Path(d, "ip").exists() for d in os.environ["PATH"].split(":")), reason="iproute2 is not installed")]

# Longer than usual: on a busy machine a server may be held up for seconds.
LEASE = "5s"


def processes(task):
    """Of a task, on whichever of the hosts, which share one machine."""
    found = []
    for group in groups(task):
        for path in [group, *group.glob("*")]:
            try:
                found += (path / "cgroup.procs").read_text().split()
            except OSError:
                pass
    return found


def test_tasks_of_a_silent_agent_end_and_run_elsewhere(tmp_path):
    log = tmp_path / "hosts.log"
    with Hosts(["server", "one", "two"]) as hosts:
        data = tmp_path / "server"
        hosts.start("server", binary(), "server", "--data-dir", data, "--listen", f"{hosts.address['server']}:4580",
                    "--agent-lease", LEASE, log=log)
        until((data / "endpoint").exists)

        def exported(*arguments):
            lines = run(binary(), "env", "--data-dir", str(data), *arguments).stdout
            return dict(re.findall(r"^export (\w+)=(\S+)$", lines, re.M))

        environment = {**os.environ, **exported("--agent"), "GANTRY_LOG": "info"}
        root = {**os.environ, **exported(), "AWS_PAGER": "", "AWS_EC2_METADATA_DISABLED": "true"}
        agents = {}

        def aws(*arguments):
            python = pathlib.Path(os.sys.executable)
            command = [*inside(hosts.names["server"]), str(python), str(python.parent / "aws"), "ecs", *arguments]
            done = subprocess.run(command, env=root, capture_output=True, text=True, timeout=60)
            assert done.returncode == 0, done.stderr + log.read_text()
            return json.loads(done.stdout or "null")

        def start(number, name):
            agents[name] = hosts.start(
                name, binary(), "agent", "--data-dir", tmp_path / name, "--name", f"l{name}", "--address-block",
                f"10.97.{number * 64}.0/18", "--attribute", f"host={name}", environment=environment, log=log)

        def connected():
            found = aws("list-container-instances", "--filter", "agentConnected == true")
            return len(found["containerInstanceArns"])

        def running():
            """The service's task that runs, and its host."""
            arns = aws("list-tasks", "--service-name", "web")["taskArns"]
            tasks = aws("describe-tasks", "--tasks", *arns)["tasks"] if arns else []
            tasks = [task for task in tasks if task["lastStatus"] == "RUNNING"]
            if not tasks:
                return None
            instance = tasks[0]["containerInstanceArn"]
            shown = aws("describe-container-instances", "--container-instances", instance)["containerInstances"][0]
            host = next(a["value"] for a in shown["attributes"] if a["name"] == "host")
            return tasks[0]["taskArn"], host

        def moved(task):
            now = running()
            return now if now and now[0] != task else None

        try:
            for number, name in enumerate(["one", "two"]):
                run(binary(), "image", "samples", "--data-dir", str(tmp_path / name))
                start(number, name)
            until(lambda: connected() == 2)
            definition = tmp_path / "web.json"
            definition.write_text(json.dumps(on_ec2("bridge")))
            aws("register-task-definition", "--cli-input-json", definition.as_uri())
            aws("create-service", "--service-name", "web", "--task-definition", "web-bridge", "--desired-count", "1")
            task, host = until(running)
            assert until(lambda: processes(task))

            # Stopped, with its tasks running on: its guard ends them before the server gives them away.
            agents[host].send_signal(signal.SIGSTOP)
            since = time.monotonic()
            second, other = until(lambda: moved(task))
            print(f"on another host {time.monotonic() - since:.1f} s after its agent was stopped, with leases of {LEASE}")
            assert other != host and not processes(task)
            shown = aws("describe-tasks", "--tasks", task)["tasks"][0]
            assert (shown["lastStatus"], shown["stopCode"]) == ("STOPPED", "TerminationNotice")
            assert shown["stoppedReason"].endswith("is unreachable.")
            # Back again, it runs nothing of what is given away.
            agents[host].send_signal(signal.SIGCONT)
            until(lambda: connected() == 2)
            assert not processes(task) and processes(second)

            # Killed: nobody but the guard is left to end its tasks.
            agents[other].kill()
            agents[other].wait()
            third, last = until(lambda: moved(second))
            assert last == host and not processes(second)
            start(["one", "two"].index(other), other)
            until(lambda: connected() == 2)
            assert processes(third) and not processes(second)
        finally:
            for name, agent in agents.items():
                agent.send_signal(signal.SIGCONT)
                agent.kill()
                agent.wait()
                run(*inside(hosts.names[name]), binary(), "sweep", "--data-dir", str(tmp_path / name), "--agent", f"l{name}")
