"""What a container definition says, seen from inside the container: one program on a small image, and its words."""

import hashlib
import io
import json
import os
import pathlib
import platform
import re
import resource
import shutil
import signal
import socket
import stat
import subprocess
import tarfile
import time

import pytest
from conftest import NETWORK, Platform, below, engines, groups, leftovers, needs_root, runs_once, until, wait
from test_tasks import describe, run

BUSYBOX = shutil.which("busybox")
pytestmark = [needs_root, pytest.mark.skipif(not BUSYBOX, reason="needs a static busybox (Debian: busybox-static)")]

IMAGE = "local/tools:1"
APPLETS = ["cat", "chown", "df", "echo", "env", "false", "grep", "head", "hostname", "id", "ls", "mkdir", "mount", "nc", "ps", "pwd",
           "sh", "sleep", "stat", "touch", "true", "ulimit", "wc", "wget"]


def image(directory, name=IMAGE, **config):
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
        add("declared", owner=1234)
        add("seeded/file", b"from the image\n", owner=1234, mode=0o640)
    config = json.dumps({
        "architecture": "amd64", "os": "linux",
        "config": {"Cmd": ["sh", "-c", "echo from the image"], "Env": ["PATH=/bin", "OF_IMAGE=yes"],
                   "Volumes": {"/declared": {}}, **config},
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(layer.getvalue()).hexdigest()]},
    }).encode()
    manifest = json.dumps([{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]).encode()
    archive = directory / f"{name.replace('/', '-')}.tar"
    with tarfile.open(archive, "w") as file:
        for path, content in ("layer.tar", layer.getvalue()), ("config.json", config), ("manifest.json", manifest):
            info = tarfile.TarInfo(path)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return archive


class Host:
    """One installation for all tests here: what they run does not get in each other's way."""

    def __init__(self, platform):
        self.platform = platform
        self.ecs = platform.client("ecs")

    def start(self, *containers, task=None, **arguments):
        """Runs a task of these containers; its ARN. The first container is `app`, and essential."""
        definitions = [{"name": "app" if i == 0 else f"app{i}", "image": IMAGE, "memory": 32, "essential": i == 0, **c}
                       for i, c in enumerate(containers)]
        definitions = [{name: value for name, value in d.items() if value is not None} for d in definitions]
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

    def may_be_privileged(self):
        """Whether this host can start privileged containers: Docker gives them rights that its root may not have."""
        has = int(re.search(r"CapEff:\s*(\w+)", pathlib.Path("/proc/self/status").read_text())[1], 16)
        last = int(pathlib.Path("/proc/sys/kernel/cap_last_cap").read_text())
        return "DOCKER_HOST" not in self.platform.variables or has == (2 << last) - 1

    def fails(self, **arguments):
        """Why a task does not start."""
        return self.end(self.start(*arguments.pop("containers", [{}]), **arguments))


engine = engines()


@pytest.fixture(scope="module")
def host(tmp_path_factory, engine):
    directory = tmp_path_factory.mktemp("containers")
    (directory / "efs" / "data").mkdir(parents=True)
    (directory / "devices").mkdir()
    for name in "nvidia0", "nvidia1", "nvidiactl":
        # As /dev/null: what a container sees of them is what counts.
        os.mknod(directory / "devices" / name, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    installation = Platform(directory / "gantry", "--efs", f"fs-0a1b2c3d={directory}/efs",
                            "--efs", f"fsap-0a1b2c3d={directory}/efs/data", "--efs", "fs-00000000=127.0.0.1:/nowhere",
                            "--gpu-devices", directory / "devices", docker=engine)
    installation.image("load", image(directory))
    installation.start()
    try:
        yield Host(installation)
    finally:
        installation.sweep()
    assert leftovers(installation.directory) == []


def sh(script, **members):
    return {"entryPoint": ["sh", "-c"], "command": [script], **members}


def test_program_and_environment(host):
    assert host.says("echo $OF_IMAGE $MINE", environment=[{"name": "MINE", "value": "two words"}]) == ["yes two words"]
    assert host.says("env | grep -c ^AWS_REGION=us-east-1") == ["1"]
    arn = host.start({})
    host.end(arn)
    assert host.lines(arn) == ["from the image"]
    said = host.says("id -u; id -g; pwd; hostname; stat -c %a /tmp/made", user="worker", workingDirectory="/tmp/made",
                     hostname="its-name")
    assert said == ["1234", "1234", "/tmp/made", "its-name", "755"]


def test_names_and_name_servers(host):
    said = host.says("cat /etc/hosts /etc/resolv.conf", extraHosts=[{"hostname": "other", "ipAddress": "10.1.2.3"}],
                     dnsServers=["10.9.9.9"], dnsSearchDomains=["corp.test"])
    assert "10.1.2.3\tother" in said and "nameserver 10.9.9.9" in said and "search corp.test" in said


@pytest.mark.parametrize("mode", ["bridge", "awsvpc", "host"])
def test_a_container_knows_its_own_name(host, mode):
    network = {"arguments": NETWORKED} if mode == "awsvpc" else {}
    said = host.says("hostname; cat /etc/hostname; echo $HOSTNAME; cat /etc/hosts", task={"networkMode": mode}, **network)
    name, hosts = said[0], [line.split("#")[0].split() for line in said[3:]]
    assert said[1:3] == [name, name]
    if mode == "host":
        assert name == socket.gethostname() and said[3:] == pathlib.Path("/etc/hosts").read_text().splitlines()
    else:
        address, = [line[0] for line in hosts if name in line[1:]]
        assert re.fullmatch(r"\d+\.\d+\.\d+\.\d+", address) and not address.startswith("127."), said


def test_links_name_a_neighbour_and_its_ports(host):
    said = host.says(
        "cat /etc/hosts; env; wget -q -O - http://database:8080/ || exit 1", links=["app1:database"],
        beside=[sh("while true; do printf 'HTTP/1.0 200 OK\\r\\n\\r\\nhello' | nc -l -p 8080; done",
                   portMappings=[{"containerPort": 8080}])])
    assert any(re.search(r"\tdatabase .*app1", line) for line in said), said
    assert "DATABASE_PORT_8080_TCP_PORT=8080" in said
    assert any(re.fullmatch(r"DATABASE_NAME=/\S*app\S*/database", line) for line in said), said
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


def test_an_empty_volume_begins_with_what_the_image_has(host):
    task = {"volumes": [{"name": "seeded", "host": {}}]}
    point = [{"sourceVolume": "seeded", "containerPath": "/seeded"}]
    said = host.says("cat /seeded/file; stat -c '%u %a' /seeded /seeded/file; echo more > /seeded/more; ls /other",
                     task=task, user="worker",
                     mountPoints=point + [{"sourceVolume": "seeded", "containerPath": "/other"}])
    assert said == ["from the image", "1234 750", "1234 640", "file", "more"]


def test_a_volume_that_the_image_declares(host):
    said = host.says("touch /x 2>/dev/null || echo read-only; echo mine > /declared/file; sleep 1; cat /declared/answer",
                     user="worker", readonlyRootFilesystem=True,
                     beside=[sh("while ! test -e /declared/file; do sleep 0.05; done; echo seen > /declared/answer; sleep 5",
                                volumesFrom=[{"sourceContainer": "app"}])])
    assert said == ["read-only", "seen"]


def test_no_network_at_all(host):
    said = host.says("ls /sys/class/net; env | grep -c METADATA || echo none", disableNetworking=True)
    assert said == ["lo", "0", "none"]
    assert host.says("ls /sys/class/net", task={"networkMode": "none"}) == ["lo"]


@runs_once
def test_a_restart_policy_keeps_a_container_and_what_it_wrote(host):
    again = sh("echo run >> /runs; cat /runs; test $(wc -l < /runs) -gt 1 && exec sleep 100; sleep 61; exit 3",
               restartPolicy={"enabled": True, "restartAttemptPeriod": 60, "ignoredExitCodes": [7]})
    arn = host.start(sh("sleep 200"), again)
    until(lambda: host.lines(arn, "app1") == ["run", "run", "run"], seconds=90)
    assert [c["lastStatus"] for c in describe(host.ecs, arn)["containers"]] == ["RUNNING", "RUNNING"]
    host.ecs.stop_task(task=arn)
    host.end(arn)


NETWORKED = {"networkConfiguration": NETWORK}
ASK = 'ask() { wget -q -O - "$1"; echo; }; '


@pytest.mark.parametrize("mode", ["bridge", "awsvpc", "host"])
def test_metadata_is_the_tasks_own(host, mode):
    more = {"arguments": NETWORKED} if mode == "awsvpc" else {}
    mapping = [{"containerPort": 7654, "protocol": "tcp"}]
    said = host.says(
        ASK + "nc -l -p 80 < /dev/null & sleep 0.5; ask $ECS_CONTAINER_METADATA_URI_V4; ask $ECS_CONTAINER_METADATA_URI_V4/task; "
        "ask $ECS_CONTAINER_METADATA_URI/task; ask $ECS_CONTAINER_METADATA_URI_V4/taskWithTags; "
        "wget -q -O - $ECS_CONTAINER_METADATA_URI_V4-no/task 2>/dev/null || echo none",
        task={"networkMode": mode, "family": f"meta-{mode}"}, portMappings=mapping, dockerLabels={"mine": "yes"}, cpu=64, **more)
    container, task, older, tagged = map(json.loads, said[:4])
    assert said[4] == "none"
    assert (container["Name"], container["Image"], container["KnownStatus"]) == ("app", IMAGE, "RUNNING")
    assert container["Limits"] == {"CPU": 64, "Memory": 32} and container["Type"] == "NORMAL"
    assert container["Labels"]["mine"] == "yes"
    assert container["Labels"]["com.amazonaws.ecs.task-arn"] == task["TaskARN"]
    described = describe(host.ecs, task["TaskARN"])
    assert container["ContainerARN"] == described["containers"][0]["containerArn"]
    assert container["DockerId"] == described["containers"][0]["runtimeId"]
    assert container["StartedAt"] and container["LogDriver"] == "json-file"
    assert (task["Family"], task["Revision"], task["DesiredStatus"]) == (f"meta-{mode}", "1", "RUNNING")
    assert (task["LaunchType"], task["Cluster"]) == ("EC2", "default")
    assert task["Containers"] == [container] and tagged["TaskARN"] == task["TaskARN"]
    assert "LaunchType" not in older and "ContainerARN" not in older["Containers"][0]
    network = container["Networks"][0]
    assert network["NetworkMode"] == mode
    if mode == "awsvpc":
        details = {d["name"]: d["value"] for d in described["attachments"][0]["details"]}
        assert network["IPv4Addresses"] == [details["privateIPv4Address"]]
        assert network["MACAddress"] == details["macAddress"]
        assert container["Ports"] == [{"ContainerPort": 7654, "Protocol": "tcp", "HostPort": 7654}]
    elif mode == "bridge":
        binding = described["containers"][0]["networkBindings"][0]
        assert container["Ports"][0]["HostPort"] == binding["hostPort"]


def test_tasks_on_fargate_capacity_are_told_their_own_cluster(host):
    size = {"networkMode": "awsvpc", "requiresCompatibilities": ["FARGATE"], "cpu": "256", "memory": "512"}
    said = host.says(ASK + "ask $ECS_CONTAINER_METADATA_URI_V4/task", task=size, arguments={"launchType": "FARGATE"})
    task = json.loads(said[0])
    cluster, = host.ecs.describe_clusters(clusters=["default"])["clusters"]
    assert (task["Cluster"], task["LaunchType"]) == (cluster["clusterArn"], "FARGATE")
    assert task["Containers"][0]["Labels"]["com.amazonaws.ecs.cluster"] == cluster["clusterArn"]


def test_a_task_cannot_ask_for_another(host):
    arn = host.start(sh("env; exec sleep 100"))
    known = "ECS_CONTAINER_METADATA_URI_V4="
    other = until(lambda: next((line.split("/v4/")[1] for line in host.lines(arn) if line.startswith(known)), None))
    said = host.says(f"wget -q -O - http://169.254.170.2/v4/{other}/task 2>/dev/null || echo refused; "
                     f"wget -q -O - http://169.254.170.2/v2/credentials/{other} 2>/dev/null || echo none")
    assert said == ["refused", "none"]
    host.ecs.stop_task(task=arn)


def test_statistics_are_docker_s(host):
    said = host.says(ASK + "i=0; while test $i -lt 20000; do i=$((i+1)); done; ask $ECS_CONTAINER_METADATA_URI_V4/stats; "
                     "ask $ECS_CONTAINER_METADATA_URI_V4/task/stats")
    own, task = map(json.loads, said)
    assert own["cpu_stats"]["cpu_usage"]["total_usage"] > 0
    assert 0 < own["memory_stats"]["usage"] <= own["memory_stats"]["limit"] == 32 << 20
    assert own["networks"]["eth0"]["tx_bytes"] > 0
    assert list(task) == [own["id"]]


def test_version_two_and_a_task_without_a_role(host):
    said = host.says(ASK + "ask http://169.254.170.2/v2/metadata; ask http://169.254.170.2/v2/stats; "
                     "wget -O - http://169.254.170.2/v2/credentials/1 2>&1 | grep -c 400",
                     task={"networkMode": "awsvpc"}, arguments=NETWORKED)
    metadata, stats = map(json.loads, said[:2])
    assert [metadata["Containers"][0]["DockerId"]] == list(stats)
    assert said[2] == "1"


def test_a_task_protects_itself(host):
    ask = "wget -q -O - $ECS_AGENT_URI/task-protection/v1/state; echo"
    put = ('B=\'{"ProtectionEnabled":true,"ExpiresInMinutes":30}\'; U=${ECS_AGENT_URI#http://169.254.170.2}; '
           'printf "PUT $U/task-protection/v1/state HTTP/1.0\\r\\nHost: x\\r\\nContent-Length: ${#B}\\r\\n\\r\\n$B" '
           "| nc 169.254.170.2 80; echo; ")
    definition = {"family": "protected", "taskRoleArn": "arn:aws:iam::123456789012:role/protector", "containerDefinitions": [
        {"name": "app", "image": IMAGE, "memory": 32, **sh(f"{ask}; {put} {ask}; exec sleep 1000")}]}
    registered = host.ecs.register_task_definition(**definition)["taskDefinition"]["taskDefinitionArn"]
    host.ecs.create_service(serviceName="protected", taskDefinition=registered, desiredCount=1)
    arn = until(lambda: host.ecs.list_tasks(serviceName="protected")["taskArns"])[0]
    lines = until(lambda: [line for line in host.lines(arn) if line.startswith("{")][2:] and host.lines(arn))
    shown = [json.loads(line)["protection"] for line in lines if line.startswith("{")]
    assert [one["ProtectionEnabled"] for one in shown] == [False, True, True]
    protected = host.ecs.get_task_protection(cluster="default", tasks=[arn])["protectedTasks"][0]
    assert protected["protectionEnabled"] and shown[1]["TaskArn"] == arn and "ExpirationDate" in shown[1]
    host.ecs.delete_service(service="protected", force=True)
    said = host.says("wget -O - $ECS_AGENT_URI/task-protection/v1/state 2>&1 | grep -c 403")
    assert said == ["1"], "as on ECS, it is the task's role that asks"


def check(command, **more):
    return {"healthCheck": {"command": command, "interval": 5, "timeout": 2, "retries": 1, **more}}


def test_health_is_checked_and_waited_for(host):
    arn = host.start(
        sh("cat /shared/ready; exec sleep 100", dependsOn=[{"containerName": "app1", "condition": "HEALTHY"}],
           mountPoints=[{"sourceVolume": "shared", "containerPath": "/shared"}], **check(["CMD", "/bin/true"])),
        sh("sleep 2; echo by then > /shared/ready; exec sleep 100",
           mountPoints=[{"sourceVolume": "shared", "containerPath": "/shared"}],
           **check(["CMD-SHELL", "test -e /shared/ready || exit 1"], startPeriod=10)),
        task={"volumes": [{"name": "shared", "host": {}}]})
    assert until(lambda: host.lines(arn)) == ["by then"]
    healthy = until(lambda: describe(host.ecs, arn)["healthStatus"] == "HEALTHY" and describe(host.ecs, arn))
    assert [c["healthStatus"] for c in healthy["containers"]] == ["HEALTHY", "HEALTHY"]
    host.ecs.stop_task(task=arn)


@runs_once
def test_an_unhealthy_task_of_a_service_is_replaced(host):
    definition = {"family": "sick", "containerDefinitions": [
        {"name": "app", "image": IMAGE, "memory": 32, **sh("exec sleep 1000"),
         **check(["CMD-SHELL", "echo not well; exit 3"])}]}
    registered = host.ecs.register_task_definition(**definition)["taskDefinition"]["taskDefinitionArn"]
    host.ecs.create_service(serviceName="sick", taskDefinition=registered, desiredCount=1, deploymentConfiguration={
        "minimumHealthyPercent": 0, "maximumPercent": 100})
    first = until(lambda: host.ecs.list_tasks(serviceName="sick")["taskArns"])[0]
    gone = until(lambda: describe(host.ecs, first)["lastStatus"] == "STOPPED" and describe(host.ecs, first))
    assert gone["stoppedReason"] == "Task failed container health checks"
    assert gone["healthStatus"] == "UNHEALTHY" and gone["stopCode"] == "ServiceSchedulerInitiated"
    events = [e["message"] for e in host.ecs.describe_services(services=["sick"])["services"][0]["events"]]
    assert f"(service sick) (task {first.split('/')[-1]}) failed container health checks." in events
    host.ecs.delete_service(service="sick", force=True)


@runs_once
def test_a_dependency_that_cannot_be_met_ends_the_task(host):
    stopped = host.fails(containers=[
        sh("exec sleep 100", dependsOn=[{"containerName": "app1", "condition": "SUCCESS"}]), sh("exit 4")])
    assert stopped["containers"][0]["reason"].startswith("CannotStartContainerError: dependency graph: ")
    assert stopped["containers"][0]["exitCode"] == 143
    stopped = host.fails(containers=[
        sh("exec sleep 100", dependsOn=[{"containerName": "app1", "condition": "COMPLETE"}]),
        sh("exec sleep 100", startTimeout=2)])
    assert stopped["containers"][0]["reason"].startswith("CannotStartContainerError: dependency graph: ")


def test_an_image_says_by_which_signal_it_is_ended(host, tmp_path):
    for name, word in ("local/real-time:1", "SIGRTMIN+3"), ("local/unknown:1", "SIGNOTHING"):
        host.platform.image("load", image(tmp_path, name, StopSignal=word))
    script = "trap 'exit 7' 37; echo ready; while true; do sleep 0.1; done"
    arn = host.start(sh(script, image="local/real-time:1"))
    until(lambda: host.lines(arn) == ["ready"])
    host.ecs.stop_task(task=arn)
    assert host.end(arn)["containers"][0]["exitCode"] == 7
    container, = host.fails(containers=[{"image": "local/unknown:1"}])["containers"]
    assert container["reason"] == "CannotCreateContainerError: invalid signal: SIGNOTHING"


def test_a_container_may_take_its_time_to_stop(host):
    arn = host.start(sh("trap 'sleep 3; echo done; exit 5' TERM; echo up; while true; do sleep 0.1; done", stopTimeout=10))
    until(lambda: host.lines(arn))
    host.ecs.stop_task(task=arn)
    assert host.end(arn)["containers"][0]["exitCode"] == 5 and host.lines(arn) == ["up", "done"]
    arn = host.start(sh("trap '' TERM; echo up; while true; do sleep 0.1; done", stopTimeout=2))
    until(lambda: host.lines(arn))
    host.ecs.stop_task(task=arn)
    assert host.end(arn)["containers"][0]["exitCode"] == 137


def test_linux_parameters(host):
    linux = {"initProcessEnabled": True, "sharedMemorySize": 8, "tmpfs": [
        {"containerPath": "/memory", "size": 4, "mountOptions": ["noexec", "mode=750"]}],
        "devices": [{"hostPath": "/dev/kmsg", "containerPath": "/dev/words", "permissions": ["read"]}],
        "capabilities": {"add": ["SYS_TIME"], "drop": ["CHOWN"]}}
    said = host.says(
        "head -c 100 /proc/1/cmdline; echo; df -k /dev/shm /memory; stat -c %a,%F /memory; stat -c %F /dev/words; "
        "touch /tmp/x; chown 1 /tmp/x 2>/dev/null || echo no chown; grep CapEff /proc/self/status", linuxParameters=linux)
    assert not said[0].startswith("sh\0"), said
    sizes = {line.split()[-1]: line.split()[1] for line in said if line.endswith(("/dev/shm", "/memory"))}
    assert sizes == {"/dev/shm": "8192", "/memory": "4096"}, said
    assert "750,directory" in said and "character special file" in said and "no chown" in said
    effective = int(said[-1].split()[1], 16)
    assert effective & 1 << 25 and not effective & 1


def test_limits_and_settings(host, engine):
    said = host.says(
        "ulimit -n; cat /proc/sys/net/core/somaxconn; touch /x 2>/dev/null || echo read-only; grep NoNewPrivs /proc/self/status",
        ulimits=[{"name": "nofile", "softLimit": 321, "hardLimit": 400}],
        systemControls=[{"namespace": "net.core.somaxconn", "value": "77"}], readonlyRootFilesystem=True,
        dockerSecurityOptions=["no-new-privileges"])
    assert said[:3] == ["321", "77", "read-only"] and said[3].split() == ["NoNewPrivs:", "1"]
    if not engine:
        # Fargate's, however few descriptors Gantry was started with.
        most = min(65535, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
        assert host.says("ulimit -n; ulimit -Hn") == [str(most), str(most)]


def test_terminals_and_open_input(host):
    assert host.says("test -t 0 && test -t 1 && echo terminal", pseudoTerminal=True) == ["terminal"]
    assert host.says("test -t 0 || echo none; cat && echo its end") == ["none", "its end"]
    arn = host.start(sh("cat; echo its end", interactive=True))
    wait(host.ecs, "tasks_running", tasks=[arn])
    time.sleep(1)
    assert host.lines(arn) == []
    host.ecs.stop_task(task=arn)


@pytest.mark.parametrize("mode", ["bridge", "host"])
def test_processes_and_shared_memory_of_a_task(host, mode):
    said = host.says(
        "echo of one > /dev/shm/note; sleep 2; ps; cat /dev/shm/answer",
        task={"pidMode": "task", "ipcMode": "task", "networkMode": mode},
        beside=[sh("while ! test -e /dev/shm/note; do sleep 0.1; done; cat /dev/shm/note > /dev/shm/answer; exec sleep 98")])
    assert said[-1] == "of one" and any("sleep 98" in line for line in said), said
    own = host.says("ps; ls /dev/shm")
    assert not any("sleep 98" in line for line in own)
    host_wide = host.says("ps", task={"pidMode": "host", "ipcMode": "host"})
    assert any("gantry" in line for line in host_wide)


def test_a_tasks_size_is_a_limit_for_all_its_containers(host):
    eater = sh("i=xxxxxxxx; while test ${#i} -lt 30000000; do i=$i$i; done; echo full; sleep 3", memory=None)
    task = {"cpu": "128", "memory": "128"}
    assert host.says(eater["command"][0], task=task, memory=None) == ["full"]
    both = host.end(host.start(eater, eater, task={"cpu": "128", "memory": "60"}))
    assert 137 in [c.get("exitCode") for c in both["containers"]], both["containers"]
    # Of CPU too: who may have an eighth of a core takes much longer than it works.
    said = host.says("read begin rest < /proc/uptime; i=0; while test $i -lt 300000; do i=$((i+1)); done; "
                     "read end rest < /proc/uptime; echo $begin $end; times", task={"cpu": "128", "memory": "64"}, memory=None)
    begin, end = map(float, said[0].split())
    worked = sum(float(part.split("m")[1].rstrip("s")) for part in said[1].split())
    assert end - begin > 4 * worked


def refused(host, task=None, **container):
    """Why nobody can run a task."""
    definition = {"family": "refused", "containerDefinitions": [
        {"name": "app", "image": IMAGE, "memory": 32, **container}], **(task or {})}
    registered = host.ecs.register_task_definition(**definition)["taskDefinition"]["taskDefinitionArn"]
    answer = host.ecs.run_task(taskDefinition=registered)
    assert answer["tasks"] == []
    return answer["failures"][0]["reason"]


ROLE = "arn:aws:iam::123456789012:role/r"


@runs_once
@pytest.mark.parametrize("task, container", [
    ({"runtimePlatform": {"cpuArchitecture": "ARM64", "operatingSystemFamily": "LINUX"}}, {}),
    ({"volumes": [{"name": "s3", "s3filesVolumeConfiguration": {
        "fileSystemArn": "arn:aws:s3files:us-east-1:123456789012:file-system/fs-1"}}]}, {}),
    ({"volumes": [{"name": "v", "dockerVolumeConfiguration": {"driver": "rexray"}}]}, {}),
    ({"enableFaultInjection": True}, {}),
    ({}, {"firelensConfiguration": {"type": "fluentbit", "options": {
        "config-file-type": "s3", "config-file-value": "arn:aws:s3:::bucket/router.conf"}},
        "logConfiguration": {"logDriver": "awsfirelens"}}),
    ({}, {"logConfiguration": {"logDriver": "splunk", "options": {}}}),
    ({}, {"credentialSpecs": ["credentialspecdomainless:arn:aws:s3:::bucket/spec"]}),
    ({}, {"dockerSecurityOptions": ["label:type:svirt"]}),
])
def test_what_nobody_can_run_is_refused_at_once(host, task, container):
    assert refused(host, task, **container).startswith("ATTRIBUTE")


def test_a_task_can_still_ask_after_its_agent_was_killed(host):
    ask = "while true; do wget -q -O - $ECS_CONTAINER_METADATA_URI_V4 2>/dev/null | head -c 12 || true; echo; sleep 0.2; done"
    tasks = [host.start(sh(ask), task={"networkMode": mode, "family": f"asks-{mode}"},
                        **({"networkConfiguration": NETWORK} if mode == "awsvpc" else {}))
             for mode in ("bridge", "awsvpc", "host")]
    for arn in tasks:
        until(lambda: '{"ContainerA' in host.lines(arn))
    host.platform.end(signal.SIGKILL)
    time.sleep(1)
    host.platform.start()
    host.ecs = host.platform.client("ecs")
    for arn in tasks:
        before = len(host.lines(arn))
        until(lambda: '{"ContainerA' in host.lines(arn)[before:])
        host.ecs.stop_task(task=arn)


def test_memory_is_a_limit_and_privilege_is_none_by_default(host):
    stopped = host.fails(containers=[sh("i=xxxxxxxx; while test ${#i} -lt 99000000; do i=$i$i; done", memory=16)])
    app = stopped["containers"][0]
    assert (app["exitCode"], app["reason"]) == (137, "OutOfMemoryError: Container killed due to memory usage")
    assert stopped["stoppedReason"] == "Essential container in task exited"
    mount = "mkdir -p /m; mount -t tmpfs none /m 2>/dev/null && echo may || echo may not"
    assert host.says(mount) == ["may not"]
    if host.may_be_privileged():
        assert host.says(mount, privileged=True) == ["may"]


def test_swap_is_as_asked(host):
    memory = pathlib.Path("/sys/fs/cgroup/memory")
    if not (memory / "memory.memsw.limit_in_bytes").exists() and not pathlib.Path("/sys/fs/cgroup/cgroup.controllers").exists():
        pytest.skip("this kernel does not account for swap")
    arn = host.start(sh("exec sleep 100", linuxParameters={"maxSwap": 16, "swappiness": 10}))
    wait(host.ecs, "tasks_running", tasks=[arn])
    containers = [path for group in groups(arn) for path in group.iterdir() if path.is_dir()]
    read = lambda name: {(g / name).read_text().strip() for g in containers if (g / name).exists()}
    limits = read("memory.memsw.limit_in_bytes") or {str(int(x) + (32 << 20)) for x in read("memory.swap.max")}
    assert limits == {str(48 << 20)}
    assert read("memory.swappiness") in ({"10"}, set())
    host.ecs.stop_task(task=arn)


def test_ports_of_the_host_lead_to_a_container(host):
    arn = host.start(sh("echo over tcp | nc -l -p 5000; sleep 100", portMappings=[
        {"containerPort": 5000, "protocol": "tcp"}, {"containerPort": 5001, "protocol": "udp", "hostPort": 15311}]))
    wait(host.ecs, "tasks_running", tasks=[arn])
    bindings = describe(host.ecs, arn)["containers"][0]["networkBindings"]
    ports = {b["protocol"]: b["hostPort"] for b in bindings}
    assert ports["udp"] == 15311 and ports["tcp"] >= 32768

    def said():
        """It may run some time before it listens."""
        try:
            with socket.create_connection(("127.0.0.1", ports["tcp"]), timeout=5) as tcp:
                return tcp.recv(100)
        except OSError:
            return None

    assert until(said) == b"over tcp\n"
    host.ecs.stop_task(task=arn)


@runs_once
def test_what_changes_nothing_here_is_taken(host):
    said = host.says("echo runs", versionConsistency="disabled", task={
        "runtimePlatform": {"cpuArchitecture": "X86_64" if platform.machine() == "x86_64" else "ARM64",
                            "operatingSystemFamily": "LINUX"},
        "placementConstraints": [{"type": "memberOf", "expression": "attribute:ecs.os-type == linux"}],
        "tags": [{"key": "team", "value": "blue"}]})
    assert said == ["runs"]


@runs_once
def test_the_table_of_fields_names_tests_that_exist():
    here = pathlib.Path(__file__).parent
    table = (here.parent / "docs/task-definition.md").read_text()
    named = set(re.findall(r"`(test_\w+)`", table))
    assert len(named) > 20
    tests = "".join(path.read_text() for path in here.glob("test_*.py"))
    assert [name for name in named if f"def {name}(" not in tests] == []


@pytest.mark.parametrize("mode", ["bridge", "awsvpc", "host"])
def test_a_router_gets_what_its_neighbours_write(host, mode):
    routed = {"logConfiguration": {"logDriver": "awsfirelens", "options": {"Name": "stdout", "Format": "json"}}}
    elsewhere = {"logConfiguration": {"logDriver": "awsfirelens", "options": {"Name": "null"}}}
    router = {"image": "fluent/fluent-bit", "firelensConfiguration": {
        "type": "fluentbit", "options": {"enable-ecs-log-metadata": "true"}}}
    network = {"networkConfiguration": NETWORK} if mode == "awsvpc" else {}
    script = "echo to $FLUENT_HOST $FLUENT_PORT; echo of stderr >&2; sleep 1; echo last words"
    arn = host.start(sh(script, **routed), router, sh("echo elsewhere", **elsewhere), task={"networkMode": mode}, **network)
    task = host.end(arn)
    said = host.lines(arn, "app1")
    records = [json.loads(line) for line in said if line.startswith("{")]
    address = {"bridge": r"\d+\.\d+\.\d+\.\d+ 24224", "awsvpc": r"127\.0\.0\.1 24224", "host": ""}[mode]
    # Two outputs have no order between them.
    by_source = {source: [r["log"] for r in records if r["source"] == source] for source in ("stdout", "stderr")}
    assert by_source["stderr"] == ["of stderr"] and by_source["stdout"][1:] == ["last words"], said
    assert re.fullmatch(f"to ?{address}", by_source["stdout"][0]), said
    family, revision = task["taskDefinitionArn"].split("/")[-1].split(":")
    for record in records:
        assert record["tag"] == f"app-firelens-{arn.split('/')[-1]}"
        assert record["container_name"] == "/app"
        assert (record["ecs_task_arn"], record["ecs_task_definition"]) == (arn, f"{family}:{revision}")
    assert {c["name"]: c["exitCode"] for c in task["containers"]}["app1"] == 0, task


def test_network_file_systems_are_where_the_operator_says(host):
    directory = host.platform.directory.parent / "efs"
    (directory / "escape").symlink_to("/etc")

    def efs(file_system="fs-0a1b2c3d", **members):
        return {"volumes": [{"name": "shared", "efsVolumeConfiguration": {"fileSystemId": file_system, **members}}]}
    mount = {"mountPoints": [{"sourceVolume": "shared", "containerPath": "/mnt/shared"}]}
    other = sh("until test -e /mnt/shared/made; do sleep 0.1; done; cat /mnt/shared/made > /mnt/shared/read", **mount)
    host.says("echo one > /mnt/shared/made; until test -s /mnt/shared/read; do sleep 0.1; done", efs(rootDirectory="/data"), [other], **mount)
    assert (directory / "data/read").read_text() == "one\n"
    # An access point is a place of its own; nothing goes over a network that could be read there.
    authorized = efs(transitEncryption="ENABLED", authorizationConfig={"accessPointId": "fsap-0a1b2c3d", "iam": "ENABLED"})
    assert host.says("cat /mnt/shared/made; touch /mnt/shared/x 2>/dev/null || echo sealed", authorized, mountPoints=[
        {**mount["mountPoints"][0], "readOnly": True}]) == ["one", "sealed"]
    assert "/run/gantry" not in "".join(
        line for line in pathlib.Path("/proc/self/mountinfo").read_text().splitlines() if "/shared " in line)

    def reason(**task):
        return host.fails(containers=[sh("true", **mount)], **task)["stoppedReason"]
    failed = "ResourceInitializationError: failed to invoke EFS utils commands to set up EFS volumes: "
    assert reason(task=efs("fs-99999999")).startswith(failed + 'Failed to resolve "fs-99999999"')
    assert "No such file or directory" in reason(task=efs(rootDirectory="/missing"))
    assert "No such file or directory" in reason(task=efs(rootDirectory="/escape"))
    assert reason(task=efs("fs-00000000")).startswith(failed + "connecting to 127.0.0.1, port 2049: ")


@pytest.mark.skipif(not pathlib.Path("/dev/loop-control").exists(), reason="this kernel has no loop devices")
def test_a_managed_volume_is_made_for_its_task(host):
    task = {"volumes": [{"name": "data", "configuredAtLaunch": True}]}
    mount = {"mountPoints": [{"sourceVolume": "data", "containerPath": "/data"}]}

    def volume(**members):
        return {"volumeConfigurations": [{"name": "data", "managedEBSVolume": {"roleArn": ROLE, "sizeInGiB": 1, **members}}]}

    def images():
        return [path for path in below(host.platform.directory) if path.suffix == ".img"]
    script = "df -k /data | { read x; read device blocks rest; echo $blocks; }; grep ' /data ' /proc/mounts; echo x > /data/f; exec sleep 100"
    arn = host.start(sh(script, stopTimeout=2, **mount), task=task, **volume(filesystemType="ext4"))
    until(lambda: len(host.lines(arn)) >= 2)
    blocks, mounted = host.lines(arn)[:2]
    assert 900_000 < int(blocks) < 1_048_576, "its size is what was asked for"
    assert mounted.split()[2] == "ext4"
    attachment, = [a for a in describe(host.ecs, arn)["attachments"] if a["type"] == "AmazonElasticBlockStorage"]
    details = {d["name"]: d["value"] for d in attachment["details"]}
    assert attachment["status"] == "ATTACHED" and re.fullmatch("vol-[0-9a-f]{17}", details["volumeId"])
    assert {"sizeInGiB": "1", "volumeType": "gp3", "volumeName": "data", "deleteOnTermination": "true"}.items() <= details.items()
    assert [p.name for p in images()] == [details["volumeId"] + ".img"]
    host.ecs.stop_task(task=arn)
    host.end(arn)
    until(lambda: not images())
    assert "/run/gantry" not in "".join(
        line for line in pathlib.Path("/proc/self/mountinfo").read_text().splitlines() if "/data " in line)
    # One that is to outlive its task does.
    host.says("echo kept > /data/f", task, arguments=volume(terminationPolicy={"deleteOnTermination": False}), **mount)
    kept, = images()
    assert kept.parent.name == "kept-volumes"
    for expected, arguments in [("snapshots", volume(snapshotId="snap-1")), ("encrypted", volume(encrypted=True)), ("sizeInGiB", volume(sizeInGiB=0)), ("missing", {})]:
        with pytest.raises(host.ecs.exceptions.ClientError, match=expected):
            host.start(sh("true", **mount), task=task, **arguments)


@pytest.mark.skipif(not pathlib.Path("/dev/loop-control").exists(), reason="this kernel has no loop devices")
def test_each_task_of_a_service_has_a_volume_of_its_own(host):
    definition = host.ecs.register_task_definition(
        family="stateful", volumes=[{"name": "data", "configuredAtLaunch": True}],
        containerDefinitions=[{"name": "app", "image": IMAGE, "memory": 32, **sh(
            "test -e /data/f && echo used || echo new; touch /data/f; exec sleep 100",
            mountPoints=[{"sourceVolume": "data", "containerPath": "/data"}])}])["taskDefinition"]["taskDefinitionArn"]
    host.ecs.create_service(serviceName="stateful", taskDefinition=definition, desiredCount=2, volumeConfigurations=[
        {"name": "data", "managedEBSVolume": {"roleArn": ROLE, "sizeInGiB": 1, "filesystemType": "ext4"}}])
    try:
        wait(host.ecs, "services_stable", services=["stateful"])
        service, = host.ecs.describe_services(services=["stateful"])["services"]
        shown, = service["deployments"][0]["volumeConfigurations"]
        assert shown["managedEBSVolume"]["sizeInGiB"] == 1
        tasks = host.ecs.list_tasks(serviceName="stateful")["taskArns"]
        assert [until(lambda: host.lines(arn)) for arn in tasks] == [["new"], ["new"]]
    finally:
        host.ecs.delete_service(service="stateful", force=True)


def test_gpus_are_given_whole_and_by_their_ids(host):
    def gpus(count):
        return {"resourceRequirements": [{"type": "GPU", "value": str(count)}]}

    def free():
        instance, = host.ecs.list_container_instances()["containerInstanceArns"]
        shown, = host.ecs.describe_container_instances(containerInstances=[instance])["containerInstances"]
        of = {kind: next(r for r in shown[kind] if r["name"] == "GPU") for kind in ("registeredResources", "remainingResources")}
        assert of["registeredResources"]["stringSetValue"] == ["nvidia0", "nvidia1"]
        return of["remainingResources"]["stringSetValue"]
    alone = {"networkMode": "none"}
    look = "ls /dev | grep nvidia; echo ids $NVIDIA_VISIBLE_DEVICES; echo x > /dev/nvidiactl && echo opens"
    assert host.says(look, alone, **gpus(2)) == ["nvidia0", "nvidia1", "nvidiactl", "ids nvidia0,nvidia1", "opens"]
    assert host.says("ls /dev | grep -c nvidia || true", alone) == ["0"]
    first, second = [host.start(sh(look + "; exec sleep 100", stopTimeout=1, **gpus(1)), task=alone) for _ in range(2)]
    held = [describe(host.ecs, arn)["containers"][0]["gpuIds"] for arn in (first, second)]
    assert sorted(held) == [["nvidia0"], ["nvidia1"]] and free() == []
    assert until(lambda: host.lines(second)[2:])[0] == f"ids {held[1][0]}"
    third = host.ecs.run_task(taskDefinition=describe(host.ecs, first)["taskDefinitionArn"])
    assert [f["reason"] for f in third["failures"]] == ["RESOURCE:GPU"]
    for arn in first, second:
        host.ecs.stop_task(task=arn)
        host.end(arn)
    assert free() == ["nvidia0", "nvidia1"]
