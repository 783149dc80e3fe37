"""Secrets, environment files and private registries: what a container is given that its definition only names.

The services that hold them are a small server of this test's own, which the agent is told of as operators tell it."""

import http.server
import json
import pathlib
import signal
import socket
import threading

import pytest
from conftest import Platform, engines, leftovers, needs_root, runs_once, until, wait
from registry import Registry
from test_containers import BUSYBOX, Host, image, sh

pytestmark = [needs_root, pytest.mark.skipif(not BUSYBOX, reason="needs a static busybox (Debian: busybox-static)")]

EXECUTION = {"executionRoleArn": "arn:aws:iam::123456789012:role/porter"}
SECRET = "arn:aws:secretsmanager:us-east-1:123456789012:secret:db-AbCdEf"
REGISTRY = "arn:aws:secretsmanager:us-east-1:123456789012:secret:registry-AbCdEf"
USER, VALUE = "porter", "correct horse battery"


class Stores(http.server.BaseHTTPRequestHandler):
    """Two parameters, one secret, one file."""

    seen = []
    parameters = {"/app/colour": "of /app/colour"}

    def reply(self, status, text):
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        target = self.headers["X-Amz-Target"]
        self.seen.append((target, self.headers["Authorization"], self.headers["X-Amz-Security-Token"]))
        if target == "AmazonSSM.GetParameters":
            found = [{"Name": name, "Value": self.parameters[name]} for name in asked["Names"] if name in self.parameters]
            return self.reply(200, json.dumps({"Parameters": found, "InvalidParameters": []}))
        if asked["SecretId"] == SECRET:
            return self.reply(200, json.dumps({"SecretString": json.dumps({"password": VALUE})}))
        if asked["SecretId"] == REGISTRY:
            return self.reply(200, json.dumps({"SecretString": json.dumps({"username": USER, "password": VALUE})}))
        self.reply(400, json.dumps({"__type": "ResourceNotFoundException",
                                    "message": "Secrets Manager can't find the specified secret."}))

    def do_GET(self):
        self.seen.append((self.path, self.headers["Authorization"], self.headers["X-Amz-Security-Token"]))
        if self.path == "/bucket/app.env":
            return self.reply(200, "# of the file\nFROM_FILE=two words\nMODE=file\n")
        self.reply(404, "<Error><Code>NoSuchKey</Code><Message>The specified key does not exist.</Message></Error>")

    def log_message(self, *_):
        pass


engine = engines()


@pytest.fixture(scope="module")
def host(tmp_path_factory, engine):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Stores)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    directory = tmp_path_factory.mktemp("secrets")
    installation = Platform(directory / "gantry", "--secrets-manager", url, "--parameter-store", url, "--s3", url, docker=engine)
    installation.image("load", image(directory))
    installation.start()
    try:
        yield Host(installation)
    finally:
        installation.sweep()
        server.shutdown()
    assert leftovers(installation.directory) == []


def test_secrets_and_files_are_variables_and_shown_to_nobody_else(host):
    given = {
        "secrets": [{"name": "PASSWORD", "valueFrom": SECRET + ":password::"},
                    {"name": "COLOUR", "valueFrom": "arn:aws:ssm:us-east-1:123456789012:parameter/app/colour"}],
        "environmentFiles": [{"type": "s3", "value": "arn:aws:s3:::bucket/app.env"}],
        "environment": [{"name": "MODE", "value": "definition"}],
    }
    script = 'echo "$COLOUR,$FROM_FILE,$MODE"; case $PASSWORD in *"horse battery") echo known; esac; exec sleep 1000'
    for mode in "bridge", "host":
        arn = host.start({**sh(script), **given}, task={"networkMode": mode, **EXECUTION})
        wait(host.ecs, "tasks_running", tasks=[arn])
        assert until(lambda: len(host.lines(arn)) == 2 and host.lines(arn)) == ["of /app/colour,two words,definition", "known"]
        for _, signature, token in Stores.seen:
            assert "Credential=ASIA" in signature and "x-amz-security-token" in signature and token
        described = json.dumps(host.ecs.describe_tasks(tasks=[arn]), default=str)
        assert VALUE not in described
        holding = [path for path in pathlib.Path(host.platform.directory).rglob("*")
                   if path.is_file() and not path.is_symlink() and VALUE.encode() in path.read_bytes()]
        for path in holding:
            # Only what describes a container holds it, behind a directory that is its owner's alone.
            assert path.parent.parent.name == "containers" and path.parent.stat().st_mode & 0o077 == 0, path
        assert VALUE not in host.platform.log.read_text()
        host.ecs.stop_task(task=arn)
        host.end(arn)


@pytest.mark.parametrize("container, reason", [
    ({"secrets": [{"name": "S", "valueFrom": SECRET.replace("db-", "gone-")}]},
     "unable to pull secrets or registry auth: execution resource retrieval failed: unable to retrieve secret from asm: "
     f"failed to fetch secret {SECRET.replace('db-', 'gone-')} from secrets manager: "
     "ResourceNotFoundException: Secrets Manager can't find the specified secret."),
    ({"secrets": [{"name": "S", "valueFrom": "nowhere"}]},
     "unable to pull secrets or registry auth: execution resource retrieval failed: unable to retrieve secrets from ssm: "
     "invalid parameters: nowhere"),
    ({"environmentFiles": [{"type": "s3", "value": "arn:aws:s3:::bucket/none.env"}]},
     "failed to download env files: arn:aws:s3:::bucket/none.env: NoSuchKey: The specified key does not exist."),
    ({"repositoryCredentials": {"credentialsParameter": SECRET}},
     "unable to pull secrets or registry auth: execution resource retrieval failed: unable to get registry auth from asm: "
     f"{SECRET} is no JSON object with 'username' and 'password'"),
])
def test_a_task_does_not_start_without_what_it_names(host, container, reason):
    task = host.fails(containers=[{**sh("exit 0"), **container}], task=EXECUTION)
    assert (task["stopCode"], task["stoppedReason"]) == ("TaskFailedToStart", f"ResourceInitializationError: {reason}")
    assert "exitCode" not in task["containers"][0]


def test_a_private_registry_is_shown_the_secret(host):
    with Registry(user=f"{USER}:{VALUE}") as registry:
        name = f"{registry.host}/team/private:1"
        registry.push("team/private:1", command=["sh", "-c", "exit 7"])
        shown = {"image": name, "repositoryCredentials": {"credentialsParameter": REGISTRY}}
        refused = host.fails(containers=[{"image": name}], task={"family": "without"})
        assert refused["stoppedReason"].startswith("CannotPullContainer"), refused["stoppedReason"]
        task = host.fails(containers=[shown], task={"family": "with", **EXECUTION})
        assert task["containers"][0]["exitCode"] == 7, task["stoppedReason"]


def test_options_of_log_drivers_are_secrets(host):
    """They reach the driver, also of an agent that was killed meanwhile, and are shown to nobody."""
    receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    receiver.bind(("127.0.0.1", 0))
    receiver.settimeout(60)
    address = f"udp://127.0.0.1:{receiver.getsockname()[1]}"
    Stores.parameters["/log/address"] = address
    log = {"logDriver": "syslog", "options": {"tag": "t"}, "secretOptions": [{"name": "syslog-address", "valueFrom": "/log/address"}]}
    arn = host.start(sh("env | grep -c syslog; i=0; while true; do i=$((i+1)); echo $i; sleep 0.2; done", logConfiguration=log,
                        stopTimeout=1), task=EXECUTION)
    assert receiver.recv(65536).decode().endswith(": 0"), "it is no variable"
    assert receiver.recv(65536).decode().endswith(": 1")
    host.platform.end(signal.SIGKILL)
    host.platform.start()
    host.ecs = host.platform.client("ecs")
    known = int(host.lines(arn)[-1])
    until(lambda: int(receiver.recv(65536).decode().rsplit(": ", 1)[1]) > known)
    shown = json.dumps(host.ecs.describe_tasks(tasks=[arn]), default=str) + host.platform.log.read_text()
    assert address not in shown
    host.ecs.stop_task(task=arn)
    host.end(arn)


def test_a_log_option_that_is_secret_is_not_told_when_it_is_wrong(host):
    log = {"logDriver": "syslog", "secretOptions": [{"name": "syslog-address", "valueFrom": "/app/colour"}]}
    task = host.fails(containers=[sh("exit 0", logConfiguration=log)], task=EXECUTION)
    assert task["containers"][0]["reason"] == (
        "CannotCreateContainerError: invalid value for log opt 'syslog-address', which is a secret")
    log["secretOptions"][0]["valueFrom"] = "/nowhere"
    task = host.fails(containers=[sh("exit 0", logConfiguration=log)], task=EXECUTION)
    assert task["stoppedReason"].startswith("ResourceInitializationError: unable to pull secrets or registry auth"), task


@pytest.mark.parametrize("kind, path, variable", [
    ("fluentbit", "/fluent-bit/etc/fluent-bit.conf", "${Http_Passwd_1}"),
    ("fluentd", "/fluentd/etc/fluent.conf", "\"#{ENV['Http_Passwd_1']}\""),
])
def test_a_router_has_secrets_as_variables_that_its_configuration_names(host, kind, path, variable):
    """The router here is a shell that says what it finds."""
    output = {"fluentbit": {"Name": "http"}, "fluentd": {"@type": "http"}}[kind]
    log = {"logDriver": "awsfirelens", "options": output,
           "secretOptions": [{"name": "Http_Passwd", "valueFrom": SECRET + ":password::"}]}
    router = sh(f"grep Passwd {path}; env | grep Passwd; exec sleep 100", firelensConfiguration={"type": kind}, stopTimeout=1)
    arn = host.start(router, sh("env | grep -c Passwd; exec sleep 100", logConfiguration=log, stopTimeout=1), task=EXECUTION)
    assert until(lambda: len(host.lines(arn)) == 2 and host.lines(arn)) == [
        f"    Http_Passwd {variable}", f"Http_Passwd_1={VALUE}"]
    assert until(lambda: host.lines(arn, "app1")) == ["0"]
    host.ecs.stop_task(task=arn)
    host.end(arn)


@runs_once
def test_without_services_of_ones_own_the_control_plane_says_what_it_lacks(tmp_path):
    installation = Platform(tmp_path / "gantry")
    installation.image("load", image(tmp_path))
    installation.start()
    try:
        task = Host(installation).fails(
            containers=[{**sh("exit 0"), "secrets": [{"name": "S", "valueFrom": SECRET}]}], task=EXECUTION)
    finally:
        installation.sweep()
    assert task["stopCode"] == "TaskFailedToStart"
    assert task["stoppedReason"].startswith("ResourceInitializationError: unable to pull secrets"), task["stoppedReason"]
    assert "UnknownOperationException: The X-Amz-Target is not known." in task["stoppedReason"]
