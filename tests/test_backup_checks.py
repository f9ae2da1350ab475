"""The check of backups, with stubs for systemd and the record of the last backup."""

import datetime
import fcntl
import json
import threading
from collections.abc import Callable

import pytest

from configuration import paths
from programs.acceptance_checks import backup_checks, clients
from programs.acceptance_checks.outcomes import FailedCheckError
from programs.volume_backup import backup
from programs.volume_backup.backup import PAIR, PAIR_WITHOUT_SECONDS

HOUR = datetime.timedelta(hours=1)
LOCKED = "2026-12-04T23:00:04+00:00"


def shown(at: datetime.datetime | None) -> str:
    """As `systemctl show` prints a time."""
    return at.strftime("%a %Y-%m-%d %H:%M:%S UTC") if at else ""


class Machine:
    """The timer's last and next run, and the record; `flock` and `cat` are real."""

    def __init__(self, folder, monkeypatch) -> None:
        self.now = datetime.datetime.now(datetime.UTC)
        self.state, self.last, self.next = "waiting", self.now - HOUR / 2, self.now + HOUR / 2
        self.record = folder / "last-backup.json"
        self.configuration = folder / "backup.json"
        self.configuration.touch()
        self.environment: dict[str, str] = {}
        self.run: Callable[..., tuple[int, str]] = clients.run
        monkeypatch.setattr(backup_checks, "CONFIGURATION", str(self.configuration))
        monkeypatch.setattr(backup_checks, "RECORD", str(self.record))
        monkeypatch.setattr(backup_checks, "WAIT", 0)
        monkeypatch.setattr(clients, "run", self.answer)

    def answer(self, *command: str, **environment: str) -> tuple[int, str]:
        if command[0] != "systemctl":
            return self.run(*command)
        assert environment["TZ"] == "UTC", "times would be those of the machine's own zone"
        known = {
            "SubState": self.state,
            "LastTriggerUSec": shown(self.last),
            "NextElapseUSecRealtime": shown(self.next),
        }
        return 0, known[command[3].removeprefix("--property=")]

    def took(self, hours_ago: float, **more: str) -> None:
        started = self.now - hours_ago * HOUR
        known = {"snapshot": "snap-1", "pair": started.strftime(PAIR), "locked_until": LOCKED}
        self.record.write_text(json.dumps({**known, **more}))

    def seen(self) -> str:
        return backup_checks.backup_fresh({}).note

    def fails(self) -> str:
        with pytest.raises(FailedCheckError) as failure:
            self.seen()
        return str(failure.value)


@pytest.fixture
def machine(tmp_path, monkeypatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


def test_the_files_and_the_timer_are_those_of_the_program():
    assert (backup_checks.CONFIGURATION, backup_checks.RECORD) == (paths.BACKUP_CONFIGURATION, paths.LAST_BACKUP)
    assert f"/usr/bin/{backup_checks.TIMER.removesuffix('.timer')}" == paths.BACKUP_VOLUME


def test_a_recent_backup_is_shown_with_its_age_and_its_lock(machine):
    machine.took(0.5)
    assert machine.seen() in (f"30 min old, locked until {LOCKED}", f"31 min old, locked until {LOCKED}")


@pytest.mark.parametrize(("hours", "fresh"), [(0.1, True), (1.9, True), (2.1, False), (100, False)])
def test_a_backup_is_fresh_for_twice_the_interval_of_its_timer(machine, hours, fresh):
    machine.took(hours)
    if fresh:
        assert machine.seen()
    else:
        assert machine.fails().endswith("old, but one is due every 60 min.")


@pytest.mark.parametrize("form", [PAIR, PAIR_WITHOUT_SECONDS])
def test_the_age_is_that_of_the_time_in_the_id(machine, form):
    # 23:59 would be read as 23:05:09 if the form were not chosen by the length.
    at = datetime.datetime(2026, 11, 27, 23, 59, tzinfo=datetime.UTC)
    assert backup_checks.time_of_pair(at.strftime(form)) == backup.time_of(at.strftime(form)) == at


def test_the_interval_is_that_of_the_settings_calendar(machine):
    machine.took(40)
    machine.last, machine.next = machine.now - 2 * HOUR, machine.now + 22 * HOUR
    assert machine.seen().startswith("40 h old")
    machine.took(49)
    assert "one is due every 24 h" in machine.fails()


@pytest.mark.parametrize("hours", [0.01, 3])
def test_a_timer_that_has_not_run_yet_has_no_interval(machine, hours):
    machine.took(hours)
    machine.last = None
    assert machine.seen()


def test_a_run_in_progress_is_no_sign_of_an_old_backup(machine):
    machine.took(1)
    machine.state, machine.last, machine.next = "running", machine.now, machine.now - datetime.timedelta(seconds=1)
    assert machine.seen()
    machine.next = None
    assert machine.seen()


@pytest.mark.parametrize("state", ["dead", "elapsed", "failed"])
def test_a_timer_that_starts_no_further_run_is_named(machine, state):
    machine.took(0.1)
    machine.state = state
    assert machine.fails() == f"The timer gitlab-backup-volume.timer is {state}."


def test_a_machine_without_a_backup_is_named_with_the_reason(machine):
    assert machine.fails() == "No backup of this machine has been taken."
    machine.record.write_text('{"error": "this machine has no role"}')
    assert machine.fails() == (
        "No backup of this machine has been taken. The last run failed: this machine has no role."
    )


def test_a_failed_run_is_a_failure_although_the_last_backup_is_young(machine):
    machine.took(0.5, error="AWS did not answer CreateSnapshot within 10 s")
    assert machine.fails().startswith(
        "The last run failed: AWS did not answer CreateSnapshot within 10 s. Before that, the last backup, "
    )


def test_a_run_that_was_killed_is_named(machine):
    machine.took(0.5, unfinished="2026-11-27T23:00:00+00:00")
    assert machine.fails().startswith("The last run was interrupted. Before that, ")


def test_a_damaged_record_is_named(machine):
    machine.record.write_text("{")
    assert "is not readable" in machine.fails()


def test_a_backup_in_progress_is_waited_for(machine, monkeypatch):
    machine.took(0.5, error="interrupted before the snapshot was locked")

    def complete() -> None:
        machine.took(0)
        held.close()

    held = machine.configuration.open()
    fcntl.flock(held, fcntl.LOCK_EX)
    assert machine.fails() == "A backup has been running for more than 0 s."
    monkeypatch.setattr(backup_checks, "WAIT", 10)
    threading.Timer(0.2, complete).start()
    assert machine.seen().startswith("0 min old")
