"""Concurrent work on many objects: one task per object at a time, retried later if it fails."""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

FIRST_DELAY, LONGEST_DELAY = 0.5, 30.0  # seconds until a failed task is retried
WORKERS = 8


class Tasks:
    """Runs the tasks. `log` gets the object's key and the error once, until the error changes or is gone."""

    def __init__(self, log: Callable[[str, str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._clock = clock
        self._pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="task")
        self._running: dict[str, Future[None]] = {}
        self._failures: dict[str, tuple[str, float, float]] = {}  # error, delay, time of the retry

    def submit(self, key: str, work: Callable[..., None], *arguments: object) -> None:
        """Run `work(*arguments)` unless a task with this key is running or waiting for its retry."""
        if key in self._running and not self._running[key].done():
            return
        if key in self._failures and self._clock() < self._failures[key][2]:
            return
        self._running[key] = self._pool.submit(self._run, key, work, arguments)

    def _run(self, key: str, work: Callable[..., None], arguments: tuple[object, ...]) -> None:
        before = self._failures.get(key)
        try:
            work(*arguments)
        except Exception as error:  # noqa: BLE001, a retry may succeed after any error
            text = str(error) or type(error).__name__
            delay = min(before[1] * 2, LONGEST_DELAY) if before else FIRST_DELAY
            self._failures[key] = text, delay, self._clock() + delay
            if before is None or before[0] != text:
                self._log(key, text)
        else:
            if before is not None:
                del self._failures[key]
                self._log(key, "works again")

    def error(self, key: str) -> str | None:
        """Return the error of the object's last task, if it failed."""
        failure = self._failures.get(key)
        return failure[0] if failure else None

    def close(self, *, wait: bool) -> None:
        """Start no more tasks; with `wait`, return when the running ones have ended."""
        self._pool.shutdown(wait=wait, cancel_futures=True)
