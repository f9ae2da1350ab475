"""Runs the checks of one group: `acceptance_checks server|runner|registry|pipeline`.

A group is named after the machine it runs on; `pipeline` runs on the server, with a token that only this process holds
and that is revoked however the process ends. Standard input, base64, one per line: the task (`task` of
configuration/report.py) and, for `pipeline`, the report of the group `registry`; without it no pipeline is started.

Prints one line of JSON for each check, with its state: ok, broken, off (not applicable to this stack), or deferred (a
later check decides). If the task has `show_progress`, these lines are printed together at the end, and only if every
check passed; each passed check is shown on file descriptor 4 at once. File descriptor 4 also shows what the program is
waiting for; standard error explains a failed check. Exit status: 0 all checks passed, 1 a check failed, 2 could not
check.
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
    """Run the checks of a group. Raises CheckError; exits at the first failing check."""
    if group == "pipeline":
        run_pipeline(run, CHECKS["pipeline"])
    else:
        if group == "registry":
            run.report.add(facts=registry_facts())
        run.perform_all(CHECKS[group], run.endpoints)


def exit_on_signal(*_: object) -> NoReturn:
    """Exit normally on a signal, so that the token is revoked."""
    sys.exit(COULD_NOT_CHECK)


def main(group: str) -> int:
    """Run the checks of one group. Returns the exit status; 1 only ever means a failed check."""
    for signal_number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(signal_number, exit_on_signal)
    report = Report()
    try:
        task = read_message()
        if task is None:
            raise CheckError("standard input contains no task")
        report.at_end = task.get("show_progress", False)
        run_group(group, CheckRun(task, report))
    except (CheckError, FailedCheckError) as reason:
        return could_not_check(report, str(reason))
    except Exception as error:  # noqa: BLE001, Python would exit with 1, the status of a failed check
        return could_not_check(report, f"{type(error).__name__}: {error}")
    # Makes every report different, so that later steps that it triggers run again whenever these checks have.
    report.add(checked_at=datetime.datetime.now(datetime.timezone.utc).isoformat())
    report.close()
    return PASSED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
