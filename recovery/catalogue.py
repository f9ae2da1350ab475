"""The backups of a stack, as the tags of its snapshots describe them; there is no other catalogue.

A pair is a snapshot of the server's volume and one of the registry's that was started later, so that the registry has
every image that GitLab knows. Sources: Amazon EC2 API Reference, DescribeSnapshots and DescribeLockedSnapshots.
"""

import datetime
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from configuration.flows import Place
from programs.volume_backup.ec2 import Tag
from recovery.errors import RecoveryError

LATEST = "latest"
DRILLED = "gitlab-drilled"
"""The tag with the date and result of the last drill."""

UNLOCKED = "expired"
"""The state of a lock that no longer protects its snapshot."""


@dataclass(frozen=True)
class Snapshot:
    """A snapshot of a data volume. `size` is that of the volume in GiB; tags that are missing are empty."""

    id: str
    role: str
    stack: str
    pair: str
    started: datetime.datetime
    size: int
    state: str
    encrypted: bool
    keep: str
    locked_until: datetime.datetime | None
    gitlab_version: str
    registry_version: str
    drilled: str
    region: str


@dataclass(frozen=True)
class Pair:
    """The two snapshots from which a stack can be restored; `id` is the server's."""

    id: str
    server: Snapshot
    registry: Snapshot

    @property
    def started(self) -> datetime.datetime:
        """What was written before is in the pair."""
        return self.server.started

    @property
    def usable(self) -> bool:
        """Whether volumes can be created from both snapshots."""
        return self.server.state == self.registry.state == "completed"


def snapshots(ec2: Any, stack_tag: str) -> list[Snapshot]:  # noqa: ANN401, boto3 has no types
    """All snapshots of a stack's data volumes in the client's region, the newest one first."""
    pages = ec2.get_paginator("describe_snapshots").paginate(
        OwnerIds=["self"], Filters=[{"Name": f"tag:{Tag.STACK}", "Values": [stack_tag]}]
    )
    found = [each for page in pages for each in page["Snapshots"]]
    locks = {each["SnapshotId"]: each for each in _locks(ec2)} if found else {}
    described = [_snapshot(each, locks.get(each["SnapshotId"], {}), ec2.meta.region_name) for each in found]
    return sorted(described, key=lambda snapshot: snapshot.started, reverse=True)


def pairs(snapshots: Sequence[Snapshot]) -> list[Pair]:
    """The pairs, the newest one first: with each snapshot of the server the registry's of the same backup, or else the
    first one that is not older. Copies of one backup may have been started in the other order.
    """
    oldest_first = sorted(snapshots, key=lambda snapshot: snapshot.started)
    registries = [each for each in oldest_first if each.role == Place.REGISTRY and each.state != "error"]
    found = []
    for server in reversed([each for each in oldest_first if each.role == Place.SERVER]):
        own = [each for each in registries if server.pair and each.pair == server.pair]
        later = [each for each in registries if each.started >= server.started]
        if own or later:
            found.append(Pair(server.pair, server, (own or later)[0]))
    return found


def find(pairs: Sequence[Pair], wanted: str = LATEST) -> Pair:
    """The newest usable pair, or the one with that ID. Raises RecoveryError if there is none."""
    if wanted == LATEST:
        usable = [pair for pair in pairs if pair.usable]
        if usable:
            return usable[0]
        raise RecoveryError(f"none of {len(pairs)} backups is complete" if pairs else "there is no backup")
    for pair in pairs:
        if pair.id == wanted:
            if pair.usable:
                return pair
            raise RecoveryError(
                f"the backup {wanted} is not complete: the server's snapshot is {pair.server.state}, the registry's "
                f"{pair.registry.state}"
            )
    known = f"; the newest one is {pairs[0].id}" if pairs else ""
    raise RecoveryError(f"there is no backup {wanted}{known}. List them: make backups STACK=...")


def incomplete(snapshots: Sequence[Snapshot]) -> list[str]:
    """IDs of backups from which nothing can be restored, the newest one first."""
    usable = {pair.server.id for pair in pairs(snapshots) if pair.usable}
    return [each.pair for each in snapshots if each.role == Place.SERVER and each.id not in usable]


def _locks(ec2: Any) -> Iterator[dict[str, Any]]:  # noqa: ANN401, boto3 has no types
    """Those of all snapshots of the account; boto3 has no paginator for them."""
    more: dict[str, str] = {}
    while True:
        answer = ec2.describe_locked_snapshots(**more)
        yield from answer["Snapshots"]
        if not answer.get("NextToken"):
            return
        more = {"NextToken": answer["NextToken"]}


def _snapshot(found: Mapping[str, Any], lock: Mapping[str, Any], region: str) -> Snapshot:
    tags = {tag["Key"]: tag["Value"] for tag in found.get("Tags", ())}
    return Snapshot(
        id=found["SnapshotId"],
        role=tags.get(Tag.ROLE, ""),
        stack=tags.get(Tag.STACK, ""),
        pair=tags.get(Tag.PAIR, ""),
        started=found["StartTime"],
        size=found["VolumeSize"],
        state=found["State"],
        encrypted=found["Encrypted"],
        keep=tags.get(Tag.KEEP, ""),
        locked_until=_locked_until(found["StartTime"], lock),
        gitlab_version=tags.get("gitlab-version", ""),
        registry_version=tags.get("registry-version", ""),
        drilled=tags.get(DRILLED, ""),
        region=region,
    )


def _locked_until(started: datetime.datetime, lock: Mapping[str, Any]) -> datetime.datetime | None:
    """The end of a lock. The days of a pending snapshot's lock begin when it is completed, so until then the end that
    is returned is the earliest possible one.
    """
    if not lock or lock["LockState"] == UNLOCKED:
        return None
    ends: datetime.datetime | None = lock.get("LockExpiresOn")
    return ends or started + datetime.timedelta(days=lock["LockDuration"])
