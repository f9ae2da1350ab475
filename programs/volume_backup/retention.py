"""Which snapshots are kept for how long.

The first snapshot of a week (ISO 8601, UTC) is kept as a weekly one, the first one of another day as a daily one, and
every other one as an hourly one. A snapshot is locked for exactly the days for which it is kept. After them it expires,
but only if enough later ones exist: a machine that could not take backups for months keeps its last ones.
"""

import datetime
from typing import Iterable, List, NamedTuple, Sequence

from .ec2 import Snapshot

HOURLY, DAILY, WEEKLY = "hourly", "daily", "weekly"
KINDS = (HOURLY, DAILY, WEEKLY)
FAILED = "error"
"""The state of a snapshot that AWS could not complete."""


class Keep(NamedTuple):
    """How many snapshots of each kind are kept at least. Without weekly or daily ones that kind is not used."""

    hourly: int
    daily: int
    weekly: int

    def days(self, kind: str) -> int:
        """Days for which a snapshot is kept and locked. Locks last whole days, at least one (LockSnapshot)."""
        hours = {HOURLY: self.hourly, DAILY: 24 * self.daily, WEEKLY: 24 * 7 * self.weekly}[kind]
        return max(1, -(-hours // 24))

    def number(self, kind: str) -> int:
        """The number of snapshots of this kind that are kept even if their days are over."""
        return {HOURLY: self.hourly, DAILY: self.daily, WEEKLY: self.weekly}[kind]


def kind_of_next(now: datetime.datetime, earlier: Iterable[Snapshot], keep: Keep) -> str:
    """The kind of a snapshot taken now, after `earlier` ones of the same volume's role."""
    usable = [snapshot for snapshot in earlier if snapshot.state != FAILED]
    week, day = now.isocalendar()[:2], now.date()
    if keep.weekly and not any(
        snapshot.keep == WEEKLY and snapshot.started.isocalendar()[:2] == week for snapshot in usable
    ):
        return WEEKLY
    if keep.daily and not any(
        snapshot.keep in (DAILY, WEEKLY) and snapshot.started.date() == day for snapshot in usable
    ):
        return DAILY
    return HOURLY


def expired(now: datetime.datetime, snapshots: Sequence[Snapshot], keep: Keep) -> List[Snapshot]:
    """The snapshots of one role to delete: those that AWS could not complete, and those whose retention is over.

    A snapshot without a known kind is never deleted.
    """
    usable = [snapshot for snapshot in snapshots if snapshot.state != FAILED and snapshot.keep in KINDS]
    gone = [snapshot for snapshot in snapshots if snapshot.state == FAILED and snapshot.keep in KINDS]
    for snapshot in usable:
        if now < snapshot.started + datetime.timedelta(days=keep.days(snapshot.keep)):
            continue
        later = [
            other
            for other in usable
            if other.started > snapshot.started and KINDS.index(other.keep) >= KINDS.index(snapshot.keep)
        ]
        if len(later) >= max(1, keep.number(snapshot.keep)):
            gone.append(snapshot)
    return gone
