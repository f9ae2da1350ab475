"""What a check can come to."""

from typing import Any, Callable, NamedTuple, Union

PASSED, BROKEN, COULD_NOT_CHECK = 0, 1, 2
"""Exit statuses."""


class FailedCheckError(Exception):
    """The check fails at this moment; the text says what was observed. `final`: waiting does not help."""

    def __init__(self, observed: str, final: bool = False) -> None:
        super().__init__(observed)
        self.final = final


class CheckError(Exception):
    """The check could not be made, so nothing is known; the text says why."""


class Deferred(NamedTuple):
    """A later check decides: why nothing is known yet, and what will be so when this check is made again."""

    reason: str
    until: str


class Measured(NamedTuple):
    """The check passed and knows better than the clock how many seconds its part took."""

    seconds: float
    note: str = ""


class ReportedElsewhere(NamedTuple):
    """The check passed; another group of checks reports that."""


Result = Union[None, Measured, Deferred, ReportedElsewhere]
"""What a check returns unless it raises; None when it passed and the clock tells how long it took."""

Check = Callable[[Any], Result]
"""Gets what its group of checks has in common, most often the stack's endpoints."""
