"""EBS volumes: a sparse file below `.lab/volumes` and a loop device for each; both outlive the machine.

A machine sees its volumes as an instance of the Nitro system does: as /dev/nvme1n1 and so on in no order to
rely on, and by the link /dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_vol… that carries the volume's id. The
device name of the attachment (/dev/sdf) exists nowhere.
"""

import errno
import itertools
import json
import os
import stat
import threading
from dataclasses import dataclass
from pathlib import Path

from lab.cloud.shell import call
from lab.workspace import VOLUMES

GIB = 1024**3
BY_ID = Path("dev/disk/by-id")
LINK_PREFIX = "nvme-Amazon_Elastic_Block_Store_"


@dataclass(frozen=True)
class Volume:
    """A data volume. `status` is that of its attachment: attaching, attached, detaching, or empty."""

    id: str
    size: int  # GiB
    zone: str
    status: str = ""
    instance: str | None = None

    @property
    def link(self) -> Path:
        """The link to the device, seen from the machine's root directory."""
        return BY_ID / (LINK_PREFIX + self.id.replace("-", ""))

    @property
    def file(self) -> Path:
        return VOLUMES / self.id

    @property
    def wanted(self) -> bool:
        """Whether the machine is to see it."""
        return self.status in ("attaching", "attached")


class LoopDevices:
    """The loop devices of the volumes, known by their files. Safe for several threads."""

    def __init__(self) -> None:
        self._devices: dict[str, Path] = {}
        self._sizes: dict[str, int] = {}
        self._lock = threading.Lock()

    def device(self, volume: Volume) -> Path:
        """The volume's loop device, made when there is none, grown when the volume has grown."""
        with self._lock:
            device = self._devices.get(volume.id) or self._make(volume)
            if self._sizes[volume.id] < volume.size:
                os.truncate(volume.file, volume.size * GIB)
                call("losetup", "--set-capacity", str(device))
                self._sizes[volume.id] = volume.size
            return device

    def _make(self, volume: Volume) -> Path:
        VOLUMES.mkdir(parents=True, exist_ok=True)
        volume.file.touch(mode=0o600)
        os.truncate(volume.file, volume.size * GIB)
        device = Path(call("losetup", "--find", "--show", str(volume.file)).strip())
        self._devices[volume.id], self._sizes[volume.id] = device, volume.size
        return device

    def forget_all_but(self, volume_ids: set[str]) -> None:
        """Delete the data of the volumes that are no more."""
        with self._lock:
            for volume_id in set(self._devices) - volume_ids:
                call("losetup", "--detach", str(self._devices[volume_id]))
                (VOLUMES / volume_id).unlink(missing_ok=True)
                del self._devices[volume_id], self._sizes[volume_id]


def show(volume: Volume, device: Path, root: Path) -> None:
    """Make the device visible in a machine whose root directory is `root`. Idempotent."""
    link = root / volume.link
    if link.is_symlink():
        return
    link.parent.mkdir(parents=True, exist_ok=True)
    node = next(n for i in itertools.count(1) if not (n := root / f"dev/nvme{i}n1").exists())
    os.mknod(node, stat.S_IFBLK, device.stat().st_rdev)
    node.chmod(0o660)
    link.symlink_to(f"../../{node.name}")


def hide(link: Path, root: Path) -> bool:
    """Take the device behind a by-id link out of the machine; False while the machine has it mounted."""
    node = root / "dev" / (root / link).readlink().name
    if _in_use(node):
        return False
    for other in (root / "dev/disk").glob("*/*"):
        if other.is_symlink() and other.readlink().name == node.name:
            other.unlink()
    node.unlink()
    return True


def shown(root: Path) -> set[Path]:
    """The by-id links that the machine has."""
    return {BY_ID / link.name for link in (root / BY_ID).glob(f"{LINK_PREFIX}*")}


def _in_use(node: Path) -> bool:
    """Whether a file system on the device is mounted: the kernel then refuses an exclusive open."""
    try:
        os.close(os.open(node, os.O_RDONLY | os.O_EXCL))
    except OSError as error:
        if error.errno == errno.EBUSY:
            return True
        raise
    return False


def remove() -> None:
    """Take away every loop device whose file lies below `.lab/volumes`, and the files. Idempotent."""
    listing = call("losetup", "--list", "--json", "--output", "NAME,BACK-FILE", check=False)
    for device in json.loads(listing or "{}").get("loopdevices", []):
        if Path(device["back-file"].removesuffix(" (deleted)")).is_relative_to(VOLUMES):
            call("losetup", "--detach", device["name"])
    for file in VOLUMES.glob("vol-*"):
        file.unlink()
