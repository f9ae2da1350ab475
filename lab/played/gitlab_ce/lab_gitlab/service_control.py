"""Plays `sv`: asks and tells the supervisor. Words and exit codes are runit's, as `gitlab-ctl` passes them on."""

import contextlib
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

from lab_gitlab import paths

WAIT = 7.0  # seconds that sv waits for what it asked for
DOWN, UNABLE = 3, 4


@dataclass(frozen=True)
class Status:
    """What the supervisor last said about a service; times in seconds since the epoch."""

    pid: int | None
    since: float
    wanted: bool
    supervisor: int
    supervised_since: float

    @property
    def running(self) -> bool:
        return self.pid is not None


def names() -> list[str]:
    """Services that are enabled, sorted."""
    return sorted(link.name for link in paths.SERVICES.iterdir()) if paths.SERVICES.is_dir() else []


def status(name: str) -> Status | None:
    """None while nobody supervises the service."""
    try:
        with contextlib.closing(_Control(name)):
            return Status(**json.loads((paths.SERVICES / name / "supervise/status").read_text()))
    except OSError:
        return None


def describe(name: str) -> tuple[str, int]:
    """The line of `sv status` and its exit code."""
    current = status(name)
    if current is None:
        return f"fail: {name}: runsv not running", UNABLE
    log = f"run: log: (pid {current.supervisor}) {_age(current.supervised_since)}s"
    if current.running:
        going = "" if current.wanted else ", want down, got TERM"
        return f"run: {name}: (pid {current.pid}) {_age(current.since)}s{going}; {log}", 0
    wish = ", want up" if current.wanted else ""
    return f"down: {name}: {_age(current.since)}s, normally up{wish}; {log}", DOWN


def tell(name: str, command: str) -> tuple[str, int]:
    """start, stop, restart, hup, term or kill a service, wait until it is so, and say how it went."""
    before = status(name)
    if before is None:
        return f"fail: {name}: runsv not running", UNABLE
    letters = {"start": "u", "stop": "d", "restart": "tu", "hup": "h", "term": "t"}[command]
    with contextlib.closing(_Control(name)) as control:
        control.send(letters)
    if command in ("hup", "term"):
        return f"ok: {describe(name)[0]}", 0
    deadline = time.monotonic() + WAIT
    while time.monotonic() < deadline:
        now = status(name)
        if now is None:
            break
        renewed = command != "restart" or now.pid != before.pid
        if (now.running and renewed) if command != "stop" else not now.running:
            return f"ok: {_without_log(describe(name)[0])}", 0
        time.sleep(0.05)
    return f"timeout: {_without_log(describe(name)[0])}", 1


class _Control:
    """The service's control pipe. Raises OSError when nobody reads it."""

    def __init__(self, name: str) -> None:
        pipe: Path = paths.SERVICES / name / "supervise/control"
        self._pipe = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)

    def send(self, letters: str) -> None:
        os.write(self._pipe, letters.encode())

    def close(self) -> None:
        os.close(self._pipe)


def _age(since: float) -> int:
    return max(0, int(time.time() - since))


def _without_log(line: str) -> str:
    return line.partition("; run: log")[0]
