"""EC2 instances: one systemd container each, which is started, stopped, rebooted and removed as the API requests.

The container has no network of its own. At every start the cloud attaches its interface and its disks and then
creates /run/lab/powered, for which the container's first process waits.
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
REBOOT = 129  # exit status of a container whose systemd reboots; 130 if it powers off
SHARED_MEMORY = "4g"
"""Size of /dev/shm: half of a t3.large's memory, as on Linux. GitLab's database needs more than Docker's 64 MiB."""
STOP_TIMEOUT = 60  # seconds for an orderly shutdown; AWS allows several minutes

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Machine:
    """An instance as the API describes it. `reboots` counts the calls of RebootInstances."""

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
    """The first process of a container. `handle` is a pidfd, because pids can be reused."""

    pid: int
    handle: int
    reboots: int
    links_are_due: bool = False
    """Disks were added or removed, and the machine has not yet re-created its links to file systems."""

    @property
    def root(self) -> Path:
        return Path(f"/proc/{self.pid}/root")

    @property
    def booted(self) -> bool:
        """Whether it runs from its root disk; until then, its folders are being moved there."""
        return (self.root / "run/lab/booted").exists()

    def alive(self) -> bool:
        return not select.select([self.handle], [], [], 0)[0]


class Machines:
    """Brings containers in line with the API. At most one thread per machine.

    `settled` is called with the instance id when its pending, stopping or shutting-down is completed, `powered_off`
    when a machine was shut down from inside, `volume_settled` with a volume's id when it is attached or detached.
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
        """Take one step towards the API's state. Raises LabError or OSError; the next call continues from there."""
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
                log.info("%s %s: powered off from inside (status %d)", machine.id, machine.name, status)
                self._powered_off(machine.id)
                return
            log.info("%s %s: rebooting from inside", machine.id, machine.name)
            running = self._power_on(machine)
        elif machine.reboots > running.reboots:
            log.info("%s %s: rebooting through the API", machine.id, machine.name)
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
        running.links_are_due = False  # the machine's first process creates them
        self._running[machine.id] = running
        log.info("%s %s: powered on", machine.id, machine.name)
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
            # systemd unmounts the file systems of a removed device; in a container it does not see devices.
            docker("exec", machine.container, "umount", "--lazy", mount)
        self._devices.renew(volume)

    def _settle_volumes(self, machine: Machine, running: _Running) -> None:
        """Report a volume as attached when the machine has all links to it.

        On AWS udev creates them immediately; here udev's stand-in is triggered.
        """
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
        """Return the state of the first boot: `running`, `done`, `error`, or `-` if the machine is not running."""
        running = self._running.get(machine_id)
        if running is None:
            return "-"
        try:
            result = json.loads((running.root / "run/cloud-init/result.json").read_text())
        except (OSError, ValueError):
            return "running"
        return "error" if result["v1"]["errors"] else "done"


def create_command(machine: Machine, image: str) -> list[str]:
    """Return the arguments of `docker` that create the machine's container.

    SYS_RESOURCE and SYS_TIME would give access to the host's limits and clock. The rules for block devices of majors 7
    (loop) and 259 (partitions) allow volumes to be attached later.
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
    """Remove every container of the lab if its Docker engine is running. Idempotent."""
    if not SOCKET.is_socket():
        return
    if left := docker("ps", "--all", "--quiet", f"--filter=label={LABEL}", check=False).split():
        docker("rm", "--force", "--volumes", *left)
