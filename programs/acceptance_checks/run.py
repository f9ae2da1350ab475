"""A run of checks, one after the other, each retried up to its limit, until the first one fails."""

import sys
import time
from typing import Any, Dict, Mapping, NoReturn, Union

from . import messages
from .messages import Report
from .outcomes import (
    BROKEN,
    Check,
    CheckError,
    Deferred,
    FailedCheckError,
    Measured,
    NotApplicable,
    ReportedElsewhere,
    Result,
)

RETRY_INTERVAL = 1  # seconds between two attempts
FIRST_PROGRESS_AFTER, PROGRESS_INTERVAL = 5, 10  # seconds until the first progress line, and between further ones


class CheckRun:
    """One run of the checks of a task, in the task's order."""

    def __init__(self, task: Mapping[str, Any], report: Report) -> None:
        self.task = task
        self.report = report
        self.endpoints: Mapping[str, Any] = dict(task["endpoints"], security_updates=task.get("security_updates"))
        self.checks: Dict[str, Mapping[str, Any]] = {check["id"]: check for check in task["checks"]}
        self.end = time.monotonic() + task.get("within", float("inf"))
        self._next_progress = 0.0

    def perform_all(self, table: Mapping[str, Check], context: object) -> None:
        """Run every check of the task, then the deferred ones a second time, when they may not be deferred again."""
        deferred = [name for name in self.checks if not self.perform(name, table[name], context)]
        for name in deferred:
            self.perform(name, table[name], context, may_defer=False)

    def perform(self, name: str, check: Check, context: object, may_defer: bool = True) -> bool:
        """Retry a check until it passes or reaches its limit. A failed check exits, unless it only warns.

        Returns False if the check was deferred. Raises CheckError if the run's time limit is reached.
        """
        started = time.monotonic()
        self._next_progress = started + FIRST_PROGRESS_AFTER
        while True:
            result = attempt(check, context, may_defer)
            if not isinstance(result, FailedCheckError):
                return self._record(name, result, time.monotonic() - started)
            if self.checks[name].get("only_warns"):
                return self._warn(name, result)
            self._wait_or_fail(name, result, time.monotonic() - started)

    def fail(self, name: str, error: FailedCheckError, waited: float = 0.0) -> NoReturn:
        """Report a failed check and exit."""
        check = self.checks[name]
        self._report_failure(name, error, waited)
        print(f"The stack is up but does not work: {check['title']} failed.", file=sys.stderr)
        print(f"{check['failure']} {error}", file=sys.stderr)
        print(f"What to do: {remedy(check, error)}", file=sys.stderr)
        sys.exit(BROKEN)

    def _warn(self, name: str, error: FailedCheckError) -> bool:
        check = self.checks[name]
        self._report_failure(name, error, 0.0)
        if self.report.at_end:
            messages.progress(f"! {check['title']}: {check['failure']} {error} What to do: {remedy(check, error)}")
        return True

    def _report_failure(self, name: str, error: FailedCheckError, waited: float) -> None:
        cause = {"cause": error.cause} if error.cause else {}
        self.report.add(check=name, state="broken", seconds=round(waited, 3), detail=str(error), **cause)

    def _wait_or_fail(self, name: str, error: FailedCheckError, waited: float) -> None:
        title, limit = self.checks[name]["title"], self.checks[name]["limit"]
        if error.final or waited + RETRY_INTERVAL > limit:
            self.fail(name, error, waited)
        if time.monotonic() > self.end:
            raise CheckError(f"no time left for: {title}")
        if time.monotonic() >= self._next_progress:
            self._next_progress = time.monotonic() + PROGRESS_INTERVAL
            messages.progress(f"waiting for {title}, {int(waited)} s of {limit}: {error}")
        time.sleep(RETRY_INTERVAL)

    def _record(self, name: str, result: Result, taken: float) -> bool:
        if isinstance(result, Deferred):
            self.report.add(check=name, state="deferred", seconds=0.0, detail=result.reason)
            return False
        if isinstance(result, NotApplicable):
            self.report.add(check=name, state="off", seconds=0.0, detail=result.reason)
        elif not isinstance(result, ReportedElsewhere):
            seconds, note = result or Measured(taken)
            self.report.add(check=name, state="ok", seconds=round(seconds, 3), detail=note)
            if self.report.at_end:
                messages.progress(f"✓ {self.checks[name]['title']}  {seconds:.2f} s")
        return True


def remedy(check: Mapping[str, Any], error: FailedCheckError) -> str:
    """What to do about a failure of a check of the task."""
    return str(check.get("remedies", {}).get(error.cause, check["remedy"]))


def attempt(check: Check, context: object, may_defer: bool) -> Union[Result, FailedCheckError]:
    """Run a check once. Returns the error if it fails, or if it is deferred although it may not be."""
    try:
        result = check(context)
    except FailedCheckError as error:
        return error
    if isinstance(result, Deferred) and not may_defer:
        return FailedCheckError(f"Although {result.until}, {result.reason}.")
    return result
