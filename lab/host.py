"""Requirements for the host: tools, and a kernel on which machines can run."""

import contextlib
import os
import platform
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from lab.workspace import LabError, run, say

ENGINE_TOOLS = dict.fromkeys(("ssh", "ssh-add", "ssh-agent", "ssh-keygen"), "openssh-client")
"""Executable → Debian package, for the engine and the API without machines."""

MACHINE_TOOLS = {
    "busybox": "busybox-static",
    "createrepo_c": "createrepo-c",
    "curl": "curl",
    "debootstrap": "debootstrap",
    "dnsmasq": "dnsmasq-base",
    "docker": "docker.io",
    "docker-registry": "docker-registry",
    "dockerd": "docker.io",
    "git": "git",
    "gpg": "gnupg",
    "haproxy": "haproxy",
    "ip": "iproute2",
    "losetup": "mount",
    "mkfs.xfs": "xfsprogs",
    "nft": "nftables",
    "nsenter": "util-linux",
    "openssl": "openssl",
    "rpmbuild": "rpm",
    "sfdisk": "fdisk",
    "skopeo": "skopeo",
    "xz": "xz-utils",
}
"""Executable → Debian package, for machines, network, load balancers and the vendors."""

TEST_TOOLS = {
    "busybox": "busybox-static",
    "curl": "curl",
    "docker-registry": "docker-registry",
    "git": "git",
    "gpg": "gnupg",
    "growpart": "cloud-guest-utils",
    "haproxy": "haproxy",
    "ip": "iproute2",
    "iptables": "iptables",
    "losetup": "mount",
    "mkfs.ext4": "e2fsprogs",
    "mkfs.xfs": "xfsprogs",
    "nft": "nftables",
    "nginx": "nginx-light",
    "openssl": "openssl",
    "rpmbuild": "rpm",
    "ruby": "ruby",
    "runsv": "runit",
    "sfdisk": "fdisk",
    "skopeo": "skopeo",
    "ssh-add": "openssh-client",
    "ssh-keygen": "openssh-client",
    "systemd-analyze": "systemd",
    "systemd-tmpfiles": "systemd",
    "unshare": "util-linux",
    "xz": "xz-utils",
}
"""Executable → Debian package, for the unit tests (conftest.py skips a test without its tools)."""

CONTRACT_TOOLS = {
    "chef-utils/mash.rb": "ruby-chef-utils",
    "mixlib/config.rb": "ruby-mixlib-config",
    "nginx": "nginx-light",
    "ruby": "ruby",
}
"""Executable, or file that Ruby requires → Debian package, for `make contract`."""

WAIT_FOR_LOCK = "--option=DPkg::Lock::Timeout=300"
"""For a Debian machine that has just booted, whose unattended upgrades hold the lock (seconds; apt NEWS, 1.9.11)."""

SERVICE_POLICY = Path("/usr/sbin/policy-rc.d")
POLICY_TEXT = "#!/bin/sh\n# The lab installs tools and starts no services.\nexit 101\n"

GIB = 2**30
COMMAND_NOT_FOUND = 127  # exit status of the shell and of unshare(1)
CAP_NET_ADMIN, CAP_SYS_ADMIN = 12, 21  # capabilities(7)


def missing(tools: Mapping[str, str]) -> dict[str, str]:
    """Return the tools that are not installed, each with its package."""
    return {tool: package for tool, package in tools.items() if not _is_installed(tool)}


def _is_installed(tool: str) -> bool:
    if not tool.endswith(".rb"):
        return shutil.which(tool) is not None
    requires = ["ruby", "-r", tool.removesuffix(".rb"), "-e", ""]
    return _is_installed("ruby") and subprocess.run(requires, capture_output=True, check=False).returncode == 0


def ensure(tools: Mapping[str, str]) -> None:
    """Install missing tools as root on Debian; otherwise raise LabError with the command that installs them."""
    absent = missing(tools)
    if not absent:
        return
    packages = sorted(set(absent.values()))
    install = ["apt-get", "install", "--yes", "--no-install-recommends", *packages]
    if shutil.which("apt-get") is None:
        names = ", ".join(sorted(absent))
        raise LabError(f"this machine lacks {names}: install them (on Debian: {' '.join(install)})")
    if os.geteuid() != 0:
        raise LabError(f"this machine lacks {', '.join(sorted(absent))}: run  sudo {' '.join(install)}")
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    with _no_services_started():
        run("reading package lists", ["apt-get", "update"], log="host-tools", env=quiet)
        run(f"installing {', '.join(packages)}", [*install, WAIT_FOR_LOCK], log="host-tools", env=quiet)
    if still := missing(tools):
        raise LabError(f"{', '.join(sorted(still))}: still missing after the installation of {', '.join(packages)}")


def ensure_memory(needed: int, purpose: str) -> None:
    """Raise LabError if this machine has less memory than `needed` GiB."""
    found = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / GIB
    if found < needed:
        raise LabError(f"{purpose} needs a machine with {needed} GiB of memory; this machine has {found:.1f}")


def ensure_test_tools() -> None:
    """Install the programs that the unit tests run; if that is impossible, print a message and continue."""
    try:
        ensure(TEST_TOOLS)
    except LabError as error:
        say(f"{error}; tests that need them do not run")


def why_no_machines() -> str | None:
    """Return one line about what is missing here to run machines; None if they can run.

    A probe that needs a tool of `MACHINE_TOOLS` passes until that tool is installed.
    """
    return next((reason for probe in PROBES if (reason := probe())), None)


@contextlib.contextmanager
def _no_services_started() -> Iterator[None]:
    """Keep Debian from starting the services it installs, with a policy file (invoke-rc.d(8))."""
    if SERVICE_POLICY.exists() and SERVICE_POLICY.read_text() != POLICY_TEXT:
        yield  # the administrator's own policy
        return
    SERVICE_POLICY.write_text(POLICY_TEXT)
    SERVICE_POLICY.chmod(0o755)
    try:
        yield
    finally:
        SERVICE_POLICY.unlink(missing_ok=True)


def _wrong_system() -> str | None:
    system, machine = platform.system(), platform.machine()
    if (system, machine) == ("Linux", "x86_64"):
        return None
    return f"machines need Linux on x86_64; this is {system} on {machine}"


def _no_rights() -> str | None:
    if os.geteuid() != 0:
        return f"machines need root; the user is {os.environ.get('USER') or os.geteuid()}"
    status = Path("/proc/self/status").read_text()
    effective = int(next(line.split()[1] for line in status.splitlines() if line.startswith("CapEff:")), 16)
    capabilities = {"CAP_NET_ADMIN": CAP_NET_ADMIN, "CAP_SYS_ADMIN": CAP_SYS_ADMIN}
    lacking = [name for name, bit in capabilities.items() if not effective >> bit & 1]
    return f"root here lacks {' and '.join(lacking)}: is this an unprivileged container?" if lacking else None


def _no_loop_devices() -> str | None:
    return _fails(["losetup", "--find"], "no loop devices for the volumes")


def _no_namespaces() -> str | None:
    # The mount ends with the namespace.
    return _fails(["unshare", "--net", "--mount", "mount", "-t", "tmpfs", "lab", "/mnt"], "no namespaces and mounts")


def _no_links() -> str | None:
    program = "ip link add lab type bridge && ip link add lab0 type veth peer name lab1"
    return _fails(["unshare", "--net", "sh", "-c", program], "no bridges and veth pairs")


def _no_packet_filter() -> str | None:
    table = "add table ip lab\nadd chain ip lab nat { type nat hook prerouting priority 0; }\ndelete table ip lab\n"
    return _fails(["unshare", "--net", "nft", "-f", "-"], "no packet filter (nftables)", table)


def _no_cgroups() -> str | None:
    return None if os.access("/sys/fs/cgroup", os.W_OK) else "/sys/fs/cgroup cannot be written"


def _fails(command: list[str], what: str, stdin: str | None = None) -> str | None:
    try:
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=10, check=False)
    except subprocess.TimeoutExpired as error:
        return f"{what}: {error}"
    except FileNotFoundError:
        return None
    if done.returncode in (0, COMMAND_NOT_FOUND):
        return None
    message = done.stderr.strip().splitlines() or [f"{command[0]} exited with status {done.returncode}"]
    return f"{what}: {message[0]}"


PROBES: tuple[Callable[[], str | None], ...] = (
    _wrong_system,
    _no_rights,
    _no_loop_devices,
    _no_namespaces,
    _no_links,
    _no_packet_filter,
    _no_cgroups,
)
