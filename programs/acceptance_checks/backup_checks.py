"""The age of a machine's last backup; configuration/paths.py has the files of gitlab-backup-volume."""

import contextlib
import datetime
import json
from typing import Any, Mapping, Optional

from . import clients
from .outcomes import FailedCheckError, Measured

CONFIGURATION = "/etc/gitlab-stack/backup.json"
RECORD = "/var/lib/gitlab-stack/last-backup.json"
TIMER = "gitlab-backup-volume.timer"
RUNNING = 75  # exit status of flock
WAIT = 15  # seconds for a backup in progress, which holds the lock of its configuration

NEVER = "No backup of this machine has been taken."


def backup_fresh(_: Mapping[str, Any]) -> Measured:
    """The last pair of backups is younger than twice the timer's interval, and the last run did not fail."""
    state = _property("SubState")
    if state not in ("waiting", "running"):
        raise FailedCheckError(f"The timer {TIMER} is {state}.", final=True)
    last = _record()
    if "snapshot" not in last:
        raise FailedCheckError(f"{NEVER} {_failure(last)}".strip(), final=True)
    now = datetime.datetime.now(datetime.timezone.utc)
    age = now - time_of_pair(last["pair"])
    described = f"the last backup, {last['pair']}, is {_rounded(age)} old"
    if _failure(last):
        raise FailedCheckError(f"{_failure(last)} Before that, {described}.", final=True)
    interval = _interval()
    if interval is not None and age > 2 * interval:
        raise FailedCheckError(
            f"{described[0].upper()}{described[1:]}, but one is due every {_rounded(interval)}.", final=True
        )
    return Measured(0.0, f"{_rounded(age)} old, locked until {last['locked_until']}")


def time_of_pair(pair: str) -> datetime.datetime:
    """The time in the ID of a pair, as `time_of` of programs/volume_backup/backup.py."""
    form = "%Y%m%dT%H%MZ" if len(pair) == len("20261127T2300Z") else "%Y%m%dT%H%M%SZ"
    return datetime.datetime.strptime(pair, form).replace(tzinfo=datetime.timezone.utc)


def _record() -> Mapping[str, Any]:
    # Waits for a backup in progress, whose record is incomplete.
    status, output = clients.run(
        *("flock", "--shared", "--wait", str(WAIT), "--conflict-exit-code", str(RUNNING), CONFIGURATION, "cat", RECORD)
    )
    if status == RUNNING:
        raise FailedCheckError(f"A backup has been running for more than {WAIT} s.")
    if status != 0:
        raise FailedCheckError(NEVER, final=True)
    with contextlib.suppress(ValueError):
        return dict(json.loads(output))
    raise FailedCheckError(f"{RECORD} is not readable.", final=True)


def _failure(last: Mapping[str, Any]) -> str:
    if "error" in last:
        return f"The last run failed: {str(last['error']).rstrip('.')}."
    return "The last run was interrupted." if "unfinished" in last else ""


def _interval() -> Optional[datetime.timedelta]:
    """The time between the last run of the timer and the next one; None before its first run, and during a run.

    systemd 239 of RHEL 8 cannot list further runs of a calendar: `systemd-analyze calendar` has no --iterations before
    version 242 (systemd-analyze(1)).
    """
    last, following = _time_of("LastTriggerUSec"), _time_of("NextElapseUSecRealtime")
    # During a run, the next one is not known yet.
    return None if last is None or following is None or following <= last else following - last


def _time_of(name: str) -> Optional[datetime.datetime]:
    with contextlib.suppress(ValueError):
        # For example Fri 2026-11-27 23:00:00 UTC; empty or n/a if there is none.
        return datetime.datetime.strptime(_property(name), "%a %Y-%m-%d %H:%M:%S UTC")  # noqa: DTZ007, only compared
    return None


def _property(name: str) -> str:
    return clients.run("systemctl", "show", TIMER, f"--property={name}", "--value", TZ="UTC", LC_ALL="C")[1]


def _rounded(age: datetime.timedelta) -> str:
    minutes = int(age.total_seconds() // 60)
    if minutes < 120:
        return f"{minutes} min"
    return f"{minutes // 60} h" if minutes < 48 * 60 else f"{minutes // 60 // 24} days"
