"""What is only so on Docker Engine: what its own tools show, volumes and logs of its drivers, its restarts, and a cluster
with both runtimes. What is the same on both runs twice elsewhere."""

import json
import os
import shutil
import signal
import socket
import subprocess
import time
import zlib

import pytest
from conftest import NETWORK, Docker, Gantry, Platform, binary, leftovers, needs_root, page, until, wait
from test_containers import IMAGE, Host, image, sh
from test_ecs import WEB
from test_tasks import address, describe, on_ec2, run

pytestmark = needs_root


@pytest.fixture(scope="module")
def host(tmp_path_factory, docker):
    directory = tmp_path_factory.mktemp("engine")
    installation = Platform(directory / "gantry", docker=docker)
    installation.image("load", image(directory))
    installation.start()
    try:
        yield Host(installation)
    finally:
        installation.sweep()
    assert leftovers(installation.directory) == []


def of_task(docker, arn):
    """The containers that Docker has of a task, by their names in it."""
    found = [one for one in docker.containers() if one["Labels"].get("com.amazonaws.ecs.task-arn") == arn]
    return {one["Labels"]["com.amazonaws.ecs.container-name"]: one for one in found}


def test_docker_shows_tasks_as_ecs_names_them(host, docker):
    arn = run(host.ecs, WEB)
    wait(host.ecs, "tasks_running", tasks=[arn])
    task = describe(host.ecs, arn)
    assert "Hello from Gantry" in page(f"http://{address(task)}/")
    found = of_task(docker, arn)
    web = found["web-server"]
    assert web["Id"] == task["containers"][0]["runtimeId"] and web["Image"] == "nginx:latest"
    name, = web["Names"]
    assert name.startswith("/ecs-web-app-1-webserver-")
    labels = {name.rsplit(".", 1)[1]: value for name, value in web["Labels"].items() if name.startswith("com.amazonaws.ecs.")}
    assert (labels["task-definition-family"], labels["task-definition-version"]) == ("web-app", "1")
    pause = found["~internal~ecs~pause"]
    assert web["HostConfig"]["NetworkMode"] == f"container:{pause['Id']}"
    assert pause["HostConfig"]["NetworkMode"] == "none"
    version = json.loads(docker.get("/version"))["Version"]
    instances = host.ecs.list_container_instances()["containerInstanceArns"]
    instance, = host.ecs.describe_container_instances(containerInstances=instances)["containerInstances"]
    assert instance["versionInfo"]["dockerVersion"].endswith(version)
    assert {"name": "gantry.runtime", "value": "docker"}.items() <= next(
        a for a in instance["attributes"] if a["name"] == "gantry.runtime").items()
    host.ecs.stop_task(task=arn)
    host.end(arn)
    until(lambda: "~internal~ecs~pause" not in of_task(docker, arn))


def test_volumes_are_made_by_docker_s_drivers(host, docker):
    configuration = {"scope": "shared", "autoprovision": True, "driver": "local", "labels": {"team": "blue"},
                     "driverOpts": {"type": "tmpfs", "device": "tmpfs", "o": "size=1m"}}
    name = f"memory{os.getpid()}"
    said = host.says("df -k /v", task={"volumes": [{"name": name, "dockerVolumeConfiguration": configuration}]},
                     mountPoints=[{"sourceVolume": name, "containerPath": "/v"}])
    assert said[-1].split()[:2] == ["tmpfs", "1024"], said
    volume = json.loads(docker.get(f"/volumes/{name}"))
    assert volume["Labels"] == {"team": "blue"} and volume["Options"] == configuration["driverOpts"]


def test_logs_go_where_only_docker_has_a_driver(host):
    receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    receiver.bind(("127.0.0.1", 0))
    receiver.settimeout(20)
    options = {"gelf-address": f"udp://127.0.0.1:{receiver.getsockname()[1]}", "tag": "mine"}
    arn = host.start(sh("echo over the wire", logConfiguration={"logDriver": "gelf", "options": options}))
    record = json.loads(zlib.decompress(receiver.recv(65536), wbits=47))
    assert (record["short_message"], record["_tag"]) == ("over the wire", "mine")
    host.end(arn)
    assert host.lines(arn) == ["over the wire"]


def test_a_port_stays_the_same_when_a_container_runs_again(host):
    again = sh("test -e /once && exec nc -l -p 5000 -e echo again; sleep 61; touch /once; exit 3", portMappings=[{"containerPort": 5000}],
               restartPolicy={"enabled": True, "restartAttemptPeriod": 60})
    arn = host.start(sh("sleep 300"), again)
    wait(host.ecs, "tasks_running", tasks=[arn])
    bindings = describe(host.ecs, arn)["containers"][1]["networkBindings"]

    def answer():
        try:
            with socket.create_connection(("127.0.0.1", bindings[0]["hostPort"]), timeout=2) as tcp:
                return tcp.recv(100)
        except OSError:
            return b""
    assert until(answer, seconds=90) == b"again\n"
    host.ecs.stop_task(task=arn)
    host.end(arn)


def test_a_mixed_cluster_runs_tasks_on_both(tmp_path, docker):
    server = Gantry(tmp_path / "server").start()
    agents, logs = [], open(tmp_path / "agents.log", "ab")
    try:
        keys = json.loads((server.directory / "keys.json").read_text())["agent"]
        key = {"AWS_ACCESS_KEY_ID": keys["access_key_id"], "AWS_SECRET_ACCESS_KEY": keys["secret_access_key"]}
        for index, (name, more) in enumerate({"native": {}, "docker": docker.variables}.items()):
            variables = {**server.environment, **key, **more}
            directory = tmp_path / name
            subprocess.run([binary(), "image", "--data-dir", directory, "samples"], check=True, env=variables)
            command = [binary(), "agent", "--data-dir", directory, "--name", f"m{os.getpid() % 100000}{name[0]}",
                       "--address-block", f"10.19{index + 3}.192.0/20"]
            agents.append(subprocess.Popen(command, env=variables, stdout=logs, stderr=logs))
        ecs = server.client("ecs")
        ecs.create_cluster(clusterName="default")
        until(lambda: len(ecs.list_container_instances()["containerInstanceArns"]) == 2, seconds=30)
        on = lambda name: [{"type": "memberOf", "expression": f"attribute:gantry.runtime == {name}"}]
        tasks = {name: run(ecs, on_ec2("awsvpc"), placementConstraints=on(name)) for name in ("native", "docker")}
        wait(ecs, "tasks_running", tasks=list(tasks.values()))
        for arn in tasks.values():
            assert "Hello from Gantry" in page(f"http://{address(describe(ecs, arn))}/")
        assert "web" in of_task(docker, tasks["docker"]) and of_task(docker, tasks["native"]) == {}
    finally:
        for agent in agents:
            agent.kill()
            agent.wait()
        server.end(signal.SIGKILL)
        for name in "native", "docker":
            subprocess.run([binary(), "sweep", "--data-dir", tmp_path / name, "--agent", f"m{os.getpid() % 100000}{name[0]}"],
                           check=True, timeout=60)
        logs.close()


def test_the_daemon_ends_and_its_tasks_with_it(host, docker):
    arn = host.start(sh("trap '' TERM; while true; do sleep 0.2; done"))
    wait(host.ecs, "tasks_running", tasks=[arn])
    docker.stop(signal.SIGKILL)
    time.sleep(1)
    assert describe(host.ecs, arn)["lastStatus"] == "RUNNING"
    docker.start()
    stopped = host.end(arn)
    assert stopped["stopCode"] == "EssentialContainerExited" and stopped["containers"][0]["exitCode"] != 0
    assert host.says("echo it goes on") == ["it goes on"]


@pytest.mark.skipif(not shutil.which("mkfs.btrfs"), reason="needs mkfs.btrfs (Debian: btrfs-progs)")
def test_a_storage_driver_that_can_bounds_what_containers_write(tmp_path_factory):
    """Sizes of layers take a file system that counts: XFS with project quotas, or btrfs."""
    # A short name: the daemon's sockets lie below, whose paths have 107 bytes at most.
    tmp_path = tmp_path_factory.mktemp("btrfs")
    disk, daemon = tmp_path / "disk", Docker(tmp_path, number=1)
    daemon.directory.joinpath("data").mkdir()
    with open(disk, "wb") as file:
        file.truncate(64 << 30)
    subprocess.run(["mkfs.btrfs", "-q", disk], check=True)
    subprocess.run(["mount", "-o", "loop", disk, tmp_path / "data"], check=True)
    task = {"networkMode": "awsvpc", "requiresCompatibilities": ["FARGATE"], "cpu": "256", "memory": "512",
            "ephemeralStorage": {"sizeInGiB": 21}}
    # Two that are larger together than what the task has; none is written.
    fill = "for i in 1 2; do busybox fallocate -l 12g /$i 2>/dev/null && echo room || echo full; done"
    try:
        daemon.start()
        installation = Platform(tmp_path / "gantry", docker=daemon)
        try:
            installation.image("load", image(tmp_path))
            host = Host(installation.start())
            arn = host.start(sh(fill), task=task, launchType="FARGATE", networkConfiguration=NETWORK)
            host.end(arn)
            assert host.lines(arn) == ["room", "full"]
        finally:
            installation.sweep()
        assert leftovers(installation.directory) == []
    finally:
        daemon.end()


def test_tasks_outlive_a_daemon_that_restores_them(host, docker):
    configuration = docker.directory / "daemon.json"
    docker.stop()
    configuration.write_text('{"live-restore": true}')
    docker.start()
    try:
        arn = host.start(sh("i=0; while true; do i=$((i+1)); echo $i; sleep 0.1; done"))
        until(lambda: host.lines(arn)[5:])
        before = describe(host.ecs, arn)["containers"][0]["runtimeId"]
        docker.stop(signal.SIGKILL)
        time.sleep(1)
        docker.start()
        known = len(host.lines(arn))
        lines = until(lambda: host.lines(arn)[known + 10:] and host.lines(arn))
        assert lines == [str(n + 1) for n in range(len(lines))]
        task = describe(host.ecs, arn)
        assert (task["lastStatus"], task["containers"][0]["runtimeId"]) == ("RUNNING", before)
        host.ecs.stop_task(task=arn)
        assert host.end(arn)["containers"][0]["exitCode"] == 137
    finally:
        docker.stop()
        configuration.write_text("{}")
        docker.start()
