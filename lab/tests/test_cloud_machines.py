import json
import os
from pathlib import Path

import pytest

from lab.cloud import machines, network, volumes
from lab.cloud.machines import Machine, Machines, create_command
from lab.cloud.network import Interface
from lab.cloud.volumes import LoopDevices, Volume

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
    monkeypatch.setattr(network, "plug_in", lambda i, n: host.events.append(f"eth0 {i.address}"))
    monkeypatch.setattr(os, "pidfd_open", lambda pid: os.open("/dev/null", os.O_RDONLY))
    monkeypatch.setattr(machines._Running, "root", property(lambda self: tmp_path))
    monkeypatch.setattr(machines._Running, "alive", lambda self: host.state == "running")
    return host


@pytest.fixture
def made(host):
    class Devices(LoopDevices):
        def device(self, volume):
            return Path("/dev/loop9")

    def note(text):
        return lambda name: host.events.append(f"{text} {name}")

    return Machines(lambda: "image:1", Devices(), note("settled"), note("off"), note("volume"))


def test_power_on(host, made):
    made.reconcile(machine("pending"))
    assert host.events == ["create", "start", "eth0 10.42.0.5", "settled i-1"]
    assert (host.root / "run/lab/powered").exists()
    made.reconcile(machine("running"))
    assert len(host.events) == 4


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

    monkeypatch.setattr(network, "plug_in", fail)
    with pytest.raises(OSError, match="no veth"):
        made.reconcile(machine("pending"))
    monkeypatch.setattr(network, "plug_in", lambda *_: None)
    made.reconcile(machine("pending"))
    assert host.events == ["create", "start", "start", "settled i-1"]


def test_volumes_are_settled_when_they_are_in_or_out(host, made, monkeypatch):
    visible: set[Path] = set()
    monkeypatch.setattr(volumes, "shown", lambda root: set(visible))
    monkeypatch.setattr(volumes, "hide", lambda link, root: visible.discard(link))

    def show(volume, device, root):
        visible.add(volume.link)
        link = root / volume.link
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.is_symlink():
            link.symlink_to("nowhere")

    monkeypatch.setattr(volumes, "show", show)
    volume = Volume("vol-1", 1, "z", "attaching", "i-1")
    made.reconcile(machine("pending", volumes=(volume,)))
    assert "volume vol-1" in host.events and visible == {volume.link}
    host.events.clear()
    detaching = Volume("vol-1", 1, "z", "detaching", "i-1")
    made.reconcile(machine("running", volumes=(detaching,)))
    assert host.events == [] and visible == set()  # the link above is still there: mounted
    (host.root / volume.link).unlink()
    made.reconcile(machine("running", volumes=(detaching,)))
    assert host.events == ["volume vol-1"]


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
    assert command[0] == "create" and command[-1] == "image:1"
    assert {"--network=none", "--label=gitlab-lab", "--env=LAB_DNS=10.42.0.2"} <= set(command)
    assert {"--cap-drop=SYS_TIME", "--cap-drop=SYS_RESOURCE"} <= set(command)
