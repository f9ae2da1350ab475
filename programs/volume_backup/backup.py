"""Takes a backup, and deletes expired ones: the order of events."""

import datetime
import time
from typing import Any, Dict, List, Optional, Tuple

from . import machine, manifest
from .ec2 import NEW_PAUSES, ApiError, Ec2, Snapshot, Tag
from .errors import BackupError
from .freezing import Frozen
from .machine import Configuration
from .retention import expired, kind_of_next

PAIR = "%Y%m%dT%H%M%SZ"
"""The form of a pair's ID. No two backups of a server have the same one: only one runs at a time (`machine.locks`), and
AWS refuses a second snapshot of a volume within 15 seconds (Amazon EC2 API Reference, "Error codes",
SnapshotCreationPerVolumeRateExceeded).
"""
PAIR_WITHOUT_SECONDS = "%Y%m%dT%H%MZ"
"""The form of earlier versions, whose backups are still there."""
MARGIN = datetime.timedelta(minutes=1)
"""By how much the clocks of AWS and of this machine may differ; a signature allows five."""
LONGEST_REASON = 200  # characters; a tag's value has at most 256


class Backups:
    """The backups of one machine, all of whose snapshots have its stack and role in their tags."""

    def __init__(self, known: Configuration, ec2: Ec2) -> None:
        self.known = known
        self.ec2 = ec2

    def take(self, reason: str) -> Dict[str, Any]:
        """Take a snapshot, lock it, and delete expired ones. Returns the new record of the last backup.

        Raises BackupError. If the snapshot was complete by then, the record names it, otherwise it has been deleted or
        is going to be by the next run.
        """
        frozen = Frozen(self.known.mountpoint)
        frozen.prepare()
        self.discard_unfinished()
        now = utc_now()
        snapshots = self._snapshots()
        self._lock_last(snapshots)
        pair, kind = self._pair_and_kind(now, snapshots)
        tags = self._tags(pair, kind, reason)
        manifest.write(
            self.known.mountpoint, self.known.role, {"pair": pair, "tags": tags, "written_at": now.isoformat()}
        )
        machine.save({**machine.record(), "unfinished": now.isoformat()})
        try:
            snapshot_id = self._start_snapshot(frozen, tags)
        except BackupError as error:
            self._discard_after(error)
            raise
        taken = {
            "snapshot": snapshot_id,
            "pair": pair,
            "started": now.isoformat(),
            "frozen_ms": frozen.milliseconds,
            "locked_until": None,
            "error": "interrupted before the snapshot was locked",
        }
        machine.save(taken)
        taken["locked_until"] = self._locked(snapshot_id, kind)
        taken["error"] = "interrupted before expired snapshots were deleted"
        machine.save(taken)
        self.prune()
        del taken["error"]
        machine.save(taken)
        return taken

    def prune(self) -> List[Snapshot]:
        """Delete this machine's expired snapshots, and return them. Locked ones stay until the next time. Raises
        BackupError after all others if one cannot be deleted.
        """
        own = self._own(self.ec2.snapshots(self.known.stack))
        errors: List[ApiError] = []
        old = expired(utc_now(), own, self.known.keep)
        deleted = [snapshot for snapshot in old if self._deleted(snapshot, errors)]
        if errors:
            raise BackupError(f"{len(errors)} expired snapshots were not deleted: {errors[0]}", errors[0].status)
        return deleted

    def discard_unfinished(self) -> None:
        """Delete what a run that was killed, or whose request AWS did not answer, may have left.

        Its file system may have been thawed before the snapshot started. Every run deletes first what the one before
        it left, so no complete snapshot is newer than the unfinished one.
        """
        known = machine.record()
        since = known.get("unfinished")
        if since is None:
            return
        errors: List[ApiError] = []
        for snapshot in self._own(self.ec2.snapshots(self.known.stack)):
            if snapshot.started >= _parsed(since) - MARGIN and snapshot.id != known.get("snapshot"):
                self._deleted(snapshot, errors)
        if errors:
            raise errors[0]
        del known["unfinished"]
        machine.save(known)

    def _snapshots(self) -> List[Snapshot]:
        """The stack's snapshots, including the one that this machine's next one joins."""
        for pause in NEW_PAUSES:
            found = self.ec2.snapshots(self.known.stack)
            if self.known.after is None or self._joined(found):
                return found
            time.sleep(pause)
        return self.ec2.snapshots(self.known.stack)

    def _joined(self, snapshots: List[Snapshot]) -> Optional[Snapshot]:
        usable = (each for each in snapshots if each.role == self.known.after and each.state != "error")
        return next(usable, None)

    def _lock_last(self, snapshots: List[Snapshot]) -> None:
        """Lock the last backup if the run that took it did not get so far. If it fails, a new backup is needed more."""
        known = machine.record()
        for snapshot in snapshots:
            if snapshot.id == known.get("snapshot") and not known.get("locked_until"):
                try:
                    known["locked_until"] = self._locked(snapshot.id, snapshot.keep)
                except BackupError as error:
                    print(f"the last backup: {error}")
                else:
                    machine.save(known)

    def _locked(self, snapshot_id: str, kind: str) -> str:
        days = self.known.keep.days(kind)
        try:
            ends = self.ec2.lock(snapshot_id, days) or utc_now() + datetime.timedelta(days=days)
        except BackupError as error:
            # Never NOT_PERMITTED, with which the step schedule_backups would take another snapshot.
            raise BackupError(f"{snapshot_id} is not locked: {error}") from None
        return ends.isoformat()

    def _start_snapshot(self, frozen: Frozen, tags: Dict[str, str]) -> str:
        description = f"{tags[Tag.NAME]} {tags[Tag.PAIR]}"
        # The connection is made and the request is signed before the freeze, which is shorter then.
        send = self.ec2.prepared_snapshot(self.known.volume_id, description, tags)
        with frozen:
            return send()

    def _discard_after(self, error: BackupError) -> None:
        """Delete the snapshot of a failed run at once; `unfinished` stays for one that appears later."""
        since = machine.record().get("unfinished")
        try:
            self.discard_unfinished()
        except BackupError as failure:
            print(f"unfinished snapshots are deleted by the next run: {failure}")
        if not isinstance(error, ApiError) or error.temporary:
            machine.save({**machine.record(), "unfinished": since})

    def _pair_and_kind(self, now: datetime.datetime, snapshots: List[Snapshot]) -> Tuple[str, str]:
        if self.known.after is None:
            return now.strftime(PAIR), kind_of_next(now, self._own(snapshots), self.known.keep)
        joined = self._joined(snapshots)
        if joined is not None:
            # Both snapshots of a pair expire at the same time.
            return joined.pair, joined.keep
        raise BackupError(
            f"there is no snapshot of the {self.known.after} yet, which this one would belong to. On the "
            f"{self.known.after}: sudo gitlab-backup-volume now"
        )

    def _tags(self, pair: str, kind: str, reason: str) -> Dict[str, str]:
        found = manifest.versions(self.known.role, self.known.versions)
        return {
            Tag.STACK: self.known.stack,
            Tag.ROLE: self.known.role,
            Tag.PAIR: pair,
            Tag.KEEP: kind,
            Tag.REASON: reason[:LONGEST_REASON],
            Tag.NAME: f"{self.known.role}-data-{self.known.stack.rpartition('/')[2]}",
            **{f"{name}-version": version for name, version in found.items()},
        }

    def _own(self, snapshots: List[Snapshot]) -> List[Snapshot]:
        return [snapshot for snapshot in snapshots if snapshot.role == self.known.role]

    def _deleted(self, snapshot: Snapshot, errors: List[ApiError]) -> bool:
        """Whether the snapshot was deleted now; what prevents that and is unexpected is added to `errors`."""
        try:
            self.ec2.delete(snapshot.id)
        except ApiError as error:
            if error.in_use:
                print(f"{snapshot.id} of {snapshot.pair} is kept: an image needs it")
            elif not error.locked and not error.missing:
                errors.append(error)
            return False
        print(f"deleted {snapshot.id} of {snapshot.pair} ({snapshot.keep})")
        return True


def failed(error: str) -> None:
    """Add the failure of this run to the record, which otherwise keeps describing the last complete backup."""
    machine.save({**machine.record(), "error": error})


def utc_now() -> datetime.datetime:
    """The current time in whole seconds, in UTC."""
    return datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0)


def time_of(pair: str) -> datetime.datetime:
    """The time in the ID of a pair, in UTC. Raises ValueError if it is not an ID."""
    # The length decides, because strptime would read 2359 with PAIR as 23:05:09.
    form = PAIR_WITHOUT_SECONDS if len(pair) == len("20261127T2300Z") else PAIR
    return datetime.datetime.strptime(pair, form).replace(tzinfo=datetime.timezone.utc)


def age(started: datetime.datetime, now: Optional[datetime.datetime] = None) -> str:
    """An age such as `3 h`, `2 days`."""
    minutes = int(((now or utc_now()) - started).total_seconds() // 60)
    if minutes < 120:
        return f"{minutes} min"
    return f"{minutes // 60} h" if minutes < 48 * 60 else f"{minutes // 60 // 24} days"


def _parsed(text: str) -> datetime.datetime:
    # Python 3.6 has no fromisoformat().
    return datetime.datetime.strptime(text.replace("+00:00", "+0000"), "%Y-%m-%dT%H:%M:%S%z")
