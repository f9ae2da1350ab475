"""The package's services, supervised by the real runit (sv(8), runsv(8), svlogd(8))."""

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from lab_gitlab import paths
from lab_gitlab.files import folder, write

DOWN = 3
"""Exit code of `gitlab-ctl status` for a service that is not running, the same as for LSB init scripts."""


def names() -> list[str]:
    """Return the names of the enabled services, sorted."""
    return sorted(link.name for link in paths.SERVICES.iterdir()) if paths.SERVICES.is_dir() else []


def sv(command: str, service: str | Path) -> tuple[str, int]:
    """Run sv(8) and return its output and exit code."""
    environment = {**os.environ, "SVDIR": str(paths.SERVICES)}
    done = subprocess.run([paths.SV, command, service], env=environment, capture_output=True, text=True, check=False)
    text = done.stdout.strip() or done.stderr.strip()
    return text, DOWN if text.startswith("down: ") else done.returncode


def restart(name: str) -> tuple[str, int]:
    """Restart a service and wait for its new process; return sv(8)'s output and exit code.

    `sv restart` may return before: it compares whole seconds, so it takes a service that has started within the same
    second for one that has restarted, and it does not wait for one that has ended by itself (runit, sv.c, check()).
    """

    def process() -> str:
        return sv("status", name)[0].partition(")")[0]

    before = process()
    done = sv("restart", name)
    if wait(lambda: is_running(name) and process() != before):
        return done
    return sv("status", name)[0], DOWN


def is_running(name: str) -> bool:
    return sv("status", name)[0].startswith("run: ")


def is_supervised(name: str) -> bool:
    """Return whether runsv(8) supervises the service; runsvdir(8) scans for new services every five seconds."""
    return sv("status", name)[0].startswith(("run: ", "down: ", "finish: "))


def define(name: str, script: str) -> bool:
    """Write the run scripts of a service and of its log; return whether the service's script has changed."""
    definition, log = paths.SERVICE_DEFINITIONS / name, paths.LOGS / name
    folder(definition / "log")
    folder(log)
    write(definition / "log/run", f"#!/bin/sh\nexec {paths.SVLOGD} {log}\n", mode=0o755)
    return write(definition / "run", script, mode=0o755)


def enable(name: str) -> None:
    link = paths.SERVICES / name
    if not link.is_symlink():
        link.symlink_to(paths.SERVICE_DEFINITIONS / name)


def disable(name: str) -> None:
    """Stop the service and its supervision."""
    link = paths.SERVICES / name
    if link.is_symlink():
        link.unlink()
        sv("exit", paths.SERVICE_DEFINITIONS / name)


def wait(condition: Callable[[], bool], seconds: float = 30.0) -> bool:
    """Wait for a condition; return whether it became true in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return False
