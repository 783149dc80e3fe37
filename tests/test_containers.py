"""What a container definition says, seen from inside the container: one program on a small image, and its words."""

import hashlib
import io
import json
import pathlib
import shutil
import subprocess
import tarfile
import time

import pytest
from conftest import Platform, binary, leftovers, needs_root, wait
from test_tasks import describe, run

BUSYBOX = shutil.which("busybox")
pytestmark = [needs_root, pytest.mark.skipif(not BUSYBOX, reason="needs a static busybox (Debian: busybox-static)")]

IMAGE = "local/tools:1"
APPLETS = ["cat", "chown", "df", "echo", "env", "false", "grep", "head", "hostname", "id", "ls", "mkdir", "nc", "ps", "pwd",
           "sh", "sleep", "stat", "touch", "true", "ulimit", "wc", "wget"]


def image(directory):
    """What `docker save` makes of busybox with a few files of its own, one of them below /seeded."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as file:
        def add(path, content=None, link=None, mode=0o755, owner=0):
            info = tarfile.TarInfo(path)
            info.mode, info.uid, info.gid = mode, owner, owner
            if link is not None:
                info.type, info.linkname = tarfile.SYMTYPE, link
            elif content is None:
                info.type = tarfile.DIRTYPE
            else:
                info.size = len(content)
            file.addfile(info, io.BytesIO(content) if content else None)
        for path in "bin", "etc", "tmp":
            add(path, mode=0o1777 if path == "tmp" else 0o755)
        add("bin/busybox", pathlib.Path(BUSYBOX).read_bytes())
        for applet in APPLETS:
            add(f"bin/{applet}", link="busybox")
        add("etc/passwd", b"root:x:0:0:root:/:/bin/sh\nworker:x:1234:1234::/tmp:/bin/sh\n", mode=0o644)
        add("etc/group", b"root:x:0:\nworker:x:1234:\n", mode=0o644)
        add("seeded", owner=1234, mode=0o750)
        add("seeded/file", b"from the image\n", owner=1234, mode=0o640)
    config = json.dumps({
        "architecture": "amd64", "os": "linux",
        "config": {"Cmd": ["sh", "-c", "echo from the image"], "Env": ["PATH=/bin", "OF_IMAGE=yes"]},
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(layer.getvalue()).hexdigest()]},
    }).encode()
    manifest = json.dumps([{"Config": "config.json", "RepoTags": [IMAGE], "Layers": ["layer.tar"]}]).encode()
    with tarfile.open(directory / "tools.tar", "w") as file:
        for path, content in ("layer.tar", layer.getvalue()), ("config.json", config), ("manifest.json", manifest):
            info = tarfile.TarInfo(path)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return directory / "tools.tar"


class Host:
    """One installation for all tests here: what they run does not get in each other's way."""

    def __init__(self, platform):
        self.platform = platform
        self.ecs = platform.client("ecs")

    def start(self, *containers, task=None, **arguments):
        """Runs a task of these containers; its ARN. The first container is `app`, and essential."""
        definitions = [{"name": "app" if i == 0 else f"app{i}", "image": IMAGE, "memory": 32, "essential": i == 0, **c}
                       for i, c in enumerate(containers)]
        definition = {"family": "tools", "networkMode": "bridge", "containerDefinitions": definitions, **(task or {})}
        return run(self.ecs, definition, **arguments)

    def end(self, arn):
        """The task once it has stopped."""
        wait(self.ecs, "tasks_stopped", tasks=[arn])
        return describe(self.ecs, arn)

    def lines(self, arn, container="app"):
        """What it has written so far; nothing while it has no log yet."""
        try:
            return self.platform.gantry("logs", arn, "--container", container).stdout.splitlines()
        except subprocess.CalledProcessError:
            return []

    def says(self, script, task=None, beside=(), arguments=None, **container):
        """What a shell script says in a container, which has to succeed."""
        app = {"entryPoint": ["sh", "-c"], "command": [script], **container}
        arn = self.start(app, *beside, task=task, **(arguments or {}))
        task = self.end(arn)
        app = next(c for c in task["containers"] if c["name"] == "app")
        said = self.lines(arn) if "exitCode" in app else None
        assert app.get("exitCode") == 0, (app, task.get("stoppedReason"), said)
        return said

    def fails(self, **arguments):
        """Why a task does not start."""
        return self.end(self.start(*arguments.pop("containers", [{}]), **arguments))


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    directory = tmp_path_factory.mktemp("containers")
    installation = Platform(directory / "gantry")
    subprocess.run([binary(), "image", "--data-dir", installation.directory, "load", image(directory)], check=True)
    installation.start()
    try:
        yield Host(installation)
    finally:
        installation.sweep()
    assert leftovers(installation.directory) == []


def sh(script, **members):
    return {"entryPoint": ["sh", "-c"], "command": [script], **members}


def until(what, seconds=20):
    """The first true answer."""
    deadline = time.monotonic() + seconds
    while True:
        answer = what()
        if answer:
            return answer
        assert time.monotonic() < deadline, "it did not come to be"
        time.sleep(0.1)


def test_program_and_environment(host):
    assert host.says("echo $OF_IMAGE $MINE", environment=[{"name": "MINE", "value": "two words"}]) == ["yes two words"]
    assert host.says("env | grep -c ^AWS_REGION=us-east-1") == ["1"]
    arn = host.start({})
    host.end(arn)
    assert host.lines(arn) == ["from the image"]
    said = host.says("id -u; id -g; pwd; hostname", user="worker", workingDirectory="/tmp/made", hostname="its-name")
    assert said == ["1234", "1234", "/tmp/made", "its-name"]


def test_names_and_name_servers(host):
    said = host.says("cat /etc/hosts /etc/resolv.conf", extraHosts=[{"hostname": "other", "ipAddress": "10.1.2.3"}],
                     dnsServers=["10.9.9.9"], dnsSearchDomains=["corp.test"])
    assert "10.1.2.3\tother" in said and "nameserver 10.9.9.9" in said and "search corp.test" in said


def test_links_name_a_neighbour_and_its_ports(host):
    said = host.says(
        "cat /etc/hosts; env; wget -q -O - http://database:8080/ || exit 1", links=["app1:database"],
        beside=[sh("while true; do printf 'HTTP/1.0 200 OK\\r\\n\\r\\nhello' | nc -l -p 8080; done",
                   portMappings=[{"containerPort": 8080}])])
    assert any(line.endswith("\tdatabase app1") for line in said), said
    assert "DATABASE_PORT_8080_TCP_PORT=8080" in said and "DATABASE_NAME=/app/database" in said
    assert said[-1] == "hello"


def test_volumes_of_all_kinds(host, tmp_path):
    (tmp_path / "given").write_text("by the host\n")
    of_host = {"name": "host", "host": {"sourcePath": str(tmp_path)}}
    own = {"name": "own", "host": {}}
    point = lambda volume, path, **more: {"sourceVolume": volume, "containerPath": path, **more}
    said = host.says(
        "cat /h/given; echo back > /h/taken; echo shared > /own/file; sleep 1; cat /own/answer; touch /ro/x 2>&1; ls /ro",
        task={"volumes": [of_host, own]},
        mountPoints=[point("host", "/h"), point("own", "/own"), point("host", "/ro", readOnly=True)],
        beside=[sh("while ! test -e /own/file; do sleep 0.05; done; echo seen > /own/answer; sleep 5",
                   volumesFrom=[{"sourceContainer": "app"}])])
    assert said[:2] == ["by the host", "seen"] and said[-2:] == ["given", "taken"], said
    assert "Read-only file system" in said[2]
    assert (tmp_path / "taken").read_text() == "back\n" and not (tmp_path / "x").exists()


def test_docker_volumes_have_a_scope(host):
    def volume(name, **configuration):
        return {"volumes": [{"name": name, "dockerVolumeConfiguration": configuration}]}
    points = [{"sourceVolume": "kept", "containerPath": "/kept"}]
    shared = volume("kept", scope="shared", autoprovision=True, driver="local")
    assert host.says("echo once >> /kept/log; cat /kept/log", task=shared, mountPoints=points) == ["once"]
    assert host.says("echo twice >> /kept/log; cat /kept/log", task=shared, mountPoints=points) == ["once", "twice"]
    task = volume("kept", scope="task")
    for _ in range(2):
        assert host.says("echo new >> /kept/log; cat /kept/log", task=task, mountPoints=points) == ["new"]
    absent = volume("absent", scope="shared", autoprovision=False, driver="local")
    stopped = host.fails(task=absent, containers=[{"mountPoints": [{"sourceVolume": "absent", "containerPath": "/a"}]}])
    assert stopped["containers"][0]["reason"].startswith("CannotCreateVolumeError: volume absent: no such volume")


def test_a_restart_policy_keeps_a_container_and_what_it_wrote(host):
    again = sh("echo run >> /runs; cat /runs; test $(wc -l < /runs) -gt 1 && exec sleep 100; sleep 61; exit 3",
               restartPolicy={"enabled": True, "restartAttemptPeriod": 60, "ignoredExitCodes": [7]})
    arn = host.start(sh("sleep 200"), again)
    until(lambda: host.lines(arn, "app1") == ["run", "run", "run"], seconds=90)
    assert [c["lastStatus"] for c in describe(host.ecs, arn)["containers"]] == ["RUNNING", "RUNNING"]
    host.ecs.stop_task(task=arn)
    host.end(arn)
