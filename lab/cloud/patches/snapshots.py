"""Snapshots: their data, how they complete, who owns them, and locks that protect them."""

import math
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from moto.core.responses import ActionResult
from moto.core.utils import utcnow
from moto.ec2.exceptions import EC2ClientError, MissingParameterError
from moto.ec2.models import EC2Backend, ec2_backends
from moto.ec2.models.elastic_block_store import Snapshot
from moto.ec2.responses.elastic_block_store import ElasticBlockStore

from lab.cloud import volumes
from lab.cloud.patches import state
from lab.cloud.patches.correction import correction

SNAPSHOTS_IN_PROGRESS = 5  # per volume
COPIES_IN_PROGRESS = 20  # per destination region (Amazon EBS quotas)
COPIED_VOLUME = "vol-ffffffff"
GOVERNANCE, EXPIRED = "governance", "expired"


@correction
def snapshots_take_time() -> None:
    """A snapshot is pending until its data is stored; until then a volume cannot be created from it, and a volume has
    at most five (Amazon EBS User Guide, "Create Amazon EBS snapshots"; error "Snapshot is in invalid state - pending"
    in rexray's and velero's sources). It may be deleted. (moto: completed immediately, without a limit.)"""
    original_create, original_volume = EC2Backend.create_snapshot, EC2Backend.create_volume

    def create_snapshot(self: Any, volume_id: str, *args: Any, **kwargs: Any) -> Any:
        others = [each for each in list(self.snapshots.values()) if each.volume_id == volume_id]
        if sum(each.status == "pending" for each in others) >= SNAPSHOTS_IN_PROGRESS:
            raise EC2ClientError(
                "ConcurrentSnapshotLimitExceeded",
                "Maximum allowed in-progress snapshots for a single volume exceeded.",
            )
        return original_create(self, volume_id, *args, **kwargs)

    def create_volume(self: Any, size: Any, zone_name: str, snapshot_id: str | None = None, **kwargs: Any) -> Any:
        if snapshot_id and self.get_snapshot(snapshot_id).status == "pending":
            raise EC2ClientError("IncorrectState", "Snapshot is in invalid state - pending")
        return original_volume(self, size, zone_name, snapshot_id=snapshot_id, **kwargs)

    EC2Backend.create_snapshot = create_snapshot
    EC2Backend.create_volume = create_volume
    # moto sets the status when it creates the snapshot.
    Snapshot.status = property(state.snapshot_status, lambda _snapshot, _status: None)
    Snapshot.progress = property(lambda snapshot: "100%" if snapshot.status == "completed" else "0%")


@correction
def snapshots_keep_their_size() -> None:
    """A snapshot has the size that its volume had at that moment, and a volume created from it is not smaller (API
    reference of EC2, CreateVolume, Size). (moto: the current size of the volume, and any size of the new one.)"""
    original_init, original_copy = Snapshot.__init__, EC2Backend.copy_snapshot
    original_filter, original_volume = Snapshot.get_filter_value, EC2Backend.create_volume

    def initialize(snapshot: Any, ec2_backend: Any, snapshot_id: str, volume: Any, *args: Any, **kwargs: Any) -> None:
        original_init(snapshot, ec2_backend, snapshot_id, volume, *args, **kwargs)
        snapshot.size = int(volume.size)

    def copy_snapshot(self: Any, source_snapshot_id: str, source_region: str, *args: Any, **kwargs: Any) -> Any:
        copied = original_copy(self, source_snapshot_id, source_region, *args, **kwargs)
        copied.size = ec2_backends[self.account_id][source_region].get_snapshot(source_snapshot_id).size
        return copied

    def get_filter_value(snapshot: Any, filter_name: str, method_name: str | None = None) -> Any:
        if filter_name == "volume-size":
            return snapshot.size
        return original_filter(snapshot, filter_name, method_name)

    def create_volume(self: Any, size: Any, zone_name: str, snapshot_id: str | None = None, **kwargs: Any) -> Any:
        if snapshot_id:
            least = self.get_snapshot(snapshot_id).size
            size = int(size or least)
            if size < least:
                raise EC2ClientError(
                    "InvalidParameterValue",
                    f"Volume of size {size}GB is smaller than snapshot '{snapshot_id}', expect size >= {least}GB",
                )
        return original_volume(self, size, zone_name, snapshot_id=snapshot_id, **kwargs)

    Snapshot.__init__ = initialize
    Snapshot.volume_size = property(lambda snapshot: snapshot.size)
    Snapshot.get_filter_value = get_filter_value
    EC2Backend.copy_snapshot = copy_snapshot
    EC2Backend.create_volume = create_volume


@correction
def copies_of_snapshots() -> None:
    """A copy is encrypted if its source is or CopySnapshot requests it, and its source volume is an arbitrary id; only
    a completed snapshot can be copied (API reference of EC2, CopySnapshot; Amazon EBS User Guide, "Copy an Amazon EBS
    snapshot"; the id is that in mondoohq/mql pull request 436, the error that of a volume from a pending snapshot).
    Twenty copies can be in progress in a region (error in aws-samples/copy-encrypted-ami issue 3). (moto: the request
    for encryption is ignored, the volume is that of the source, and there is no limit.)"""
    original, original_filter = ElasticBlockStore.copy_snapshot, Snapshot.get_filter_value

    def copy_snapshot(self: Any) -> Any:
        region, source_id = self._get_param("SourceRegion"), self._get_param("SourceSnapshotId")
        source = ec2_backends[self.current_account][region].get_snapshot(source_id)
        if source.status == "pending":
            raise EC2ClientError("IncorrectState", f"Snapshot '{source_id}' is not 'completed'.")
        copies = [each for each in list(self.ec2_backend.snapshots.values()) if each.is_copy]
        if sum(each.status == "pending" for each in copies) >= COPIES_IN_PROGRESS:
            raise EC2ClientError(
                "ResourceLimitExceeded",
                f"Too many snapshot copies in progress. The limit is {COPIES_IN_PROGRESS} for this destination region.",
            )
        answer = original(self)
        copied = self.ec2_backend.get_snapshot(answer.result["SnapshotId"])
        copied.is_copy = True
        copied.encrypted = copied.encrypted or str(self._get_param("Encrypted")).lower() == "true"
        return answer

    def volume_id(snapshot: Any) -> str:
        return COPIED_VOLUME if snapshot.is_copy else str(snapshot.volume.id)

    def get_filter_value(snapshot: Any, filter_name: str, method_name: str | None = None) -> Any:
        if filter_name == "volume-id":
            return snapshot.volume_id
        return original_filter(snapshot, filter_name, method_name)

    ElasticBlockStore.copy_snapshot = copy_snapshot
    Snapshot.is_copy = False
    Snapshot.volume_id = property(volume_id)
    Snapshot.get_filter_value = get_filter_value


@correction
def snapshots_of_an_owner() -> None:
    """DescribeSnapshots has the parameter Owner: `self` or an account (moto: not implemented, so those of all images
    are returned too). Related upstream: getmoto/moto#9565 (closed)."""
    original = ElasticBlockStore.describe_snapshots

    def describe_snapshots(self: Any) -> Any:
        owners = {self.current_account if owner == "self" else owner for owner in self._get_param("OwnerIds", [])}
        answer = original(self)
        if owners:
            answer.result["Snapshots"] = [each for each in answer.result["Snapshots"] if each.owner_id in owners]
        return answer

    ElasticBlockStore.describe_snapshots = describe_snapshots


@dataclass(frozen=True)
class Lock:
    """A lock in governance mode: for some days from its creation or from the snapshot's completion, whichever is later,
    or until `ends`.
    """

    created: datetime
    days: int
    ends: datetime | None = None

    def answer(self, snapshot: Any) -> dict[str, Any]:
        """Return the lock as the API describes it."""
        found = {
            "SnapshotId": snapshot.id,
            "LockState": EXPIRED if self.expired(snapshot) else GOVERNANCE,
            "LockDuration": self.days,
            "LockCreatedOn": self.created,
        }
        if (start := self._start(snapshot)) and (ends := self._end(snapshot)):
            found |= {"LockDurationStartTime": start, "LockExpiresOn": ends}
        return found

    def expired(self, snapshot: Any) -> bool:
        ends = self._end(snapshot)
        return ends is not None and ends <= utcnow()

    def _start(self, snapshot: Any) -> datetime | None:
        completed = state.completion_of(snapshot)
        return max(self.created, completed) if completed else None

    def _end(self, snapshot: Any) -> datetime | None:
        start = self._start(snapshot)
        return self.ends or (start + timedelta(days=self.days) if start else None)


def _requested(sent: Any) -> Lock:
    """Return the lock that a call of LockSnapshot requests."""
    mode, days, date = (sent._get_param(name) for name in ("LockMode", "LockDuration", "ExpirationDate"))
    if not mode:
        raise MissingParameterError("LockMode")
    if mode != GOVERNANCE:
        raise EC2ClientError("UnsupportedOperation", f"The lab does not support the lock mode {mode}")
    if sent._get_param("CoolOffPeriod"):
        raise EC2ClientError(
            "InvalidParameterCombination", "CoolOffPeriod is not supported for locks in governance mode"
        )
    if bool(days) == bool(date):
        raise EC2ClientError(
            "InvalidParameterCombination", "Specify either LockDuration or ExpirationDate, but not both"
        )
    now = utcnow()
    if not date:
        return Lock(now, int(days))
    ends = date.replace(tzinfo=None)
    return Lock(now, math.ceil((ends - now) / timedelta(days=1)), ends)


def _lock_of(snapshot: Any) -> Lock | None:
    found: Lock | None = getattr(snapshot, "lock", None)
    return found


def _locked(snapshot: Any) -> bool:
    lock = _lock_of(snapshot)
    return lock is not None and not lock.expired(snapshot)


@correction
def snapshots_can_be_locked() -> None:
    """LockSnapshot protects a snapshot for a number of days, or until a date, from being deleted by anyone; in
    governance mode UnlockSnapshot, or another LockSnapshot, changes that. The days of a pending snapshot begin when it
    is completed (API reference of EC2, LockSnapshot, UnlockSnapshot and DescribeLockedSnapshots). AWS documents no
    error code for the deletion of a locked snapshot; OperationNotPermitted is that of instances with termination
    protection. Compliance mode is not supported. (moto: none of the three calls.)"""
    original = EC2Backend.delete_snapshot

    def lock_snapshot(self: Any) -> ActionResult:
        self.error_on_dryrun()
        snapshot = self.ec2_backend.get_snapshot(self._get_param("SnapshotId"))
        snapshot.lock = _requested(self)
        return ActionResult(snapshot.lock.answer(snapshot))

    def unlock_snapshot(self: Any) -> ActionResult:
        self.error_on_dryrun()
        snapshot = self.ec2_backend.get_snapshot(self._get_param("SnapshotId"))
        if not _locked(snapshot):
            raise EC2ClientError("IncorrectState", f"The snapshot {snapshot.id} is not locked")
        snapshot.lock = None
        return ActionResult({"SnapshotId": snapshot.id})

    def describe_locked_snapshots(self: Any) -> ActionResult:
        wanted = self._filters_from_querystring().get("lock-state")
        snapshots = self.ec2_backend.describe_snapshots(snapshot_ids=self._get_param("SnapshotIds", []))
        found = [each.lock.answer(each) | {"OwnerId": each.owner_id} for each in snapshots if _lock_of(each)]
        return ActionResult({"Snapshots": [each for each in found if not wanted or each["LockState"] in wanted]})

    def delete_snapshot(self: Any, snapshot_id: str) -> Any:
        if _locked(self.get_snapshot(snapshot_id)):
            raise EC2ClientError("OperationNotPermitted", f"The snapshot {snapshot_id} is locked and can't be deleted.")
        return original(self, snapshot_id)

    ElasticBlockStore.lock_snapshot = lock_snapshot
    ElasticBlockStore.unlock_snapshot = unlock_snapshot
    ElasticBlockStore.describe_locked_snapshots = describe_locked_snapshots
    EC2Backend.delete_snapshot = delete_snapshot


@correction
def snapshots_have_data() -> None:
    """A snapshot has the data of its volume at the moment of the call, also when the volume has been deleted; a volume
    created from it begins with that data, also when the snapshot has been deleted. (moto: no data.)"""
    original_create, original_copy = EC2Backend.create_snapshot, EC2Backend.copy_snapshot
    original_delete = EC2Backend.delete_snapshot
    original_volume, original_delete_volume = EC2Backend.create_volume, EC2Backend.delete_volume

    def create_snapshot(self: Any, volume_id: str, *args: Any, **kwargs: Any) -> Any:
        snapshot = original_create(self, volume_id, *args, **kwargs)
        return snapshot if snapshot.from_ami else filled(self, snapshot, volume_id)

    def copy_snapshot(self: Any, source_snapshot_id: str, *args: Any, **kwargs: Any) -> Any:
        return filled(self, original_copy(self, source_snapshot_id, *args, **kwargs), source_snapshot_id)

    def filled(ec2: Any, snapshot: Any, source_id: str) -> Any:
        try:
            volumes.copy_data(source_id, snapshot.id)
        except Exception:
            del ec2.snapshots[snapshot.id]
            raise
        snapshot.stored = utcnow()
        return snapshot

    def delete_snapshot(self: Any, snapshot_id: str) -> Any:
        deleted = original_delete(self, snapshot_id)
        volumes.delete_data(snapshot_id)
        return deleted

    def create_volume(self: Any, size: Any, zone_name: str, snapshot_id: str | None = None, **kwargs: Any) -> Any:
        volume = original_volume(self, size, zone_name, snapshot_id=snapshot_id, **kwargs)
        if snapshot_id:
            volumes.copy_data(snapshot_id, volume.id)
        return volume

    def delete_volume(self: Any, volume_id: str) -> Any:
        deleted = original_delete_volume(self, volume_id)
        volumes.delete_data(volume_id)
        return deleted

    EC2Backend.create_snapshot = create_snapshot
    EC2Backend.copy_snapshot = copy_snapshot
    EC2Backend.delete_snapshot = delete_snapshot
    EC2Backend.create_volume = create_volume
    EC2Backend.delete_volume = delete_volume
