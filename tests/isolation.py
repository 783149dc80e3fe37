"""A network and mounts of a test process's own: several may run at once, and what a killed one leaves ends with it."""

import ctypes
import os
import pathlib
import subprocess
import tempfile

CLONE_NEWNS = 0x0002_0000
CLONE_NEWNET = 0x4000_0000


def isolate():
    """Takes the calling thread, and what it starts from now on, away from the host's network and mounts."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS | CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "cannot have a network and mounts of its own")
    _run("mount", "--make-rprivate", "/")
    _run("ip", "link", "set", "lo", "up")
    _show_own_network()
    for shared in "/run/netns", "/run/gantry":
        pathlib.Path(shared).mkdir(exist_ok=True)
        _run("mount", "-t", "tmpfs", "tmpfs", shared)


def _show_own_network():
    """/sys tells of the network that it was mounted in. The control groups below it are the host's."""
    sys = tempfile.mkdtemp(prefix="gantry-tests-sys-")
    _run("mount", "-t", "sysfs", "sysfs", sys)
    _run("mount", "--rbind", "/sys/fs/cgroup", f"{sys}/fs/cgroup")
    _run("mount", "--rbind", sys, "/sys")
    _run("umount", "--recursive", sys)
    os.rmdir(sys)


def _run(*command):
    subprocess.run(command, check=True, timeout=30)
