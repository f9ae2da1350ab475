"""The package's services and their run scripts.

Source of users and mount point checks: omnibus-gitlab 17.10.4+ce.0, the sv-*-run.erb files.
"""

import os
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

from lab_gitlab import paths
from lab_gitlab.accounts import Owner
from lab_gitlab.configuration import Configuration

PLACEHOLDER = ("sleep", "infinity")
"""The command of services of which only the running state matters."""


@dataclass(frozen=True)
class Service:
    """A service. `section` of gitlab.rb enables or disables it; without `account` it runs as root."""

    name: str
    section: str
    command: tuple[str, ...] = PLACEHOLDER
    account: str | None = "user"
    directory: Path | None = None
    checks_mounts: bool = True
    enabled: bool = True

    def is_enabled(self, configuration: Configuration) -> bool:
        return configuration.enabled(self.section, default=self.enabled)


def _module(name: str, *arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-W", "ignore", "-m", f"lab_gitlab.{name}", *arguments)


# In the order in which reconfigure sets them up; the first group is needed to migrate the database.
BEFORE_MIGRATION = (
    Service(
        "gitlab-sshd",
        "gitlab_sshd",
        _module("sshd"),
        directory=paths.VAR / "gitlab-sshd",
        checks_mounts=False,
        enabled=False,
    ),
    Service("logrotate", "logrotate", account=None, checks_mounts=False),
    Service("redis", "redis", _module("redis_server"), account="redis"),
    Service("gitaly", "gitaly", _module("answering_service", str(paths.GITALY_SOCKET))),
    Service("postgresql", "postgresql", _module("database_server"), account="postgresql"),
)
AFTER_MIGRATION = (
    Service("puma", "puma", _module("puma")),
    Service("sidekiq", "sidekiq", _module("sidekiq")),
    Service("gitlab-workhorse", "gitlab_workhorse", _module("workhorse")),
    Service(
        "nginx",
        "nginx",
        (paths.NGINX, "-p", f"{paths.NGINX_DIRECTORY}/", "-c", "conf/nginx.conf", "-e", "stderr"),
        account=None,
        directory=paths.NGINX_DIRECTORY,
    ),
)


def run_script(service: Service, configuration: Configuration, owner: Owner | None) -> str:
    """Return the shell script that executes the service, as `owner` if given."""
    lines = ["#!/bin/bash", "exec 2>&1"]
    if service.checks_mounts:
        for mountpoint in configuration.mountpoints:
            lines += [
                f"if ! mountpoint -q {shlex.quote(mountpoint)}; then",
                f"  echo 'Refusing to start because {mountpoint} is not a mountpoint.'",
                "  exit 1",
                "fi",
            ]
    if service.directory:
        lines.append(f"cd {shlex.quote(str(service.directory))} || exit 1")
    lines.append(f"export PYTHONPATH={shlex.quote(str(paths.RAILS))} PYTHONUNBUFFERED=1")
    if not paths.IS_MACHINE:
        lines.append(f"export LAB_ROOT={shlex.quote(str(paths.ROOT))}")
    command = [*_as(owner), *service.command]
    lines.append(f"exec {shlex.join(command)}")
    return "\n".join(lines) + "\n"


def _as(owner: Owner | None) -> tuple[str, ...]:
    if owner is None or owner.uid == os.geteuid():
        return ()
    return ("setpriv", f"--reuid={owner.uid}", f"--regid={owner.gid}", "--clear-groups")
