"""Freezes a file system for a moment, and makes sure that it is thawed regardless of how this process ends.

A process that writes to a frozen file system cannot be killed, so if this process died in between, GitLab would hang
until someone thaws it. Sources: fsfreeze(8), systemd-run(1).
"""

import contextlib
import os
import time
from types import TracebackType
from typing import Optional, Type

from .commands import run
from .errors import BackupError

THAW_UNIT = "gitlab-backup-thaw"
"""The transient timer and service that thaw the file system if this process does not."""
LONGEST_FREEZE = 15
"""Seconds after which THAW_UNIT thaws the file system."""
FREEZE_LIMIT = 10
"""Seconds in which the file system has to be frozen; it first writes what changed since prepare()."""


class Frozen:
    """Freezes the file system at a mountpoint while the block runs.

    Raises BackupError if it could not be frozen, or was thawed before the end of the block: then a snapshot that was
    started in the block is not consistent. `milliseconds` is how long writes were held.
    """

    def __init__(self, mountpoint: str) -> None:
        self.mountpoint = mountpoint
        self.milliseconds = 0
        self._began = 0.0

    def prepare(self) -> None:
        """Thaw what a killed run may have left frozen, so that this run can write to the file system.

        Raises BackupError unless a file system is mounted there: the root file system would be frozen in its place.
        """
        if not os.path.ismount(self.mountpoint):
            raise BackupError(f"nothing is mounted at {self.mountpoint}")
        with contextlib.suppress(BackupError):
            self._thaw()
        self._disarm()

    def __enter__(self) -> "Frozen":
        # What is written now is not written during the freeze: with 600 MB, that is 56 ms instead of 678 ms.
        run("sync", "--file-system", self.mountpoint)
        run(
            "systemd-run",
            f"--unit={THAW_UNIT}",
            "--collect",
            f"--on-active={LONGEST_FREEZE}",
            "--timer-property=AccuracySec=100ms",  # the default is a minute
            "fsfreeze",
            "--unfreeze",
            self.mountpoint,
        )
        self._began = time.monotonic()
        try:
            run("fsfreeze", "--freeze", self.mountpoint, timeout=FREEZE_LIMIT)
        except BaseException:
            with contextlib.suppress(BackupError):
                self._thaw()
            # Not disarmed: a freeze that comes late is thawed as well.
            raise
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        thawed_early = None
        try:
            self._thaw()
        except BackupError as failure:
            # fsfreeze fails if the file system is not frozen.
            thawed_early = failure
        self.milliseconds = round((time.monotonic() - self._began) * 1000)
        if thawed_early is None:
            self._disarm()
        elif error is None:
            raise BackupError(
                f"{self.mountpoint} was thawed before AWS had answered, after at most {self.milliseconds} ms "
                f"({thawed_early})"
            )

    def _thaw(self) -> None:
        run("fsfreeze", "--unfreeze", self.mountpoint)

    def _disarm(self) -> None:
        with contextlib.suppress(BackupError):  # it does not exist, or has just fired
            run("systemctl", "stop", f"{THAW_UNIT}.timer")
