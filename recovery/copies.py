"""Copies of a backup's snapshots in another region.

Sources: Amazon EC2 API Reference, CopySnapshot; Amazon EBS User Guide, "Copy an Amazon EBS snapshot".
"""

import time
from collections.abc import Iterator, Mapping
from typing import Any

from recovery import catalogue
from recovery.catalogue import DRILLED, Pair, Snapshot
from recovery.errors import RecoveryError

Client = Any
"""A client of boto3, which has no types."""

COPY_OF = "gitlab-copy-of"
"""The tag of a copy with the ID of its original, by which a repeated command finds it again."""

INTERVAL = 15  # seconds


def copy_pair(pair: Pair, source: Client, target: Client, *, tags: Mapping[str, str]) -> Pair:
    """Copy a backup to the region of the client `target`, unless there is a copy with these `tags`, and wait until it
    is completed. Copies have the tags of their originals, too. Raises RecoveryError if AWS fails to copy.

    The server's is started first, as in the original: a registry's snapshot that is older than the server's is refused.
    """
    started = [_started(snapshot, source, target, tags) for snapshot in (pair.server, pair.registry)]
    shown = ""
    while True:
        # A filter, since AWS may not find a new copy by its ID at once.
        listed = target.describe_snapshots(OwnerIds=["self"], Filters=[{"Name": "snapshot-id", "Values": started}])
        found = {each["SnapshotId"]: each for each in listed["Snapshots"]}
        failed = [
            f"{name} ({each.get('StateMessage') or 'without a reason'})"
            for name, each in found.items()
            if each["State"] == "error"
        ]
        if failed:
            raise RecoveryError(f"AWS failed to copy {' and '.join(failed)}. This command, run again, copies it again")
        progress = " and ".join(found.get(name, {}).get("Progress") or "0%" for name in started)
        if progress != shown:
            print(f"copying to {target.meta.region_name}: {progress}", flush=True)
            shown = progress
        if [each["State"] for each in found.values()] == ["completed"] * len(started):
            break
        time.sleep(INTERVAL)
    copies = {each.id: each for each in catalogue.snapshots(target, pair.server.stack)}
    server, registry = (copies[name] for name in started)
    return Pair(pair.id, server, registry)


def delete_copies(ec2: Client, tags: Mapping[str, str]) -> list[str]:
    """Delete the copies with these tags, and return their IDs."""
    names = [each["SnapshotId"] for each in _with_tags(ec2, tags)]
    for name in names:
        ec2.delete_snapshot(SnapshotId=name)
    return names


def _started(snapshot: Snapshot, source: Client, target: Client, tags: Mapping[str, str]) -> str:
    """The ID of a copy that exists or was just started."""
    for copy in _with_tags(target, {COPY_OF: snapshot.id, **tags}):
        if copy["State"] != "error":
            return str(copy["SnapshotId"])
    [original] = source.describe_snapshots(SnapshotIds=[snapshot.id])["Snapshots"]
    kept = {each["Key"]: each["Value"] for each in original["Tags"] if not each["Key"].startswith("aws:")}
    kept.pop(DRILLED, None)
    copy = target.copy_snapshot(
        SourceRegion=snapshot.region,
        SourceSnapshotId=snapshot.id,
        Description=f"copy of {snapshot.id} from {snapshot.region}",
        Encrypted=True,
        TagSpecifications=[{"ResourceType": "snapshot", "Tags": _tag_list({**kept, COPY_OF: snapshot.id, **tags})}],
    )
    return str(copy["SnapshotId"])


def _with_tags(ec2: Client, tags: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    filters = [{"Name": f"tag:{name}", "Values": [value]} for name, value in tags.items()]
    for page in ec2.get_paginator("describe_snapshots").paginate(OwnerIds=["self"], Filters=filters):
        yield from page["Snapshots"]


def _tag_list(tags: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"Key": name, "Value": value} for name, value in tags.items()]


def tag_result(ec2: Client, pair: Pair, result: str) -> None:
    """Store the result of a drill on both snapshots of a backup."""
    ec2.create_tags(Resources=[pair.server.id, pair.registry.id], Tags=_tag_list({DRILLED: result}))
