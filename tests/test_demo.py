"""The demo, as a newcomer runs it."""

import os
import pathlib
import re
import subprocess

from conftest import binary, needs_root

pytestmark = needs_root


def host():
    """What containers could leave on a host."""
    links = sorted(entry.name for entry in pathlib.Path("/sys/class/net").iterdir())
    namespaces = sorted(entry.name for entry in pathlib.Path("/run/netns").glob("gantry-*"))
    # Without whom a mount is shared with: what is there before is made shared for containers, and stays so.
    mounts = [re.sub(r" (shared|master):\d+", "", line)
              for line in pathlib.Path("/proc/self/mountinfo").read_text().splitlines() if "gantry" in line]
    return links, namespaces, mounts, sorted(pathlib.Path("/tmp").glob("gantry-demo-*"))


def test_the_demo_runs_everything_and_leaves_nothing():
    before = host()
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "GANTRY_"))}
    done = subprocess.run([binary(), "demo"], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    text = done.stdout
    for family in "web-app", "microservice", "batch-processor":
        assert f"registered {family}:1" in text
    assert len(re.findall(r"web-app +\w{8}  RUNNING", text)) >= 4, "three tasks and a replacement"
    assert text.count("Hello from Gantry") == 2
    assert re.search(r"http://127\.\d+\.\d+\.\d+/ answers", text), "through the load balancer"
    assert "visits: 1" in text
    assert re.search(r"killed process \d+", text)
    assert "batch-processor ended with exit code 0" in text
    assert "aws ecs create-service" in text
    assert "no process, mount, namespace, link or firewall rule is left" in text
    assert host() == before
