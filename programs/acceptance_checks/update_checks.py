"""How old the security updates of a machine are; configuration/paths.py names the marks of install-security-updates."""

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
    """Updates are installed at their time, and the kernel that runs is the one that was installed last."""
    if not endpoints.get("security_updates"):
        return Measured(0.0, "switched off: securityUpdates is empty")
    status, output = clients.run("systemctl", "is-active", TIMER)
    if status != 0:
        raise FailedCheckError(f"The timer {TIMER} is {output}.", final=True)
    started, installed = mark(STARTED), mark(INSTALLED)
    age = "none since the machine was set up" if installed is None else days_old(time.time() - installed)
    # Never looked at while one is at work: it holds the lock that whoever looks has to share.
    if started is not None and (installed is None or installed < started):
        raise FailedCheckError(f"The last installation did not succeed; the last that did: {age}.", final=True)
    latest, running = installed_kernel(), clients.run("uname", "-r")[1]
    if latest != running:
        raise FailedCheckError(f"The kernel {latest} is installed, but {running} runs.", final=True)
    return Measured(0.0, f"{age}, kernel running = installed")


def mark(name: str) -> Optional[float]:
    """When a mark was touched last; None when it never was."""
    try:
        return os.stat(os.path.join(MARKS, name)).st_mtime
    except FileNotFoundError:
        return None


def days_old(seconds: float) -> str:
    """An age as people say it."""
    days = int(seconds // DAY)
    return f"{days} day{'' if days == 1 else 's'} old"


def installed_kernel() -> str:
    """The release of the kernel that was installed last, which the machine boots next."""
    status, output = clients.run("rpm", "-q", "--last", "kernel-core")
    if status != 0:
        raise FailedCheckError(f"rpm names no kernel: {clients.last_line(output)}.", final=True)
    return output.split()[0][len("kernel-core-") :]
