"""The checks on the registry's machine of a restored copy."""

import json
from typing import Any, Mapping

from programs.volume_backup import manifest

from .commands import run
from .comparison import known
from .outcomes import FailedCheckError, listed, not_understood, number

MOUNTPOINT = "/srv/registry"
SOUND, DAMAGED = 0, 1  # exit statuses of registry-tree


class Registry:
    """The registry's machine of a copy, with the task of recovery/copy_checks.py."""

    def __init__(self, task: Mapping[str, Any]) -> None:
        self.limits: Mapping[str, float] = task["limits"]


def images(registry: Registry) -> str:
    """All images are complete: every link, manifest and blob, with digests computed from the content."""
    done = run("registry-tree", "verify", "--json", limit=registry.limits["images"])
    if done.status not in (SOUND, DAMAGED):
        raise FailedCheckError(f"registry-tree could not check: {done.reason}")
    try:
        found = json.loads(done.out)
        damage, blobs, tags = found["damage"], int(found["blobs"]), int(found["tags"])
    except (ValueError, KeyError, TypeError):
        not_understood(done.out.strip() or done.reason)
    if damage:
        raise FailedCheckError(listed([f"{each['kind']}: {each['path']}: {each['detail']}" for each in damage]))
    if done.status != SOUND:
        not_understood(f"exit status {done.status} without a problem")
    return f"{number(tags, 'tag')}, {number(blobs, 'blob')}"


def blobs(_: Registry) -> str:
    """The volume contains at least as many blobs as when the manifest was written."""
    expected = int(known(manifest.read(MOUNTPOINT), "blobs"))
    found = manifest.blobs(MOUNTPOINT)
    if found < expected:
        raise FailedCheckError(f"{found} of {expected} blobs")
    return f"{found}, at the time of the backup {expected}"


CHECKS = (("images", images), ("blobs", blobs))
