"""The lab's own Docker engine: images, sockets and mounts below the clone's ignored folder, and no network.

It is separate from any other engine on the host: its own data, socket, containerd and cgroup. It runs with
`--bridge=none` and without iptables: the cloud creates the machines' network (lab/cloud/host_network.py).
"""

import contextlib
import hashlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from lab import workspace
from lab.shell import call
from lab.workspace import LabError

DATA_ROOT = workspace.STATE / "docker"
EXEC_ROOT = workspace.RUN / "docker"
SOCKET = workspace.RUN / "docker.sock"
# The cgroup is named after the clone, so every process in it belongs to this lab.
CGROUP = f"gitlab-lab-{hashlib.sha256(str(workspace.ROOT).encode()).hexdigest()[:8]}"

CGROUPS = Path("/sys/fs/cgroup")
# The engine has these two paths built in, regardless of --exec-root.
PLUGINS = Path("/run/docker/plugins")
SHIM_SOCKETS = Path("/run/containerd/s")

SOCKET_PATH_LIMIT = 107  # bytes of a path in sockaddr_un (unix(7)), without the closing zero
LONGEST_SOCKET = EXEC_ROOT / "containerd" / "containerd.sock.ttrpc"
START_TIMEOUT = 60.0  # seconds; an engine with nothing to repair answers after one or two
STOP_TIMEOUT = 40.0  # seconds; the engine waits 15 for its containers

_daemon = workspace.Daemon(
    "dockerd",
    [
        "dockerd",
        f"--data-root={DATA_ROOT}",
        f"--exec-root={EXEC_ROOT}",
        f"--pidfile={EXEC_ROOT / 'dockerd.pid'}",
        f"--host=unix://{SOCKET}",
        # Ignore the settings of another engine on this host.
        f"--config-file={EXEC_ROOT / 'daemon.json'}",
        f"--cgroup-parent=/{CGROUP}",
        "--exec-opt=native.cgroupdriver=cgroupfs",
        "--storage-driver=overlay2",
        "--bridge=none",
        "--iptables=false",
        "--ip6tables=false",
        "--ip-forward=false",
        "--ip-masq=false",
    ],
)


def start() -> None:
    """Start the engine and wait until it answers. Idempotent; cleans up after an engine that was killed.

    Raises LabError if the engine does not start, or if the clone's path is too long for a socket.
    """
    if _answers():
        return
    if len(os.fsencode(LONGEST_SOCKET)) > SOCKET_PATH_LIMIT:
        spare = SOCKET_PATH_LIMIT - len(os.fsencode(LONGEST_SOCKET.relative_to(workspace.ROOT))) - 1
        raise LabError(
            f"the path of this clone is too long for the engine's sockets: {workspace.ROOT}\n"
            f"clone into a folder with a path of at most {spare} bytes"
        )
    stop()
    EXEC_ROOT.mkdir(parents=True, exist_ok=True)
    (EXEC_ROOT / "daemon.json").write_text("{}\n")
    _daemon.start()
    deadline = time.monotonic() + START_TIMEOUT
    while not _answers():
        if not _daemon.running() or time.monotonic() > deadline:
            raise LabError(
                f"the lab's Docker engine does not start\n{workspace.tail(_daemon.log_file)}\n"
                f"(full log: {_daemon.log_file})"
            )
        time.sleep(0.1)


def stop() -> None:
    """Stop the engine and every container, and remove all it created outside its data. Idempotent."""
    _daemon.stop(STOP_TIMEOUT)
    _kill(_engine_processes)
    _kill(_container_processes)
    for folder in (DATA_ROOT, EXEC_ROOT):
        _unmount_below(folder)
    _remove_stale_shim_sockets()
    for folder in (PLUGINS, PLUGINS.parent, SHIM_SOCKETS, SHIM_SOCKETS.parent):
        with contextlib.suppress(OSError):  # missing, or used by another engine
            folder.rmdir()
    _remove_cgroups()
    (EXEC_ROOT / "dockerd.pid").unlink(missing_ok=True)
    (EXEC_ROOT / "containerd" / "containerd.pid").unlink(missing_ok=True)
    SOCKET.unlink(missing_ok=True)


def client(*args: str) -> list[str]:
    """Return the command line of a Docker client that uses only this engine."""
    return ["docker", f"--config={EXEC_ROOT / 'client'}", f"--host=unix://{SOCKET}", *args]


def docker(*args: str, stdin: str | None = None, check: bool = True) -> str:
    """Return the output of `docker ARGS…`. Raises LabError with its message if it fails and `check` is set."""
    done = subprocess.run(
        client(*args),
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        text=True,
        check=False,
    )
    if check and done.returncode:
        raise LabError(f"docker {' '.join(args)}: {done.stderr.strip() or f'status {done.returncode}'}")
    return done.stdout


def exec_in(container: str, *command: str, stdin: str | None = None) -> str:
    """Run a command as root in the container and return its output. Raises LabError if it fails."""
    return docker("exec", "--interactive", container, *command, stdin=stdin)


def _answers() -> bool:
    if not (_daemon.running() and SOCKET.is_socket()):
        return False
    return subprocess.run(client("version"), capture_output=True, check=False).returncode == 0


def _kill(find: Callable[[], list[int]], timeout: float = 10.0) -> None:
    """Send SIGKILL to the processes that `find` returns until it returns none."""
    deadline = time.monotonic() + timeout
    while pids := find():
        if time.monotonic() > deadline:
            raise LabError(f"these processes of the lab's engine cannot be killed: {', '.join(map(str, pids))}")
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.1)


def _engine_processes() -> list[int]:
    """Return the engine and its containerd, shims and runtimes, identified by the folder in their arguments."""
    return [pid for pid, arguments in _command_lines() if _is_engine(arguments, EXEC_ROOT)]


def _is_engine(arguments: list[str], exec_root: Path) -> bool:
    name = Path(arguments[0]).name
    return name.startswith(("dockerd", "containerd", "runc")) and any(str(exec_root) in a for a in arguments)


def _command_lines() -> list[tuple[int, list[str]]]:
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if line := file.read_text(errors="replace"):
                found.append((int(file.parent.name), line.rstrip("\0").split("\0")))
    return found


def _container_processes() -> list[int]:
    found: set[int] = set()
    for cgroup in _cgroups():
        for file in cgroup.rglob("cgroup.procs"):
            with contextlib.suppress(FileNotFoundError):
                found.update(int(pid) for pid in file.read_text().split())
    return sorted(found)


def _cgroups() -> list[Path]:
    """The engine's cgroup; with version 1, one for each controller."""
    return [cgroup for cgroup in (CGROUPS / CGROUP, *CGROUPS.glob(f"*/{CGROUP}")) if cgroup.is_dir()]


def _remove_cgroups() -> None:
    for cgroup in _cgroups():
        for folder in sorted((f for f in cgroup.rglob("*") if f.is_dir()), reverse=True):
            folder.rmdir()
        cgroup.rmdir()


def _unmount_below(folder: Path) -> None:
    for mount_point in reversed(_mount_points(Path("/proc/self/mountinfo").read_text(), folder)):
        # Lazy: a process that is ending may still use it.
        call("umount", "--lazy", str(mount_point))


def _mount_points(mountinfo: str, folder: Path) -> list[Path]:
    """The mount points at or below `folder`, in the order in which they were mounted (proc(5), field 5)."""
    points = [Path(_unescape(line.split(" ")[4])) for line in mountinfo.splitlines()]
    return [point for point in points if point.is_relative_to(folder)]


def _unescape(mount_point: str) -> str:
    """Decode the three octal digits that mountinfo contains for a space, a tab, a newline and a backslash."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), mount_point)


def _remove_stale_shim_sockets() -> None:
    """Remove the sockets of killed shims: those on which no process listens."""
    sockets = list(SHIM_SOCKETS.glob("*"))
    listening = Path("/proc/net/unix").read_text()  # read afterwards, so that it contains every live socket in the list
    for socket in sockets:
        if str(socket) not in listening:
            socket.unlink(missing_ok=True)
