"""Work on many objects at once: one piece at a time for each, tried again later when it fails."""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

FIRST_DELAY, LONGEST_DELAY = 0.5, 30.0  # seconds until a failed piece of work is tried again
WORKERS = 8


class Tasks:
    """`log` gets the object's key and what went wrong: once, until it is something else or over."""

    def __init__(self, log: Callable[[str, str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._clock = clock
        self._pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="task")
        self._running: dict[str, Future[None]] = {}
        self._failures: dict[str, tuple[str, float, float]] = {}  # text, delay, time of the next try

    def submit(self, key: str, work: Callable[..., None], *arguments: object) -> None:
        """Do `work(*arguments)` unless work with this key is under way or has failed just now."""
        if key in self._running and not self._running[key].done():
            return
        if key in self._failures and self._clock() < self._failures[key][2]:
            return
        self._running[key] = self._pool.submit(self._run, key, work, arguments)

    def _run(self, key: str, work: Callable[..., None], arguments: tuple[object, ...]) -> None:
        before = self._failures.get(key)
        try:
            work(*arguments)
        except Exception as error:  # noqa: BLE001, whatever it is, the next try may succeed
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
        """What went wrong with the object at the last try."""
        failure = self._failures.get(key)
        return failure[0] if failure else None

    def close(self, *, wait: bool) -> None:
        """Start nothing any more; with `wait` return when what is under way has ended."""
        self._pool.shutdown(wait=wait, cancel_futures=True)
