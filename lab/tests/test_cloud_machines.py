import dataclasses
import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from lab.cloud import host_network, machines, volumes
from lab.cloud.machines import Machine, Machines, create_command
from lab.cloud.network import Interface
from lab.cloud.volumes import LoopDevices, Volume
from lab.workspace import LabError

INTERFACE = Interface(
    "eni-00000000000000bbb", "10.42.0.5", "10.42.0.0/24", "10.42.0.0/16", "02:00:00:00:00:02", ("sg-runner",)
)


def machine(state, **changes):
    return Machine("i-1", "runner", "ip-10-42-0-5", state, INTERFACE, **changes)


class Host:
    """A Docker engine with at most one container, and the machine's root directory."""

    def __init__(self, root):
        self.root = root
        self.state = "none"
        self.status = "0"
        self.events = []

    def docker(self, command, *arguments, **_):
        if command == "ps":
            return "" if self.state == "none" else "c0ffee\n"
        if command == "inspect":
            return "4711\n"
        if command == "wait":
            return self.status + "\n"
        if command == "exec":
            self.events.append(" ".join(arguments[1:]))
            return ""
        self.events.append(command)
        self.state = {
            "create": "created", "start": "running", "restart": "running", "stop": "exited", "rm": "none"
        }[command]  # fmt: skip
        return ""

    def end(self, status):
        self.state, self.status = "exited", str(status)


@pytest.fixture
def host(monkeypatch, tmp_path):
    host = Host(tmp_path)
    (tmp_path / "run").mkdir()
    monkeypatch.setattr(machines, "docker", host.docker)
    monkeypatch.setattr(host_network, "plug_in", lambda i, n: host.events.append(f"eth0 {i.address}"))
    monkeypatch.setattr(os, "pidfd_open", lambda pid: os.open("/dev/null", os.O_RDONLY))
    monkeypatch.setattr(machines._Running, "root", property(lambda self: tmp_path))
    monkeypatch.setattr(machines._Running, "alive", lambda self: host.state == "running")
    (tmp_path / "run/lab").mkdir()
    (tmp_path / "run/lab/booted").touch()
    return host


@pytest.fixture
def made(host):
    class Devices(LoopDevices):
        def device(self, volume):
            return Path("/dev/null")

    def note(text):
        return lambda name: host.events.append(f"{text} {name}")

    return Machines(lambda: "image:1", Devices(), note("settled"), note("off"), note("volume"))


def test_power_on(host, made):
    made.reconcile(machine("pending"))
    assert host.events == ["create", "start", "eth0 10.42.0.5", "settled i-1"]
    assert (host.root / "run/lab/powered").exists()
    made.reconcile(machine("running"))
    assert len(host.events) == 4


def test_disks_do_not_change_while_a_machine_goes_over_to_its_root_disk(host, made):
    made.reconcile(machine("pending"))
    (host.root / "run/lab/booted").unlink()
    made.reconcile(machine("running", volumes=(ATTACHED,)))
    assert not (host.root / ATTACHED.link).is_symlink()
    assert host.events[-1] == "settled i-1"


def test_stop_and_start_again(host, made):
    made.reconcile(machine("pending"))
    host.events.clear()
    made.reconcile(machine("stopping"))
    made.reconcile(machine("stopped"))
    assert host.events == ["stop", "settled i-1"]
    host.events.clear()
    made.reconcile(machine("pending"))
    assert host.events == ["start", "eth0 10.42.0.5", "settled i-1"]


def test_terminate(host, made):
    made.reconcile(machine("pending"))
    host.events.clear()
    made.reconcile(machine("shutting-down"))
    assert host.events == ["stop", "rm", "settled i-1"]


def test_terminate_what_never_came_up(host, made):
    made.reconcile(machine("shutting-down"))
    assert host.events == ["settled i-1"]


def test_reboot_by_the_api(host, made):
    made.reconcile(machine("pending"))
    host.events.clear()
    made.reconcile(machine("running", reboots=1))
    made.reconcile(machine("running", reboots=1))
    assert host.events == ["restart", "start", "eth0 10.42.0.5"]


def test_reboot_from_inside(host, made):
    made.reconcile(machine("pending"))
    host.events.clear()
    host.end(129)
    made.reconcile(machine("running"))
    assert host.events == ["start", "eth0 10.42.0.5"]


@pytest.mark.parametrize("status", [130, 137])
def test_power_off_from_inside(host, made, status):
    made.reconcile(machine("pending"))
    host.events.clear()
    host.end(status)
    made.reconcile(machine("running"))
    assert host.events == ["off i-1"]


def test_a_failed_start_is_tried_again_in_the_same_container(host, made, monkeypatch):
    def fail(*_):
        raise OSError("no veth")

    monkeypatch.setattr(host_network, "plug_in", fail)
    with pytest.raises(OSError, match="no veth"):
        made.reconcile(machine("pending"))
    monkeypatch.setattr(host_network, "plug_in", lambda *_: None)
    made.reconcile(machine("pending"))
    assert host.events == ["create", "start", "start", "settled i-1"]


ATTACHED = Volume("vol-1", 1, "z", "attached", "i-1")
DETACHING = Volume("vol-1", 1, "z", "detaching", "i-1")
LINKS = "udevadm trigger"


@pytest.fixture
def disks(host, monkeypatch):
    """Device nodes are plain files; `busy` is whether the machine has them mounted."""
    disks = SimpleNamespace(busy=False)
    (host.root / "dev").mkdir()
    monkeypatch.setattr(os, "mknod", lambda node, *_: node.touch())
    monkeypatch.setattr(volumes, "_in_use", lambda node: disks.busy)
    return disks


def test_a_disk_that_is_there_at_power_on_is_the_first_process_business(host, made, disks):
    made.reconcile(machine("pending", volumes=(ATTACHED,)))
    assert (host.root / ATTACHED.link).is_symlink()
    assert host.events == ["create", "start", "eth0 10.42.0.5", "volume vol-1", "settled i-1"]


def test_a_disk_that_comes_later_has_its_links_before_the_volume_is_in(host, made, disks):
    made.reconcile(machine("pending"))
    host.events.clear()
    for _ in range(2):
        made.reconcile(machine("running", volumes=(ATTACHED,)))
    assert host.events == [LINKS, "volume vol-1", "volume vol-1"]


def test_links_that_could_not_be_made_are_made_the_next_time(host, made, disks, monkeypatch):
    made.reconcile(machine("pending"))
    host.events.clear()
    with monkeypatch.context() as context:
        context.setattr(machines, "docker", lambda *_: (_ for _ in ()).throw(LabError("is restarting")))
        with pytest.raises(LabError):
            made.reconcile(machine("running", volumes=(ATTACHED,)))
    assert host.events == []
    made.reconcile(machine("running", volumes=(ATTACHED,)))
    assert host.events == [LINKS, "volume vol-1"]


def test_a_mounted_volume_does_not_come_out(host, made, disks):
    made.reconcile(machine("pending", volumes=(ATTACHED,)))
    host.events.clear()
    disks.busy = True
    made.reconcile(machine("running", volumes=(DETACHING,)))
    assert host.events == []
    disks.busy = False
    made.reconcile(machine("running", volumes=(DETACHING,)))
    assert host.events == [LINKS, "volume vol-1"]
    assert not (host.root / ATTACHED.link).is_symlink()


def test_a_forced_detachment_takes_a_mounted_volume_away(host, made, disks, monkeypatch):
    made.reconcile(machine("pending", volumes=(ATTACHED,)))
    host.events.clear()
    disks.busy = True
    monkeypatch.setattr(volumes, "tear_off", lambda *_: ["/var/opt/gitlab", "/srv/gitlab"])
    monkeypatch.setattr(LoopDevices, "renew", lambda _, volume: host.events.append(f"another device for {volume.id}"))
    made._running["i-1"].pid = os.getpid()
    made.reconcile(machine("running", volumes=(dataclasses.replace(DETACHING, forced=True),)))
    unmounts = ["umount --lazy /var/opt/gitlab", "umount --lazy /srv/gitlab"]
    assert host.events == [*unmounts, "another device for vol-1", LINKS, "volume vol-1"]
    assert not (host.root / ATTACHED.link).is_symlink()


@pytest.mark.parametrize(
    ("result", "state"),
    [(None, "running"), ({"v1": {"errors": []}}, "done"), ({"v1": {"errors": ["packages"]}}, "error")],
)
def test_cloud_init(host, made, result, state):
    assert made.cloud_init("i-1") == "-"
    made.reconcile(machine("pending"))
    if result:
        (host.root / "run/cloud-init").mkdir()
        (host.root / "run/cloud-init/result.json").write_text(json.dumps(result))
    assert made.cloud_init("i-1") == state


def test_the_container():
    command = create_command(machine("pending"), "image:1")
    assert command[0] == "create"
    assert command[-1] == "image:1"
    assert {"--network=none", "--label=gitlab-lab", "--env=LAB_DNS=10.42.0.2"} <= set(command)
    assert {"--cap-drop=SYS_TIME", "--cap-drop=SYS_RESOURCE", "--shm-size=4g"} <= set(command)
