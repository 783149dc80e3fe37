"""Gantry's own commands, as an operator types them: images, settings, status, logs, help."""

import hashlib
import io
import json
import os
import signal
import socket
import stat
import subprocess
import tarfile
import time

import pytest
from conftest import Gantry, binary, needs_root, wait
from test_tasks import describe, on_ec2, run


def gantry(*arguments, **options):
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("GANTRY_", "AWS_"))}
    options = {"env": environment, "capture_output": True, "timeout": 60, **options}
    return subprocess.run([binary(), *map(str, arguments)], **options)


def archive(name, files):
    """What `docker save` makes of an image of one layer."""
    def tar(entries):
        written = io.BytesIO()
        with tarfile.open(fileobj=written, mode="w") as file:
            for path, content in entries.items():
                info = tarfile.TarInfo(path)
                info.size, info.mode = len(content), 0o755
                file.addfile(info, io.BytesIO(content))
        return written.getvalue()

    layer = tar(files)
    config = json.dumps({
        "architecture": "amd64", "os": "linux", "config": {"Cmd": ["/bin/program"]},
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(layer).hexdigest()]},
    }).encode()
    manifest = json.dumps([{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]).encode()
    return tar({"layer.tar": layer, "config.json": config, "manifest.json": manifest})


def test_an_image_is_loaded_and_listed(tmp_path):
    saved = archive("local/tool:1", {"bin/program": b"#!/bin/sh\n"})
    (tmp_path / "image.tar").write_bytes(saved)
    loaded = gantry("image", "--data-dir", tmp_path / "data", "load", tmp_path / "image.tar", text=True)
    assert loaded.stdout == "Loaded image: local/tool:1\n", loaded.stderr
    piped = gantry("image", "--data-dir", tmp_path / "piped", "load", "-", input=saved)
    assert piped.stdout == b"Loaded image: local/tool:1\n", piped.stderr
    listed = gantry("image", "--data-dir", tmp_path / "data", "list", text=True).stdout
    assert "local/tool" in listed
    (tmp_path / "cut.tar").write_bytes(saved[:700])
    broken = gantry("image", "--data-dir", tmp_path / "data", "load", tmp_path / "cut.tar", text=True)
    assert broken.returncode != 0 and "cut.tar" in broken.stderr
    assert gantry("image", "--data-dir", tmp_path / "data", "list", text=True).stdout == listed


def test_a_flag_wins_over_the_environment_and_that_over_the_file(tmp_path):
    def free():
        with socket.create_server(("127.0.0.1", 0)) as listener:
            return listener.getsockname()[1]

    in_file, in_environment, by_flag = free(), free(), free()
    config = tmp_path / "gantry.toml"
    config.write_text(f'data-dir = "{tmp_path}/data"\nlisten = "127.0.0.1:{in_file}"\naccount = "210987654321"\n')

    def listens_on(*flags, **environment):
        endpoint = tmp_path / "data/endpoint"
        endpoint.unlink(missing_ok=True)
        process = subprocess.Popen([binary(), "server", "--config", config, *flags],
                                   env={**os.environ, **environment}, stderr=subprocess.DEVNULL)
        try:
            deadline = time.monotonic() + 20
            while not (endpoint.exists() and endpoint.read_text().strip()):
                assert process.poll() is None and time.monotonic() < deadline
                time.sleep(0.01)
            return int(endpoint.read_text().strip().rsplit(":", 1)[1])
        finally:
            process.kill()
            process.wait()

    assert listens_on() == in_file
    assert listens_on(GANTRY_LISTEN=f"127.0.0.1:{in_environment}") == in_environment
    flag = ["--listen", f"127.0.0.1:{by_flag}"]
    assert listens_on(*flag, GANTRY_LISTEN=f"127.0.0.1:{in_environment}") == by_flag


def test_a_setting_that_is_not_known_is_named(tmp_path):
    config = tmp_path / "gantry.toml"
    config.write_text("listne = '127.0.0.1:1'\n")
    refused = gantry("server", "--config", config, text=True)
    assert refused.returncode != 0
    assert "listne" in refused.stderr and "gantry.toml" in refused.stderr


@pytest.fixture
def gantry_server(tmp_path):
    server = Gantry(tmp_path / "gantry").start()
    yield server
    server.end(signal.SIGKILL)


def test_the_root_key_is_the_owners_alone(gantry_server):
    keys = [path for path in gantry_server.directory.rglob("*") if path.is_file() and "key" in path.name]
    assert keys
    for path in keys:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
        secret = gantry_server.environment["AWS_SECRET_ACCESS_KEY"]
        assert secret not in gantry_server.log.read_text()


def test_open_authentication_stays_on_loopback(tmp_path):
    refused = gantry("server", "--data-dir", tmp_path, "--auth", "open", "--listen", "0.0.0.0:0", text=True)
    assert refused.returncode != 0 and "loopback" in refused.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_complete_it(shell):
    script = gantry("completions", shell, text=True)
    assert script.returncode == 0 and "sweep" in script.stdout
    if shell == "bash":
        assert subprocess.run(["bash", "-n"], input=script.stdout, text=True).returncode == 0


def test_the_manual_page_names_every_command():
    page = gantry("man", text=True).stdout
    assert page.startswith(".") and ".TH" in page
    for command in "up", "demo", "server", "agent", "lb", "status", "logs", "exec", "env", "image", "sweep":
        assert command in page


def test_help_says_what_happens_without_flags():
    text = gantry("up", "--help", text=True).stdout
    for default in "/var/lib/gantry", "127.0.0.1:4580", "strict", "us-east-1":
        assert default in text, f"{default} in\n{text}"


def test_without_a_server_the_message_says_what_to_do(tmp_path):
    for command in ["status"], ["env"]:
        refused = gantry(*command, "--data-dir", tmp_path, text=True)
        assert refused.returncode != 0
        assert str(tmp_path) in refused.stderr and "gantry up" in refused.stderr, refused.stderr


@needs_root
def test_status_and_logs_of_what_runs(platform):
    ecs = platform.client("ecs")
    arn = run(ecs, on_ec2("host", environment=[{"name": "PORT", "value": "18080"}]))
    wait(ecs, "tasks_running", tasks=[arn])
    assert describe(ecs, arn)["lastStatus"] == "RUNNING"
    identifier = arn.rsplit("/", 1)[1]
    status = platform.gantry("status").stdout
    assert identifier in status and "RUNNING" in status
    assert "2 agents connected" in status and "controller tasks" in status, status
    # From another machine: by AWS's variables alone.
    remote = gantry("status", env={k: v for k, v in platform.environment.items() if k.startswith("AWS_")}, text=True)
    assert remote.returncode == 0 and identifier in remote.stdout, remote.stderr
    shown = platform.gantry("logs", identifier[:12], "--timestamps").stdout
    assert shown and all(line.split()[0].replace(".", "").isdigit() for line in shown.splitlines())
    refused = gantry("exec", identifier, "--data-dir", platform.directory, "--", "true", text=True)
    assert refused.returncode != 0 and refused.stderr.count("Exception") == 1, "said once: " + refused.stderr
    unknown = gantry("logs", "0" * 32, "--data-dir", platform.directory, text=True)
    assert unknown.returncode != 0 and "no agent of this machine has logs" in unknown.stderr
