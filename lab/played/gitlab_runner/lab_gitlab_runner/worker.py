"""`gitlab-runner run`: reads config.toml again when it has changed and asks GitLab for jobs (commands/multi.go)."""

import os
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
from lab_gitlab_runner.configuration import Configuration, ConfigurationError, load
from lab_gitlab_runner.coordinator import Runner

RELOAD_INTERVAL = 3.0  # seconds between two looks at the file
UNHEALTHY_LIMIT = 3  # refused or failed requests in a row
UNHEALTHY_INTERVAL = "1h0m0s"  # without requests after that; a changed file ends it
STEP = 0.1  # seconds
SHUTDOWN_TIMEOUT = 30.0  # seconds for jobs to end after a signal that aborts them
SIGNAL_NAMES: dict[int, str] = {signal.SIGTERM: "terminated", signal.SIGINT: "interrupt"}


@dataclass
class Health:
    """How one runner's last requests went."""

    failures: int = 0
    since: float = 0.0


class Worker:
    """The service. Raises ConfigurationError or OSError when the first reading of the file fails."""

    def __init__(self, file: Path) -> None:
        self.configuration = load(file)
        self._health: dict[str, Health] = {}
        self._last_updates: dict[str, str] = {}
        self._builds: dict[int, tuple[Build, threading.Thread]] = {}
        self._signal = 0
        self._stopping = False
        self._reload = False
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGINT, self._stop)
        signal.signal(signal.SIGQUIT, self._stop)
        signal.signal(signal.SIGHUP, self._reload_now)
        log.info(f"Starting multi-runner from {file}...", builds=0, max_builds=0)
        self._loaded()

    def run(self) -> None:
        """Until told to stop."""
        log.info("Initializing executor providers", builds=0, max_builds=self.concurrent)
        checked = time.monotonic()
        position, due = 0, time.monotonic()
        while not self._stopping:
            moment = time.monotonic()
            if self._reload or moment - checked >= RELOAD_INTERVAL:
                checked = moment
                self._look_at_file()
            if moment >= due:
                runners = self.configuration.runners
                if runners and len(self._builds) < self.concurrent:
                    position %= len(runners)
                    self._ask(runners[position], self.configuration)
                    position += 1
                due = moment + self.configuration.check_interval / max(1, len(runners))
            time.sleep(STEP)
        self._end_builds()
        log.info("All workers stopped.", builds=0)
        log.info("Can exit now!", builds=0)

    @property
    def concurrent(self) -> int:
        return int(self.configuration.content.get("concurrent", 1))

    def _look_at_file(self) -> None:
        try:
            if not self._reload and self.configuration.file.stat().st_mtime <= self.configuration.modified:
                return
            self._reload = False
            self.configuration = load(self.configuration.file)
        except (ConfigurationError, OSError) as error:
            log.error(f"Failed to load config {error}", builds=0)
            if self.configuration.file.exists():
                # Not the same broken file again and again.
                self.configuration.modified = self.configuration.file.stat().st_mtime
            return
        self._health.clear()
        self._loaded()

    def _loaded(self) -> None:
        log.info("Configuration loaded", builds=0, max_builds=self.concurrent)

    def _ask(self, runner: Runner, configuration: Configuration) -> None:
        token = str(runner.get("token", ""))
        health = self._health.setdefault(token, Health())
        limit = int(runner.get("unhealthy_requests_limit") or UNHEALTHY_LIMIT)
        interval = str(runner.get("unhealthy_interval") or UNHEALTHY_INTERVAL)
        if health.failures >= limit:
            if time.monotonic() - health.since < seconds(interval):
                return
            log.warning(f'Runner "{runner["url"]}{token[:8]}" is not healthy, but check for a new job will be forced!')
            health.failures = 0
        answer, healthy = coordinator.request_job(runner, configuration.system_id, self._last_updates.get(token, ""))
        self._last_updates[token] = answer.last_update
        if healthy:
            health.failures = 0
        else:
            health.failures, health.since = health.failures + 1, time.monotonic()
            if health.failures >= limit:
                log.error(
                    f'Runner "{runner["url"]}{token[:8]}" is unhealthy and will be disabled for {interval} seconds!',
                    unhealthy_requests=health.failures,
                    unhealthy_requests_limit=limit,
                )
        if answer.status == 201:
            self._start(runner, configuration, answer.body)

    def _start(self, runner: Runner, configuration: Configuration, job: dict[str, Any]) -> None:
        """Run a job beside those that run already."""
        slot = next(number for number in range(self.concurrent + 1) if number not in self._builds)
        build = Build(runner, configuration, job, slot)
        thread = threading.Thread(target=self._run, args=(slot, build), daemon=True)
        self._builds[slot] = build, thread
        fields = {"builds": len(self._builds), "max_builds": self.concurrent, "job": job["id"]}
        log.info("Added job to processing list", project=job["job_info"]["project_id"], **fields)
        thread.start()

    def _run(self, slot: int, build: Build) -> None:
        try:
            build.run()
        finally:
            self._builds.pop(slot, None)
            fields = {"builds": len(self._builds), "max_builds": self.concurrent, "job": build.job["id"]}
            log.info("Removed job from processing list", project=build.job["job_info"]["project_id"], **fields)

    def _end_builds(self) -> None:
        """SIGQUIT lets jobs come to their end; other signals abort them, and GitLab is told."""
        threads = [thread for _, thread in self._builds.values()]
        if threads and self._signal == signal.SIGQUIT:
            log.warning("Starting graceful shutdown, waiting for builds to finish", builds=len(threads))
        while any(thread.is_alive() for thread in threads) and self._signal == signal.SIGQUIT:
            time.sleep(STEP)
        for build, _ in list(self._builds.values()):
            build.interrupt(SIGNAL_NAMES.get(self._signal, "terminated"))
        deadline = time.monotonic() + (int(self.configuration.content.get("shutdown_timeout") or 0) or SHUTDOWN_TIMEOUT)
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _stop(self, number: int, _frame: FrameType | None) -> None:
        self._stopping = True
        self._signal = number

    def _reload_now(self, _number: int, _frame: FrameType | None) -> None:
        self._reload = True


def seconds(duration: str) -> float:
    """A duration as Go writes it, like 1h30m."""
    units = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
    return sum(float(number) * units[unit] for number, unit in re.findall(r"([\d.]+)(h|ms|m|s)", duration))


def run(file: Path) -> None:
    """Raises log.ExitError when the file cannot be read at the start."""
    try:
        worker = Worker(file)
    except (ConfigurationError, OSError) as error:
        log.fatal(str(error), pid=os.getpid())
    worker.run()
