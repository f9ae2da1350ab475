import errno
import os
import subprocess
from pathlib import Path

import pytest

from lab.cloud import volumes
from lab.cloud.volumes import GIB, LoopDevices, Volume, hide, mount_points, show, show_root, shown, tear_off

ONE = Volume("vol-0123456789abcdef0", 2, "eu-central-1a", "attached", "i-1")
TWO = Volume("vol-0123456789abcdef1", 2, "eu-central-1a", "attached", "i-1")


@pytest.fixture
def root(monkeypatch, tmp_path):
    """The root directory of a machine, where device nodes are plain files."""
    monkeypatch.setattr(os, "mknod", lambda node, *_: node.touch())
    (tmp_path / "dev").mkdir()
    return tmp_path


def test_a_machine_sees_nvme_devices_and_links_by_id(root):
    device = root / "loop"
    device.touch()
    assert show(ONE, device, root)
    assert show(TWO, device, root)
    assert not show(TWO, device, root)
    link = root / "dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_vol0123456789abcdef1"
    assert link.resolve() == root / "dev/nvme2n1"
    assert shown(root) == {ONE.link, TWO.link}
    assert not list(root.glob("dev/sd*"))


def test_a_detached_volume_leaves_no_link(root):
    device = root / "loop"
    device.touch()
    show(ONE, device, root)
    by_uuid = root / "dev/disk/by-uuid"
    by_uuid.mkdir()
    (by_uuid / "1234").symlink_to("../../nvme1n1")
    assert hide(ONE.link, root)
    assert shown(root) == set()
    assert not list(by_uuid.iterdir())
    assert not (root / "dev/nvme1n1").exists()


def test_a_mounted_volume_stays(root, monkeypatch):
    device = root / "loop"
    device.touch()
    show(ONE, device, root)
    monkeypatch.setattr(volumes, "_in_use", lambda node: True)
    assert not hide(ONE.link, root)
    assert shown(root) == {ONE.link}
    assert hide(ONE.link, root, forced=True)
    assert shown(root) == set()


MOUNT_TABLE = """\
22 1 0:20 / / rw,relatime shared:1 - overlay overlay rw
90 22 7:3 / /srv/gitlab rw,relatime shared:5 - xfs /dev/nvme1n1 rw
91 22 7:3 /var-opt-gitlab /var/opt/gitlab rw,relatime shared:5 - xfs /dev/nvme1n1 rw
92 22 7:31 / /srv/other rw,relatime shared:6 - xfs /dev/nvme2n1 rw
"""


def test_where_a_volume_is_mounted():
    assert mount_points(MOUNT_TABLE, "7:3") == ["/var/opt/gitlab", "/srv/gitlab"]
    assert mount_points(MOUNT_TABLE, "7:4") == []


def test_a_volume_torn_off_is_shut_down_where_it_is_mounted(root, monkeypatch):
    device = root / "loop"
    device.touch()
    show(ONE, device, root)
    shut: list[Path] = []
    monkeypatch.setattr(volumes, "_shut_down", shut.append)
    table = MOUNT_TABLE.replace("7:3 ", "0:0 ")  # of a plain file
    assert tear_off(ONE.link, root, table) == ["/var/opt/gitlab", "/srv/gitlab"]
    assert tear_off(ONE.link, root, "") == []
    assert shut == [root / "var/opt/gitlab"]


@pytest.mark.needs("mkfs.ext4", root=True)
def test_a_file_system_that_is_shut_down_gives_errors(tmp_path):
    disk, mount = tmp_path / "disk", tmp_path / "mount"
    mount.mkdir()
    with disk.open("wb") as file:
        file.truncate(16 * 2**20)
    subprocess.run(["mkfs.ext4", "-q", disk], check=True)
    subprocess.run(["mount", "-o", "loop", disk, mount], check=True)
    try:
        with (mount / "file").open("w") as file:
            volumes._shut_down(mount)
            with pytest.raises(OSError, match=os.strerror(errno.EIO)):
                os.write(file.fileno(), b"more")
    finally:
        subprocess.run(["umount", "--lazy", mount], check=True)


@pytest.mark.parametrize(
    ("status", "wanted"), [("attaching", True), ("attached", True), ("detaching", False), ("", False)]
)
def test_wanted(status, wanted):
    assert Volume("vol-1", 1, "z", status).wanted is wanted


def test_loop_devices_live_as_long_as_the_volume(monkeypatch, tmp_path):
    commands = []

    def call(*command, **_):
        commands.append(command)
        return "/dev/loop9\n"

    monkeypatch.setattr(volumes, "call", call)
    monkeypatch.setattr(volumes, "VOLUMES", tmp_path)
    devices = LoopDevices()
    assert str(devices.device(ONE)) == "/dev/loop9"
    assert ONE.file.stat().st_size == 2 * GIB
    assert ONE.file.stat().st_blocks == 0
    devices.device(ONE)
    assert len(commands) == 1
    devices.device(Volume(ONE.id, 3, ONE.zone))
    assert commands[1] == ("losetup", "--set-capacity", "/dev/loop9")
    assert ONE.file.stat().st_size == 3 * GIB
    devices.renew(ONE)
    assert commands[2] == ("losetup", "--detach", "/dev/loop9")
    devices.device(ONE)
    assert commands[3] == commands[0]  # the same file under another device
    devices.forget_all_but({ONE.id})
    assert ONE.file.exists()
    devices.forget_all_but(set())
    assert commands[4] == ("losetup", "--detach", "/dev/loop9")
    assert not ONE.file.exists()


def test_a_volume_from_a_snapshot_keeps_its_data_and_is_as_large_as_requested(monkeypatch, tmp_path):
    monkeypatch.setattr(volumes, "call", lambda *_: "/dev/loop9\n")
    monkeypatch.setattr(volumes, "VOLUMES", tmp_path)
    ONE.file.write_bytes(b"data")
    LoopDevices().device(ONE)
    assert ONE.file.stat().st_size == 2 * GIB
    with ONE.file.open("rb") as file:
        assert file.read(4) == b"data"


def test_nothing_remains_of_volumes_and_snapshots(monkeypatch, tmp_path):
    monkeypatch.setattr(volumes, "call", lambda *_, **__: "")
    monkeypatch.setattr(volumes, "VOLUMES", tmp_path)
    for name in ("vol-1", "snap-1", "other"):
        (tmp_path / name).touch()
    volumes.remove()
    assert [file.name for file in tmp_path.iterdir()] == ["other"]


def test_a_root_disk_has_its_partitions_from_the_first_moment_and_is_as_large_as_the_image(root, monkeypatch, tmp_path):
    commands = []

    def call(*command, **_):
        commands.append(command)
        return f"{root}/loop9\n"

    def sfdisk(command, **given):
        commands.append(command)
        assert given["input"] == volumes.ROOT_LAYOUT
        assert volume.file.stat().st_size == 10 * GIB

    monkeypatch.setattr(volumes, "call", call)
    monkeypatch.setattr(subprocess, "run", sfdisk)
    monkeypatch.setattr(volumes, "VOLUMES", tmp_path)
    volume = Volume("vol-0123456789abcdef2", 30, "eu-central-1a")
    for name in ("loop9", "loop9p1", "loop9p2", "loop9p3"):
        (root / name).touch()
    device = LoopDevices().root_device(volume)
    assert volume.file.stat().st_size == 30 * GIB
    assert [command[0] for command in commands] == ["losetup", "sfdisk", "partx", "mkfs.xfs", "losetup"]
    assert "--partscan" in commands[0]
    assert commands[3][-1] == f"{root}/loop9p3"
    show_root(device, root)
    show(ONE, device, root)
    assert sorted(node.name for node in (root / "dev").glob("nvme*")) == [
        *("nvme0n1", "nvme0n1p1", "nvme0n1p2", "nvme0n1p3", "nvme1n1")
    ]
    assert shown(root) == {ONE.link}
