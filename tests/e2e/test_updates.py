"""Security updates of the server and the registry's machine; test_jobs.py tests those of the runner's machine."""

import pytest

from lab import stack
from tests.e2e import kept
from tests.e2e.operations import eventually, must, on, repair, repeat_acceptance
from tests.e2e.test_doctor import examine

TIMER = "install-security-updates.timer"


def test_every_machine_has_its_time(outputs):
    for role in ("server", "registry", "runner"):
        assert must(role, f"systemctl is-active {TIMER}") == "active"
        assert must(role, f"systemctl is-enabled {TIMER}") == "enabled"


@pytest.mark.long
@pytest.mark.parametrize("role", ["server", "registry"])
def test_a_machine_that_reboots_for_a_kernel_serves_again_by_itself(outputs, role):
    def booted() -> str:
        done = on(role, "ps -o lstart= 1")
        return done.output.strip() if done.status == 0 else ""

    image, before = kept.push(f"before-the-updates-of-the-{role}"), booted()
    kernel = must(role, "uname -r")
    must(role, "systemd-run --quiet --unit updates-now /usr/local/sbin/install-security-updates")
    eventually(lambda: booted() not in ("", before))
    assert must(role, "uname -r") != kernel
    assert must(role, "rpm -q redhat-release") == "redhat-release-8.10-0.3.el8.x86_64", "not a security update"
    if role == "server":
        assert must(role, "rpm -q gitlab-ce") == "gitlab-ce-17.10.4-ce.0.el8.x86_64"
    eventually(lambda: examine("--quick").status == 0)
    kept.pull(image)


@pytest.mark.long
def test_another_time_starts_no_updates_during_the_up(outputs):
    """A persistent timer starts what it has missed, and this one has missed its new time three times."""
    must("registry", f"systemctl stop {TIMER} && touch --date '3 days ago' /var/lib/systemd/timers/stamp-{TIMER}")
    stack.configure("securityUpdates", must("registry", "date --date '10 minutes ago' +%H:%M"))
    try:
        repair()
        assert must("registry", f"systemctl is-active {TIMER}") == "active"
        assert on("registry", "systemctl is-active install-security-updates").output.strip() == "inactive"
    finally:
        stack.configure("securityUpdates", None)
        repair()


@pytest.mark.long
def test_a_timer_that_is_off_is_told_and_fails_no_up(outputs):
    must("registry", f"systemctl stop {TIMER}")
    found = examine("--quick")
    assert (found.status, found.broken) == (1, "registry-updates")
    assert f"The timer {TIMER} is inactive." in found.detail
    repeated = repeat_acceptance()
    assert repeated.status == 0, repeated.output
    assert "! updates of the registry's machine: " in repeated.output
    # The documented remedy.
    must("registry", f"systemctl start {TIMER}")
    assert examine("--quick").status == 0
    assert repair() > 0
