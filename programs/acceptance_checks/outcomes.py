"""What a check can come to."""

import re
from typing import Any, Callable, NamedTuple, Union

PASSED, BROKEN, COULD_NOT_CHECK = 0, 1, 2
"""Exit statuses."""

TERMINAL_SEQUENCE = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]|(?:\x1b[PX^_\]]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?"
)
"""Commands to a terminal, with their parameters or text (ECMA-48, 5.4 and 5.6)."""


def printable(text: str) -> str:
    """One line without any control character of Unicode, C0 and C1, and without sequences that command a terminal: what
    a machine says, a job's log among it, ends in an administrator's terminal, and somebody may have taken the machine.
    """
    line = " ".join(filter(None, TERMINAL_SEQUENCE.sub("", text).replace("\t", " ").splitlines()))
    return re.sub(r"[\x00-\x1f\x7f-\x9f]", "", line).strip()


class FailedCheckError(Exception):
    """The check fails at this moment; the text says what was observed. `final`: waiting does not help."""

    def __init__(self, observed: str, final: bool = False) -> None:
        super().__init__(printable(observed))
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
