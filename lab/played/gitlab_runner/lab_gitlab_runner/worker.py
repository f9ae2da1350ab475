"""`gitlab-runner run`: requests jobs from GitLab and reloads config.toml when it changes (commands/multi.go)."""

import json
import re
import signal
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from lab_gitlab_runner import coordinator, log
from lab_gitlab_runner.build import Build
from lab_gitlab_runner.configuration import ConfigurationError, Runner, load

RELOAD_INTERVAL = 3.0  # seconds between two checks of the file
UNHEALTHY_LIMIT = 3  # rejected requests in a row
UNHEALTHY_INTERVAL = "1h0m0s"  # pause after that; a changed file ends it
STEP = 0.1  # seconds
SHUTDOWN_TIMEOUT = 30.0  # seconds in which jobs must end after a signal that aborts them
SIGNAL_NAMES: dict[int, str] = {signal.SIGTERM: "terminated", signal.SIGINT: "interrupt"}


@dataclass
class Health:
    """Rejected requests of one runner."""

    refusals: int = 0
    since: float = 0.0


class Worker:
    """The service. Raises ConfigurationError or OSError if the file cannot be read at the start."""

    def __init__(self, file: Path) -> None:
        self.configuration = load(file)
        self._health: dict[str, Health] = {}
        self._builds: dict[int, tuple[Build, threading.Thread]] = {}
        self._signal = 0
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            signal.signal(number, self._stop)

    def run(self) -> None:
        """Run until a signal arrives."""
        log.info(f"Starting multi-runner from {self.configuration.file}...")
        checked, asked = time.monotonic(), 0.0
        while not self._signal:
            moment = time.monotonic()
            if moment - checked >= RELOAD_INTERVAL:
                checked = moment
                self._reload_if_changed()
            if moment - asked >= self.configuration.check_interval:
                asked = moment
                for runner in self.configuration.runners:
                    while not self._signal and self._request_job(runner):  # requeueRunner
                        pass
            time.sleep(STEP)
        self._end_builds()
        log.info("All workers stopped.")

    def _reload_if_changed(self) -> None:
        file = self.configuration.file
        try:
            if file.stat().st_mtime > self.configuration.modified:
                self.configuration = load(file)
                self._health.clear()
                log.info("Configuration loaded")
        except (ConfigurationError, OSError) as error:
            log.error(f"Failed to load config {error}")

    def _request_job(self, runner: Runner) -> bool:
        """Request a job if there is a free slot, unless GitLab has rejected the runner's token too often; return
        whether there was a job.
        """
        if len(self._builds) >= self.configuration.concurrent:
            return False
        name = f'Runner "{runner["url"]}{runner["token"][:8]}"'
        health = self._health.setdefault(runner["token"], Health())
        limit = runner.get("unhealthy_requests_limit") or UNHEALTHY_LIMIT
        interval = runner.get("unhealthy_interval") or UNHEALTHY_INTERVAL
        if health.refusals >= limit:
            if time.monotonic() - health.since < seconds(interval):
                return False
            log.warning(f"{name} is not healthy, but check for a new job will be forced!")
            health.refusals = 0
        answer = coordinator.request_job(runner, self.configuration.system_id)
        if answer.status == 403:
            health.refusals, health.since = health.refusals + 1, time.monotonic()
            if health.refusals >= limit:
                log.error(f"{name} is unhealthy and will be disabled for {interval} seconds!")
            return False
        health.refusals = 0
        if answer.status == 201:
            self._start(runner, json.loads(answer.content), answer.ca_chain)
        return answer.status == 201

    def _start(self, runner: Runner, job: dict[str, Any], ca_chain: str) -> None:
        """Run a job in a thread, concurrently with others."""
        slot = next(number for number in range(self.configuration.concurrent) if number not in self._builds)
        build = Build(runner, self.configuration.system_id, job, slot, ca_chain)
        thread = threading.Thread(target=self._run, args=(slot, build), daemon=True)
        self._builds[slot] = build, thread
        thread.start()

    def _run(self, slot: int, build: Build) -> None:
        try:
            build.run()
        finally:
            self._builds.pop(slot, None)

    def _end_builds(self) -> None:
        """Wait for jobs after SIGQUIT; after other signals abort them and report that to GitLab."""
        builds = list(self._builds.values())
        while any(thread.is_alive() for _, thread in builds) and self._signal == signal.SIGQUIT:
            time.sleep(STEP)
        deadline = time.monotonic() + SHUTDOWN_TIMEOUT
        for build, thread in builds:
            if thread.is_alive():
                build.interrupt(SIGNAL_NAMES.get(self._signal, "terminated"))
        for _, thread in builds:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _stop(self, number: int, _frame: FrameType | None) -> None:
        self._signal = number


def seconds(duration: str) -> float:
    """Convert a duration in Go's format, such as 1h30m, to seconds."""
    units = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
    return sum(float(number) * units[unit] for number, unit in re.findall(r"([\d.]+)(h|ms|m|s)", duration))
