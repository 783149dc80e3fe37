"""Images from registries: how they come, stay and go, seen by who runs tasks."""

import json
import os
import re
import signal
import subprocess
import threading
import time

import pytest
from conftest import Gantry, Platform, both_runtimes, leftovers, needs_root, until, wait
from registry import BUSYBOX, Registry
from test_tasks import describe, run

pytestmark = [needs_root, pytest.mark.skipif(not BUSYBOX, reason="needs a static busybox (Debian: busybox-static)")]


@pytest.fixture
def start(tmp_path, engine):
    """Starts a platform with these flags; one that runs already is ended first."""
    started = []

    def starter(*flags, environment=None):
        if started:
            started[-1].end()
        before = dict(os.environ)
        os.environ.update(environment or {})
        try:
            started.append(Platform(tmp_path / "gantry", *flags, docker=engine).start())
        finally:
            os.environ.clear()
            os.environ.update(before)
        return started[-1]

    try:
        yield starter
    finally:
        for installation in started[-1:]:
            installation.sweep()
    assert not started or leftovers(tmp_path / "gantry") == []


def definition(image, family="app", **container):
    """A container instance's task of one container."""
    return {
        "family": family, "networkMode": "none",
        "containerDefinitions": [{"name": "main", "image": image, "memory": 32, "essential": True, **container}],
    }


def ends(ecs, image, **container):
    """Runs a task of the image to its end."""
    arn = run(ecs, definition(image, **container))
    wait(ecs, "tasks_stopped", tasks=[arn])
    return describe(ecs, arn)


def test_an_image_comes_from_a_registry_and_is_named_by_its_digest(start):
    ecs = start().client("ecs")
    with Registry() as registry:
        digest = registry.push("team/app:1", command=["sh", "-c", "exit 7"])
        for image in f"{registry.host}/team/app:1", f"{registry.host}/team/app@{digest}":
            task = ends(ecs, image)
            container = task["containers"][0]
            assert (container["exitCode"], container["imageDigest"], container["image"]) == (7, digest, image)
            assert task["pullStartedAt"] <= task["pullStoppedAt"] <= task["startedAt"]
        # The layers were here already.
        assert registry.asked("/blobs/") == 2


@pytest.mark.parametrize("bearer", [False, True])
def test_a_private_registry_is_shown_the_agents_credentials(start, tmp_path, bearer):
    with Registry(user="me:s3cret", bearer=bearer) as registry:
        registry.push("team/app:1", command=["true"])
        image = f"{registry.host}/team/app:1"
        ecs = start().client("ecs")
        task = ends(ecs, image)
        assert task["stopCode"] == "TaskFailedToStart"
        reason = task["containers"][0]["reason"]
        assert reason.startswith(f"CannotPullContainerError: failed to resolve ref {image}: pull access denied for team/app")
        config = tmp_path / "config.json"
        config.write_text(json.dumps({"auths": {registry.host: {"auth": "bWU6czNjcmV0"}}, "credsStore": "none"}))
        ecs = start("--registry-credentials", config).client("ecs")
        assert ends(ecs, image)["containers"][0]["exitCode"] == 0
        data = json.dumps({registry.host: {"username": "me", "password": "s3cret"}})
        installation = start("--pull", "always", environment={"ECS_ENGINE_AUTH_TYPE": "docker", "ECS_ENGINE_AUTH_DATA": data})
        assert ends(installation.client("ecs"), image)["containers"][0]["exitCode"] == 0
        assert "s3cret" not in installation.log.read_text()


def test_an_image_that_is_not_there_or_for_other_machines_stops_the_task(start):
    ecs = start().client("ecs")
    with Registry() as registry:
        registry.push("team/app:s390x", architecture="s390x")
        image = f"{registry.host}/team/none:1"
        reason = ends(ecs, image)["containers"][0]["reason"]
        assert reason == f"CannotPullContainerError: failed to resolve ref {image}: manifest unknown: {image}: not found"
        reason = ends(ecs, f"{registry.host}/team/app:s390x")["containers"][0]["reason"]
        assert reason.startswith("CannotPullContainerError: image manifest does not match the host platform"), reason


def test_pull_behaviours(start):
    """What a moved tag means to the next task, and what a registry that is gone."""
    with Registry() as registry:
        image, gone = f"{registry.host}/team/app:1", f"{registry.host}/team/gone:1"

        def outcome(behaviour, image):
            arguments = ["--pull", behaviour] if behaviour else []
            container = ends(start(*arguments).client("ecs"), image)["containers"][0]
            return container.get("exitCode", container.get("reason", "")[:24])

        for exit_code in 1, 2, 3:
            registry.push("team/app:1", command=["sh", "-c", f"exit {exit_code}"])
            registry.push("team/gone:1", command=["sh", "-c", f"exit {exit_code}"])
            if exit_code == 1:
                assert outcome(None, image) == 1
                assert outcome("once", gone) == 1
                registry.content.pop("team/gone/manifests/1")
            elif exit_code == 2:
                # What is here serves these two, and the registry the others.
                assert outcome("once", image) == 1
                assert outcome("prefer-cached", image) == 1
                assert outcome("default", image) == 2
            else:
                assert outcome("always", image) == 3
        registry.content.pop("team/gone/manifests/1")
        assert outcome("default", gone) == 1
        assert outcome("once", gone) == 1
        assert outcome("always", gone) == "CannotPullContainerError"


@pytest.fixture
def elsewhere():
    """An address that is this machine's and yet not loopback."""
    link, address = f"gtr{os.getpid() % 100000}", "198.51.100.77"
    subprocess.run(["ip", "link", "add", link, "type", "bridge"], check=True)
    try:
        subprocess.run(["ip", "address", "add", f"{address}/32", "dev", link], check=True)
        subprocess.run(["ip", "link", "set", link, "up"], check=True)
        yield address
    finally:
        subprocess.run(["ip", "link", "delete", link], check=True)


def certificate(directory, address):
    """An authority's certificate, and a file with a server's key and certificate from it."""
    def openssl(*arguments):
        subprocess.run(["openssl", *arguments], check=True, capture_output=True, cwd=directory)
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    openssl("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=authority", "-days", "2")
    openssl("req", *key, "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=registry")
    (directory / "san").write_text(f"subjectAltName=IP:{address}\nbasicConstraints=CA:FALSE\n")
    openssl("x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2",
            "-extfile", "san", "-out", "server.pem")
    both = directory / "both.pem"
    both.write_text((directory / "server.key").read_text() + (directory / "server.pem").read_text())
    return directory / "ca.pem", both


def test_a_registry_elsewhere_proves_itself_or_is_named_as_one_that_need_not(start, tmp_path, elsewhere):
    authority, own = certificate(tmp_path, elsewhere)
    ecs = start().client("ecs")
    with Registry(elsewhere, certificate=own) as registry:
        registry.push("team/app:1", command=["true"])
        image = f"{registry.host}/team/app:1"
        reason = ends(ecs, image)["containers"][0]["reason"]
        assert "UnknownIssuer" in reason, reason
        ecs = start("--registry-authority", authority).client("ecs")
        assert ends(ecs, image)["containers"][0]["exitCode"] == 0
    with Registry(elsewhere) as registry:
        registry.push("team/app:1", command=["true"])
        image = f"{registry.host}/team/app:1"
        assert "exitCode" not in ends(ecs, image)["containers"][0]
        ecs = start("--insecure-registry", elsewhere).client("ecs")
        assert ends(ecs, image)["containers"][0]["exitCode"] == 0


def store(installation):
    """Names of images, and how many entries the directories of the store have."""
    directory = installation.directory / "images"
    names = {json.loads(path.read_bytes())["name"] for path in (directory / "images").iterdir()}
    counts = {kind: len(list((directory / kind).iterdir())) for kind in ("layers", "partial", "tmp")}
    return names, counts


def test_a_pull_goes_on_where_it_was_when_its_agent_died(start):
    noise = os.urandom(4 << 20)
    with Registry() as registry:
        registry.push("team/app:1", {"noise": noise}, ["sh", "-c", "exit 5"])
        stalls = threading.Event()

        def stall(handler, body):
            if len(body) < len(noise) or stalls.is_set():
                return body
            handler.send_response(200)
            handler.send_header("Content-Length", str(len(body)))
            handler.end_headers()
            handler.wfile.write(body[:3 << 20])
            handler.wfile.flush()
            stalls.wait(30)
            return None

        registry.fault = stall
        installation = start()
        ecs = installation.client("ecs")
        arn = run(ecs, definition(f"{registry.host}/team/app:1"))
        partial = installation.directory / "images/partial"
        until(lambda: any(file.stat().st_size == 3 << 20 for file in partial.iterdir()))
        installation.end(signal.SIGKILL)
        stalls.set()
        ecs = installation.start().client("ecs")
        wait(ecs, "tasks_stopped", tasks=[arn])
        assert describe(ecs, arn)["containers"][0]["exitCode"] == 5
        assert registry.asked(f"bytes={3 << 20}-") == 1
        assert store(installation)[1]["partial"] == 0


@both_runtimes
def test_a_task_that_waits_for_its_image_says_so(start):
    with Registry() as registry:
        registry.push("team/app:1", {"noise": os.urandom(4 << 20)}, ["sh", "-c", "true"])
        goes_on = threading.Event()

        def stall(handler, body):
            if len(body) <= 4 << 20:
                return body
            handler.send_response(200)
            handler.send_header("Content-Length", str(len(body)))
            handler.end_headers()
            handler.wfile.write(body[:-(1 << 18)])
            goes_on.wait(60)
            handler.wfile.write(body[-(1 << 18):])

        registry.fault = stall
        installation = start()
        ecs = installation.client("ecs")
        arn = run(ecs, definition(f"{registry.host}/team/app:1"))
        began = until(lambda: describe(ecs, arn).get("pullStartedAt"))
        task = describe(ecs, arn)
        assert task["lastStatus"] == "PENDING" and "pullStoppedAt" not in task
        assert "pulls its images, since" in installation.gantry("explain", arn).stdout
        come = re.compile(r"main waits for \S+/team/app:1: (\d+\.\d\d) of (\d+\.\d\d) MiB have come")
        done, total = until(lambda: come.search(installation.gantry("status").stdout)).groups()
        assert 0 < float(done) < float(total), (done, total)
        goes_on.set()
        wait(ecs, "tasks_stopped", tasks=[arn])
        task = describe(ecs, arn)
        assert task["pullStartedAt"] == began < task["pullStoppedAt"]
        until(lambda: "waits for" not in installation.gantry("status").stdout)


def test_images_go_when_nobody_needs_them_and_not_before(start):
    impatient = ["--image-cleanup-interval", "1s", "--image-minimum-cleanup-age", "1s", "--task-cleanup-wait", "1s"]
    with Registry() as registry:
        for name in "once", "kept", "runs":
            registry.push(f"team/{name}:1", {"own": name.encode()}, ["sh", "-c", "true"])
        image = {name: f"{registry.host}/team/{name}:1" for name in ("once", "kept", "runs")}
        installation = start(*impatient, "--keep-image", image["kept"])
        ecs = installation.client("ecs")
        running = run(ecs, definition(image["runs"], command=["sh", "-c", "while sleep 0.1; do cat /own; done"]))
        wait(ecs, "tasks_running", tasks=[running])
        for name in "once", "kept":
            assert ends(ecs, image[name])["containers"][0]["exitCode"] == 0

        def here():
            return {name for name in image if image[name] in store(installation)[0]}

        until(lambda: here() == {"kept", "runs"})
        # While its agent is away and after it came back, a container's image is still its own.
        installation.end(signal.SIGKILL)
        ecs = installation.start().client("ecs")
        time.sleep(3)
        assert here() == {"kept", "runs"}
        assert describe(ecs, running)["lastStatus"] == "RUNNING"
        ecs.stop_task(task=running)
        wait(ecs, "tasks_stopped", tasks=[running])
        until(lambda: here() == {"kept"})


class Cramped(Platform):
    """Its images are on a small file system of their own, and the sample images are not among them."""

    MIB = 64

    def __init__(self, directory):
        Gantry.__init__(self, directory, "--task-cleanup-wait", "1s", command="up")
        images = self.directory / "images"
        images.mkdir(parents=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={self.MIB}m", "images", images], check=True)

    def sweep(self):
        try:
            super().sweep()
        finally:
            subprocess.run(["umount", self.directory / "images"], check=True)


def test_a_full_disk_fails_the_pull_and_nothing_else(tmp_path):
    installation = Cramped(tmp_path / "gantry")
    try:
        installation.start()
        ecs = installation.client("ecs")
        with Registry() as registry:
            registry.push("team/small:1", {"own": b"small"}, ["sh", "-c", "while sleep 0.1; do cat /own; done"])
            registry.push("team/old:1", {"old": os.urandom(24 << 20)}, ["true"])
            registry.push("team/new:1", {"new": os.urandom(26 << 20)}, ["true"])
            # This one tells its size, the other only when it is unpacked.
            registry.push("team/large:1", {"large": os.urandom(70 << 20)}, ["true"])
            registry.push("team/bomb:1", {"bomb": bytes(400 << 20)}, ["true"])
            running = run(ecs, definition(f"{registry.host}/team/small:1"))
            wait(ecs, "tasks_running", tasks=[running])
            before = store(installation)
            for name in "large", "bomb":
                reason = ends(ecs, f"{registry.host}/team/{name}:1")["containers"][0]["reason"]
                expected = "CannotPullContainerError: failed to register layer: no space left on device: "
                assert reason.startswith(expected), reason
                assert store(installation) == before
                assert describe(ecs, running)["lastStatus"] == "RUNNING"
            assert ends(ecs, f"{registry.host}/team/old:1")["containers"][0]["exitCode"] == 0
            # There is room for one of the two: the image that nobody needs goes as soon as its task is forgotten.
            assert f"{registry.host}/team/old:1" in store(installation)[0]

            def comes():
                return ends(ecs, f"{registry.host}/team/new:1")["containers"][0].get("exitCode") == 0

            until(comes)
            names, _ = store(installation)
            assert names == {f"{registry.host}/team/{name}:1" for name in ("small", "new")}
            assert describe(ecs, running)["lastStatus"] == "RUNNING"
    finally:
        installation.sweep()
    assert leftovers(installation.directory) == []


def digests(ecs, service, count):
    """The digests that the service's tasks report, once so many run."""
    def tasks():
        arns = ecs.list_tasks(serviceName=service, desiredStatus="RUNNING")["taskArns"]
        return [t for t in (ecs.describe_tasks(tasks=arns)["tasks"] if arns else []) if t["lastStatus"] == "RUNNING"]
    until(lambda: len(tasks()) == count)
    return [task["containers"][0]["imageDigest"] for task in tasks()]


@both_runtimes
def test_a_deployments_tasks_run_one_image_whatever_becomes_of_its_tag(start):
    ecs = start().client("ecs")
    with Registry() as registry:
        image = f"{registry.host}/team/app:1"
        first = registry.push("team/app:1", {"version": b"1"})
        for family, consistency in ("app", "enabled"), ("free", "disabled"):
            ecs.register_task_definition(**definition(image, family, stopTimeout=1, versionConsistency=consistency))
            ecs.create_service(serviceName=family, taskDefinition=family, desiredCount=1,
                               deploymentConfiguration={"minimumHealthyPercent": 0, "maximumPercent": 100})
            assert digests(ecs, family, 1) == [first]
        second = registry.push("team/app:1", {"version": b"2"})
        for family, others in ("app", first), ("free", second):
            ecs.update_service(service=family, desiredCount=3)
            assert sorted(digests(ecs, family, 3)) == sorted([first, others, others])
        names = {c["image"] for t in ecs.describe_tasks(tasks=ecs.list_tasks()["taskArns"])["tasks"] for c in t["containers"]}
        assert names == {image}
        ecs.update_service(service="app", forceNewDeployment=True)
        until(lambda: first not in digests(ecs, "app", 3))
        assert digests(ecs, "app", 3) == [second] * 3


def test_images_of_a_service_are_there_before_its_tasks(start):
    # However full this machine's disk is.
    installation = start("--image-cleanup-interval", "1s", "--image-minimum-cleanup-age", "1s", "--image-disk-high", "100")
    ecs = installation.client("ecs")
    with Registry() as registry:
        image = f"{registry.host}/team/app:1"
        registry.push("team/app:1", {"own": b"ahead"}, ["sh", "-c", "while sleep 0.1; do cat /own; done"])
        ecs.register_task_definition(**definition(image, stopTimeout=1))
        ecs.create_service(serviceName="app", taskDefinition="app", desiredCount=0)
        until(lambda: image in store(installation)[0])
        asked = registry.asked("/blobs/")
        assert asked == 3
        # It stays, although nobody has used it, and is what the first task starts from.
        time.sleep(3)
        assert image in store(installation)[0]
        ecs.update_service(service="app", desiredCount=1)
        wait(ecs, "services_stable", services=["app"])
        assert registry.asked("/blobs/") == asked
        ecs.delete_service(service="app", force=True)
