"""EC2 instances: a systemd container each, which starts, stops, reboots and goes away as the API says.

The container has no network of its own. At every start the cloud gives it its interface and its disks and then
makes /run/lab/powered, for which its first process waits: the hardware is there.
"""

import json
import logging
import os
import select
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lab.cloud import host_network, volumes
from lab.cloud.network import Interface
from lab.cloud.volumes import LoopDevices, Volume
from lab.containers import SOCKET, docker

LABEL = "gitlab-lab"
NAME_PREFIX = "gitlab-lab-"
REBOOT = 129  # how a container ends in which systemd reboots; 130 when it powers off
SHARED_MEMORY = "4g"
"""Size of /dev/shm: half of the memory of a t3.large, as Linux has it. GitLab's database fills Docker's 64 MiB."""
STOP_TIMEOUT = 60  # seconds for an orderly shutdown; AWS gives some minutes

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Machine:
    """An instance as the API has it. `reboots` counts the calls of RebootInstances."""

    id: str
    name: str
    hostname: str
    state: str
    interface: Interface | None = None
    root: Volume | None = None
    volumes: tuple[Volume, ...] = ()
    reboots: int = 0

    @property
    def container(self) -> str:
        return NAME_PREFIX + self.id


@dataclass
class _Running:
    """The first process of a container: `handle` is a pidfd, so that a used-again number does not matter."""

    pid: int
    handle: int
    reboots: int
    links_are_due: bool = False
    """Disks have come or gone, and the machine has not yet made its links to file systems again."""

    @property
    def root(self) -> Path:
        return Path(f"/proc/{self.pid}/root")

    @property
    def booted(self) -> bool:
        """Whether it is on its root disk: before that, its folders are under way to it."""
        return (self.root / "run/lab/booted").exists()

    def alive(self) -> bool:
        return not select.select([self.handle], [], [], 0)[0]


class Machines:
    """Brings containers to what the API says. One thread a machine at a time.

    `settled` is called with the instance id when a pending, stopping or shutting-down has come to its end,
    `powered_off` when a machine was shut down from inside, `volume_settled` with a volume's id when it is in or
    out of its machine.
    """

    def __init__(
        self,
        image: Callable[[], str],
        devices: LoopDevices,
        settled: Callable[[str], None],
        powered_off: Callable[[str], None],
        volume_settled: Callable[[str], None],
    ) -> None:
        self._image = image
        self._devices = devices
        self._settled = settled
        self._powered_off = powered_off
        self._volume_settled = volume_settled
        self._running: dict[str, _Running] = {}

    def reconcile(self, machine: Machine) -> None:
        """One step towards what the API says. Raises LabError or OSError; the next call goes on from there."""
        match machine.state:
            case "pending" | "running":
                self._keep_running(machine)
            case "stopping" | "shutting-down":
                if _exists(machine):
                    docker("stop", f"--time={STOP_TIMEOUT}", machine.container)
                    if machine.state == "shutting-down":
                        docker("rm", "--force", "--volumes", machine.container)
                self._forget(machine)
                self._settled(machine.id)
                log.info("%s %s: %s", machine.id, machine.name, machine.state)
            case "stopped":
                for volume in machine.volumes:
                    self._volume_settled(volume.id)

    def _keep_running(self, machine: Machine) -> None:
        running = self._running.get(machine.id)
        if running is None:
            running = self._power_on(machine)
        elif not running.alive():
            self._forget(machine)
            status = int(docker("wait", machine.container))
            if status != REBOOT:
                log.info("%s %s: went off by itself (status %d)", machine.id, machine.name, status)
                self._powered_off(machine.id)
                return
            log.info("%s %s: reboots by itself", machine.id, machine.name)
            running = self._power_on(machine)
        elif machine.reboots > running.reboots:
            log.info("%s %s: is rebooted", machine.id, machine.name)
            docker("restart", f"--time={STOP_TIMEOUT}", machine.container)
            self._forget(machine)
            running = self._power_on(machine)
        if running.booted:
            self._plug_volumes(machine, running)
            self._settle_volumes(machine, running)
        if machine.state == "pending":
            self._settled(machine.id)

    def _power_on(self, machine: Machine) -> _Running:
        if not _exists(machine):
            docker(*create_command(machine, self._image()))
        docker("start", machine.container)
        pid = int(docker("inspect", "--format={{.State.Pid}}", machine.container))
        running = _Running(pid, os.pidfd_open(pid), machine.reboots)
        try:
            if machine.interface:
                host_network.plug_in(machine.interface, Path(f"/proc/{pid}/ns/net"))
            if machine.root:
                volumes.show_root(self._devices.root_device(machine.root), running.root)
            self._plug_volumes(machine, running)
            powered = running.root / "run/lab/powered"
            powered.parent.mkdir(exist_ok=True)
            powered.touch()
        except BaseException:
            os.close(running.handle)
            raise
        running.links_are_due = False  # its first process sees to them
        self._running[machine.id] = running
        log.info("%s %s: is on", machine.id, machine.name)
        return running

    def _plug_volumes(self, machine: Machine, running: _Running) -> None:
        wanted = {volume.link for volume in machine.volumes if volume.wanted}
        forced = {volume.link: volume for volume in machine.volumes if volume.forced}
        for link in volumes.shown(running.root) - wanted:
            if link in forced:
                self._tear_off(machine, forced[link], running)
            running.links_are_due |= volumes.hide(link, running.root, forced=link in forced)
        if machine.root:
            self._devices.root_device(machine.root)
        for volume in machine.volumes:
            if volume.wanted:
                running.links_are_due |= volumes.show(volume, self._devices.device(volume), running.root)

    def _tear_off(self, machine: Machine, volume: Volume, running: _Running) -> None:
        mount_table = Path(f"/proc/{running.pid}/mountinfo").read_text()
        for mount in volumes.tear_off(volume.link, running.root, mount_table):
            # systemd unmounts what hangs on a device that has gone; here it does not see devices.
            docker("exec", machine.container, "umount", "--lazy", mount)
        self._devices.renew(volume)

    def _settle_volumes(self, machine: Machine, running: _Running) -> None:
        """A volume is in when the machine has all links to it: on AWS udev makes them at once, here the stand-in."""
        if running.links_are_due:
            docker("exec", machine.container, "udevadm", "trigger")
            running.links_are_due = False
        for volume in machine.volumes:
            if (running.root / volume.link).is_symlink() == volume.wanted:
                self._volume_settled(volume.id)

    def _forget(self, machine: Machine) -> None:
        if running := self._running.pop(machine.id, None):
            os.close(running.handle)

    def cloud_init(self, machine_id: str) -> str:
        """How far the first boot is: `running`, `done`, `error`, or `-` when the machine does not run."""
        running = self._running.get(machine_id)
        if running is None:
            return "-"
        try:
            result = json.loads((running.root / "run/cloud-init/result.json").read_text())
        except (OSError, ValueError):
            return "running"
        return "error" if result["v1"]["errors"] else "done"


def create_command(machine: Machine, image: str) -> list[str]:
    """The arguments of `docker` that make the machine's container.

    SYS_RESOURCE and SYS_TIME would reach the host's limits and clock. The rules for block devices of majors 7
    (loop) and 259 (partitions) let volumes be attached later.
    """
    resolver = machine.interface.resolver if machine.interface else "127.0.0.1"
    return [
        "create",
        f"--name={machine.container}",
        f"--hostname={machine.hostname}",
        f"--label={LABEL}",
        "--network=none",
        "--cgroupns=private",
        *("--cap-add=ALL", "--cap-drop=SYS_RESOURCE", "--cap-drop=SYS_TIME"),
        *("--security-opt=seccomp=unconfined", "--security-opt=apparmor=unconfined"),
        *("--device-cgroup-rule=b 7:* rwm", "--device-cgroup-rule=b 259:* rwm"),
        f"--shm-size={SHARED_MEMORY}",
        *("--tmpfs=/run:mode=755", "--tmpfs=/tmp:exec"),
        f"--env=LAB_DNS={resolver}",
        image,
    ]


def _exists(machine: Machine) -> bool:
    return bool(docker("ps", "--all", "--quiet", f"--filter=name=^{machine.container}$").strip())


def remove() -> None:
    """Remove every container of the lab, when its engine runs. Idempotent."""
    if not SOCKET.is_socket():
        return
    if left := docker("ps", "--all", "--quiet", f"--filter=label={LABEL}", check=False).split():
        docker("rm", "--force", "--volumes", *left)
