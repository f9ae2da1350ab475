"""The stack's backups in AWS, their data as a restored volume has it, and how long writes to a volume are held."""

import contextlib
import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from configuration.paths import GITLAB_DATA, REGISTRY_DATA
from lab.stack import STACK
from lab.workspace import STATE, VOLUMES
from tests.e2e.operations import client, eventually, must, on

MOUNTPOINTS = {"server": GITLAB_DATA, "registry": REGISTRY_DATA}
ROLES = tuple(MOUNTPOINTS)
BUSY = 75
"""Exit status of gitlab-backup-volume while another backup, a step or a collection runs."""

WRITER = """\
rm -f /run/written
while true; do
    date +%s.%N >{mountpoint}/written-by-the-tests
    date +%s.%N >>/run/written
    sleep 0.05
done
"""


@dataclass(frozen=True)
class Backup:
    """A snapshot of a data volume, and its lock as AWS describes it; empty if it is not locked."""

    id: str
    state: str
    started: datetime
    volume: str
    encrypted: bool
    tags: dict[str, str]
    lock: dict[str, Any]

    @property
    def pair(self) -> str:
        return self.tags["gitlab-backup"]


def all_of(role: str) -> list[Backup]:
    """The backups of a machine of the lab's stack, the oldest one first."""
    ec2 = client("ec2")
    locks = {lock["SnapshotId"]: lock for lock in ec2.describe_locked_snapshots()["Snapshots"]}
    wanted = {"gitlab-stack": f"gitlab/{STACK}", "gitlab-role": role}
    filters = [{"Name": f"tag:{key}", "Values": [value]} for key, value in wanted.items()]
    found = [
        Backup(
            snapshot["SnapshotId"],
            snapshot["State"],
            snapshot["StartTime"],
            snapshot["VolumeId"],
            snapshot["Encrypted"],
            {tag["Key"]: tag["Value"] for tag in snapshot["Tags"]},
            locks.get(snapshot["SnapshotId"], {}),
        )
        for snapshot in ec2.describe_snapshots(OwnerIds=["self"], Filters=filters)["Snapshots"]
    ]
    return sorted(found, key=lambda backup: backup.started)


def ids(*roles: str) -> set[str]:
    """The IDs of the backups of these machines, by default of both."""
    return {backup.id for role in roles or ROLES for backup in all_of(role)}


def take(role: str) -> str:
    """Take a backup now; one on schedule that is running comes first. Returns the program's output."""
    tried = [on(role, "gitlab-backup-volume now")]

    def started() -> bool:
        if tried[-1].status == BUSY:
            tried.append(on(role, "gitlab-backup-volume now"))
        return tried[-1].status != BUSY

    eventually(started)
    assert tried[-1].status == 0, tried[-1].output
    return tried[-1].output


def record(role: str) -> dict[str, Any]:
    """The machine's own record of its last backup."""
    return dict(json.loads(must(role, "cat /var/lib/gitlab-stack/last-backup.json")))


def discard(unwanted: set[str]) -> None:
    """Unlock and delete backups, as only an administrator of the account can."""
    ec2 = client("ec2")
    for backup in (backup for role in ROLES for backup in all_of(role) if backup.id in unwanted):
        if backup.lock:
            ec2.unlock_snapshot(SnapshotId=backup.id)
        ec2.delete_snapshot(SnapshotId=backup.id)


@contextlib.contextmanager
def restored(snapshot_id: str) -> Iterator[Path]:
    """The file system of a volume that is created from a snapshot, mounted for a while.

    It is a copy: the log of XFS is replayed when it is mounted, as on a machine. `nouuid`, because the original is
    mounted on the same kernel. Raises CalledProcessError if it cannot be mounted.
    """
    copy = STATE / "restored-volume"
    try:
        _run("cp", "--reflink=auto", "--sparse=always", str(VOLUMES / snapshot_id), str(copy))
        with mounted(copy) as mountpoint:
            yield mountpoint
    finally:
        copy.unlink(missing_ok=True)


@contextlib.contextmanager
def mounted(volume: Path) -> Iterator[Path]:
    """The file system of a volume's file, mounted for a while. Raises CalledProcessError if it cannot be mounted."""
    mountpoint = STATE / "restored"
    mountpoint.mkdir(exist_ok=True)
    _run("mount", "-o", "loop,nouuid,nodev,nosuid,noexec", str(volume), str(mountpoint))
    try:
        yield mountpoint
    finally:
        _run("umount", str(mountpoint))


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)


@dataclass(frozen=True)
class Writes:
    """Writes to the data volume of a machine, about fifteen a second."""

    role: str

    def longest(self) -> float:
        """The longest time between two of them, in seconds, including the current one."""
        return max(later - earlier for earlier, later in pairwise(self._times()))

    def held(self) -> float:
        """Seconds since the last one."""
        last, now = self._times()[-2:]
        return now - last

    def _times(self) -> list[float]:
        return [float(line) for line in must(self.role, "cat /run/written; date +%s.%N").split()]


@contextlib.contextmanager
def writing(role: str) -> Iterator[Writes]:
    """Write to the data volume of a machine for a while. At the end the volume is thawed if it is still frozen:
    a process that waits for it cannot be killed.
    """
    mountpoint = MOUNTPOINTS[role]
    must(role, "cat >/run/writer", stdin=WRITER.format(mountpoint=mountpoint))
    must(role, "systemd-run --quiet --collect --unit writer bash /run/writer")
    eventually(lambda: on(role, "[ $(wc -l </run/written) -gt 2 ]").status == 0, interval=0.2)
    try:
        yield Writes(role)
    finally:
        on(role, f"fsfreeze --unfreeze {mountpoint}")
        must(role, f"systemctl stop writer; rm -f {mountpoint}/written-by-the-tests")
