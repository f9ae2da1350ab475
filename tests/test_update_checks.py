"""The check of security updates, with stubs for systemd, rpm and the kernel."""

import os
import time

import pytest

from configuration import paths
from programs.acceptance_checks import clients, update_checks
from programs.acceptance_checks.outcomes import FailedCheckError

DAY = 24 * 60 * 60
OLD, NEW = "4.18.0-553.el8_10.x86_64", "4.18.0-553.51.1.el8_10.x86_64"


class Machine:
    """`marks`: days since each marker file was touched."""

    def __init__(self, folder, monkeypatch) -> None:
        self.folder = folder
        self.timer, self.running = (0, "active"), OLD
        self.kernels = (0, f"kernel-core-{OLD}   Fri 01 May 2026")
        monkeypatch.setattr(update_checks, "MARKS", str(folder))
        monkeypatch.setattr(clients, "run", self.answer)

    def answer(self, *command: str) -> tuple[int, str]:
        known = {"systemctl": self.timer, "rpm": self.kernels, "uname": (0, self.running)}
        return known[command[0]]

    def mark(self, **days: float) -> None:
        for name, age in days.items():
            file = self.folder / f"security-updates-{name}"
            file.touch()
            os.utime(file, times=(time.time() - age * DAY - 5,) * 2)

    def seen(self, calendar: str | None = "Sun 04:00") -> str:
        return update_checks.updates_installed({"security_updates": calendar}).note

    def fails(self) -> str:
        with pytest.raises(FailedCheckError) as failure:
            self.seen()
        assert failure.value.final
        return str(failure.value)


@pytest.fixture
def machine(tmp_path, monkeypatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


def test_the_marks_are_those_of_the_program():
    assert f"{update_checks.MARKS}/{update_checks.STARTED}" == paths.SECURITY_UPDATES_STARTED
    assert f"{update_checks.MARKS}/{update_checks.INSTALLED}" == paths.SECURITY_UPDATES_INSTALLED


def test_a_machine_that_was_just_set_up_passes(machine):
    assert machine.seen() == "none since the machine was set up, kernel running = installed"


@pytest.mark.parametrize(
    ("days", "said"), [(0, "0 days old"), (1, "1 day old"), (6, "6 days old"), (400, "400 days old")]
)
def test_age_alone_is_said_and_is_no_failure(machine, days, said):
    machine.mark(started=days + 0.01, installed=days)
    assert machine.seen() == f"{said}, kernel running = installed"


@pytest.mark.parametrize("state", ["inactive", "failed", "unknown"])
def test_a_timer_that_is_not_on_is_told(machine, state):
    machine.mark(started=1.01, installed=1)
    machine.timer = (3, state)
    assert machine.fails() == f"The timer install-security-updates.timer is {state}."


def test_an_installation_that_did_not_succeed_is_told_with_the_age_of_the_last_that_did(machine):
    machine.mark(started=0.5)
    assert machine.fails().endswith("the last successful one: none since the machine was set up.")
    machine.mark(installed=8)
    assert machine.fails() == "The last installation did not succeed; the last successful one: 8 days old."


def test_a_kernel_that_is_installed_and_does_not_run_is_told(machine):
    machine.mark(started=1.01, installed=1)
    machine.kernels = (0, f"kernel-core-{NEW}   Fri 27 Nov 2026\nkernel-core-{OLD}   Fri 01 May 2026")
    assert machine.fails() == f"The kernel {NEW} is installed, but {OLD} is running."
    machine.running = NEW
    assert machine.seen() == "1 day old, kernel running = installed"


def test_a_machine_whose_kernel_rpm_does_not_know_is_told(machine):
    machine.kernels = (1, "package kernel-core is not installed")
    assert machine.fails() == "rpm lists no kernel: package kernel-core is not installed."


@pytest.mark.parametrize("calendar", ["", None])
def test_updates_that_are_switched_off_are_said_to_be_so_and_fail_nothing(machine, calendar):
    machine.timer = (3, "inactive")
    assert machine.seen(calendar) == "disabled: securityUpdates is empty"
