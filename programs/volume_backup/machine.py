"""The files of this machine: the configuration, the record of the last backup, and the locks."""

import contextlib
import fcntl
import json
import os
from typing import Any, Dict, Iterator, Mapping, NamedTuple, Optional

from .errors import BUSY, BackupError
from .retention import Keep
from .time_limits import TimeLimitError, time_limit

CONFIGURATION = "/etc/gitlab-stack/backup.json"
RECORD = "/var/lib/gitlab-stack/last-backup.json"
STEPS_LOCK = "/run/gitlab-stack.lock"
CHECK_TIME = 2  # seconds; the check of backups holds the lock of backups for a moment

BUSY_MESSAGE = (
    "not started: a step of pulumi up, a garbage collection or another backup is running on this machine. "
    "Check: ps -ef --forest"
)


class Configuration(NamedTuple):
    """What is backed up. `after` is the role whose newest pair this machine's snapshots join; None for the first."""

    stack: str
    role: str
    region: str
    volume_id: str
    mountpoint: str
    keep: Keep
    versions: Mapping[str, str]
    after: Optional[str]


def configuration() -> Configuration:
    """The configuration of this machine. Raises BackupError if it cannot be read."""
    try:
        with open(CONFIGURATION) as file:
            known = json.load(file)
        return Configuration(**{**known, "keep": Keep(**known["keep"]), "after": known.get("after")})
    except OSError as error:
        raise BackupError(f"{CONFIGURATION}: {error.strerror}. Run as root; pulumi up creates the file") from None
    except (ValueError, KeyError, TypeError) as error:
        raise BackupError(f"{CONFIGURATION} is invalid: {error}") from None


def record() -> Dict[str, Any]:
    """The record of the last backup; empty if there is none.

    `snapshot`, `pair`, `started`, `frozen_ms` and `locked_until` describe the last complete backup. `error` exists if
    the last run failed. `unfinished` is when a run began that has not completed its snapshot.
    """
    try:
        with open(RECORD) as file:
            return dict(json.load(file))
    except (OSError, ValueError):
        return {}


def save(content: Mapping[str, Any]) -> None:
    """Replace the record."""
    with open(f"{RECORD}.new", "w") as file:
        json.dump(content, file, indent=1, sort_keys=True)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    os.rename(f"{RECORD}.new", RECORD)


@contextlib.contextmanager
def locks(*, in_step: bool) -> Iterator[None]:
    """Hold the lock of the steps, as a reader, and that of backups. Raises BackupError if another program holds one.

    The checks of the doctor hold the former as readers too, so that neither prevents the other. A step that takes a
    backup (`in_step`) already holds it.
    """
    with open(STEPS_LOCK, "a") as steps, open(CONFIGURATION) as own:
        try:
            if not in_step:
                fcntl.flock(steps, fcntl.LOCK_SH | fcntl.LOCK_NB)
            with time_limit(CHECK_TIME):
                fcntl.flock(own, fcntl.LOCK_EX)
        except (BlockingIOError, TimeLimitError):
            raise BackupError(BUSY_MESSAGE, BUSY) from None
        yield
