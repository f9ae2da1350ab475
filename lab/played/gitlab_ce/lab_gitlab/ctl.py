"""Plays `gitlab-ctl`."""

import json
import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable

from lab_gitlab import paths, reconfigure, service_control
from lab_gitlab.configuration import ConfigurationError, load
from lab_gitlab.version import version

TEMPLATE_URL = "http://gitlab.example.com"
SERVICE_COMMANDS = ("start", "stop", "restart", "hup", "term")


def status(names: list[str]) -> int:
    """One line per service. Prints nothing, and is content, where nothing is configured yet."""
    total = 0
    for name in names or service_control.names():
        line, code = service_control.describe(name)
        print(line)
        total += code
    return min(total, 255)


def control(command: str, names: list[str]) -> int:
    """Send a command to services, to all of them if none is named."""
    known = service_control.names()
    total = 0
    for name in names or known:
        if name not in known:
            print(f"fail: {name}: runsv not running")
            total += service_control.UNABLE
            continue
        line, code = service_control.tell(name, command)
        print(line, flush=True)
        total += code
    return min(total, 255)


def upgrade(_: list[str]) -> int:
    """What the package runs at the end of its installation (files/gitlab-ctl-commands/upgrade.rb)."""
    url = os.environ.get("EXTERNAL_URL", "")
    if not paths.BOOTSTRAPPED.exists() and url not in ("", TEMPLATE_URL):
        code = reconfigure.main()
        return code or _welcome(url)
    names = service_control.names()
    if not names or all(service_control.status(name) is None for name in names):
        print("It looks like GitLab has not been configured yet; skipping the upgrade script.")
        return _welcome(url)
    if (paths.ETC / "skip-auto-reconfigure").exists():
        print(f"Found {paths.ETC}/skip-auto-reconfigure, exiting...")
        return 0
    running = [name for name in names if (known := service_control.status(name)) and known.running]
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


def show_config(_: list[str]) -> int:
    """The settings with what follows from them, as JSON. Holds secrets, like the real one."""
    try:
        configuration = load(paths.GITLAB_RB)
        configuration.complete()
    except ConfigurationError as error:
        print(error, file=sys.stderr)
        return 1
    print(json.dumps({name: value for name, value in configuration.settings.items() if value}, indent=2))
    return 0


def tail(names: list[str]) -> int:
    """Follow the logs of services, of all if none is named."""
    folders = [paths.LOGS / name for name in names] or [paths.LOGS]
    logs = [str(file) for folder in folders for file in folder.rglob("*") if file.is_file()]
    return subprocess.run(["tail", "--follow=name", "--retry", *logs], check=False).returncode


def backup_etc(_: list[str]) -> int:
    """Pack /etc/gitlab into its own folder config_backup."""
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


def _welcome(url: str) -> int:
    print("Thank you for installing GitLab!")
    if url == TEMPLATE_URL:
        print("Please configure a URL for your GitLab instance by setting `external_url`")
        print("configuration in /etc/gitlab/gitlab.rb file, then run:\n  sudo gitlab-ctl reconfigure")
    elif url:
        print(f"GitLab should be available at {url}")
    return 0


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "backup-etc": backup_etc,
    "reconfigure": lambda _: reconfigure.main(),
    "show-config": show_config,
    "status": status,
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
    print(f"I don't know that command: {command}. The lab plays: {known}", file=sys.stderr)
    return 1
