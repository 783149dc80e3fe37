"""Tasks and their roles: the credentials that programs in containers find, whose they are, and what they may do."""

import json
import pathlib
import subprocess
import sys
import time

import boto3
import botocore.config
import pytest
from conftest import NETWORK, Platform, engines, leftovers, needs_root, until
from test_containers import BUSYBOX, IMAGE, Host, image, sh
from test_tasks import describe

pytestmark = [needs_root, pytest.mark.skipif(not BUSYBOX, reason="needs a static busybox (Debian: busybox-static)")]

ROLE = "arn:aws:iam::123456789012:role/team/painter"
# Replaced half-way: long enough for a test to use one set, short enough to see the next.
LIFETIME = 24
SPEAK = "env | grep ^AWS_; echo that is all; exec sleep 1000"


engine = engines()


@pytest.fixture(scope="module")
def host(tmp_path_factory, engine):
    directory = tmp_path_factory.mktemp("roles")
    installation = Platform(directory / "gantry", "--role-lifetime", f"{LIFETIME}s", docker=engine)
    installation.image("load", image(directory))
    installation.start()
    try:
        yield Host(installation)
    finally:
        installation.sweep()
    assert leftovers(installation.directory) == []


def started(host, mode, **task):
    """A task with a role that runs, and its container's variables."""
    arguments = {"networkConfiguration": NETWORK} if mode == "awsvpc" else {}
    arn = host.start(sh(SPEAK), task={"networkMode": mode, "taskRoleArn": ROLE, **task}, **arguments)
    *lines, _ = until(lambda: "that is all" in host.lines(arn) and host.lines(arn))
    return arn, dict(line.split("=", 1) for line in lines)


def inside(arn, variables, program):
    """What a Python program says in the network of a task, with its variables: an SDK there finds what it would find in
    the container."""
    task = arn.rsplit("/", 1)[1]

    def process():
        for one in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                if task in (one / "cgroup").read_text() and b"sleep" in (one / "cmdline").read_bytes():
                    return one.name
            except OSError:
                pass
    pid = until(process)
    environment = {"PATH": "/usr/bin:/bin:/usr/sbin", "HOME": "/nonexistent", "AWS_EC2_METADATA_DISABLED": "true",
                   **variables}
    done = subprocess.run(["nsenter", "-t", pid, "-n", sys.executable, "-c", program], env=environment, timeout=60,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def credentials(arn, variables):
    """The document at the address that the container was told."""
    url = variables.get("AWS_CONTAINER_CREDENTIALS_FULL_URI") or \
        "http://169.254.170.2" + variables["AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"]
    return json.loads(inside(arn, {}, f"import urllib.request as u; print(u.urlopen({url!r}).read().decode())"))


def client(host, service, given):
    return boto3.client(service, endpoint_url=host.platform.url, region_name="us-east-1",
                        aws_access_key_id=given["AccessKeyId"], aws_secret_access_key=given["SecretAccessKey"],
                        aws_session_token=given["Token"],
                        config=botocore.config.Config(retries={"total_max_attempts": 1}))


def refused(call, **arguments):
    with pytest.raises(botocore.exceptions.ClientError) as refusal:
        call(**arguments)
    return refusal.value.response["Error"]["Code"], refusal.value.response["Error"]["Message"]


@pytest.mark.parametrize("mode", ["awsvpc", "bridge", "host"])
def test_an_unmodified_sdk_finds_its_role_and_region(host, mode):
    arn, variables = started(host, mode)
    assert variables["AWS_REGION"] == variables["AWS_DEFAULT_REGION"] == "us-east-1"
    said = inside(arn, variables, """
import boto3, json
sts = boto3.client("sts")
print(json.dumps([sts.get_caller_identity(), sts.meta.region_name, sts.meta.endpoint_url], default=str))
try:
    boto3.client("ecs").list_clusters()
except boto3.client("ecs").exceptions.ClientError as error:
    print(json.dumps(error.response["Error"]))
""").splitlines()
    (identity, region, endpoint), denied = map(json.loads, said)
    session = f"arn:aws:sts::123456789012:assumed-role/painter/{arn.rsplit('/', 1)[1]}"
    assert (identity["Arn"], identity["Account"], region) == (session, "123456789012", "us-east-1")
    assert identity["UserId"].startswith("AROA") and identity["UserId"].endswith(":" + arn.rsplit("/", 1)[1])
    assert endpoint == (host.platform.url if mode == "host" else "http://169.254.170.2")
    assert denied["Code"] == "AccessDeniedException"
    assert denied["Message"].startswith(f"User: {session} is not authorized to perform: ecs:ListClusters on resource: *")
    host.ecs.stop_task(task=arn)


def test_credentials_are_replaced_and_the_old_ones_end(host):
    arn, variables = started(host, "bridge")
    first = credentials(arn, variables)
    assert first["RoleArn"] == ROLE and first["AccessKeyId"].startswith("ASIA")
    assert client(host, "sts", first).get_caller_identity()["Account"] == "123456789012"
    second = until(lambda: credentials(arn, variables)["AccessKeyId"] != first["AccessKeyId"]
                   and credentials(arn, variables), seconds=LIFETIME)
    assert second["Expiration"] > first["Expiration"]
    assert client(host, "sts", first).get_caller_identity(), "the old ones are good until they end"
    ended = until(lambda: time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - 1)) > first["Expiration"],
                  seconds=LIFETIME)
    assert ended
    assert refused(client(host, "sts", first).get_caller_identity) == (
        "ExpiredToken", "The security token included in the request is expired")
    assert refused(client(host, "ecs", first).list_clusters)[0] == "ExpiredTokenException"
    current = credentials(arn, variables)
    assert client(host, "sts", current).get_caller_identity()["Account"] == "123456789012"
    forged = {**current, "Token": current["Token"][:-2] + "AA"}
    assert refused(client(host, "ecs", forged).list_clusters)[0] == "UnrecognizedClientException"
    assert refused(client(host, "sts", forged).get_caller_identity)[0] == "InvalidClientTokenId"
    host.ecs.stop_task(task=arn)


def test_a_task_finds_no_role_but_its_own(host):
    arn, variables = started(host, "bridge")
    path = variables["AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"]
    said = host.says(f"wget -O - http://169.254.170.2{path} 2>&1 | grep -c 400; env | grep -c -E '^AWS_(CONTAINER|ENDPOINT)'; "
                     "printf 'POST / HTTP/1.1\\r\\nHost: x\\r\\nX-Amz-Target: AmazonEC2ContainerServiceV20141113.ListClusters\\r\\n"
                     "Content-Length: 2\\r\\nConnection: close\\r\\n\\r\\n{}' | nc 169.254.170.2 80 | head -n 1; true")
    assert [line.strip() for line in said] == ["1", "0", "HTTP/1.1 405 Method Not Allowed"]
    # With a role it is heard, and has to sign.
    unsigned = inside(arn, {}, """
import urllib.request as u
try:
    u.urlopen(u.Request("http://169.254.170.2/", b"{}", {"X-Amz-Target": "AmazonEC2ContainerServiceV20141113.ListClusters"}))
except u.HTTPError as error:
    print(error.read().decode())
""")
    assert "MissingAuthenticationTokenException" in unsigned
    host.ecs.stop_task(task=arn)


def test_a_users_own_endpoint_is_left_alone(host):
    own = [{"name": "AWS_ENDPOINT_URL", "value": "http://elsewhere.internal"}]
    said = host.says("env | grep ^AWS_ENDPOINT", environment=own, task={"taskRoleArn": ROLE})
    assert said == ["AWS_ENDPOINT_URL=http://elsewhere.internal"]


def test_credentials_outlive_a_restart_of_everything(host):
    arn, variables = started(host, "awsvpc")
    before = credentials(arn, variables)
    host.platform.end()
    host.platform.start()
    host.ecs = host.platform.client("ecs")
    after = credentials(arn, variables)
    assert after["RoleArn"] == before["RoleArn"]
    identity = client(host, "sts", after).get_caller_identity()
    assert identity["Arn"].endswith("assumed-role/painter/" + arn.rsplit("/", 1)[1])
    assert describe(host.ecs, arn)["lastStatus"] == "RUNNING"
    host.ecs.stop_task(task=arn)
