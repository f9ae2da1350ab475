"""Stand-in for `gitlab-ctl reconfigure`: applies gitlab.rb to the machine.

Order and effects follow omnibus-gitlab 17.10.4+ce.0, gitlab/recipes/default.rb; the output is much shorter than Chef's
but ends with the same lines.
"""

import fcntl
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NoReturn

from lab_gitlab import (
    accounts,
    application,
    files,
    paths,
    rails_files,
    runit,
    schema,
    secrets_file,
    service_files,
    services,
)
from lab_gitlab.accounts import AccountError
from lab_gitlab.configuration import Configuration, ConfigurationError, load
from lab_gitlab.database import Database, DatabaseError
from lab_gitlab.schema import SeedError
from lab_gitlab.services import Service
from lab_gitlab.version import revision

PASSWORD_MINIMUM = 8

UNIT = """[Unit]
Description=GitLab Runit supervision process
After={after}

[Service]
ExecStart=/opt/gitlab/embedded/bin/runsvdir-start
Restart=always

[Install]
WantedBy={wanted_by}
"""
UNIT_FILE = Path("/usr/lib/systemd/system/gitlab-runsvdir.service")


class ReconfigureError(Exception):
    """A step failed; the message is the one that ends a real run."""


def main() -> int:
    """Reconfigure and return the exit code. The output is also written to /var/log/gitlab/reconfigure."""
    if os.geteuid() != 0 and paths.IS_MACHINE:
        print("This command must be executed as root user", file=sys.stderr)
        return 1
    started = time.monotonic()
    with _alone(), _log() as say:
        say("Starting Infra Phase (played by the lab)")
        try:
            Run(say).converge()
        except (ConfigurationError, ReconfigureError, AccountError, OSError, subprocess.SubprocessError) as error:
            detail = getattr(error, "detail", "")
            say(f"There was an error running gitlab-ctl reconfigure:\n\n{error}\n{detail}\n")
            say(f"Infra Phase failed. 0 resources updated in {time.monotonic() - started:.0f} seconds")
            return 1
        say("gitlab Reconfigured!")
    return 0


class Run:
    """One run. `changed` are the services whose configuration has changed."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say = say
        self.changed: set[str] = set()

    def converge(self) -> None:
        """Apply the configuration. Raises ConfigurationError, ReconfigureError, AccountError, OSError."""
        self.configuration = load(paths.GITLAB_RB)
        self.root_password = _root_password(self.configuration)
        secrets_file.complete(self.configuration)
        self.configuration.check()
        self.bootstrapping = not paths.BOOTSTRAPPED.exists()
        files.folder(paths.ETC, mode=0o775)
        for folder in (paths.VAR, paths.LOGS, paths.OPT / "etc", paths.SERVICES, paths.SERVICE_DEFINITIONS):
            files.folder(folder)
        made = self.configuration.accounts()
        self.owners = {section: accounts.ensure(made[section]) for section in made}
        if rails_files.write(self.configuration, self.owners["user"]):
            self.changed |= {"puma", "sidekiq"}
        self._start_supervision()
        self._apply(services.BEFORE_MIGRATION)
        self._wait_for_database()
        self._migrate()
        self._apply(services.AFTER_MIGRATION)
        files.write(paths.BOOTSTRAPPED, "All your bootstraps are belong to Chef", mode=0o600)

    # Services

    def _start_supervision(self) -> None:
        """Start runit with systemd. As with the real one, without systemd (in a container) the caller must start it."""
        if not paths.IS_MACHINE or not Path("/run/systemd/system").is_dir():
            return
        # As with the real ones, the defaults make a reconfigure hang during boot, in cloud-init.
        after, wanted_by = (
            self.configuration.get("package", name, "multi-user.target")
            for name in ("systemd_after", "systemd_wanted_by")
        )
        if files.write(UNIT_FILE, UNIT.format(after=after, wanted_by=wanted_by)):
            _systemctl("daemon-reload")
        _systemctl("enable", "--quiet", "gitlab-runsvdir")
        _systemctl("start", "gitlab-runsvdir")

    def _apply(self, group: Sequence[Service]) -> None:
        """Enable and start services, restart those whose configuration has changed, and stop disabled ones."""
        enabled = [service for service in group if service.is_enabled(self.configuration)]
        known = {service.name for service in enabled if runit.is_supervised(service.name)}
        for service in group:
            if service not in enabled:
                runit.disable(service.name)
                continue
            prepare = service_files.PREPARATIONS.get(service.name)
            if prepare and prepare(self.configuration, self.owners):
                self.changed.add(service.name)
            owner = self.owners[service.account] if service.account else None
            if runit.define(service.name, services.run_script(service, self.configuration, owner)):
                self.changed.add(service.name)
            runit.enable(service.name)
        for service in enabled:
            if not runit.wait(partial(runit.is_supervised, service.name)):
                self._give_up(service.name, runit.sv("status", service.name)[0])
        restarted = [service.name for service in enabled if service.name in known & self.changed]
        for name, (text, code) in zip(restarted, runit.control("restart", *restarted, seconds=30.0), strict=True):
            if code:
                self._give_up(name, text)
        if self.bootstrapping:
            others = [service.name for service in enabled if service.name not in restarted]
            runit.control("start", *(name for name in others if not runit.is_running(name)))

    def _give_up(self, name: str, text: str) -> NoReturn:
        raise ReconfigureError(f"runit_service[{name}] had an error: {text}")

    # The database

    def _wait_for_database(self) -> None:
        database = Database()

        def answers() -> bool:
            try:
                database.query("SELECT 1")
            except DatabaseError:
                return False
            return True

        if not runit.wait(answers, seconds=10.0):
            last = _tail(paths.LOGS / "postgresql/current")
            raise ReconfigureError(
                "postgresql_user[gitlab] (postgresql::enable) had an error: psql: error: "
                f'connection to server on socket "{paths.POSTGRESQL_SOCKET}" failed\n{last}'
            )

    def _migrate(self) -> None:
        """Migrate once per version. A failed run is repeated, but does not seed again (see schema)."""
        done = paths.UPGRADE_STATUS / f"db-migrate-{revision()}"
        if done.exists() and done.read_text().strip() == "0":
            return
        self.say("  * rails_migration[gitlab-rails] action run")
        try:
            printed = schema.configure(application.load(), self.root_password)
        except (SeedError, DatabaseError) as error:
            files.write(done, "1\n", owner=self.owners["user"])
            raise ReconfigureError(
                "rails_migration[gitlab-rails] (gitlab::database_migrations line 51) had an error: "
                "Mixlib::ShellOut::ShellCommandFailed: Expected process to exit with [0], but received '1'\n"
                f"{error}"
            ) from None
        for line in printed:
            self.say(f"    {line}")
        files.write(done, "0\n", owner=self.owners["user"])


def _root_password(configuration: Configuration) -> str:
    """Return the configured initial password of root, or a random one."""
    password = str(configuration.get("gitlab_rails", "initial_root_password") or secrets.token_urlsafe(32))
    if len(password) < PASSWORD_MINIMUM:
        raise ReconfigureError("initial_root_password: Length is too short, minimum is 8 characters")
    return password


def _tail(file: Path, lines: int = 5) -> str:
    """Return the last lines of a log."""
    return "\n".join(file.read_text(errors="replace").splitlines()[-lines:]) if file.exists() else ""


def _systemctl(*arguments: str) -> None:
    done = subprocess.run(["systemctl", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise ReconfigureError(f"execute[systemctl {' '.join(arguments)}] had an error: {done.stderr.strip()}")


@contextmanager
def _alone() -> Iterator[None]:
    """Hold the lock of reconfigure; a second run waits for the first."""
    lock = paths.OPT / "embedded/nodes/.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("Cinc Client is running, will wait for it to finish and then run.", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def _log() -> Iterator[Callable[[str], None]]:
    """Yield a function that prints a line and appends it to the run's log."""
    folder = paths.LOGS / "reconfigure"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{int(time.time())}.log").open("a") as file:

        def say(text: str) -> None:
            print(text, flush=True)
            file.write(text + "\n")

        yield say
