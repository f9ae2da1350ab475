"""What the kernel still knows of this clone's lab: processes, devices, namespaces, rules, mounts, disks.

Others on this machine, a gitlab-runner or another clone's lab, are none of it: what is known by a path or a control
group has this clone's; the names of devices, namespaces and rules are fixed, and of the clone whose lab is there.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from lab import __main__ as lab
from lab.cloud.network import BRIDGE, DEVICE_PREFIX, NAMESPACE_PREFIX, TABLE
from lab.containers import CGROUP
from lab.workspace import ROOT, STATE

PATH = re.compile(rf"(?<![\w/.-]){re.escape(str(STATE))}(?![\w.-])")
COMMAND = f"{sys.executable} -m lab"


def look() -> list[str]:
    """Each of them with its kind."""
    owner = lab._owner()
    return [*processes(), *disks(), *(network() if owner in (None, ROOT) else ())]


def processes() -> Iterator[str]:
    """Those that name this clone's folder or run in its control group, but for whoever is looking."""
    looking = set(_ancestry(os.getpid()))
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            arguments = (folder / "cmdline").read_bytes().decode(errors="replace").replace("\0", " ").strip()
            group = (folder / "cgroup").read_text()
        except OSError:  # it has just ended
            continue
        ours = PATH.search(arguments) or arguments.startswith(COMMAND) or f"/{CGROUP}/" in group
        if ours and int(folder.name) not in looking:
            yield f"process {folder.name}: {arguments}"


def disks() -> Iterator[str]:
    """Mounts and loop devices of this clone's folder."""
    for kind, text in (("mount", Path("/proc/mounts").read_text()), ("loop device", _told("losetup", "--list"))):
        yield from (f"{kind}: {line}" for line in text.splitlines() if PATH.search(line))


def network() -> Iterator[str]:
    """Devices, namespaces and rules by the names that a lab gives them."""
    views = {
        "network device": (("ip", "-o", "link"), rf"^\d+: ({BRIDGE}|{DEVICE_PREFIX}\w+)[@:]"),
        "network namespace": (("ip", "netns"), rf"^{NAMESPACE_PREFIX}"),
        "packet filter": (("nft", "list", "ruleset"), rf'\b{TABLE}\b|"({BRIDGE}|{DEVICE_PREFIX})'),
    }
    for kind, (command, mark) in views.items():
        yield from (f"{kind}: {line}" for line in _told(*command).splitlines() if re.search(mark, line))


def _ancestry(pid: int) -> Iterator[int]:
    """A process and those it descends from (proc(5): the parent is the second field after the name)."""
    while pid > 0:
        yield pid
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def _told(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout
