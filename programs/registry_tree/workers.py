"""Worker processes for one store."""

import concurrent.futures
import multiprocessing
import signal
from types import TracebackType
from typing import Any, Callable, Iterable, Iterator, Optional, Type, TypeVar

from .store import Store

Work = TypeVar("Work")
Result = TypeVar("Result")


class Workers:
    """A pool of processes, forked after the store's blobs are loaded, so that these need not be sent to them."""

    store: Any = None
    """The Store of all processes; None before Workers are created."""

    def __init__(self, store: Store, jobs: int) -> None:
        """`jobs`: the number of processes; with 1, the work is done in this process."""
        Workers.store = store
        self._jobs = jobs
        self._pool: Optional[concurrent.futures.ProcessPoolExecutor] = None

    def __enter__(self) -> "Workers":
        return self

    def map(self, function: Callable[[Work], Result], work: Iterable[Work]) -> Iterator[Result]:
        """Results in the order of the work, which starts at once; a single piece is done lazily in this process."""
        pieces = list(work)
        if min(self._jobs, len(pieces)) < 2:
            return map(function, pieces)
        if self._pool is None:
            multiprocessing.set_start_method("fork", force=True)  # the only method that shares this process's memory
            self._pool = concurrent.futures.ProcessPoolExecutor(self._jobs)
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])  # stays blocked in the processes that start now
        try:
            return self._pool.map(function, pieces)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])

    def __exit__(
        self,
        failure: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        if self._pool is not None and not failure:
            self._pool.shutdown()
