"""Checks the backup in the settings before any resource is created: volumes are made from its two snapshots."""

import datetime
from collections.abc import Sequence

import pulumi_aws as aws
from pulumi_aws.ebs import GetSnapshotResult as Snapshot

from components.lookups import lookup, not_found
from components.naming import named, stack_tag
from configuration.flows import Place
from programs.volume_backup.ec2 import Tag
from settings import Settings
from validation.values import STACK_TAG


def backup_problems(settings: Settings) -> list[str]:
    """Problems of the backup to restore. The snapshot of a volume that exists is not considered any more: it may have
    expired, and GitLab may have been upgraded.
    """
    problems: list[str] = []
    found: list[Snapshot] = []
    for role, machine in ((Place.SERVER, settings.server), (Place.REGISTRY, settings.registry)):
        if machine.data_snapshot_id is None or machine.data_volume_size is None:
            continue
        key, snapshot_id = f"{role}DataSnapshotId", machine.data_snapshot_id
        if volumes := own_volumes(role):
            if not own_volumes(role, ("snapshot-id", snapshot_id)):
                problems.append(
                    f"{key}: this stack has {', '.join(volumes)} already, which was not created from {snapshot_id!r}, "
                    "and a restore does not change existing volumes. Restore into a new stack, or remove the key."
                )
            continue
        snapshot = _snapshot(snapshot_id)
        if snapshot is None:
            problems += not_found(key, snapshot_id, "List the backups of a stack: make backups STACK=...")
            continue
        found.append(snapshot)
        problems += _snapshot_problems(role, snapshot, machine.data_volume_size, settings.region)
        if role is Place.SERVER:
            problems += _version_problem(key, snapshot, settings.gitlab_version)
    return problems or (_pair_problem(*found) if len(found) == 2 else [])


def own_volumes(role: Place, *filters: tuple[str, str]) -> Sequence[str]:
    """The IDs of the data volumes that this stack has created for a machine."""
    own = (("tag:Name", named(f"{role}-data")), (f"tag:{STACK_TAG}", stack_tag()))
    found = aws.ebs.get_ebs_volumes(
        filters=[aws.ebs.GetEbsVolumesFilterArgs(name=name, values=[value]) for name, value in (*own, *filters)]
    )
    return found.ids or ()


def _snapshot(snapshot_id: str) -> Snapshot | None:
    return lookup(
        lambda: aws.ebs.get_snapshot(
            owners=["self"], filters=[aws.ebs.GetSnapshotFilterArgs(name="snapshot-id", values=[snapshot_id])]
        )
    )


def _snapshot_problems(role: Place, snapshot: Snapshot, size: int, region: str) -> list[str]:
    key = f"{role}DataSnapshotId"
    problems = []
    made_of = snapshot.tags.get(Tag.ROLE)
    if made_of != role:
        other = f"a backup of the {made_of}" if made_of else "not a backup"
        problems.append(
            f"{key}: {snapshot.id!r} is {other}, not one of the {role} (tag {Tag.ROLE}). Set the {role}'s snapshot."
        )
    if snapshot.state != "completed":
        problems.append(
            f"{key}: {snapshot.id!r} is {snapshot.state}, and a volume can be created only from a completed snapshot. "
            f"Wait for it (aws ec2 wait snapshot-completed --region {region} --snapshot-ids {snapshot.id}), or use "
            "another backup."
        )
    if not snapshot.encrypted:
        problems.append(f"{key}: {snapshot.id!r} is not encrypted, unlike every backup. Use another one.")
    if snapshot.volume_size > size:
        problems.append(
            f"{role}DataVolumeSize: {size} GiB, but {snapshot.id!r} has {snapshot.volume_size} GiB, and a volume "
            f"cannot be smaller than its snapshot. Set it to {snapshot.volume_size}."
        )
    return problems


def _version_problem(key: str, snapshot: Snapshot, version: str) -> list[str]:
    """GitLab's data is valid for exactly the version that wrote it (GitLab Docs, "Restore GitLab")."""
    written_by = snapshot.tags.get("gitlab-version")
    if written_by == version:
        return []
    return [
        (
            f"gitlabVersion: {version!r}, but {key} is a backup of {written_by or 'an unknown version'} (tag "
            "gitlab-version), and GitLab restores only backups of its own version. Set gitlabVersion to that version, "
            "and upgrade after the restore."
        )
    ]


def _pair_problem(server: Snapshot, registry: Snapshot) -> list[str]:
    """An image that GitLab knows was pushed before the server's snapshot, so the registry's has to be the later one."""
    key = "registryDataSnapshotId"
    stacks = [snapshot.tags.get(Tag.STACK) for snapshot in (server, registry)]
    if stacks[0] != stacks[1]:
        return [
            (
                f"{key}: {registry.id!r} is of the stack {stacks[1]}, but serverDataSnapshotId {server.id!r} of "
                f"{stacks[0]} (tag {Tag.STACK}). Set both snapshots of the same backup."
            )
        ]
    # Copies in another region are started in any order, but have the tags of their originals.
    pairs = [snapshot.tags.get(Tag.PAIR) for snapshot in (server, registry)]
    started = [datetime.datetime.fromisoformat(snapshot.start_time) for snapshot in (server, registry)]
    if (pairs[0] and pairs[0] == pairs[1]) or started[0] <= started[1]:
        return []
    return [
        (
            f"{key}: {registry.id!r} of {started[1]} is older than serverDataSnapshotId {server.id!r} of {started[0]}, "
            "so images that GitLab knows may be missing. Set both snapshots of the same backup."
        )
    ]
