"""Runs the checks of one machine: `restored_checks server|registry`, as root.

Standard input: one line, base64 of JSON, the task (`task` of recovery/copy_checks.py). Prints one line of JSON for each
check as soon as it is finished, in the form of acceptance_checks, and one with facts. The later checks run even if one
fails. Exit status: 0 all checks passed, 1 a check failed.
"""

import base64
import json
import signal
import sys
import time
from typing import Any, Callable, Dict, Mapping, NoReturn, Sequence, Tuple

from programs.volume_backup.errors import BackupError

from . import registry_checks, server_checks
from .outcomes import FailedCheckError

Check = Tuple[str, Callable[[Any], str]]

PASSED, BROKEN = 0, 1


def perform(checks: Sequence[Check], context: Any) -> int:  # noqa: ANN401, the context of the machine
    """Run the checks and print a line for each. Returns the exit status."""
    status = PASSED
    for name, check in checks:
        started = time.monotonic()
        state, detail = "ok", ""
        try:
            detail = check(context)
        except (FailedCheckError, BackupError) as error:
            state, detail = "broken", str(error)
        except Exception as error:  # noqa: BLE001, the later checks run regardless
            state, detail = "broken", f"{type(error).__name__}: {error}"
        status = status if state == "ok" else BROKEN
        show(check=name, state=state, seconds=round(time.monotonic() - started, 3), detail=detail)
    return status


def show(**line: object) -> None:
    """Print one line of JSON."""
    print(json.dumps(line, sort_keys=True), flush=True)


def exit_on_signal(*_: object) -> NoReturn:
    """Exit normally on a signal, so that the running command is killed, too."""
    sys.exit(BROKEN)


def main(machine: str) -> int:
    """Run the checks of one machine. Returns the exit status."""
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, exit_on_signal)
    task: Mapping[str, Any] = json.loads(base64.b64decode(sys.stdin.readline()).decode())
    if machine == "registry":
        return perform(registry_checks.CHECKS, registry_checks.Registry(task))
    server = server_checks.Server(task)
    status = perform(server_checks.CHECKS, server)
    facts: Dict[str, Any] = server.facts()
    show(facts=facts)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
