"""EBS volumes: a sparse file in `.lab/volumes` and a loop device for each; both outlive the machine.

A snapshot is a copy of the volume's file, which has the snapshot's id as its name. A volume that is created from a
snapshot has its file from the start, any other one since its first attachment.

A machine sees its volumes as an instance of the Nitro system does: as /dev/nvme1n1 and so on, in no reliable order,
and by the link /dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_vol… with the volume's id. The device name of the
attachment (/dev/sdf) does not exist. The root volume is /dev/nvme0n1, with the partitions of Red Hat's image.
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
ROOT_SIZE = 10  # GiB of the image, whose file system the first boot grows to the volume's size
ROOT_LAYOUT = """\
label: gpt
1MiB,1MiB,21686148-6449-6E6F-744E-656564454649
,200MiB,U
,,L
"""
"""BIOS boot, EFI, root (RHEL 8.10 for EC2 in osbuild's image definitions)."""

SHUT_DOWN = 0x8004587D
"""XFS_IOC_GOINGDOWN of linux/fs/xfs, also in ext4: the file system behaves as if its disk had been removed."""
WITHOUT_FLUSH = 2  # unwritten data is lost


@dataclass(frozen=True)
class Volume:
    """A data volume. `status` is that of its attachment: attaching, attached, detaching, or empty.

    `forced`: it is detached even if the machine has it mounted.
    """

    id: str
    size: int  # GiB
    zone: str
    status: str = ""
    instance: str | None = None
    forced: bool = False

    @property
    def link(self) -> Path:
        """The link to the device, relative to the machine's root directory."""
        return BY_ID / (LINK_PREFIX + self.id.replace("-", ""))

    @property
    def file(self) -> Path:
        return VOLUMES / self.id

    @property
    def wanted(self) -> bool:
        """Whether the machine should see it."""
        return self.status in ("attaching", "attached")


class LoopDevices:
    """The loop devices of the volumes, by volume id. Thread-safe."""

    def __init__(self) -> None:
        self._devices: dict[str, Path] = {}
        self._sizes: dict[str, int] = {}
        self._lock = threading.Lock()

    def device(self, volume: Volume) -> Path:
        """Return the volume's loop device, created if it does not exist, grown if the volume has grown."""
        return self._device(volume, self._make)

    def root_device(self, volume: Volume) -> Path:
        """Do the same for a root volume, which is created with partitions and an empty file system."""
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
        """Use another device at the next attachment: a file system that was torn off may keep this one for long."""
        with self._lock:
            if device := self._devices.pop(volume.id, None):
                call("losetup", "--detach", str(device))  # once it is no longer in use

    def forget_all_but(self, volume_ids: set[str]) -> None:
        """Delete the data of all other volumes."""
        with self._lock:
            for volume_id in set(self._devices) - volume_ids:
                call("losetup", "--detach", str(self._devices[volume_id]))
                (VOLUMES / volume_id).unlink(missing_ok=True)
                del self._devices[volume_id], self._sizes[volume_id]


def copy_data(source_id: str, target_id: str) -> None:
    """Copy the current data of a volume or snapshot to a new one. A volume that was never attached has none.

    The copy is atomic only if the file system of `.lab` supports reflinks. Otherwise it may mix several moments, unless
    nothing is written to the volume: a snapshot of EBS is always of one moment.
    """
    source = VOLUMES / source_id
    if source.exists():
        call("cp", "--reflink=auto", "--sparse=always", str(source), str(VOLUMES / target_id))


def delete_data(identifier: str) -> None:
    """Delete the file of a volume or snapshot, if it has one. A loop device keeps its data until it is detached."""
    (VOLUMES / identifier).unlink(missing_ok=True)


def partition(device: Path, number: int) -> Path:
    """Return the device of a partition of a loop device."""
    return device.with_name(f"{device.name}p{number}")


def show_root(device: Path, root: Path) -> None:
    """Make the root disk and its partitions visible in a machine that is starting."""
    nodes = {ROOT_DISK: device}
    nodes |= {f"{ROOT_DISK}p{number}": partition(device, number) for number in range(1, ROOT_PARTITION + 1)}
    for name, source in nodes.items():
        node = root / "dev" / name
        if not node.exists():
            os.mknod(node, stat.S_IFBLK, source.stat().st_rdev)
            node.chmod(0o660)


def show(volume: Volume, device: Path, root: Path) -> bool:
    """Make the device visible in a machine whose root directory is `root`. Return False if it already was."""
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
    """Remove the device behind a by-id link from the machine. Return False while the machine has it mounted.

    With `forced` it is removed even if mounted; `tear_off` shuts down its file system.
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
    """Shut down the file system on the device behind a by-id link, as if the disk had been removed.

    Processes with open files get I/O errors, and unwritten data is lost. Returns where the machine has it mounted, the
    last mount first; `mount_table` is the machine's /proc/…/mountinfo.
    """
    number = _node(link, root).stat().st_rdev
    mounts = mount_points(mount_table, f"{os.major(number)}:{os.minor(number)}")
    if mounts:
        try:
            _shut_down(root / mounts[0].lstrip("/"))
        except OSError as error:
            if error.errno != errno.EIO:  # EIO: it is already shut down
                raise
    return mounts


def _shut_down(mount: Path) -> None:
    top = os.open(mount, os.O_RDONLY)
    try:
        fcntl.ioctl(top, SHUT_DOWN, struct.pack("I", WITHOUT_FLUSH))
    finally:
        os.close(top)


def mount_points(mount_table: str, device: str) -> list[str]:
    """Return where a device (`major:minor`) is mounted, the last mount first."""
    rows = [line.split() for line in mount_table.splitlines()]
    return [row[4] for row in reversed(rows) if row[2] == device]


def _node(link: Path, root: Path) -> Path:
    return root / "dev" / (root / link).readlink().name


def shown(root: Path) -> set[Path]:
    """Return the by-id links that the machine has."""
    return {BY_ID / link.name for link in (root / BY_ID).glob(f"{LINK_PREFIX}*")}


def _in_use(node: Path) -> bool:
    """Whether a file system on the device is mounted: the kernel then denies an exclusive open."""
    try:
        os.close(os.open(node, os.O_RDONLY | os.O_EXCL))
    except OSError as error:
        if error.errno == errno.EBUSY:
            return True
        raise
    return False


def remove() -> None:
    """Remove every loop device whose file is in `.lab/volumes`, and the files. Idempotent."""
    listing = call("losetup", "--list", "--json", "--output", "NAME,BACK-FILE", check=False)
    for device in json.loads(listing or "{}").get("loopdevices", []):
        if Path(device["back-file"].removesuffix(" (deleted)")).is_relative_to(VOLUMES):
            call("losetup", "--detach", device["name"])
    for kind in ("vol", "snap"):
        for file in VOLUMES.glob(f"{kind}-*"):
            file.unlink()
