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
CONTROLS = {"start": ("up",), "stop": ("down",), "restart": ("term", "cont", "up")}
"""What sv(8) sends for the commands that wait for their effect."""


def names() -> list[str]:
    """Return the names of the enabled services, sorted."""
    return sorted(link.name for link in paths.SERVICES.iterdir()) if paths.SERVICES.is_dir() else []


def sv(command: str, service: str | Path) -> tuple[str, int]:
    """Run sv(8) and return its output and exit code."""
    environment = {**os.environ, "SVDIR": str(paths.SERVICES)}
    done = subprocess.run([paths.SV, command, service], env=environment, capture_output=True, text=True, check=False)
    text = done.stdout.strip() or done.stderr.strip()
    return text, DOWN if text.startswith("down: ") else done.returncode


def control(command: str, *names: str, seconds: float = 7.0) -> list[tuple[str, int]]:
    """Pass a command to services, wait for its effect on all of them; return sv(8)'s output and exit code for each.

    sv(8) itself waits for one service after the other, and looks only every 0.42 seconds. After a restart it may even
    return before: it compares whole seconds, so it takes a service that has started within the same second for one that
    has restarted, and it does not wait for one that has ended by itself (runit, sv.c, check()).
    """
    before = {name: _process(name) for name in names if command in CONTROLS and is_supervised(name)}
    for name in before:
        for one in CONTROLS[command]:
            sv(one, name)

    def has_effect(name: str) -> bool:
        process = _process(name)
        if command == "stop":
            return process.startswith("down: ")
        return process.startswith("run: ") and (command == "start" or process != before[name])

    wait(lambda: all(map(has_effect, before)), seconds, pause=0.02)

    def result(name: str) -> tuple[str, int]:
        if name not in before:
            return sv(command, name)
        if not has_effect(name):
            return f"timeout: {sv('status', name)[0]}", 1
        return sv("stop" if command == "stop" else "start", name)  # which finds it done

    return list(map(result, names))


def _process(name: str) -> str:
    """Return the state of a service and the number of its process."""
    return sv("status", name)[0].partition(")")[0]


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


def wait(condition: Callable[[], bool], seconds: float = 30.0, *, pause: float = 0.05) -> bool:
    """Wait for a condition; return whether it became true in time. `pause` is the number of seconds between checks."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(pause)
    return False
