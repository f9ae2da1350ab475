"""The age of a machine's security updates; configuration/paths.py has the marker files of install-security-updates."""

import os
import time
from typing import Any, Mapping, Optional

from . import clients
from .outcomes import FailedCheckError, Measured

MARKS = "/var/lib/gitlab-stack"
STARTED = "security-updates-started"
INSTALLED = "security-updates-installed"
TIMER = "install-security-updates.timer"
DAY = 24 * 60 * 60  # seconds


def updates_installed(endpoints: Mapping[str, Any]) -> Measured:
    """Updates are installed on schedule, and the running kernel is the one that was installed last."""
    if not endpoints.get("security_updates"):
        return Measured(0.0, "disabled: securityUpdates is empty")
    status, output = clients.run("systemctl", "is-active", TIMER)
    if status != 0:
        raise FailedCheckError(f"The timer {TIMER} is {output}.", final=True)
    started, installed = mark(STARTED), mark(INSTALLED)
    age = "none since the machine was set up" if installed is None else days_old(time.time() - installed)
    # No installation is in progress now: it would hold the lock that this check shares.
    if started is not None and (installed is None or installed < started):
        raise FailedCheckError(f"The last installation did not succeed; the last successful one: {age}.", final=True)
    latest, running = installed_kernel(), clients.run("uname", "-r")[1]
    if latest != running:
        raise FailedCheckError(f"The kernel {latest} is installed, but {running} is running.", final=True)
    return Measured(0.0, f"{age}, kernel running = installed")


def mark(name: str) -> Optional[float]:
    """When a marker file was last touched; None if it does not exist."""
    try:
        return os.stat(os.path.join(MARKS, name)).st_mtime
    except FileNotFoundError:
        return None


def days_old(seconds: float) -> str:
    """An age in days, for example `3 days old`."""
    days = int(seconds // DAY)
    return f"{days} day{'' if days == 1 else 's'} old"


def installed_kernel() -> str:
    """The release of the kernel that was installed last; the machine boots it next."""
    status, output = clients.run("rpm", "-q", "--last", "kernel-core")
    if status != 0:
        raise FailedCheckError(f"rpm lists no kernel: {clients.last_line(output)}.", final=True)
    return output.split()[0][len("kernel-core-") :]
