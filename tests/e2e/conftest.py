"""The lab with the stack on it, for tests that walk through a stack's life in the order they are written."""

import shlex
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Any

import pytest

from lab import stack
from lab.workspace import LOGS, ROOT

ROLES = ("server", "registry", "runner")


@dataclass(frozen=True)
class Finished:
    """A command of the lab that has ended: its output, both streams, and how long it took, in seconds."""

    status: int
    output: str
    seconds: float


def lab(*arguments: str, input: str | None = None) -> Finished:
    """`python -m lab`; what the engine shows is kept in the lab's logs as well."""
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "lab", *arguments],
        cwd=ROOT,
        input=input,
        stdin=subprocess.DEVNULL if input is None else None,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if arguments == ("up",):
        LOGS.mkdir(parents=True, exist_ok=True)
        with (LOGS / "engine-display.log").open("a") as log:
            log.write(done.stdout)
    return Finished(done.returncode, done.stdout, time.monotonic() - started)


def on(role: str, command: str, *, input: str | None = None) -> Finished:
    """Run a shell command on a machine as its administrator does: by SSH to its own address."""
    return lab("ssh", role, "--", f"sudo bash -c {shlex.quote(command)}", input=input)


def must(role: str, command: str, *, input: str | None = None) -> str:
    done = on(role, command, input=input)
    assert done.status == 0, done.output
    return done.output.strip()


@pytest.fixture(scope="session")
def outputs() -> dict[str, Any]:
    """The stack is up, brought up if it was not; its outputs, secrets included."""
    done = lab("up")
    assert done.status == 0, done.output
    return stack.outputs(show_secrets=True)


@pytest.fixture
def leftovers():
    """Names everything of the lab that the kernel still knows: processes, devices, namespaces, rules, mounts, disks."""

    def look() -> list[str]:
        views = {
            "process": ["ps", "-eo", "args"],
            "network device": ["ip", "-o", "link"],
            "network namespace": ["ip", "netns"],
            "packet filter": ["nft", "list", "ruleset"],
            "mount": ["cat", "/proc/mounts"],
            "loop device": ["losetup", "--list", "--noheadings"],
        }
        marks = ("gitlab-lab", "gitlab_lab", "lab-", str(ROOT / ".lab"))
        own = ("pytest", "ps -eo args", "make ")
        found = []
        for kind, command in views.items():
            text = subprocess.run(command, capture_output=True, text=True, check=False).stdout
            for line in text.splitlines():
                if any(mark in line for mark in marks) and not any(word in line for word in own):
                    found.append(f"{kind}: {line}")
        return found

    return look
