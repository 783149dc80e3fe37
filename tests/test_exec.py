"""ECS Exec as its users have it: the AWS CLI with a plugin, and `gantry exec` without one, in containers of a shell."""

import contextlib
import fcntl
import os
import pathlib
import pty
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
import time

import pytest
from conftest import binary, engines, runs_once, until, wait
from session_plugin import OUTPUT, Session
from test_capacity import Capacity
from test_containers import Host, host, image, pytestmark, sh  # noqa: F401
from test_ecs import refused

engine = engines()
ROLE = {"taskRoleArn": "arn:aws:iam::123456789012:role/app"}


@pytest.fixture(scope="module")
def task(host):
    """A running task that takes commands; its id."""
    arn = host.start(sh("trap exit TERM; while true; do sleep 1; done"), sh("sleep 1000", essential=False), task=ROLE,
                     enableExecuteCommand=True)
    wait(host.ecs, "tasks_running", tasks=[arn])
    yield arn.rsplit("/", 1)[1]
    host.ecs.stop_task(task=arn)


def execute(host, *arguments, **options):
    """`gantry exec`, from the environment that `gantry env` gives."""
    options = {"capture_output": True, "text": True, "timeout": 60, "env": host.platform.environment, **options}
    return subprocess.run([binary(), "exec", *arguments], **options)


def processes(host, task):
    """The commands of all processes in the container."""
    return execute(host, task, "-c", "app", "--", "ps", "-o", "args").stdout.splitlines()


@pytest.fixture(scope="module")
def plugin(tmp_path_factory):
    """A directory for PATH that has the plugin."""
    directory = tmp_path_factory.mktemp("plugin")
    script = directory / "session-manager-plugin"
    source = pathlib.Path(__file__).parent / "session_plugin.py"
    script.write_text(f'#!/bin/sh\nexec {sys.executable} {source} "$@"\n')
    script.chmod(0o755)
    return directory


@pytest.mark.parametrize("loses", ["0", "1"], ids=["steady", "losing"])
def test_the_aws_cli_opens_a_shell(host, task, plugin, loses):
    environment = {**host.platform.environment, "PATH": f"{plugin}:{os.environ['PATH']}", "LOSES": loses}
    aws = [sys.executable, pathlib.Path(sys.executable).parent / "aws"]
    shell = subprocess.run(
        [*aws, "ecs", "execute-command", "--task", task, "--container", "app", "--interactive", "--command", "/bin/sh"],
        env=environment, input="echo $((40 + 2)); id -u\nexit\n", capture_output=True, text=True, timeout=60)
    assert shell.returncode == 0, shell.stderr
    lines = shell.stdout.splitlines()
    assert any(line.startswith("Starting session with SessionId: ecs-execute-command-") for line in lines), lines
    assert "42" in lines and "0" in lines, lines


def test_a_command_ends_with_its_exit_code(host, task):
    done = execute(host, task, "-c", "app", "--", "sh", "-c", "echo it is $OF_IMAGE; exit 7")
    assert (done.returncode, done.stdout) == (7, "it is yes\n"), done.stderr
    killed = execute(host, task[:12], "--container", "app", "--", "sh", "-c", "kill -9 $$")
    assert killed.returncode == 137
    missing = execute(host, task, "-c", "app", "--", "no-such-program")
    assert missing.returncode == 1 and "no-such-program" in missing.stderr, missing.stderr


def test_input_is_piped_in(host, task):
    # The terminal shows what is typed in between, wherever the cursor is.
    done = execute(host, task, "-c", "app", "--", "sh", "-c", "n=$(wc -l); echo; echo $n lines",
                   input="".join(f"line {n}\n" for n in range(500)))
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == "500 lines", done
    much = execute(host, task, "-c", "app", "--", "busybox", "seq", "1", "50000")
    assert much.stdout.split() == [str(n) for n in range(1, 50001)]


class Typed:
    """`gantry exec` at a terminal of its own."""

    def __init__(self, host, *arguments, environment=None):
        self.pid, self.terminal = pty.fork()
        if self.pid == 0:
            os.execve(binary(), [binary(), "exec", *arguments], {**host.platform.environment, **(environment or {})})
        self.shown = ""

    def resize(self, rows, columns):
        fcntl.ioctl(self.terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text):
        os.write(self.terminal, text.encode())

    def shows(self, text):
        os.set_blocking(self.terminal, False)

        def look():
            try:
                self.shown += os.read(self.terminal, 65536).decode()
            except BlockingIOError:
                pass
            except OSError:
                # Its last process has ended.
                assert text in self.shown, self.shown
            return text in self.shown
        until(look)
        self.shown = self.shown.partition(text)[2]

    def ends(self):
        _, status = os.waitpid(self.pid, 0)
        os.close(self.terminal)
        return os.waitstatus_to_exitcode(status)


def test_a_terminal_resizes_and_interrupts(host, task):
    typed = Typed(host, task, "-c", "app")
    typed.shows("# ")
    typed.resize(33, 101)
    typed.type("until busybox stty size | grep 101; do sleep 0.1; done\r")
    typed.shows("33 101\r\n")
    typed.type("sleep 777\r")
    until(lambda: "sleep 777" in processes(host, task))
    typed.type("\x03")
    until(lambda: "sleep 777" not in processes(host, task))
    typed.type("echo still $((1 + 1)) here\r")
    typed.shows("still 2 here")
    typed.type("exit 5\r")
    assert typed.ends() == 5


def test_what_was_started_ends_with_its_client(host, task):
    client = subprocess.Popen([binary(), "exec", task, "-c", "app", "--", "sleep", "888"],
                              env=host.platform.environment, stdin=subprocess.PIPE)
    until(lambda: "sleep 888" in processes(host, task))
    client.kill()
    client.wait()
    until(lambda: "sleep 888" not in processes(host, task))
    interrupted = subprocess.Popen([binary(), "exec", task, "-c", "app", "--", "sleep", "999"],
                                   env=host.platform.environment, stdin=subprocess.PIPE)
    until(lambda: "sleep 999" in processes(host, task))
    interrupted.send_signal(signal.SIGINT)
    assert interrupted.wait(timeout=60) == 130
    until(lambda: "sleep 999" not in processes(host, task))


def test_a_session_takes_its_token_once(host, task):
    session = host.ecs.execute_command(task=task, container="app", command="sh", interactive=True)["session"]
    assert Session({**session, "tokenValue": "0" * 64}).receive(10) is None
    begun = Session(session)
    assert begun.receive(10)
    again = Session(session)
    assert again.receive(10) is None
    begun.socket.close()


def test_what_cannot_be_executed_is_refused(host, task):
    def asks(error, text, **members):
        members = {"task": task, "container": "app", "command": "sh", "interactive": True, **members}
        refused(error, text, host.ecs.execute_command, **members)
    asks("InvalidParameterException", "was not found", task="0" * 32)
    asks("InvalidParameterException", "was not found in the task", container="nobody")
    asks("InvalidParameterException", "Interactive is the only mode", interactive=False)
    asks("ClusterNotFoundException", "", cluster="nowhere")
    several = execute(host, task, "--", "true")
    assert several.returncode == 1 and "container name is required" in several.stderr
    assert "no running task" in execute(host, "f" * 32).stderr

    plain = host.start(sh("sleep 100"))
    wait(host.ecs, "tasks_running", tasks=[plain])
    asks("InvalidParameterException", "execute command was not enabled", task=plain)
    host.ecs.stop_task(task=plain)
    host.end(plain)
    asks("InvalidParameterException", "", task=plain)


def test_the_agent_is_seen_to_be_ready(host, task):
    containers = host.ecs.describe_tasks(tasks=[task])["tasks"][0]["containers"]
    for container in containers:
        agents = {agent["name"]: agent["lastStatus"] for agent in container["managedAgents"]}
        assert agents == {"ExecuteCommandAgent": "RUNNING"}


class Cut:
    """A way to the platform that can be cut: a port of this machine, whose connections end when it is told so."""

    def __init__(self, url):
        self.target = url.removeprefix("http://").rsplit(":", 1)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.pairs, self.is_open = [], threading.Event()
        self.is_open.set()
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                near, _ = self.listener.accept()
                if not self.is_open.is_set():
                    near.close()
                    continue
                far = socket.create_connection((self.target[0], int(self.target[1])))
                self.pairs.append((near, far))
                for ends in (near, far), (far, near):
                    threading.Thread(target=self.carry, args=ends, daemon=True).start()

    def carry(self, source, target):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        self.end(source, target)

    def end(self, *sockets):
        for one in sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def cut(self):
        """Nobody gets through until it is mended."""
        self.is_open.clear()
        for pair in self.pairs:
            self.end(*pair)
        self.pairs = []

    def mend(self):
        self.is_open.set()

    def close(self):
        self.cut()
        self.listener.close()


def test_a_session_outlives_its_clients_connection(host, task):
    way = Cut(host.platform.url)
    try:
        environment = {**host.platform.environment, "AWS_ENDPOINT_URL": way.url}
        count = "i=0; while test $i -lt 2000; do i=$((i+1)); echo line $i; test $((i % 50)) = 0 && sleep 0.1; done; exit 9"
        client = subprocess.Popen([binary(), "exec", task, "-c", "app", "--", "sh", "-c", count], env=environment,
                                  stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        heard = []
        for _ in range(3):
            heard += [client.stdout.readline() for _ in range(200)]
            way.cut()
            # Long enough for tries that fail; the program goes on meanwhile.
            time.sleep(0.5)
            way.mend()
        # Not by `communicate`, which knows nothing of what was read ahead.
        rest, errors = client.stdout.read(), client.stderr.read()
        client.wait(timeout=60)
        lines = "".join(heard).split("\n")[:-1] + rest.split("\n")
        assert [line.strip() for line in lines if line.strip()] == [f"line {n}" for n in range(1, 2001)], errors
        assert client.returncode == 9, errors
    finally:
        way.close()


def test_typing_goes_on_after_the_connection_broke(host, task):
    way = Cut(host.platform.url)
    try:
        typed = Typed(host, task, "-c", "app", environment={"AWS_ENDPOINT_URL": way.url})
        typed.shows("# ")
        typed.type("mark=$((40 + 2))\r")
        typed.shows("# ")
        way.cut()
        # What is typed meanwhile arrives once and in its order.
        typed.type("echo it is $mark, ")
        time.sleep(0.3)
        way.mend()
        typed.type("$((mark + 1))\r")
        typed.shows("it is 42, 43")
        typed.type("exit 3\r")
        assert typed.ends() == 3
    finally:
        way.close()


def test_a_lost_client_comes_back_by_a_token_of_session_managers(host, task):
    """What the plugin does: it asks for a new token, which is good for one connection, and goes on with its numbers."""
    ssm = host.platform.client("ssm")
    session = host.ecs.execute_command(task=task, container="app", command="sh", interactive=True)["session"]
    first = Session(session)
    first.until_shows("# ")
    first.send(OUTPUT, b"mark=there\r")
    first.until_shows("# ")
    first.socket.socket.shutdown(socket.SHUT_RDWR)
    resumed = ssm.resume_session(SessionId=session["sessionId"])
    assert resumed["SessionId"] == session["sessionId"] and resumed["TokenValue"] != session["tokenValue"]
    # The first token opens nothing any more.
    assert Session(session).receive(10) is None
    first.connect({**session, "tokenValue": resumed["TokenValue"], "streamUrl": resumed["StreamUrl"]})
    first.send(OUTPUT, b"echo still $mark\r")
    first.until_shows("still there")
    first.send(OUTPUT, b"exit\r")
    while first.receive(10) is not None:
        pass
    # One that has ended has no token, which the plugin takes for its end.
    assert "TokenValue" not in until(lambda: ended(ssm, session["sessionId"]))
    refused("DoesNotExistException", "does not exist", ssm.resume_session, SessionId="mary-major-0123")


def ended(ssm, session):
    answer = ssm.resume_session(SessionId=session)
    return "TokenValue" not in answer and answer


@runs_once
def test_a_session_outlives_a_restart_of_the_control_plane(tmp_path):
    """Its agent is another process, as on other machines."""
    server = Capacity(tmp_path / "server", listen=f"127.0.0.1:{free_port()}").start()
    with server.agent(12, "--cluster", "default") as agent:
        subprocess.run([binary(), "image", "load", "--data-dir", agent.directory, image(tmp_path)], check=True, timeout=60)
        there = Host(server)
        arn = there.start(sh("trap exit TERM; while true; do sleep 1; done"), task=ROLE, enableExecuteCommand=True)
        wait(there.ecs, "tasks_running", tasks=[arn])
        count = "i=0; while read line; do i=$((i+1)); echo heard $i; test $i = 3 && exit 4; done"
        client = subprocess.Popen([binary(), "exec", arn, "--", "sh", "-c", count], env=server.environment,
                                  stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for number in 1, 2, 3:
            client.stdin.write("next\n")
            client.stdin.flush()
            until(lambda: f"heard {number}" in client.stdout.readline())
            if number < 3:
                server.end(signal.SIGKILL)
                server.start()
        client.stdin.close()
        assert client.wait(timeout=60) == 4
    server.end(signal.SIGKILL)


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]
