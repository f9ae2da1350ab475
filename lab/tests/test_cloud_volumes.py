import os

import pytest

from lab.cloud import volumes
from lab.cloud.volumes import GIB, LoopDevices, Volume, hide, show, shown

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
    show(ONE, device, root)
    show(TWO, device, root)
    show(TWO, device, root)
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
    assert not list(by_uuid.iterdir()) and not (root / "dev/nvme1n1").exists()


def test_a_mounted_volume_stays(root, monkeypatch):
    device = root / "loop"
    device.touch()
    show(ONE, device, root)
    monkeypatch.setattr(volumes, "_in_use", lambda node: True)
    assert not hide(ONE.link, root)
    assert shown(root) == {ONE.link}


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
    assert ONE.file.stat().st_size == 2 * GIB and ONE.file.stat().st_blocks == 0
    devices.device(ONE)
    assert len(commands) == 1
    devices.device(Volume(ONE.id, 3, ONE.zone))
    assert commands[1] == ("losetup", "--set-capacity", "/dev/loop9")
    assert ONE.file.stat().st_size == 3 * GIB
    devices.forget_all_but({ONE.id})
    assert ONE.file.exists()
    devices.forget_all_but(set())
    assert commands[2] == ("losetup", "--detach", "/dev/loop9")
    assert not ONE.file.exists()
