"""The systemd service that `gitlab-runner install` makes (kardianos/service)."""

import shlex
import subprocess
import sys
from pathlib import Path

from lab_gitlab_runner import log
from lab_gitlab_runner.configuration import load

UNIT = """[Unit]
Description=GitLab Runner
ConditionFileIsExecutable=/usr/bin/gitlab-runner
After=network.target

[Service]
StartLimitInterval=5
StartLimitBurst=10
ExecStart=/usr/bin/gitlab-runner {arguments}
Restart=always
RestartSec=120
EnvironmentFile=-/etc/sysconfig/{name}

[Install]
WantedBy=multi-user.target
"""


def install(name: str, config: Path, user: str, working_directory: str) -> None:
    """Also writes a first config.toml when there is none."""
    if not user:
        log.fatal("Please specify user that will run gitlab-runner service")
    configuration = load(config)
    if not configuration.loaded:
        configuration.save()
    unit = _unit(name)
    if unit.exists():
        log.fatal(f"Failed to install {name}: Init already exists: {unit}")
    arguments = ["run", "--config", str(config), "--working-directory", working_directory]
    unit.write_text(UNIT.format(name=name, arguments=shlex.join([*arguments, "--service", name, "--user", user])))
    _systemctl("enable", f"{name}.service")
    _systemctl("daemon-reload")


def uninstall(name: str) -> None:
    _systemctl("disable", f"{name}.service")
    _unit(name).unlink(missing_ok=True)
    _systemctl("daemon-reload")


def control(name: str, command: str) -> None:
    """start, stop or restart."""
    _systemctl(command, f"{name}.service")


def status(name: str) -> int:
    """Prints whether the service runs; the exit code says it too."""
    if not _unit(name).exists():
        print(f"{name}: the service is not installed", file=sys.stderr)
        return 1
    active = subprocess.run(["systemctl", "is-active", "--quiet", f"{name}.service"], check=False).returncode == 0
    print(f"{name}: Service {'is running' if active else 'has stopped'}", file=sys.stdout if active else sys.stderr)
    return 0 if active else 1


def _unit(name: str) -> Path:
    return Path(f"/etc/systemd/system/{name}.service")


def _systemctl(*arguments: str) -> None:
    done = subprocess.run(["systemctl", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        log.fatal(f'Failed to {arguments[0]}: "systemctl" failed with stderr: {done.stderr.strip()}')
