"""Images from registries: how they come, stay and go, seen by who runs tasks."""

import json
import os
import subprocess

import pytest
from conftest import Platform, leftovers, needs_root, wait
from registry import BUSYBOX, Registry
from test_tasks import describe, run

pytestmark = [needs_root, pytest.mark.skipif(not BUSYBOX, reason="needs a static busybox (Debian: busybox-static)")]


@pytest.fixture
def start(tmp_path):
    """Starts a platform with these flags; one that runs already is ended first."""
    started = []

    def starter(*flags, environment=None):
        if started:
            started[-1].end()
        before = dict(os.environ)
        os.environ.update(environment or {})
        try:
            started.append(Platform(tmp_path / "gantry", *flags).start())
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
