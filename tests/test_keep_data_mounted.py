"""keep-data-mounted, executed with stubs for systemd and for the commands that mount."""

import os
import subprocess
from pathlib import Path

import pytest

from configuration.remote_step import program
from tests.shell import check_shell

STUBS = {
    "mountpoint": 'case $1 in -x) echo 259:1 ;; -q) [ -e "$FOLDER/mounted$2" ] ;; *) cat "$FOLDER/mounted$2" ;; esac',
    "mount": 'echo "mount $1" >>"$FOLDER/calls"; [ ! -e "$FOLDER/busy" ] || exit 32; echo 259:1 >"$FOLDER/mounted$1"',
    "umount": 'echo "umount $2" >>"$FOLDER/calls"; rm "$FOLDER/mounted$2"',
    "systemctl": """
case $1 in
    list-unit-files) echo "$2" enabled ;;
    is-enabled) [ ! -e "$FOLDER/disabled" ] ;;
    *) echo "systemctl $*" >>"$FOLDER/calls" ;;
esac""",
    "ls": "",
    # The next event comes before each check of the device; there is no check after the last one.
    "sleep": 'read -r event <"$FOLDER/events"; sed -i 1d "$FOLDER/events"; cd "$FOLDER"; eval "$event"',
}

GONE, BACK = "rm device", "touch device"
LOST = "rm mounted/data"
BY_SYSTEMD = "echo 259:1 >mounted/data"
REMOUNTED = ["systemctl stop a", "mount /data", "systemctl start a"]


class Machine:
    """A machine whose device is mounted on /data for the service `a`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name, text in STUBS.items():
            stub = folder / "bin" / name
            stub.parent.mkdir(exist_ok=True)
            stub.write_text(f"#!/bin/bash\n{text}\n")
            stub.chmod(0o755)
        (folder / "mounted").mkdir()
        (folder / "device").touch()
        (folder / "mounted/data").write_text("259:1\n")

    def run(self, *events: str) -> list[str]:
        """Run the program, with one event before each check of the device; return what it changed."""
        (self.folder / "events").write_text("".join(f"{event}\n" for event in (*events, "false")))
        text = program("keep-data-mounted").replace("[ ! -b ", "[ ! -e ").replace("/run/", f"{self.folder}/")
        environment = {"PATH": f"{self.folder}/bin:{os.environ['PATH']}", "FOLDER": str(self.folder)}
        command = ["bash", "-c", text, "x", f"{self.folder}/device", "a", "/data"]
        self.done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        calls = self.folder / "calls"
        found = calls.read_text().splitlines() if calls.exists() else []
        calls.unlink(missing_ok=True)
        return found


@pytest.fixture
def machine(tmp_path) -> Machine:
    return Machine(tmp_path)


def test_what_is_mounted_is_left_alone(machine):
    check_shell(program("keep-data-mounted"))
    assert machine.run(":", ":") == []
    assert machine.done.returncode == 0, machine.done.stderr


def test_a_volume_that_is_attached_late_or_again_is_mounted_and_its_service_restarted(machine):
    assert machine.run(f"{GONE}; {LOST}", ":", BACK, ":", ":") == REMOUNTED
    (machine.folder / "mounted/data").write_text("259:0\n")
    assert machine.run(":", ":") == ["systemctl stop a", "umount /data", "mount /data", "systemctl start a"]


def test_a_service_that_systemd_stopped_is_started_if_systemd_has_mounted_the_volume_again(machine):
    """In RHEL 8, systemd stops Docker with the mount point that it requires, and mounts that again, but no more."""
    assert machine.run(f"{GONE}; {LOST}", f"{BACK}; {BY_SYSTEMD}", ":", ":") == ["systemctl start a"]


def test_a_mount_by_systemd_at_the_same_time_is_as_good(machine):
    (machine.folder / "busy").touch()
    # The stub of mount fails, as mount does then.
    mount = machine.folder / "bin/mount"
    mount.write_text(mount.read_text().replace("exit 32", f"{{ (cd {machine.folder}; {BY_SYSTEMD}); exit 32; }}"))
    assert machine.run(LOST, ":") == REMOUNTED


def test_a_service_is_started_even_if_the_program_ended_between(machine):
    (machine.folder / "busy").touch()
    assert machine.run(LOST) == REMOUNTED[:2]
    assert machine.done.returncode != 0
    assert machine.run(BY_SYSTEMD, ":") == ["systemctl start a"]


def test_a_service_that_is_disabled_is_not_started(machine):
    (machine.folder / "disabled").touch()
    assert machine.run(GONE, BACK, ":") == []


def test_nothing_is_done_while_a_step_is_running(machine):
    held = "exec 8>gitlab-stack.lock; flock 8"
    holder = ["bash", "-c", f"cd {machine.folder}; {held}; echo held; exec sleep 20"]
    with subprocess.Popen(holder, stdout=subprocess.PIPE) as holding:
        assert holding.stdout is not None
        holding.stdout.readline()
        assert machine.run(LOST, ":") == []
        holding.kill()
    assert machine.run(":") == REMOUNTED
