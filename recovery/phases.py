"""How long the phases of a command took."""

import contextlib
import time
from collections.abc import Callable, Iterator


class Phases:
    """Measures phases by their names; `seconds` has those that have begun."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Measure what happens while this lasts, also if it fails."""
        print(f"== {name}", flush=True)
        started = self._clock()
        try:
            yield
        finally:
            self.seconds[name] = round(self._clock() - started, 1)

    def __str__(self) -> str:
        """For people."""
        return ", ".join(f"{name} {seconds:.0f} s" for name, seconds in self.seconds.items())
