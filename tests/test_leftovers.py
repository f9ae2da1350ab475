"""The search for leftovers of a lab reports those of this clone, and nothing else on the machine."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab import __main__ as lab
from lab.workspace import ROOT
from tests.e2e import leftovers


@pytest.fixture
def called() -> Iterator[Callable[[str], int]]:
    """Starts a process with that command line; returns its ID."""
    started = []

    def start(arguments: str) -> int:
        process = subprocess.Popen(["bash", "-c", 'exec -a "$0" sleep 60', arguments])
        started.append(process)
        # Empty for a moment while the new program is loaded.
        while not Path(f"/proc/{process.pid}/cmdline").read_bytes().startswith(arguments.encode()):
            pass
        return process.pid

    yield start
    for process in started:
        process.kill()
        process.wait()


def left(pid: int) -> bool:
    return any(line.startswith(f"process {pid}: ") for line in leftovers.processes())


@pytest.mark.parametrize(
    "arguments",
    [
        "gitlab-runner run --config /etc/gitlab-runner/config.toml",
        "dockerd --data-root=/elsewhere/gitlab-lab/.lab/docker",
        f"dockerd --data-root=/elsewhere{ROOT}/.lab/docker",
        f"dockerd --data-root={ROOT}-2/.lab/docker",
        "/elsewhere/.venv/bin/python -m lab.cloud",
        f"tail -f {ROOT}/.laboratory",
    ],
)
def test_a_process_of_somebody_else_is_not_left_behind(called, arguments):
    assert not left(called(arguments))


@pytest.mark.parametrize(
    "arguments",
    [
        f"dockerd --data-root={ROOT}/.lab/docker",
        f"haproxy -db -f {ROOT}/.lab/run/balancer.cfg",
        f"{leftovers.COMMAND}.cloud",
    ],
)
def test_a_process_of_this_clone_is(called, arguments):
    assert left(called(arguments))


def test_whoever_looks_is_not(monkeypatch):
    own = Path("/proc/self/cmdline").read_bytes().split(b"\0")[0].decode()
    monkeypatch.setattr(leftovers, "COMMAND", own)
    assert not left(os.getpid())


LINKS = """\
1: lo: <LOOPBACK,UP> mtu 65536
7: gitlab-lab: <BROADCAST> mtu 1500
8: lab-0a1b2c3d4e@if7: <BROADCAST> mtu 1500 master gitlab-lab
9: collab-0@if3: <BROADCAST> mtu 1500
10: gitlab-runner0: <BROADCAST> mtu 1500
"""


def test_devices_are_known_by_their_whole_names_and_of_the_clone_whose_lab_is_there(monkeypatch, tmp_path):
    monkeypatch.setattr(leftovers, "_run", lambda *command: LINKS if command[0] == "ip" and "link" in command else "")
    assert [line.split(": ")[2] for line in leftovers.network()] == ["gitlab-lab", "lab-0a1b2c3d4e@if7"]
    monkeypatch.setattr(leftovers, "processes", list)
    monkeypatch.setattr(leftovers, "disks", list)
    monkeypatch.setattr(lab, "_owner", lambda: ROOT)
    assert len(leftovers.look()) == 2
    monkeypatch.setattr(lab, "_owner", lambda: tmp_path)
    assert leftovers.look() == []
