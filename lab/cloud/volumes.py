"""EBS volumes: a sparse file below `.lab/volumes` and a loop device for each; both outlive the machine.

A machine sees its volumes as an instance of the Nitro system does: as /dev/nvme1n1 and so on in no order to
rely on, and by the link /dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_vol… that carries the volume's id. The
device name of the attachment (/dev/sdf) exists nowhere. The root volume is /dev/nvme0n1, with the partitions of Red
Hat's image.
"""

import errno
import fcntl
import itertools
import json
import os
import stat
import struct
import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lab.shell import call
from lab.workspace import VOLUMES

GIB = 1024**3
BY_ID = Path("dev/disk/by-id")
LINK_PREFIX = "nvme-Amazon_Elastic_Block_Store_"

ROOT_DISK, ROOT_PARTITION = "nvme0n1", 3
ROOT_SIZE = 10  # GiB of the image, whatever the volume has: the first boot fills it
ROOT_LAYOUT = """\
label: gpt
1MiB,1MiB,21686148-6449-6E6F-744E-656564454649
,200MiB,U
,,L
"""
"""BIOS boot, EFI, root (RHEL 8.10 for EC2 in osbuild's image definitions)."""

SHUT_DOWN = 0x8004587D
"""XFS_IOC_GOINGDOWN of linux/fs/xfs, which ext4 has too: the file system is as if its disk were gone."""
WITHOUT_FLUSH = 2  # what was not yet written is lost


@dataclass(frozen=True)
class Volume:
    """A data volume. `status` is that of its attachment: attaching, attached, detaching, or empty.

    `forced`: it is detached without regard for the machine, which may have it mounted.
    """

    id: str
    size: int  # GiB
    zone: str
    status: str = ""
    instance: str | None = None
    forced: bool = False

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
        return self._device(volume, self._make)

    def root_device(self, volume: Volume) -> Path:
        """The same of a root volume, which has partitions from the beginning, and a file system that is empty."""
        return self._device(volume, self._make_root)

    def _device(self, volume: Volume, make: Callable[[Volume], Path]) -> Path:
        with self._lock:
            device = self._devices.get(volume.id) or make(volume)
            if self._sizes[volume.id] < volume.size:
                os.truncate(volume.file, volume.size * GIB)
                call("losetup", "--set-capacity", str(device))
                self._sizes[volume.id] = volume.size
            return device

    def _make(self, volume: Volume, size: int | None = None, *options: str) -> Path:
        VOLUMES.mkdir(parents=True, exist_ok=True)
        volume.file.touch(mode=0o600)
        os.truncate(volume.file, (size or volume.size) * GIB)
        device = Path(call("losetup", "--find", "--show", *options, str(volume.file)).strip())
        self._devices[volume.id], self._sizes[volume.id] = device, size or volume.size
        return device

    def _make_root(self, volume: Volume) -> Path:
        device = self._make(volume, ROOT_SIZE, "--partscan")
        layout = ["sfdisk", "--quiet", str(device)]
        subprocess.run(layout, input=ROOT_LAYOUT, text=True, check=True, capture_output=True)
        call("partx", "--update", str(device))
        call("mkfs.xfs", "-q", str(partition(device, ROOT_PARTITION)))
        return device

    def renew(self, volume: Volume) -> None:
        """Have another device at the next attachment: a file system that was torn off may hold this one for long."""
        with self._lock:
            if device := self._devices.pop(volume.id, None):
                call("losetup", "--detach", str(device))  # when its last user is gone

    def forget_all_but(self, volume_ids: set[str]) -> None:
        """Delete the data of the volumes that are no more."""
        with self._lock:
            for volume_id in set(self._devices) - volume_ids:
                call("losetup", "--detach", str(self._devices[volume_id]))
                (VOLUMES / volume_id).unlink(missing_ok=True)
                del self._devices[volume_id], self._sizes[volume_id]


def partition(device: Path, number: int) -> Path:
    """The device of a partition of a loop device."""
    return device.with_name(f"{device.name}p{number}")


def show_root(device: Path, root: Path) -> None:
    """Make the root disk and its partitions visible in a machine that starts."""
    nodes = {ROOT_DISK: device}
    nodes |= {f"{ROOT_DISK}p{number}": partition(device, number) for number in range(1, ROOT_PARTITION + 1)}
    for name, source in nodes.items():
        node = root / "dev" / name
        if not node.exists():
            os.mknod(node, stat.S_IFBLK, source.stat().st_rdev)
            node.chmod(0o660)


def show(volume: Volume, device: Path, root: Path) -> bool:
    """Make the device visible in a machine whose root directory is `root`; False when it was already."""
    link = root / volume.link
    if link.is_symlink():
        return False
    link.parent.mkdir(parents=True, exist_ok=True)
    node = next(n for i in itertools.count(1) if not (n := root / f"dev/nvme{i}n1").exists())
    os.mknod(node, stat.S_IFBLK, device.stat().st_rdev)
    node.chmod(0o660)
    link.symlink_to(f"../../{node.name}")
    return True


def hide(link: Path, root: Path, *, forced: bool = False) -> bool:
    """Take the device behind a by-id link out of the machine; False while the machine has it mounted.

    With `forced` it goes in any case, and only its nodes: what is mounted from it is for `tear_off`.
    """
    node = _node(link, root)
    if not forced and _in_use(node):
        return False
    for other in (root / "dev/disk").glob("*/*"):
        if other.is_symlink() and other.readlink().name == node.name:
            other.unlink()
    node.unlink()
    return True


def tear_off(link: Path, root: Path, mount_table: str) -> list[str]:
    """Shut down the file system on the device behind a by-id link, as a disk that goes away does: whoever has a file
    of it open gets I/O errors, and what was not yet written is lost. Returns where the machine has it mounted, the
    last mount first; `mount_table` is the machine's /proc/…/mountinfo.
    """
    number = _node(link, root).stat().st_rdev
    mounts = mount_points(mount_table, f"{os.major(number)}:{os.minor(number)}")
    if mounts:
        try:
            _shut_down(root / mounts[0].lstrip("/"))
        except OSError as error:
            if error.errno != errno.EIO:  # which says that it is down already
                raise
    return mounts


def _shut_down(mount: Path) -> None:
    top = os.open(mount, os.O_RDONLY)
    try:
        fcntl.ioctl(top, SHUT_DOWN, struct.pack("I", WITHOUT_FLUSH))
    finally:
        os.close(top)


def mount_points(mount_table: str, device: str) -> list[str]:
    """Where a device (`major:minor`) is mounted, the last mount first."""
    rows = [line.split() for line in mount_table.splitlines()]
    return [row[4] for row in reversed(rows) if row[2] == device]


def _node(link: Path, root: Path) -> Path:
    return root / "dev" / (root / link).readlink().name


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
