"""A Gantry of its own for the tests: the built binary, a scratch data directory, a free port, real AWS clients."""

import http.client
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import boto3
import botocore.config
import pytest
from isolation import isolate

ROOT = pathlib.Path(__file__).resolve().parent.parent
# How long anything may take on a busy machine. Who waits asks often, so that it costs only what fails.
PATIENCE_SECONDS = 60


def binary():
    return os.environ.get("GANTRY", str(ROOT / "target/debug/gantry"))


class Gantry:
    """One process on one data directory, `gantry server` or `gantry up`; may be stopped, killed and started again."""

    def __init__(self, directory, *flags, command="server", variables=None, listen="127.0.0.1:0"):
        self.directory = pathlib.Path(directory)
        self.listen = listen
        # For every command of it. A pause of a busy machine is no agent's end.
        # What waits for a client that is gone for good waits no longer than a busy machine needs.
        self.variables = {"GANTRY_AGENT_LEASE": f"{PATIENCE_SECONDS}s", "GANTRY_EXEC_RETURN": "15s", **os.environ,
                          **(variables or {})}
        self.flags = flags
        self.command = command
        self.process = None
        self.log = self.directory.with_suffix(".log")

    def start(self):
        endpoint = self.directory / "endpoint"
        endpoint.unlink(missing_ok=True)
        command = [binary(), self.command, "--data-dir", self.directory, "--listen", self.listen, *self.flags]
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=self.variables)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not endpoint.exists() or not endpoint.read_text().strip():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"gantry {self.command} did not start:\n{self.log.read_text()}")
            time.sleep(0.005)
        self.environment = self._environment()
        self.url = self.environment["AWS_ENDPOINT_URL"]
        return self

    def _environment(self):
        lines = subprocess.run(
            [binary(), "env", "--data-dir", self.directory],
            check=True, capture_output=True, text=True).stdout
        exported = dict(re.findall(r"^export (\w+)=(\S+)$", lines, re.M))
        clean = {k: v for k, v in os.environ.items() if not k.startswith("AWS_")}
        return {**clean, **exported, "AWS_PAGER": "", "AWS_EC2_METADATA_DISABLED": "true"}

    def end(self, how=signal.SIGTERM):
        if self.process and self.process.poll() is None:
            self.process.send_signal(how)
            self.process.wait(timeout=PATIENCE_SECONDS)
        return self.process.returncode if self.process else None

    def client(self, service, **options):
        environment = {**self.environment, **options.pop("environment", {})}
        config = botocore.config.Config(retries={"total_max_attempts": 1}, **options)
        return boto3.client(
            service, endpoint_url=self.url, region_name=environment["AWS_DEFAULT_REGION"],
            aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"], config=config)

    def aws(self, *arguments, check=True):
        """The real AWS CLI."""
        aws = pathlib.Path(sys.executable).parent / "aws"
        done = subprocess.run([sys.executable, aws, *arguments], env=self.environment, capture_output=True, text=True,
                              timeout=60)
        if check and done.returncode != 0:
            raise AssertionError(f"aws {' '.join(arguments)}: {done.stderr}")
        return done

    def gantry(self, *arguments):
        """Another command of Gantry's on the same installation."""
        command = [binary(), arguments[0], "--data-dir", self.directory, *arguments[1:]]
        return subprocess.run(command, env=self.environment, check=True, capture_output=True, text=True, timeout=60)

    def health(self):
        with urllib.request.urlopen(self.url + "/_gantry/health", timeout=5) as answer:
            return answer.status


@pytest.fixture
def gantry(tmp_path):
    """A fresh installation; ended with the test, whatever happens."""
    server = Gantry(tmp_path / "gantry").start()
    yield server
    server.end(signal.SIGKILL)


@pytest.fixture
def ecs(gantry):
    return gantry.client("ecs")


# What the tests of running containers share.

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="containers need root")

NETWORK = {"awsvpcConfiguration": {"subnets": ["subnet-1"], "securityGroups": ["sg-1"]}}


class Platform(Gantry):
    """`gantry up` with the sample images: a server, Fargate capacity and a container instance, on this machine. Its
    containers are Docker's where one is given."""

    def __init__(self, directory, *flags, docker=None):
        super().__init__(directory, *flags, command="up", variables=docker.variables if docker else None)
        self.image("samples")

    def image(self, *arguments):
        """`gantry image`, where the tasks' images are."""
        command = [binary(), "image", "--data-dir", self.directory, *arguments]
        subprocess.run(command, check=True, env=self.variables, timeout=120)

    def sweep(self):
        """Ends it for good, however it is, and takes every container and network of it off the host."""
        self.end(signal.SIGKILL)
        subprocess.run([binary(), "sweep", "--data-dir", self.directory], check=True, timeout=60)


class Docker:
    """A Docker daemon of the tests' own, which leaves the host's firewall alone."""

    def __init__(self, directory, number=0):
        self.directory = directory
        # Several of one process have different numbers.
        self.number = number
        self.bridge = f"gtd{number or ''}{os.getpid() % 1000000}"
        self.socket = directory / "docker.sock"
        self.variables = {"GANTRY_RUNTIME": "docker", "DOCKER_HOST": f"unix://{self.socket}"}
        self.process = None

    def start(self):
        ip = lambda *words: subprocess.run(["ip", *words], check=True, capture_output=True)
        if not pathlib.Path("/sys/class/net", self.bridge).exists():
            ip("link", "add", self.bridge, "type", "bridge")
            ip("address", "add", f"172.29.{254 - self.number}.1/24", "dev", self.bridge)
            ip("link", "set", self.bridge, "up")
        configuration = self.directory / "daemon.json"
        if not configuration.exists():
            configuration.write_text("{}")
        command = ["dockerd", "--config-file", configuration, "--data-root", self.directory / "data",
                   "--exec-root", self.directory / "exec", "--pidfile", self.directory / "pid", "--bridge", self.bridge,
                   "--iptables=false", "--ip6tables=false", "--ip-masq=false", "--host", f"unix://{self.socket}"]
        with open(self.directory / "docker.log", "ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        deadline = time.monotonic() + 60
        while self.get("/_ping") is None:
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"dockerd did not start:\n{(self.directory / 'docker.log').read_text()}")
            time.sleep(0.1)
        return self

    def get(self, path):
        """What the daemon answers; None while it does not."""
        connection = http.client.HTTPConnection("docker")
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(10)
        try:
            connection.sock.connect(str(self.socket))
            connection.request("GET", path)
            return connection.getresponse().read()
        except OSError:
            return None
        finally:
            connection.close()

    def containers(self):
        return json.loads(self.get("/containers/json?all=1"))

    def stop(self, how=signal.SIGTERM):
        self.process.send_signal(how)
        self.process.wait(timeout=60)
        # Its next start would take whoever has the number of what was killed by then for its own.
        for left in "pid", "exec/containerd/containerd.pid":
            (self.directory / left).unlink(missing_ok=True)

    def end(self):
        try:
            if self.process and self.process.poll() is None:
                self.stop()
        finally:
            subprocess.run(["ip", "link", "delete", self.bridge], check=False, capture_output=True)
            # A daemon leaves some behind even when it ends in order.
            mounts = [line.split()[4] for line in pathlib.Path("/proc/self/mountinfo").read_text().splitlines()]
            for mount in reversed([mount for mount in mounts if mount.startswith(f"{self.directory}/")]):
                subprocess.run(["umount", "--lazy", mount], check=False, capture_output=True)
            for directory in "data", "exec":
                shutil.rmtree(self.directory / directory, ignore_errors=True)


@pytest.fixture(scope="session")
def docker(tmp_path_factory):
    """Docker Engine, started with the first test that wants it."""
    if not shutil.which("dockerd"):
        pytest.skip("needs dockerd (Debian: docker.io)")
    daemon = Docker(tmp_path_factory.mktemp("docker"))
    try:
        yield daemon.start()
    finally:
        daemon.end()


def _engine(request):
    """The Docker whose containers tasks are made of; None where they are Gantry's own."""
    return request.getfixturevalue("docker") if getattr(request, "param", "native") == "docker" else None


engine = pytest.fixture(_engine, scope="module")
# For a test whose platform is to be had on either runtime.
both_runtimes = pytest.mark.parametrize("engine", ["native", "docker"], indirect=True, scope="module")


def engines():
    """For a module whose tests all run on both runtimes, but those marked `runs_once`: its own fixture `engine`."""
    return pytest.fixture(_engine, scope="module", params=["native", "docker"], name="engine")


runs_once = pytest.mark.runs_once


def pytest_configure(config):
    config.addinivalue_line("markers", "runs_once: what it sees does not depend on the runtime, or only one can do it")
    # What only hands tests out to others needs no network.
    if os.geteuid() == 0 and not config.getoption("numprocesses", None):
        isolate()


# What takes minutes, longest first: begun last, it would keep one process busy and the others waiting.
LONG = ["test_managed_daemons", "test_containers", "test_services", "test_docker", "test_exec", "test_hostile_clients"]


def pytest_collection_modifyitems(config, items):
    """One process runs what shares platforms: a module's tests, those on Docker apart. Those of Terraform share none."""
    runtime = lambda item: getattr(getattr(item, "callspec", None), "params", {}).get("engine", "native")
    again = [item for item in items if item.get_closest_marker("runs_once") and runtime(item) == "docker"]
    config.hook.pytest_deselected(items=again)
    items[:] = [item for item in items if item not in again]
    alone = lambda item: item.name.startswith("test_terraform")
    for item in items:
        group = item.name if alone(item) else f"{item.path.stem}-{runtime(item)}"
        item.add_marker(pytest.mark.xdist_group(group))
    rank = lambda item: LONG.index(item.path.stem) if item.path.stem in LONG else len(LONG)
    items.sort(key=lambda item: (not alone(item), rank(item)))


def leftovers(directory):
    """Whatever on this host still belongs to the installation in `directory`: processes, mounts, namespaces, links."""
    found = []
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(directory) in command:
            found.append(f"process {process.name}: {command}")
    found += [line for line in pathlib.Path("/proc/self/mountinfo").read_text().splitlines() if str(directory) in line]
    names = subprocess.run([binary(), "sweep", "--data-dir", directory, "--list"], check=True, capture_output=True,
                           text=True).stdout.split("\n")
    return found + [name for name in names if name]


@pytest.fixture
def platform(tmp_path, engine):
    installation = Platform(tmp_path / "gantry", docker=engine).start()
    try:
        yield installation
    finally:
        installation.sweep()
    assert leftovers(installation.directory) == []


def until(what, seconds=PATIENCE_SECONDS):
    """The first true answer."""
    deadline = time.monotonic() + seconds
    while True:
        answer = what()
        if answer:
            return answer
        assert time.monotonic() < deadline, "it did not come to be"
        time.sleep(0.05)


def below(directory):
    """All paths below a directory, of which some may go away meanwhile."""
    for at, directories, files in os.walk(directory):
        yield from (pathlib.Path(at, name) for name in directories + files)


def groups(arn):
    """The control groups of a task on this host, whatever the hierarchy."""
    roots = [root for root in pathlib.Path("/sys/fs/cgroup").glob("*") if root.is_dir()]
    return [path for root in roots for path in below(root / "gantry") if path.name == arn.rsplit("/", 1)[-1]]


def page(url, seconds=PATIENCE_SECONDS):
    """The page at `url`, tried until it answers."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(url, timeout=2) as answer:
                return answer.read().decode()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def wait(ecs, waiter, **arguments):
    """A waiter of boto3's own, asking often."""
    delay = 0.1
    ecs.get_waiter(waiter).wait(
        **arguments, WaiterConfig={"Delay": delay, "MaxAttempts": int(PATIENCE_SECONDS / delay)})
