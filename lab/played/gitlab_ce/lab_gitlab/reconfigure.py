"""Plays `gitlab-ctl reconfigure`: makes the machine what gitlab.rb says.

Order and effects follow omnibus-gitlab 17.10.4+ce.0, gitlab/recipes/default.rb; what is printed is far shorter than
Chef's log, but ends alike.
"""

import fcntl
import os
import re
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from lab_gitlab import (
    accounts,
    application,
    files,
    paths,
    rails_files,
    schema,
    secrets_file,
    service_control,
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
PASSWORD_FILE_LIFE = 24 * 3600  # seconds
WAIT = 10.0  # seconds for a service to answer

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
    """A step failed; the text is what the real run ends with."""


def main() -> int:
    """Returns the exit code. Everything printed goes to /var/log/gitlab/reconfigure as well."""
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
    """One run. `changed` holds the services whose configuration changed."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say = say
        self.changed: set[str] = set()
        self.notes: list[str] = []

    def converge(self) -> None:
        """Raises ConfigurationError, ReconfigureError, AccountError, OSError."""
        self.configuration = load(paths.GITLAB_RB) if paths.GITLAB_RB.exists() else _empty()
        self.root_password = _root_password(self.configuration)
        secrets_file.complete(self.configuration)
        self.configuration.complete()
        self.bootstrapping = not paths.BOOTSTRAPPED.exists()
        if self.configuration.get("manage_storage_directories", "manage_etc", True):
            files.folder(paths.ETC, mode=0o775)
        for folder in (paths.VAR, paths.LOGS, paths.OPT / "etc", paths.SERVICES, paths.SERVICE_DEFINITIONS):
            files.folder(folder)
        made = self.configuration.accounts()
        self.owners = {section: accounts.ensure(made[section]) for section in made}
        if rails_files.write(self.configuration, self.owners["user"]):
            self.changed |= {"puma", "sidekiq"}
        self._start_supervision()
        for service in services.BEFORE_MIGRATION:
            self._apply(service)
        self._wait_for_database()
        self._migrate()
        self._remove_old_password_file()
        for service in services.AFTER_MIGRATION:
            self._apply(service)
        files.write(paths.BOOTSTRAPPED, "All your bootstraps are belong to Chef", mode=0o600)
        for note in self.notes:
            self.say(note)

    # Services

    def _start_supervision(self) -> None:
        """Without systemd (in a container) somebody else has to run runsvdir-start, as in reality."""
        if not paths.IS_MACHINE or not Path("/run/systemd/system").is_dir():
            return
        # The defaults make a reconfigure hang that runs while the machine boots, in cloud-init: so do the real ones.
        after, wanted_by = (
            self.configuration.get("package", name, "multi-user.target")
            for name in ("systemd_after", "systemd_wanted_by")
        )
        if files.write(UNIT_FILE, UNIT.format(after=after, wanted_by=wanted_by)):
            _systemctl("daemon-reload")
        _systemctl("enable", "--quiet", "gitlab-runsvdir")
        _systemctl("start", "gitlab-runsvdir")

    def _apply(self, service: Service) -> None:
        """Enable and start the service, restart it when its configuration changed, or disable it."""
        link, definition = paths.SERVICES / service.name, paths.SERVICE_DEFINITIONS / service.name
        if not service.is_enabled(self.configuration):
            link.unlink(missing_ok=True)
            return
        prepare = service_files.PREPARATIONS.get(service.name)
        if prepare and prepare(self.configuration, self.owners):
            self.changed.add(service.name)
        definition.mkdir(parents=True, exist_ok=True)
        owner = self.owners[service.account] if service.account else None
        script = services.run_script(service, self.configuration, owner)
        if files.write(definition / "run", script, mode=0o755):
            self.changed.add(service.name)
        if not link.is_symlink():
            link.symlink_to(definition)
        known = service_control.status(service.name)
        if known is None:
            # Just linked: the supervisor starts it as soon as it sees it.
            if not _wait(lambda: service_control.status(service.name) is not None):
                self._give_up(service, service_control.describe(service.name)[0])
        elif service.name in self.changed:
            line, code = service_control.tell(service.name, "restart")
            if code:
                self._give_up(service, line)
        elif self.bootstrapping and not known.running:
            service_control.tell(service.name, "start")

    def _give_up(self, service: Service, line: str) -> NoReturn:
        raise ReconfigureError(f"runit_service[{service.name}] had an error: {line}")

    # The database

    def _wait_for_database(self) -> None:
        database = Database()

        def answers() -> bool:
            try:
                database.query("SELECT 1")
            except DatabaseError:
                return False
            return True

        if not _wait(answers):
            last = _tail(paths.LOGS / "postgresql/current")
            raise ReconfigureError(
                "postgresql_user[gitlab] (postgresql::enable) had an error: psql: error: "
                f'connection to server on socket "{paths.POSTGRESQL_SOCKET}" failed\n{last}'
            )

    def _migrate(self) -> None:
        """Once per version. A failed run is repeated, but seeds no more: see schema."""
        if not self.configuration.get("gitlab_rails", "auto_migrate"):
            return
        done = paths.UPGRADE_STATUS / f"db-migrate-{revision()}"
        if not done.exists() or done.read_text().strip() != "0":
            self.say("  * rails_migration[gitlab-rails] action run")
            environment = {**os.environ, "GITLAB_ROOT_PASSWORD": self.root_password}
            try:
                printed = schema.configure(application.load(), environment)
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
        self._tell_root_password()

    def _tell_root_password(self) -> None:
        if not self.bootstrapping:
            return
        rails = self.configuration.section("gitlab_rails")
        shown = "Password: You didn't opt-in to print initial root password to STDOUT."
        if rails.get("display_initial_root_password"):
            shown = f"Password: {self.root_password}"
        if rails.get("store_initial_root_password"):
            files.write(
                paths.INITIAL_ROOT_PASSWORD,
                "# WARNING: This value is valid only until the password is changed, and only if it was given before\n"
                "#          the database was seeded for the first time (usually, the first reconfigure run).\n\n"
                f"Password: {self.root_password}\n\n"
                "# NOTE: This file will be automatically deleted in the first reconfigure run after 24 hours.\n",
                mode=0o600,
            )
            shown += "\nPassword stored to /etc/gitlab/initial_root_password."
        self.notes.append(
            f"Notes:\nDefault admin account has been configured with following details:\nUsername: root\n{shown}"
        )

    def _remove_old_password_file(self) -> None:
        file = paths.INITIAL_ROOT_PASSWORD
        if file.exists() and time.time() - file.stat().st_mtime > PASSWORD_FILE_LIFE:
            file.unlink()
            self.notes.append(f"Found old initial root password file at {file} and deleted it.")


def _root_password(configuration: Configuration) -> str:
    """GITLAB_ROOT_PASSWORD beats gitlab.rb; without either a random password is made and, at first, stored."""
    rails = configuration.section("gitlab_rails")
    password = os.environ.get("GITLAB_ROOT_PASSWORD") or configuration.get("gitlab_rails", "initial_root_password")
    if password is None:
        if rails.get("store_initial_root_password") is None:
            rails["store_initial_root_password"] = True
        return secrets.token_urlsafe(32)
    if len(password) < PASSWORD_MINIMUM:
        raise ReconfigureError("initial_root_password: Length is too short, minimum is 8 characters")
    return str(password)


def _tail(file: Path, lines: int = 5) -> str:
    """The last lines of a log."""
    return "\n".join(file.read_text(errors="replace").splitlines()[-lines:]) if file.exists() else ""


def _empty() -> Configuration:
    """A machine without gitlab.rb is configured with nothing but defaults."""
    file = paths.OPT / "etc/.no-gitlab.rb"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("")
    return load(file)


def _wait(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + WAIT
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return False


def _systemctl(*arguments: str) -> None:
    done = subprocess.run(["systemctl", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise ReconfigureError(f"execute[systemctl {' '.join(arguments)}] had an error: {done.stderr.strip()}")


@contextmanager
def _alone() -> Iterator[None]:
    """A second run waits for the first."""
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
    """Print and keep. Colours and secrets never get here."""
    folder = paths.LOGS / "reconfigure"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{int(time.time())}.log").open("a") as file:

        def say(text: str) -> None:
            print(text, flush=True)
            file.write(re.sub(r"(?m)^Password: .*", "Password: [hidden]", text) + "\n")

        yield say
