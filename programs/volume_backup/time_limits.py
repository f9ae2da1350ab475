"""Limits the time of anything that blocks."""

import contextlib
import signal
from typing import Iterator, NoReturn


class TimeLimitError(Exception):
    """The time is over."""


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise TimeLimitError in the block after this time. A socket's own limit covers only the pause between packets."""

    def stop(*_: object) -> NoReturn:
        raise TimeLimitError

    former = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)
