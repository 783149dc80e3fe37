"""Containers that behave badly, and hosts that go down: what is beside them stays well, and what is left is made good."""

import contextlib
import os
import pathlib
import shutil
import signal
import subprocess
import time

import pytest
from conftest import NETWORK, Platform, below, binary, engines, groups, leftovers, page, runs_once, until, wait
from test_containers import BUSYBOX, IMAGE, Host, image, needs_root, sh
from test_tasks import address, describe, run

pytestmark = [needs_root, pytest.mark.skipif(not BUSYBOX, reason="needs a static busybox (Debian: busybox-static)")]

# Wants to be ended in its own way.
POLITE = "local/polite:1"
# Tasks that run while the agent is killed.
TASKS = 50


engine = engines()


@pytest.fixture(scope="module")
def installation(tmp_path_factory, engine):
    directory = tmp_path_factory.mktemp("faults")
    installation = Platform(directory / "gantry", "--cpu", "65536", "--memory", "16384", docker=engine)
    for archive in image(directory), image(directory, POLITE, StopSignal="SIGUSR1"):
        installation.image("load", archive)
    try:
        yield installation.start()
    finally:
        installation.sweep()
    assert leftovers(installation.directory) == []


@pytest.fixture
def host(installation):
    return Host(installation)


@pytest.fixture
def neighbour(host):
    """Asks a web server of the same host, which has to answer soon."""
    arn = run(host.ecs, {"family": "neighbour", "networkMode": "awsvpc", "containerDefinitions": [
        {"name": "web", "image": "nginx", "memory": 64}]})
    wait(host.ecs, "tasks_running", tasks=[arn])
    url = f"http://{address(describe(host.ecs, arn))}/"
    yield lambda: page(url, seconds=5)
    host.ecs.stop_task(task=arn)


def end(host, arn, seconds):
    host.ecs.stop_task(task=arn)
    before = time.monotonic()
    task = host.end(arn)
    assert time.monotonic() - before < seconds
    return task


def test_a_fork_bomb_harms_nobody(host, neighbour):
    arn = host.start(sh("b() { b | b & }; b; while true; do sleep 1; done", memory=24, stopTimeout=2))
    # Its memory may end it at once.
    until(lambda: describe(host.ecs, arn)["lastStatus"] in ("RUNNING", "STOPPED"))
    for _ in range(10):
        assert "Hello from Gantry" in neighbour()
        time.sleep(0.2)
    # However it ended, by its memory or by the user, nothing of it is left.
    end(host, arn, seconds=30)
    until(lambda: not groups(arn))


def test_a_flood_of_output_is_bounded_and_harms_nobody(host, neighbour):
    size, files = 1 << 20, 3
    log = {"logConfiguration": {"logDriver": "json-file", "options": {"max-size": str(size), "max-file": str(files)}}}
    arn = host.start(sh("while true; do cat /bin/busybox; done", stopTimeout=1, **log))
    other = host.start(sh("exec cat /dev/zero", stopTimeout=1, **log))

    def kept():
        paths = [p for task in (arn, other) for p in host.platform.directory.glob(f"agents/*/logs/{task.split('/')[-1]}/*")]
        return [p.stat().st_size for p in paths if p.exists()]
    until(lambda: len(kept()) == 2 * files)
    for _ in range(10):
        assert "Hello from Gantry" in neighbour()
        # A file takes its last write whole, which is a page or two beyond its size.
        assert sum(kept()) < 2 * files * (size + (256 << 10)), kept()
        time.sleep(0.2)
    for arn in arn, other:
        end(host, arn, seconds=20)


def test_who_ignores_the_end_is_ended(host):
    arn = host.start(sh("trap '' TERM; echo ready; while true; do sleep 1; done", stopTimeout=2))
    until(lambda: host.lines(arn) == ["ready"])
    task = end(host, arn, seconds=15)
    assert task["containers"][0]["exitCode"] == 137


def test_an_agent_that_was_killed_still_knows_how_a_container_wants_to_be_ended(host):
    arn = host.start(sh("trap 'exit 5' USR1; echo ready; while true; do sleep 0.1; done", image=POLITE))
    until(lambda: host.lines(arn) == ["ready"])
    wait(host.ecs, "tasks_running", tasks=[arn])
    host.platform.end(signal.SIGKILL)
    host.platform.start()
    host.ecs = host.platform.client("ecs")
    host.ecs.stop_task(task=arn)
    assert host.end(arn)["containers"][0]["exitCode"] == 5


def test_a_full_volume_is_its_tasks_own_matter(host, neighbour):
    fill = sh("cat /dev/zero > /full/file 2>/dev/null || echo full; rm /full/file; echo x > /full/file && echo room",
              linuxParameters={"tmpfs": [{"containerPath": "/full", "size": 8}]})
    arn = host.start(fill)
    host.end(arn)
    assert host.lines(arn) == ["full", "room"]
    assert "Hello from Gantry" in neighbour()


@pytest.mark.skipif(not pathlib.Path("/dev/loop-control").exists(), reason="this kernel has no loop devices")
def test_full_ephemeral_storage_is_its_tasks_own_matter(host, neighbour, engine):
    """What its containers write and its empty volumes have one size, of which the host gives only what is written. On Docker
    that of the volumes; what is said of containers' own layers is tried in test_docker.py."""
    volumes = {"data": "/data", "seeded": "/seeded"}
    task = {"networkMode": "awsvpc", "requiresCompatibilities": ["FARGATE"], "cpu": "256", "memory": "512",
            "ephemeralStorage": {"sizeInGiB": 21}, "volumes": [{"name": name, "host": {}} for name in volumes]}
    mounts = [{"sourceVolume": name, "containerPath": path} for name, path in volumes.items()]
    places = ["/data/rest", "/declared/rest", *([] if engine else ["/rest", "/etc/hosts"])]
    # Room that is given without being written: a test need not write 21 GiB.
    fill = f"""cat /seeded/file; df -k /data | {{ read x; read device blocks rest; echo $blocks; }}
        i=0; for size in 19g 512m 64m 4m 128k 4k; do
            while busybox fallocate -l $size /data/$i 2>/dev/null; do i=$((i+1)); done; rm -f /data/$i; i=$((i+1)); done
        for file in {" ".join(places)}; do cat /bin/busybox 2>/dev/null >> $file || echo full; done
        rm /data/0; cat /bin/busybox > {places[-2]} && echo room"""
    arn = host.start(sh(fill, mountPoints=mounts), task=task, launchType="FARGATE", networkConfiguration=NETWORK)
    assert "Hello from Gantry" in neighbour()
    host.end(arn)
    seeded, blocks, *said = host.lines(arn)
    assert seeded == "from the image"
    assert 20 << 20 < int(blocks) < 21 << 20 and said == ["full"] * len(places) + ["room"], said
    assert "Hello from Gantry" in neighbour()
    of_task = lambda: [line for line in pathlib.Path("/proc/self/mountinfo").read_text().splitlines() if arn.split("/")[-1] in line]
    until(lambda: not of_task() and not [path for path in below(host.platform.directory) if path.suffix == ".img"])


def test_an_agent_killed_among_many_tasks_loses_nothing(host):
    """Some end while nobody watches: their ends are reported, and every line is in its log once and in its place."""
    definition = host.ecs.register_task_definition(family="many", networkMode="bridge", containerDefinitions=[{
        "name": "app", "image": IMAGE, "memory": 16, "stopTimeout": 1, "logConfiguration": {
            "logDriver": "awslogs", "options": {"awslogs-group": "many", "awslogs-stream-prefix": "m"}},
        **sh("i=0; while test $i -lt $LINES_OF; do echo line $i; i=$((i+1)); sleep 0.2; done; test $STAYS || exit 7; exec sleep 1000"),
    }])["taskDefinition"]["taskDefinitionArn"]
    lines, arns = 60, {}
    for index in range(TASKS):
        stays = index % 2
        variables = [{"name": "LINES_OF", "value": str(lines)}, {"name": "STAYS", "value": "yes" if stays else ""}]
        answer = host.ecs.run_task(taskDefinition=definition, overrides={
            "containerOverrides": [{"name": "app", "environment": variables}]})
        assert answer["failures"] == []
        arns[answer["tasks"][0]["taskArn"]] = bool(stays)

    def described():
        return {t["taskArn"]: t for t in host.ecs.describe_tasks(tasks=list(arns))["tasks"]}
    # Docker makes one container after the other.
    until(lambda: all(t["lastStatus"] != "PENDING" for t in described().values()), seconds=180)
    before = described()
    host.platform.end(signal.SIGKILL)
    time.sleep(lines * 0.2 + 3)
    host.platform.start()
    host.ecs = host.platform.client("ecs")
    until(lambda: all(t["lastStatus"] == ("RUNNING" if arns[arn] else "STOPPED") for arn, t in described().items()))
    for arn, task in described().items():
        app, = task["containers"]
        assert app["runtimeId"] == before[arn]["containers"][0]["runtimeId"]
        assert task["startedAt"] == before[arn]["startedAt"]
        if not arns[arn]:
            assert (app["exitCode"], task["stopCode"]) == (7, "EssentialContainerExited"), task
    logs = host.platform.client("logs")
    expected = [f"line {i}" for i in range(lines)]

    def said(arn):
        stream, token, all_lines = f"m/app/{arn.split('/')[-1]}", None, []
        while True:
            more = {"nextToken": token} if token else {}
            answer = logs.get_log_events(logGroupName="many", logStreamName=stream, startFromHead=True, **more)
            all_lines += [e["message"] for e in answer["events"]]
            if answer["nextForwardToken"] == token:
                return all_lines
            token = answer["nextForwardToken"]
    for arn in arns:
        until(lambda: len(said(arn)) >= lines)
        assert said(arn) == expected
    for arn, stays in arns.items():
        if stays:
            host.ecs.stop_task(task=arn)
    until(lambda: all(t["lastStatus"] == "STOPPED" for t in described().values()))


@runs_once
def test_after_a_restart_of_the_host_services_come_back_and_nothing_dead_is_left(host):
    """The host's memory is lost: processes, control groups, namespaces, addresses and rules. Its disk is there."""
    platform = host.platform
    for mode, network in ("awsvpc", {"networkConfiguration": NETWORK}), ("bridge", {}):
        host.ecs.register_task_definition(family=f"reboot-{mode}", networkMode=mode, containerDefinitions=[
            {"name": "web", "image": "nginx", "memory": 64, "portMappings": [{"containerPort": 80}]}])
        host.ecs.create_service(serviceName=mode, taskDefinition=f"reboot-{mode}", desiredCount=2, **network)
    lone = host.start(sh("exec sleep 1000"))
    wait(host.ecs, "services_stable", services=["awsvpc", "bridge"])
    wait(host.ecs, "tasks_running", tasks=[lone])
    before = host.ecs.list_tasks()["taskArns"]
    platform.end(signal.SIGKILL)
    for top in {g for arn in before for g in groups(arn)}:
        # A shim that outlives its container takes the group away meanwhile, which this way of looking does not mind.
        for directory, _, _ in os.walk(top):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                for pid in pathlib.Path(directory, "cgroup.procs").read_text().split():
                    os.kill(int(pid), signal.SIGKILL)
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            files = [os.readlink(f) for f in (process / "fd").iterdir()]
            is_shim = (process / "comm").read_text().startswith("gantry-shim")
        except OSError:
            continue
        if is_shim and any(file.startswith(str(platform.directory)) for file in files):
            os.kill(int(process.name), signal.SIGKILL)
    listed = subprocess.run([binary(), "sweep", "--data-dir", platform.directory, "--list"], check=True,
                            capture_output=True, text=True).stdout.splitlines()
    for thing in listed:
        kind, _, name = thing.rpartition(" ")
        if kind == "link":
            subprocess.run(["ip", "link", "delete", name], check=True)
            if name.startswith("gb-"):
                shutil.rmtree(f"/run/gantry/{name.removeprefix('gb-')}.containers")
        elif kind == "nf_tables table":
            subprocess.run(["nft", "delete", "table", "ip", name], check=False)
        elif kind == "network namespace":
            subprocess.run(["umount", f"/run/netns/{name}"], check=False)
            pathlib.Path(f"/run/netns/{name}").unlink()
    for top in sorted({g for arn in before for g in groups(arn)}, key=lambda g: -len(str(g))):
        for path in sorted((pathlib.Path(d) for d, _, _ in os.walk(top)), key=lambda p: -len(str(p))):
            with contextlib.suppress(FileNotFoundError):
                until(lambda: not (path / "cgroup.procs").read_text().strip())
                path.rmdir()
    platform.start()
    host.ecs = platform.client("ecs")
    wait(host.ecs, "tasks_stopped", tasks=[lone])
    wait(host.ecs, "services_stable", services=["awsvpc", "bridge"])
    now = host.ecs.list_tasks()["taskArns"]
    assert len(now) == 4 and not set(now) & set(before)
    for arn in now:
        task = describe(host.ecs, arn)
        if task["attachments"]:
            assert "Hello from Gantry" in page(f"http://{address(task)}/")
    for arn in before:
        assert describe(host.ecs, arn)["lastStatus"] == "STOPPED" and groups(arn) == []
    for mode in "awsvpc", "bridge":
        host.ecs.delete_service(service=mode, force=True)
