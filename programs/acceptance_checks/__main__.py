"""Runs the checks of one group: `acceptance_checks server|runner|registry|pipeline`.

Groups are named for the machine they run on; `pipeline` runs on the server, with a token that lives in this process
only and is revoked however the process ends. Standard input, each on a line in base64: the task (`task` of
configuration/report.py), and for `pipeline` what the group `registry` has reported; without that nothing is started.

Prints a line of JSON for each check, with its state: ok, broken, or deferred when a later check decides. With
`show_progress` in the task they are printed together at the end, if every check passed; what passed is written to file
descriptor 4 as it passes. What a failed check means goes to standard error, what is waited for to file descriptor 4.
Exit status: 0 all passed, 1 a check failed, 2 could not check.
"""

import datetime
import signal
import sys
from typing import NoReturn

from .messages import Report, could_not_check, read_message
from .outcomes import COULD_NOT_CHECK, PASSED, CheckError, FailedCheckError
from .pipeline_checks import run_pipeline
from .registry_facts import registry_facts
from .run import CheckRun
from .table import CHECKS


def run_group(group: str, run: CheckRun) -> None:
    """Run what belongs to the group. Raises CheckError; ends the program at a check that fails."""
    if group == "pipeline":
        run_pipeline(run, CHECKS["pipeline"])
    else:
        if group == "registry":
            run.report.add(facts=registry_facts())
        run.perform_all(CHECKS[group], run.endpoints)


def exit_on_signal(*_: object) -> NoReturn:
    """End as any other exit does, so that the token is revoked."""
    sys.exit(COULD_NOT_CHECK)


def main(group: str) -> int:
    """Run the checks of one group. Returns the exit status, which is 1 for a failed check only."""
    for signal_number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(signal_number, exit_on_signal)
    report = Report()
    try:
        task = read_message()
        if task is None:
            raise CheckError("no task on standard input")
        report.at_end = task.get("show_progress", False)
        run_group(group, CheckRun(task, report))
    except (CheckError, FailedCheckError) as reason:
        return could_not_check(report, str(reason))
    except Exception as error:  # noqa: BLE001, Python's own exit status, 1, is that of a failed check
        return could_not_check(report, f"{type(error).__name__}: {error}")
    # A later step whose trigger is this report is repeated whenever these checks were.
    report.add(checked_at=datetime.datetime.now(datetime.timezone.utc).isoformat())
    report.close()
    return PASSED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
