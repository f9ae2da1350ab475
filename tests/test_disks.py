"""grow_file_system.sh on loop devices with a real XFS and the partition table of Red Hat's image."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from configuration.remote_step import script

GIB = 1024**3
LAYOUT = """\
label: gpt
1MiB,1MiB,21686148-6449-6E6F-744E-656564454649
,200MiB,U
,,L
"""
"""BIOS boot, EFI, root: RHEL 8.10 for EC2 (osbuild/images, internal rhel8 partition tables)."""

needs_disks = pytest.mark.needs("growpart", "mkfs.xfs", "sfdisk", "losetup", root=True)


def call(*command: object) -> str:
    return subprocess.run([str(word) for word in command], check=True, capture_output=True, text=True).stdout.strip()


class Disk:
    """A disk with a mounted XFS file system. `partition` is the partition of the file system, if any."""

    def __init__(self, folder: Path, size: int, *, partition: int | None) -> None:
        self.file, self.mountpoint = folder / "disk", folder / "mounted"
        self.mountpoint.mkdir()
        with self.file.open("wb") as file:
            file.truncate(size * GIB)
        self.device = call("losetup", "--find", "--show", "--partscan", self.file)
        source = self.device
        if partition:
            subprocess.run(["sfdisk", "--quiet", self.device], input=LAYOUT, text=True, check=True)
            call("partx", "--update", self.device)
            source = f"{self.device}p{partition}"
        call("mkfs.xfs", "-q", source)
        call("mount", source, self.mountpoint)

    def enlarge(self, size: int) -> None:
        os.truncate(self.file, size * GIB)
        call("losetup", "--set-capacity", self.device)

    @property
    def size(self) -> float:
        """Size of the file system in GiB."""
        found = os.statvfs(self.mountpoint)
        return found.f_frsize * found.f_blocks / GIB

    def remove(self) -> None:
        subprocess.run(["umount", "--lazy", self.mountpoint], check=False)
        subprocess.run(["losetup", "--detach", self.device], check=False)


@pytest.fixture(params=[None, 3], ids=["whole disk", "partition"])
def disk(request, tmp_path) -> Iterator[Disk]:
    made = Disk(tmp_path, 2, partition=request.param)
    yield made
    made.remove()


def put(folder: Path, tool: str, text: str) -> None:
    """Put a stub of a command into `folder`/bin, which logs its calls in `folder`/calls."""
    file = folder / "bin" / tool
    file.parent.mkdir(exist_ok=True)
    file.write_text(f'#!/bin/bash\necho "{tool} $*" >>{folder}/calls\n{text}\n')
    file.chmod(0o755)


def calls(folder: Path) -> list[str]:
    file = folder / "calls"
    return file.read_text().splitlines() if file.exists() else []


def grow(
    disk: Disk, size: int, *, seconds: int = 300, meanwhile: str = "", **changes: str
) -> subprocess.CompletedProcess[str]:
    """Run the step with the loop device in place of an NVMe disk; it waits for at most `seconds`. No time passes while
    it sleeps: `meanwhile` is run instead.
    """
    folder = disk.file.parent
    put(folder, "sleep", meanwhile)
    text = script("grow_file_system.sh").replace("/dev/nvme[0-9]+n[0-9]+", "/dev/loop[0-9]+")
    text = text.replace("300", f"{seconds}")
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    return subprocess.run(
        ["bash", "-c", f"exec 3>&2\n{text}", "grow_root", str(disk.mountpoint), str(size), "server-root-dev"],
        capture_output=True,
        text=True,
        env={"PATH": f"{folder}/bin:{os.environ['PATH']}"},
        check=False,
    )


@needs_disks
def test_a_disk_that_grows_after_a_while_is_waited_for_and_filled(disk):
    enlarge = f"truncate --size 3G {disk.file}; losetup --set-capacity {disk.device}"
    done = grow(disk, 3, meanwhile=f"[ $(wc -l <{disk.file.parent}/calls) -lt 2 ] || {{ {enlarge}; }}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr.endswith(f"uses all 3 GiB of {disk.device}\n")
    assert disk.size > 2.7
    assert calls(disk.file.parent) == ["sleep 1"] * 2


@needs_disks
def test_a_file_system_that_fills_its_disk_stays_as_it_is(disk):
    before = disk.size
    assert grow(disk, 2).returncode == 0
    assert disk.size == before
    assert calls(disk.file.parent) == []


@needs_disks
def test_a_disk_that_does_not_grow_is_named_with_what_to_do(disk):
    failed = grow(disk, 3, seconds=3)
    assert failed.returncode == 1
    assert calls(disk.file.parent) == ["sleep 1"] * 2
    expected = f"server-root-dev should have 3 GiB, but after 5 minutes its disk {disk.device} has {2 * GIB} bytes"
    assert expected in failed.stdout
    assert "aws ec2 describe-volumes-modifications" in failed.stdout


@needs_disks
def test_a_file_system_that_does_not_grow_is_noticed(disk):
    disk.enlarge(3)
    failed = grow(disk, 3, xfs_growfs="true")
    assert failed.returncode == 1
    assert f"the file system of {disk.mountpoint} on {disk.device}" in failed.stdout
    assert "bytes of server-root-dev are unused" in failed.stdout


def test_a_root_that_is_no_partition_of_an_nvme_disk_is_left_alone(tmp_path):
    put(tmp_path, "findmnt", "echo /dev/mapper/vg-root")
    done = subprocess.run(
        ["bash", "-c", f"exec 3>&1\n{script('grow_file_system.sh')}", "grow_root", "/", "30", "server-root-dev"],
        capture_output=True,
        text=True,
        env={"PATH": f"{tmp_path}/bin:{os.environ['PATH']}"},
        check=True,
    )
    assert done.stdout.startswith("/ was not grown: it is on /dev/mapper/vg-root, not on a plain NVMe disk")


def test_every_volume_is_filled_in_the_up_that_enlarges_it_the_root_before_anything_else(graph):
    for role, root, data, later in (
        ("server", 40, "/srv/gitlab 100", "mount-data"),
        ("registry", 30, "/srv/registry 100", "mount-data"),
        ("runner", 60, None, "install-docker"),
    ):
        step = graph.step(f"{role}-grow-root")
        assert step.inputs["create"].endswith(f" grow_root / {root} {role}-root-test")
        assert graph.comes_after(step, graph.one("aws:ec2/instance:Instance", role))
        assert graph.comes_after(graph.step(f"{role}-{later}"), step)
        if data:
            step = graph.step(f"{role}-grow-data")
            assert step.inputs["create"].endswith(f" grow_data {data} {role}-data-test")
            assert graph.comes_after(step, graph.step(f"{role}-mount-data"))
            assert graph.comes_after(step, graph.one("aws:ebs/volume:Volume", f"{role}-data"))
