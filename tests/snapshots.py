"""Snapshots of a stack's data volumes as AWS describes them."""

import datetime
from collections.abc import Mapping
from typing import Any

from tests.aws_answers import tags

STACK = "gitlab/prod"


def at(text: str) -> datetime.datetime:
    """A time in UTC, such as 11-27 23:00."""
    return datetime.datetime.strptime(f"2026-{text} +0000", "%Y-%m-%d %H:%M %z")


def described(id_: str, role: str, started: str, *, pair: str = "", **changes: Any) -> dict[str, Any]:
    """A snapshot of DescribeSnapshots, with the tags that gitlab-backup-volume sets."""
    begun = at(started)
    mark = {
        "gitlab_stack": STACK,
        "gitlab_role": role,
        "gitlab_backup": pair or f"{begun:%Y%m%dT%H0004Z}",
        "gitlab_keep": "hourly",
        f"{'gitlab' if role == 'server' else role}_version": "17.10.4" if role == "server" else "4.15.2",
        **changes.pop("more_tags", {}),
    }
    return {
        "SnapshotId": id_,
        "StartTime": begun,
        "State": "completed",
        "VolumeSize": 100 if role == "server" else 50,
        "Encrypted": True,
        "Tags": tags(**mark),
        **changes,
    }


def locked(id_: str, until: str | None, **changes: Any) -> Mapping[str, Any]:
    """A lock of DescribeLockedSnapshots."""
    ends = {"LockExpiresOn": at(until)} if until else {}
    return {"SnapshotId": id_, "LockState": "governance", "LockDuration": 1, **ends, **changes}


HOURLY = (
    described("snap-s1", "server", "11-27 22:00"),
    described("snap-r1", "registry", "11-27 22:03"),
    described("snap-s2", "server", "11-27 23:00"),
    described("snap-r2", "registry", "11-27 23:03"),
)
"""Two pairs."""
