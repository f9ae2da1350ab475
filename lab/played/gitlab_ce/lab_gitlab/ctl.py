"""Stand-in for `gitlab-ctl`."""

import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable

from lab_gitlab import paths, reconfigure, runit
from lab_gitlab.version import version

TEMPLATE_URL = "http://gitlab.example.com"
SERVICE_COMMANDS = ("status", "start", "stop", "restart", "hup", "term")


def control(command: str, names: list[str]) -> int:
    """Pass a command to the named services, by default to all; succeeds if no service is configured yet."""
    total = 0
    for text, code in runit.control(command, *(names or runit.names())):
        print(text, flush=True)
        total += code
    return min(total, 255)


def upgrade(_: list[str]) -> int:
    """Run by the package at the end of its installation (files/gitlab-ctl-commands/upgrade.rb)."""
    url = os.environ.get("EXTERNAL_URL", "")
    if not paths.BOOTSTRAPPED.exists() and url not in ("", TEMPLATE_URL):
        return reconfigure.main()
    names = runit.names()
    if not any(map(runit.is_supervised, names)):
        print("It looks like GitLab has not been configured yet; skipping the upgrade script.")
        return 0
    if (paths.ETC / "skip-auto-reconfigure").exists():
        print(f"Found {paths.ETC}/skip-auto-reconfigure, exiting...")
        return 0
    running = [name for name in names if runit.is_running(name)]
    print("Shutting down all GitLab services except those needed for migrations")
    control("stop", [name for name in names if name not in ("postgresql", "redis", "gitaly")])
    print("Reconfigure GitLab to apply migrations")
    code = reconfigure.main()
    if code:
        print("===\nThere was an error running gitlab-ctl reconfigure. Please check the output above.\n===")
        return code
    print("Restarting previously running GitLab services")
    control("restart", running)
    print("Upgrade complete! If your GitLab server is misbehaving try running\n  sudo gitlab-ctl restart")
    return 0


def tail(names: list[str]) -> int:
    """Follow the logs of the named services, by default of all."""
    folders = [paths.LOGS / name for name in names] or [paths.LOGS]
    logs = [str(file) for folder in folders for file in folder.rglob("*") if file.is_file()]
    return subprocess.run(["tail", "--follow=name", "--retry", *logs], check=False).returncode


def backup_etc(_: list[str]) -> int:
    """Archive /etc/gitlab in its subfolder config_backup."""
    folder = paths.ETC / "config_backup"
    folder.mkdir(mode=0o700, exist_ok=True)
    archive = folder / f"gitlab_config_{time.strftime('%s_%Y_%m_%d')}.tar"
    archive.touch(mode=0o600)
    with tarfile.open(archive, "w") as tar:
        for entry in paths.ETC.iterdir():
            if entry != folder:
                tar.add(entry, f"/etc/gitlab/{entry.name}")
    print(f"Configuration backup archive complete: {archive}")
    return 0


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "backup-etc": backup_etc,
    "reconfigure": lambda _: reconfigure.main(),
    "tail": tail,
    "upgrade": upgrade,
}


def main(arguments: list[str]) -> int:
    command, rest = (arguments or ["help"])[0], arguments[1:]
    if command in ("--version", "version"):
        print(f"gitlab-ctl of GitLab CE {version()}, played by the lab")
        return 0
    if command in COMMANDS:
        return COMMANDS[command](rest)
    if command in SERVICE_COMMANDS:
        return control(command, rest)
    known = ", ".join(sorted((*COMMANDS, *SERVICE_COMMANDS)))
    print(f"I don't know that command: {command}. The lab supports: {known}", file=sys.stderr)
    return 1
