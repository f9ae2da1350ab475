"""Leftovers of this clone's lab: processes, network devices, namespaces, packet filter rules, mounts, loop devices.

Those of other programs on this machine, for example another clone's lab, do not count. Processes and disks are
identified by this clone's path or control group. Network names are the same in every lab, and count for the clone
whose lab is running.
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
    """List the leftovers, each with its kind."""
    owner = lab._owner()
    return [*processes(), *disks(), *(network() if owner in (None, ROOT) else ())]


def processes() -> Iterator[str]:
    """Processes with this clone's folder in their arguments or in its control group, except this one's ancestors."""
    looking = set(_ancestry(os.getpid()))
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            arguments = (folder / "cmdline").read_bytes().decode(errors="replace").replace("\0", " ").strip()
            group = (folder / "cgroup").read_text()
        except OSError:  # the process has exited
            continue
        ours = PATH.search(arguments) or arguments.startswith(COMMAND) or f"/{CGROUP}/" in group
        if ours and int(folder.name) not in looking:
            yield f"process {folder.name}: {arguments}"


def disks() -> Iterator[str]:
    """Mounts and loop devices below this clone's folder."""
    for kind, text in (("mount", Path("/proc/mounts").read_text()), ("loop device", _run("losetup", "--list"))):
        yield from (f"{kind}: {line}" for line in text.splitlines() if PATH.search(line))


def network() -> Iterator[str]:
    """Devices, namespaces and rules with the names that a lab uses."""
    views = {
        "network device": (("ip", "-o", "link"), rf"^\d+: ({BRIDGE}|{DEVICE_PREFIX}\w+)[@:]"),
        "network namespace": (("ip", "netns"), rf"^{NAMESPACE_PREFIX}"),
        "packet filter": (("nft", "list", "ruleset"), rf'\b{TABLE}\b|"({BRIDGE}|{DEVICE_PREFIX})'),
    }
    for kind, (command, mark) in views.items():
        yield from (f"{kind}: {line}" for line in _run(*command).splitlines() if re.search(mark, line))


def _ancestry(pid: int) -> Iterator[int]:
    """A process and its ancestors (proc(5): the parent is the second field after the name)."""
    while pid > 0:
        yield pid
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def _run(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout
