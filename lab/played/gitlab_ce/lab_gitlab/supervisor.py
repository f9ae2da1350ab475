"""Plays runit: runs what is linked in /opt/gitlab/service, again when it ends, and does what its control pipe says.

Each service is a folder with a `run` script. `supervise/control` takes the letters u (up), d (down), t (terminate) and
h (hang up); `supervise/status` says in JSON how the service is.
"""

import contextlib
import json
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

from lab_gitlab import paths

STARTED = time.time()
INTERVAL = 0.1  # seconds between two looks at everything
RESTART_DELAY = 1.0  # seconds from one start of a failing service to the next
KILL_AFTER = 10.0  # seconds from SIGTERM to SIGKILL

SIGNALS = {"t": signal.SIGTERM, "h": signal.SIGHUP}


class Service:
    """One supervised process with its own process group."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.wanted = not (folder / "down").exists()
        self.process: subprocess.Popen[bytes] | None = None
        self.changed = time.time()
        self.terminated = 0.0
        self._started = 0.0
        supervise = folder / "supervise"
        supervise.mkdir(mode=0o700, exist_ok=True)
        self._status = supervise / "status"
        control = supervise / "control"
        if not control.exists() or not stat.S_ISFIFO(control.stat().st_mode):
            control.unlink(missing_ok=True)
            os.mkfifo(control, 0o600)
        # Open for writing too: the pipe must not end when its last writer leaves.
        self._control = os.open(control, os.O_RDWR | os.O_NONBLOCK)
        self._write_status()

    def step(self) -> None:
        """Obey, notice an end, start what should run."""
        with contextlib.suppress(BlockingIOError):
            for letter in os.read(self._control, 64).decode():
                self._obey(letter)
        if self.process and self.process.poll() is not None:
            self.process = None
            self._mark_change()
        if self.process and self.terminated and time.time() - self.terminated > KILL_AFTER:
            self._signal(signal.SIGKILL)
        if self.wanted and not self.process and time.time() - self._started >= RESTART_DELAY:
            self._start()

    def stop(self) -> None:
        """Ask the process to end and start it no more."""
        self.wanted = False
        self._signal(signal.SIGTERM)

    def leave(self) -> None:
        """Stop for good, and let go of the control pipe so that nobody waits for this service."""
        self.stop()
        if self.process:
            try:
                self.process.wait(KILL_AFTER)
            except subprocess.TimeoutExpired:
                self._signal(signal.SIGKILL)
                self.process.wait()
        os.close(self._control)
        self._status.unlink(missing_ok=True)

    def _obey(self, letter: str) -> None:
        if letter == "u":
            self.wanted = True
            self._started = 0.0
        elif letter == "d":
            self.stop()
        elif letter in SIGNALS:
            self._signal(SIGNALS[letter])
            if letter == "t":
                self._started = 0.0
        self._write_status()

    def _start(self) -> None:
        log = paths.LOGS / self.folder.name
        log.mkdir(parents=True, exist_ok=True)
        with (log / "current").open("ab") as output:
            self.process = subprocess.Popen(
                [self.folder / "run"],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._started = time.time()
        self.terminated = 0.0
        self._mark_change()

    def _signal(self, number: signal.Signals) -> None:
        if self.process:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, number)
            if number == signal.SIGTERM and not self.terminated:
                self.terminated = time.time()

    def _mark_change(self) -> None:
        self.changed = time.time()
        self._write_status()

    def _write_status(self) -> None:
        unfinished = self._status.with_suffix(".new")
        unfinished.write_text(
            json.dumps(
                {
                    "pid": self.process.pid if self.process else None,
                    "since": self.changed,
                    "wanted": self.wanted,
                    "supervisor": os.getpid(),
                    "supervised_since": STARTED,
                }
            )
        )
        unfinished.replace(self._status)


def main() -> None:
    paths.SERVICES.mkdir(parents=True, exist_ok=True)
    services: dict[str, Service] = {}
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        while True:
            present = {link.name: link.resolve() for link in paths.SERVICES.iterdir() if link.is_dir()}
            for name in services.keys() - present.keys():
                services.pop(name).leave()
            for name, folder in present.items():
                if name not in services:
                    services[name] = Service(folder)
                services[name].step()
            time.sleep(INTERVAL)
    finally:
        for service in services.values():
            service.stop()
        for service in services.values():
            service.leave()


if __name__ == "__main__":
    main()
