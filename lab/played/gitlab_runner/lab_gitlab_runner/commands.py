"""The `gitlab-runner` commands that this project and the package's scriptlets use."""

import os
import subprocess
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path

from lab_gitlab_runner import VERSION, coordinator, log, worker
from lab_gitlab_runner.configuration import ConfigurationError, load

SERVICE = "gitlab-runner.service"
UNIT = """[Unit]
Description=GitLab Runner
ConditionFileIsExecutable=/usr/bin/gitlab-runner
After=network.target

[Service]
StartLimitInterval=5
StartLimitBurst=10
ExecStart=/usr/bin/gitlab-runner run --config /etc/gitlab-runner/config.toml --working-directory {0.working_directory} \
--service gitlab-runner --user {0.user}
Restart=always
RestartSec=120
EnvironmentFile=-/etc/sysconfig/gitlab-runner

[Install]
WantedBy=multi-user.target
"""


def main(arguments: Sequence[str]) -> int:
    options = _parser().parse_args(arguments)
    log.info("Runtime platform", arch="amd64", os="linux", pid=os.getpid(), version=VERSION)
    try:
        return COMMANDS[options.command](options)
    except (ConfigurationError, OSError) as error:
        log.fatal(str(error))


def run(options: Namespace) -> int:
    worker.Worker(options.config).run()
    return 0


def verify(options: Namespace) -> int:
    """Verify the runners' tokens; fails only if GitLab rejects one (see coordinator.verify)."""
    configuration = load(options.config)
    valid = [coordinator.verify(runner, configuration.system_id) for runner in configuration.runners]
    if not all(valid):
        log.fatal("Failed to verify runners")
    return 0


def install(options: Namespace) -> int:
    """Install the systemd service (kardianos/service)."""
    _unit().write_text(UNIT.format(options))
    return _systemctl("daemon-reload") or _systemctl("enable", SERVICE)


def uninstall(_options: Namespace) -> int:
    _systemctl("disable", SERVICE)
    _unit().unlink(missing_ok=True)
    return _systemctl("daemon-reload")


def start(_options: Namespace) -> int:
    return _systemctl("start", SERVICE)


def stop(_options: Namespace) -> int:
    return _systemctl("stop", SERVICE)


COMMANDS = {command.__name__: command for command in (run, verify, install, uninstall, start, stop)}


def _unit() -> Path:
    return Path("/etc/systemd/system", SERVICE)


def _systemctl(*arguments: str) -> int:
    return subprocess.run(["systemctl", *arguments], check=False).returncode


def _parser() -> ArgumentParser:
    parser = ArgumentParser(prog="gitlab-runner", description="GitLab Runner, played by the lab", allow_abbrev=False)
    commands = parser.add_subparsers(required=True, dest="command")
    parsers = {name: commands.add_parser(name, allow_abbrev=False) for name in COMMANDS}
    file = os.environ.get("CONFIG_FILE", "/etc/gitlab-runner/config.toml")
    for name in ("run", "verify"):
        parsers[name].add_argument("--config", type=Path, default=Path(file))
    for name in ("run", "install"):
        parsers[name].add_argument("--working-directory")
        parsers[name].add_argument("--user")
    parsers["run"].add_argument("--service")
    return parser
