"""The possible outcomes of a check."""

import re
from typing import Any, Callable, NamedTuple, Union

PASSED, BROKEN, COULD_NOT_CHECK = 0, 1, 2
"""Exit statuses."""

TERMINAL_SEQUENCE = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]|(?:\x1b[PX^_\]]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?"
)
"""Terminal control sequences with their parameters or strings (ECMA-48, 5.4 and 5.6)."""


def printable(text: str) -> str:
    """The text as one line without control characters (C0 and C1) and terminal control sequences.

    Output of a machine, job logs included, is shown in an administrator's terminal, and the machine may be compromised.
    """
    line = " ".join(filter(None, TERMINAL_SEQUENCE.sub("", text).replace("\t", " ").splitlines()))
    return re.sub(r"[\x00-\x1f\x7f-\x9f]", "", line).strip()


class FailedCheckError(Exception):
    """The check currently fails; the message describes what was observed. `final`: retrying cannot help. `cause`: the
    key of the remedy, if the check distinguishes several (`Check.remedies` of configuration/checks.py).
    """

    def __init__(self, observed: str, final: bool = False, cause: str = "") -> None:
        super().__init__(printable(observed))
        self.final = final
        self.cause = cause


class CheckError(Exception):
    """The check could not be run, so its result is unknown; the message explains why."""


class Deferred(NamedTuple):
    """A later check decides: the reason, and the condition `until` which the check is deferred."""

    reason: str
    until: str


class Measured(NamedTuple):
    """The check passed and measured its own duration in seconds."""

    seconds: float
    note: str = ""


class ReportedElsewhere(NamedTuple):
    """The check passed; another group of checks reports it."""


class NotApplicable(NamedTuple):
    """The stack's settings exclude the subject of the check; the reason."""

    reason: str


Result = Union[None, Measured, Deferred, ReportedElsewhere, NotApplicable]
"""Return value of a check; None if it passed and its duration is measured by the caller."""

Check = Callable[[Any], Result]
"""Receives the context of its group of checks, usually the stack's endpoints."""
