"""The lab is killed at various times: the next `make up` repairs it, or the next `make down` removes its remains."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lab import containers
from lab.cloud.machines import LABEL
from lab.workspace import ROOT, RUN, LabError
from tests.e2e.operations import lab

pytestmark = pytest.mark.long

MOMENTS = (3.0, 20.0, 60.0)
"""Seconds after the start of `up`: while engine and network start, machines boot, and steps run."""


def lab_processes() -> set[int]:
    """PIDs of the lab's processes on this host, and of the first process of each machine."""
    found = set()
    with contextlib.suppress(LabError):
        machines = containers.docker("ps", "--quiet", f"--filter=label={LABEL}").split()
        if machines:
            found |= set(map(int, containers.docker("inspect", "--format={{.State.Pid}}", *machines).split()))
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command = (folder / "cmdline").read_bytes().decode().replace("\0", " ")
            if any(mark in command for mark in (str(ROOT / ".lab"), f"{sys.executable} -m lab")):
                found.add(int(folder.name))
    return {pid for pid in found if Path(f"/proc/{pid}/exe").exists()} - {os.getpid()}


def kill_everything() -> None:
    deadline = time.monotonic() + 30
    while left := lab_processes():
        assert time.monotonic() < deadline, left
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.2)


def killed_after(seconds: float) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "lab", "up"], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    time.sleep(seconds)
    kill_everything()
    process.wait()


@pytest.mark.parametrize("seconds", MOMENTS)
def test_down_removes_what_a_killed_lab_left(seconds, leftovers):
    killed_after(seconds)
    done = lab("down")
    assert done.status == 0, done.output
    assert leftovers() == []


def test_up_mends_what_a_killed_lab_left(leftovers):
    killed_after(MOMENTS[1])
    done = lab("up")
    assert done.status == 0, done.output
    kill_everything()
    again = lab("up")
    assert again.status == 0, again.output
    down = lab("down")
    assert down.status == 0, down.output
    assert leftovers() == []


def test_a_pid_file_from_before_a_restart_of_the_machine_names_no_process_of_the_lab(leftovers):
    bystander = subprocess.Popen(["sleep", "600"])
    try:
        RUN.mkdir(parents=True, exist_ok=True)
        for name in ("cloud", "dockerd", "vendors-front"):
            (RUN / f"{name}.pid").write_text(f"{bystander.pid} 1\n")
        done = lab("down")
        assert done.status == 0, done.output
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()
    assert leftovers() == []


def test_a_second_clone_says_whose_lab_is_on_the_machine(tmp_path):
    clone = tmp_path / "clone"
    ignored = shutil.ignore_patterns(".lab", ".git", "__pycache__", ".venv")
    shutil.copytree(ROOT, clone, ignore=ignored)
    started = lab("preview")
    assert started.status == 0, started.output
    process = subprocess.Popen(
        [sys.executable, "-m", "lab", "up"], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    time.sleep(5)
    second = subprocess.run([sys.executable, "-m", "lab", "up"], cwd=clone, capture_output=True, text=True, check=False)
    process.send_signal(signal.SIGINT)
    process.wait(timeout=300)
    assert second.returncode != 0
    assert f"the lab of {ROOT} is on this machine" in second.stderr
    down = lab("down")
    assert down.status == 0, down.output
