"""Errors of the program, and its exit statuses."""

DONE, FAILED = 0, 1
BUSY = 75
"""EX_TEMPFAIL of sysexits.h: another program holds the lock. Nothing was done; the next run may succeed."""
NOT_PERMITTED = 77
"""EX_NOPERM of sysexits.h: the machine has no role, or AWS refuses an action to it."""


class BackupError(Exception):
    """The command cannot be carried out; the message explains why."""

    def __init__(self, message: str, status: int = FAILED) -> None:
        super().__init__(message)
        self.status = status
