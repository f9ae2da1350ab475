"""The package's system users and groups, created with the same tools; by default with the next free number."""

import os
import subprocess
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lab_gitlab.paths import IS_MACHINE, at


@dataclass(frozen=True)
class Owner:
    """Numeric user and group ID of a file."""

    uid: int
    gid: int


ROOT_OWNER = Owner(0, 0) if IS_MACHINE else Owner(os.geteuid(), os.getegid())


@dataclass(frozen=True)
class Account:
    """A system user with a group of the same name. `uid` and `gid` are None if gitlab.rb does not set them."""

    name: str
    home: str
    shell: str
    uid: int | None
    gid: int | None


class AccountError(Exception):
    """useradd, groupadd or a similar tool failed; the message is the tool's."""


def ensure(account: Account) -> Owner:
    """Create user and group, or change their IDs to the configured ones, and return their IDs.

    With LAB_ROOT set, everything belongs to the caller.
    """
    if not IS_MACHINE:
        return ROOT_OWNER
    gid = _number("/etc/group", account.name)
    if gid is None:
        _run("groupadd", "--system", *_option("--gid", account.gid), account.name)
    elif account.gid is not None and gid != account.gid:
        _run("groupmod", "--gid", str(account.gid), account.name)
    uid = _number("/etc/passwd", account.name)
    if uid is None:
        _run(
            *("useradd", "--system", "--no-create-home", "--gid", account.name, *_option("--uid", account.uid)),
            *("--home-dir", account.home, "--shell", account.shell, account.name),
        )
    elif account.uid is not None and uid != account.uid:
        _run("usermod", "--uid", str(account.uid), account.name)
    return owner(account.name)


def owner(name: str) -> Owner:
    """Return the IDs of the user and group with that name. Raises AccountError if one of them does not exist."""
    if not IS_MACHINE:
        return ROOT_OWNER
    uid, gid = _number("/etc/passwd", name), _number("/etc/group", name)
    if uid is None or gid is None:
        raise AccountError(f"unknown user/group: {name}:{name}")
    return Owner(uid, gid)


def become(new: Owner) -> None:
    """Drop root privileges permanently. Does nothing if the process already runs as that user."""
    if os.geteuid() == new.uid:
        return
    os.setgroups([new.gid])
    os.setgid(new.gid)
    os.setuid(new.uid)


def run_as(new: Owner, work: Callable[[], None]) -> None:
    """Run `work` as another user in a child process. Raises AccountError if it fails."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            become(new)
            work()
            status = 0
        except Exception:  # noqa: BLE001 - the child process must exit here on any error
            traceback.print_exc()
        finally:
            os._exit(status)
    if os.waitpid(child, 0)[1]:
        raise AccountError(f"a step that runs as the user {new.uid} failed")


def _number(file: str, name: str) -> int | None:
    for line in at(file).read_text().splitlines():
        fields = line.split(":")
        if fields[0] == name:
            return int(fields[2])
    return None


def _option(name: str, value: int | None) -> tuple[str, ...]:
    return () if value is None else (name, str(value))


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise AccountError(f"{Path(command[0]).name}: {(done.stderr or done.stdout).strip()}")
