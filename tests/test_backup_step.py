"""The step that schedules backups and takes the first one, and what the program gives it."""

import json
import shlex
import subprocess
from pathlib import Path

import pytest

from configuration.checks import OF_BACKUPS, checks_from
from configuration.flows import Place
from configuration.remote_step import PROGRAMS, script
from configuration.systemd_units import BACKUP_BUSY, BACKUP_DELAY, backup_service, backup_timer
from configuration.zipapp import build_zipapp
from programs.volume_backup import cli, errors
from programs.volume_backup import machine as machine_files
from tests.engine import MARKED, Graph
from tests.shell import check_shell, run_with_tools
from tests.test_program import payload_bytes

CALENDAR = """\
case $2 in
    hourly) echo '    Next elapse: Sat 2026-11-28 00:00:00 UTC' ;;
    2020*) echo '    Next elapse: never' ;;
    *) echo "Failed to parse calendar specification '$2'" >&2; exit 1 ;;
esac"""
PROGRAM = """\
#!/bin/bash
echo "gitlab-backup-volume $*" >>{folder}/calls
[ "$1" = now ] || exit 0
read -r status <{folder}/statuses || status=0
sed -i 1d {folder}/statuses
[ "$status" != 0 ] || echo '{{"locked_until": "2027-01-22"}}' >{folder}/var/lib/gitlab-stack/last-backup.json
exit "$status"
"""


class Machine:
    """`statuses` are the exit statuses of the program's next runs; afterwards it succeeds."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("usr/bin", "etc/systemd/system", "var/lib"):
            (folder / name).mkdir(parents=True)
        self.put("systemctl", "")
        self.put("systemd-analyze", CALENDAR)
        self.put("sleep", "")
        self.statuses()

    def put(self, tool: str, text: str) -> None:
        file = self.folder / "usr/bin" / tool
        file.write_text(f'#!/bin/bash\necho "{tool} $*" >>{self.folder}/calls\n{text}\n')
        file.chmod(0o755)

    def statuses(self, *numbers: int) -> None:
        (self.folder / "statuses").write_text("".join(f"{number}\n" for number in numbers))

    def step(self, calendar: str = "hourly", first: str = "first") -> subprocess.CompletedProcess[str]:
        (self.folder / "calls").unlink(missing_ok=True)
        text = script("schedule_backups.sh")
        for there in ("/usr/bin/gitlab", "/etc/", "/var/lib/"):
            text = text.replace(there, f"{self.folder}{there}")
        parts = [PROGRAM.format(folder=self.folder), '{"stack": "gitlab/dev"}', "the service\n", "the timer\n"]
        result = f"{self.folder}/result"
        return run_with_tools(
            text, "schedule_backups", [calendar, first], parts, tools=self.folder / "usr/bin", result=result
        )

    @property
    def backups(self) -> list[str]:
        lines = (self.folder / "calls").read_text().splitlines()
        return [line for line in lines if line.startswith("gitlab-backup-volume now")]

    def unit(self, kind: str) -> Path:
        return self.folder / f"etc/systemd/system/gitlab-backup-volume.{kind}"


@pytest.fixture
def machine(tmp_path) -> Machine:
    return Machine(tmp_path)


def test_the_first_step_takes_a_backup_and_later_ones_do_not(machine):
    done = machine.step()
    assert done.returncode == 0, done.stdout + done.stderr
    assert machine.backups == ["gitlab-backup-volume now --in-step --reason first"]
    assert (machine.folder / "result").read_text() == "backups are taken at hourly\n"
    configuration = machine.folder / "etc/gitlab-stack/backup.json"
    assert (configuration.read_text(), configuration.stat().st_mode & 0o777) == ('{"stack": "gitlab/dev"}', 0o600)
    assert (machine.unit("service").read_text(), machine.unit("timer").read_text()) == ("the service\n", "the timer\n")
    assert "systemctl restart gitlab-backup-volume.timer" in (machine.folder / "calls").read_text()
    assert machine.step().returncode == 0
    assert machine.backups == []


def test_a_backup_that_is_not_locked_does_not_count_as_the_first_one(machine):
    record = machine.folder / "var/lib/gitlab-stack/last-backup.json"
    record.parent.mkdir()
    record.write_text(json.dumps({"locked_until": None, "snapshot": "snap-1"}, indent=1))
    assert machine.step().returncode == 0
    assert len(machine.backups) == 1


def test_no_backup_is_taken_unless_it_is_asked_for(machine):
    assert machine.step(first="").returncode == 0
    assert machine.backups == []


def test_a_role_that_is_not_effective_yet_is_waited_for(machine):
    machine.statuses(77, 77, 0)
    assert machine.step().returncode == 0
    assert len(machine.backups) == 3


@pytest.mark.parametrize(("statuses", "attempts"), [([1], 1), ([75], 1), ([77] * 12, 12)])
def test_a_first_backup_that_fails_ends_the_step_and_schedules_nothing(machine, statuses, attempts):
    machine.statuses(*statuses)
    done = machine.step()
    assert done.returncode == statuses[0]
    assert "pulumi config set backup false" in done.stdout
    assert ("permissions boundary" in done.stdout) == (statuses[0] == errors.NOT_PERMITTED)
    assert len(machine.backups) == attempts
    assert not machine.unit("timer").exists()
    assert machine.step().returncode == 0
    assert len(machine.backups) == 1, "the next step takes the first one"


def test_without_a_calendar_nothing_is_scheduled_and_what_was_is_removed(machine):
    machine.step()
    done = machine.step(calendar="")
    assert done.returncode == 0
    assert not machine.unit("timer").exists()
    assert machine.backups == []
    assert (machine.folder / "result").read_text() == "no backups are taken\n"
    assert "systemctl disable --now gitlab-backup-volume.timer" in (machine.folder / "calls").read_text()


@pytest.mark.parametrize("calendar", ["2020-01-01", "nonsense"])
def test_a_calendar_that_never_occurs_again_is_refused_by_its_setting(machine, calendar):
    done = machine.step(calendar=calendar)
    assert done.returncode == 1
    assert f"backupSchedule: '{calendar}' never occurs again" in done.stdout
    assert not machine.unit("service").exists()


def test_the_step_is_a_valid_script():
    check_shell(script("schedule_backups.sh"))


# The units ------------------------------------------------------------------------------------------------------------


def test_the_service_thaws_the_volume_however_the_program_ended():
    text = backup_service(Place.SERVER, "/srv/gitlab")
    assert "\nExecStart=/usr/bin/gitlab-backup-volume now --reason scheduled\n" in text
    assert "\nExecStopPost=-/usr/sbin/fsfreeze --unfreeze /srv/gitlab\n" in text
    assert f"\nSuccessExitStatus={errors.BUSY}\n" in text
    assert errors.BUSY == BACKUP_BUSY
    assert "\nOnCalendar=0/4:30\nPersistent=true\n" in backup_timer("0/4:30")
    [command] = [line for line in text.splitlines() if line.startswith("ExecStart=")]
    assert cli.parser().parse_args(command.split()[1:]).reason == "scheduled"


def test_the_registrys_backup_starts_after_the_servers_even_if_the_servers_timer_is_late():
    assert BACKUP_DELAY[Place.REGISTRY] - BACKUP_DELAY[Place.SERVER] >= 2 * 60
    assert "\nExecStartPre=/usr/bin/sleep 180\n" in backup_service(Place.REGISTRY, "/srv/registry")


# The program ----------------------------------------------------------------------------------------------------------


STEPS = ("server-schedule-backups", "registry-schedule-backups")


def steps(graph: Graph) -> dict[str, list[str]]:
    """The arguments of each step."""
    return {name: shlex.split(graph.step(name).inputs["create"])[-2:] for name in STEPS}


def test_both_machines_with_data_get_the_program_and_what_to_back_up(graph):
    assert steps(graph) == {name: ["hourly", "first"] for name in STEPS}
    for role, folder, own in (
        ("server", "/srv/gitlab", {"versions": {"gitlab": "17.10.4"}}),
        ("registry", "/srv/registry", {"versions": {"registry": "4.15.2"}, "after": "server"}),
    ):
        zipapp, configuration, service, timer = payload_bytes(graph, f"{role}-schedule-backups")
        assert zipapp == build_zipapp(PROGRAMS / "volume_backup")
        assert json.loads(configuration) == {
            "stack": MARKED["gitlab-stack"],
            "role": role,
            "region": "eu-central-1",
            "volume_id": f"{role}-data-id",
            "mountpoint": folder,
            "keep": {"hourly": 24, "daily": 14, "weekly": 8},
            **own,
        }
        assert service.decode() == backup_service(Place(role), folder)
        assert timer.decode() == backup_timer("hourly")


def test_the_program_reads_what_it_is_given(graph, tmp_path, monkeypatch):
    for role in ("server", "registry"):
        (tmp_path / "backup.json").write_bytes(payload_bytes(graph, f"{role}-schedule-backups")[1])
        monkeypatch.setattr(machine_files, "CONFIGURATION", str(tmp_path / "backup.json"))
        known = machine_files.configuration()
        assert (known.role, known.after, known.keep.weekly) == (role, "server" if role == "registry" else None, 8)


def test_a_stack_without_backups_unschedules_them_and_does_not_check_them(reduced_graph):
    assert steps(reduced_graph) == {name: ["", "first"] for name in STEPS}
    assert not reduced_graph.outputs["inspection"]["backup"]
    task = json.loads(payload_bytes(reduced_graph, "server-run-checks")[1])
    for selected in (task["checks"], [vars(check) for check in checks_from(Place.REGISTRY, backup=False)]):
        assert selected
        assert not [check["id"] for check in selected if check["id"] in OF_BACKUPS]
