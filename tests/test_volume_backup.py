"""gitlab-backup-volume: the order of events, and what remains of it when something fails or it is killed."""

import ast
import datetime
import fcntl
import functools
import hashlib
import json
import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from configuration import paths
from configuration.remote_step import PROGRAMS
from programs.volume_backup import backup, ec2, freezing, machine, manifest, time_limits
from tests.backup_machine import Machine
from tests.waiting import wait_until

SOURCES = sorted((PROGRAMS / "volume_backup").glob("*.py"))
AT = datetime.datetime(2026, 11, 27, 23, 59, tzinfo=datetime.UTC)


@pytest.fixture
def played(tmp_path, monkeypatch) -> Iterator[Machine]:
    played = Machine(tmp_path)
    played.play(monkeypatch)
    yield played
    played.close()


@pytest.fixture
def hurried(played, monkeypatch) -> Machine:
    """A machine whose limit of a call is short, so that a test can wait for it."""
    monkeypatch.setattr(ec2, "LIMIT", 0.15)
    return played


# The order of events --------------------------------------------------------------------------------------------------


def test_the_snapshot_starts_while_the_file_system_is_frozen_and_its_thaw_is_armed(played):
    armed: list[bool] = []
    played.ec2.faults["CreateSnapshot"] = lambda: armed.append(played.armed)
    status, out, errors = played.run("now")
    assert (status, errors) == (0, "")
    assert [call for call in played.ec2.calls if call[0] != "DescribeSnapshots"] == [
        ("CreateSnapshot", True),
        ("LockSnapshot", False),
    ]
    assert armed == [True]
    assert not played.frozen
    assert not played.armed
    assert re.search(r"^snapshot snap-\S+ of \d{8}T\d{6}Z, locked until 2026-12-04T23:00:04\+00:00; writes ", out)


def test_each_command_is_run_in_its_turn(played):
    played.run("now")
    assert played.names() == [
        *("fsfreeze --unfreeze", "systemctl"),  # leftovers of a killed run
        *("gitlab-psql", "gitlab-psql", "gitlab-psql", "sync", "systemd-run"),
        *("fsfreeze --freeze", "fsfreeze --unfreeze", "systemctl"),
    ]
    [armed] = [call for call in played.calls if call.startswith("systemd-run")]
    volume = played.folder / "volume"
    assert armed == (
        "systemd-run --unit=gitlab-backup-thaw --collect --on-active=15 --timer-property=AccuracySec=100ms "
        f"fsfreeze --unfreeze {volume}"
    )
    assert f"sync --file-system {volume}" in played.calls
    assert played.calls[-1] == "systemctl stop gitlab-backup-thaw.timer"


def test_the_armed_thaw_comes_after_every_limit_of_what_runs_frozen():
    assert freezing.LONGEST_FREEZE > ec2.LIMIT
    assert freezing.LONGEST_FREEZE > freezing.FREEZE_LIMIT


def test_a_snapshots_tags_say_what_it_is(played):
    played.run("now", "--reason", "before-upgrade")
    [snapshot] = played.ec2.snapshots.values()
    pair = snapshot["tags"].pop("gitlab-backup")
    assert re.fullmatch(r"\d{8}T\d{6}Z", pair)
    assert snapshot["tags"] == {
        "gitlab-stack": "gitlab/dev",
        "gitlab-role": "server",
        "gitlab-version": "17.10.4",
        "gitlab-keep": "weekly",
        "gitlab-reason": "before-upgrade",
        "Name": "server-data-dev",
    }
    assert snapshot["volume"] == "vol-0123456789abcdef0"
    assert snapshot["locked"] == 56


def test_two_backups_of_one_minute_have_different_ids(played, monkeypatch):
    for second in (4, 50):
        monkeypatch.setattr(backup, "utc_now", functools.partial(AT.replace, second=second))
        assert played.run("now")[0] == 0
    pairs = [each["tags"]["gitlab-backup"] for each in played.ec2.snapshots.values()]
    assert pairs == ["20261127T235904Z", "20261127T235950Z"]


@pytest.mark.parametrize(("pair", "second"), [("20261127T235907Z", 7), ("20261127T2359Z", 0)])
def test_an_id_is_a_time_and_those_of_earlier_versions_have_no_seconds(pair, second):
    assert backup.time_of(pair) == AT.replace(second=second)


@pytest.mark.parametrize("pair", ["", "old1", "2026-11-27 23:59"])
def test_what_is_no_id_is_no_time(pair):
    with pytest.raises(ValueError, match="does not match format"):
        backup.time_of(pair)


def test_the_version_is_that_of_the_package_and_without_one_that_of_the_settings(played):
    (played.folder / "VERSION").unlink()
    played.run("now")
    [snapshot] = played.ec2.snapshots.values()
    assert snapshot["tags"]["gitlab-version"] == "17.8.0"


def test_the_registrys_snapshot_joins_the_servers_newest_one_and_expires_with_it(played):
    now = datetime.datetime.now(datetime.UTC)
    tags = {"gitlab_stack": "gitlab/dev", "gitlab_role": "server"}
    played.ec2.add(now - datetime.timedelta(hours=1), gitlab_backup="20261127T220004Z", gitlab_keep="hourly", **tags)
    played.ec2.add(now, gitlab_backup="20261127T230004Z", gitlab_keep="daily", **tags)
    played.configure("registry")
    assert played.run("now")[0] == 0
    [snapshot] = [each for each in played.ec2.snapshots.values() if each["tags"]["gitlab-role"] == "registry"]
    assert snapshot["tags"]["gitlab-backup"] == "20261127T230004Z"
    assert snapshot["tags"]["gitlab-keep"] == "daily"
    assert snapshot["tags"]["registry-version"] == "4.15.2"
    assert snapshot["locked"] == 14
    assert "gitlab-psql" not in played.names()


def test_a_registry_without_a_snapshot_of_the_server_takes_none(played):
    played.configure("registry")
    status, _, errors = played.run("now")
    assert status == 1
    assert "there is no snapshot of the server yet" in errors
    assert not played.ec2.snapshots


def test_a_snapshot_of_the_server_that_is_not_listed_yet_is_waited_for(played, monkeypatch):
    tags = {"gitlab_stack": "gitlab/dev", "gitlab_role": "server", "gitlab_keep": "weekly"}
    played.ec2.add(datetime.datetime.now(datetime.UTC), gitlab_backup="20261127T230004Z", **tags)
    listed, pages = played.ec2.describe_snapshots, []

    def late(form):
        pages.append(form)
        return listed(form) if len(pages) > 2 else "<snapshotSet/>"

    monkeypatch.setattr(played.ec2, "describe_snapshots", late)
    played.configure("registry")
    assert played.run("now")[0] == 0
    assert played.record["pair"] == "20261127T230004Z"


def test_the_record_describes_the_last_backup(played):
    played.run("now")
    [name] = played.ec2.snapshots
    record = played.record
    assert set(record) == {"snapshot", "pair", "started", "frozen_ms", "locked_until"}
    assert record["snapshot"] == name
    assert record["locked_until"] == "2026-12-04T23:00:04+00:00"
    assert 0 <= record["frozen_ms"] < 10_000


def test_a_lock_that_starts_later_is_recorded_with_the_earliest_time_of_its_end(played, monkeypatch):
    text = played.ec2.lock_snapshot
    monkeypatch.setattr(played.ec2, "lock_snapshot", lambda form: text(form).partition("<lockExpiresOn>")[0])
    assert played.run("now")[0] == 0
    assert played.record["locked_until"][:10] == str(
        datetime.datetime.now(datetime.UTC).date() + datetime.timedelta(56)
    )


def test_expired_snapshots_are_deleted_and_those_still_locked_are_left(played):
    now = datetime.datetime.now(datetime.UTC)
    tags = {"gitlab_stack": "gitlab/dev", "gitlab_role": "server", "gitlab_keep": "hourly"}
    old = [
        played.ec2.add(now - datetime.timedelta(hours=25 + hour), gitlab_backup=f"old{hour}", **tags)
        for hour in range(2)
    ]
    recent = [
        played.ec2.add(now - datetime.timedelta(hours=hour), gitlab_backup=f"new{hour}", **tags)
        for hour in range(1, 24)
    ]
    foreign = played.ec2.add(now - datetime.timedelta(days=400), **{**tags, "gitlab_role": "registry"})
    played.ec2.snapshots[old[0]]["locked"] = 1
    assert played.run("now")[0] == 0
    assert {*recent, old[0], foreign} <= set(played.ec2.snapshots)
    assert old[1] not in played.ec2.snapshots
    played.ec2.snapshots[old[0]]["locked"] = 0
    assert played.run("prune")[1].endswith("1 snapshots deleted\n")
    assert {*recent, foreign} <= set(played.ec2.snapshots)


def expired_ones(played, number: int) -> list[str]:
    now = datetime.datetime.now(datetime.UTC)
    tags = {"gitlab_stack": "gitlab/dev", "gitlab_role": "server", "gitlab_keep": "hourly"}
    for hour in range(1, 25):
        played.ec2.add(now - datetime.timedelta(hours=hour), gitlab_backup=f"new{hour}", **tags)
    return [
        played.ec2.add(now - datetime.timedelta(days=9, hours=hour), gitlab_backup=f"old{hour}", **tags)
        for hour in range(number)
    ]


@pytest.mark.parametrize(
    ("code", "status", "says"),
    [
        ("InvalidSnapshot.InUse", 0, "is kept: an image needs it"),
        ("InvalidSnapshot.NotFound", 0, "1 snapshots deleted"),
        ("InternalError", 1, "2 expired snapshots were not deleted: AWS refused DeleteSnapshot: Internal"),
    ],
)
def test_an_expired_snapshot_that_aws_does_not_delete_keeps_no_other_one(played, monkeypatch, code, status, says):
    old = expired_ones(played, 3)
    deleted = played.ec2.delete_snapshot

    def refused(form):
        if form["SnapshotId"] in old[:2]:
            raise PermissionError(code)
        return deleted(form)

    monkeypatch.setattr(played.ec2, "delete_snapshot", refused)
    ended, out, errors = played.run("prune")
    assert (ended, says in out + errors) == (status, True), out + errors
    assert old[2] not in played.ec2.snapshots


def test_the_list_has_every_snapshot_of_the_stack_and_no_other(played):
    played.run("now", "--reason", "because of this")
    played.ec2.add(datetime.datetime.now(datetime.UTC), gitlab_stack="gitlab/prod", gitlab_role="server")
    status, out, _ = played.run("list")
    assert status == 0
    head, line = out.splitlines()
    assert head.split() == ["pair", "role", "snapshot", "state", "kept", "age", "GiB", "version", "reason"]
    assert re.fullmatch(
        r"\d{8}T\d{6}Z  server  snap-\S+  completed  weekly  0 min  100  17\.10\.4  because of this", line
    )


# The manifest ---------------------------------------------------------------------------------------------------------


def test_the_manifest_is_on_the_volume_before_the_freeze(played):
    seen: list[dict[str, Any]] = []
    file = played.folder / "volume/backup-manifest.json"
    played.ec2.faults["CreateSnapshot"] = lambda: seen.append(json.loads(file.read_text()))
    played.run("now")
    [found] = seen
    assert found["pair"] == played.record["pair"]
    assert found["tags"]["gitlab-version"] == "17.10.4"
    assert (found["tables"], found["newest_event"]) == ({"users": 3, "projects": 2}, "2026-11-27 22:59:58")
    assert found["wal_position"] == "0/5000060"
    assert found["rails_secrets_sha256"] == hashlib.sha256(b'{"db_key_base": "0a"}').hexdigest()
    assert found["token_certificate_sha256"] == hashlib.sha256(b"certificate").hexdigest()
    assert found["problems"] == []
    assert file.stat().st_mode & 0o777 == 0o600
    for table in manifest.TABLES:
        assert f"FROM {table}" in "\n".join(played.calls)
    assert len(manifest.TABLES) == 12


def test_a_gitlab_that_is_stopped_is_backed_up_with_a_manifest_that_says_so(played):
    played.put("gitlab-psql", "echo 'psql: error: connection refused' >&2; exit 2")
    (played.folder / "secrets").unlink()
    assert played.run("now")[0] == 0
    found = json.loads((played.folder / "volume/backup-manifest.json").read_text())
    assert (found["tables"], found["wal_position"], found["rails_secrets_sha256"]) == (None, None, None)
    assert len(found["problems"]) == 4
    assert "connection refused" in found["problems"][0]


def test_the_manifest_of_the_registry_counts_blobs(played):
    for digest in ("ab/abcd", "ab/abef", "cd/cdef"):
        (played.folder / "volume" / manifest.BLOBS / digest).mkdir(parents=True)
    assert manifest.contents("registry", str(played.folder / "volume"))["blobs"] == 3
    assert manifest.contents("registry", str(played.folder)) == {
        "blobs": 0,
        "used_bytes": pytest.approx(1e12, rel=1),
        "problems": [],
    }


# What fails -----------------------------------------------------------------------------------------------------------


def test_no_unfrozen_snapshot_is_taken_when_the_freeze_fails(played):
    (played.folder / "refuses-to-freeze").touch()
    status, _, errors = played.run("now")
    assert status == 1
    assert "fsfreeze --freeze failed: fsfreeze: freeze failed: Operation not supported" in errors
    assert "CreateSnapshot" not in played.ec2.actions()
    assert played.record["error"] in errors


def test_a_folder_on_the_root_disk_is_never_frozen(played):
    played.configure(mountpoint=str(played.folder / "bin"))
    status, _, errors = played.run("now")
    assert status == 1
    assert f"nothing is mounted at {played.folder}/bin" in errors
    assert played.calls == []


def test_without_an_armed_thaw_nothing_is_frozen(played):
    played.put("systemd-run", "echo 'Failed to connect to bus' >&2; exit 1")
    assert played.run("now")[0] == 1
    assert "fsfreeze --freeze" not in played.names()
    assert "CreateSnapshot" not in played.ec2.actions()


@pytest.mark.parametrize("fault", ["hangs", "answer lost"])
def test_a_call_that_takes_too_long_is_given_up_and_the_file_system_is_thawed(hurried, fault):
    hurried.ec2.faults["CreateSnapshot"] = fault
    started = time.monotonic()
    status, _, errors = hurried.run("now")
    assert time.monotonic() - started < 4
    assert status == 1
    assert "AWS did not answer CreateSnapshot within 0.15 s" in errors
    assert not hurried.frozen
    assert not hurried.ec2.snapshots, "a snapshot whose answer was lost was not deleted"
    assert "AWS did not answer" in hurried.record["error"]


def test_a_snapshot_that_appears_after_its_call_was_given_up_is_deleted_by_the_next_run(hurried):
    hurried.ec2.faults["CreateSnapshot"] = "hangs"
    hurried.run("now")
    hurried.ec2.faults.clear()
    before = datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=1)
    earlier = hurried.ec2.add(before, gitlab_stack="gitlab/dev", gitlab_role="server", gitlab_keep="weekly")
    late = hurried.ec2.add(datetime.datetime.now(datetime.UTC), gitlab_stack="gitlab/dev", gitlab_role="server")
    other = hurried.ec2.add(datetime.datetime.now(datetime.UTC), gitlab_stack="gitlab/dev", gitlab_role="registry")
    assert hurried.run("now")[0] == 0
    assert late not in hurried.ec2.snapshots
    assert {hurried.record["snapshot"], other, earlier} == set(hurried.ec2.snapshots)
    assert "error" not in hurried.record
    assert "unfinished" not in hurried.record


@pytest.mark.parametrize(
    ("fault", "status", "says"),
    [
        ((500, "InternalError"), 1, "AWS refused CreateSnapshot: InternalError: it is refused"),
        ((503, ""), 1, "AWS answered 503 to CreateSnapshot"),
        ((503, "RequestLimitExceeded"), 1, "RequestLimitExceeded"),
        ((400, "SnapshotCreationPerVolumeRateExceeded"), 1, "SnapshotCreationPerVolumeRateExceeded"),
        ((403, "UnauthorizedOperation"), 77, "UnauthorizedOperation: it is refused. Run pulumi up, which restores"),
    ],
)
def test_a_call_that_is_refused_is_not_repeated_while_the_file_system_is_frozen(played, fault, status, says):
    played.run("now")
    before = played.record
    played.ec2.faults["CreateSnapshot"] = fault
    ended, _, errors = played.run("now")
    assert ended == status
    assert says in errors
    assert played.ec2.actions().count("CreateSnapshot") == 2
    assert not played.frozen
    assert not played.armed
    record = played.record
    assert says in record.pop("error")
    record.pop("unfinished", None)
    assert record == before, "the record no longer describes the last complete backup"


@pytest.mark.parametrize("fault", [(503, "RequestLimitExceeded"), (500, ""), "hangs"])
def test_the_lock_is_tried_again_and_a_backup_that_stays_unlocked_is_a_failure(hurried, fault):
    hurried.ec2.faults["LockSnapshot"] = fault
    assert hurried.run("now")[0] == 1
    assert hurried.ec2.actions().count("LockSnapshot") == 3
    [name] = hurried.ec2.snapshots
    assert hurried.record["snapshot"] == name
    assert hurried.record["locked_until"] is None
    assert "LockSnapshot" in hurried.record["error"]


@pytest.mark.parametrize("fault", [(400, "InvalidSnapshot.NotFound"), (403, "UnauthorizedOperation")])
def test_a_snapshot_that_aws_does_not_know_everywhere_yet_is_locked_by_a_repeated_request(played, fault):
    played.ec2.faults["LockSnapshot"] = [fault, fault]
    assert played.run("now")[0] == 0
    assert played.ec2.actions().count("LockSnapshot") == 3
    assert played.ec2.actions().count("CreateSnapshot") == 1
    [snapshot] = played.ec2.snapshots.values()
    assert snapshot["locked"] == 56


def test_what_one_run_could_not_lock_is_locked_by_the_next_one(played):
    played.ec2.faults["LockSnapshot"] = (400, "InvalidSnapshot.NotFound")
    assert played.run("now")[0] == 1
    [first] = played.ec2.snapshots.values()
    assert first["locked"] == 0
    played.ec2.faults.clear()
    assert played.run("now")[0] == 0
    assert [each["locked"] for each in played.ec2.snapshots.values()] == [56, 1]


def test_a_backup_is_taken_even_if_the_last_one_still_cannot_be_locked(played):
    played.ec2.faults["LockSnapshot"] = (403, "UnauthorizedOperation")
    first, _, errors = played.run("now")
    second, out, _ = played.run("now")
    assert (first, second) == (1, 1), "77 would make the step take another snapshot"
    assert "snap-3-0 is not locked: AWS refused LockSnapshot: UnauthorizedOperation" in errors
    assert "the last backup: snap-3-0 is not locked" in out
    assert len(played.ec2.snapshots) == 2


def test_a_file_system_that_was_thawed_during_the_call_makes_the_snapshot_no_backup(played):
    played.ec2.faults["CreateSnapshot"] = (played.folder / "frozen").unlink
    status, _, errors = played.run("now")
    assert status == 1
    assert "was thawed before AWS had answered" in errors
    assert not played.ec2.snapshots


def test_a_machine_without_a_role_says_what_attaches_it(played):
    played.ec2.role = None
    status, _, errors = played.run("now")
    assert status == 77
    assert "this machine has no role that may take snapshots" in errors
    assert "Run pulumi up, which attaches the instance profile" in errors
    assert "fsfreeze --freeze" not in played.names()
    assert "no role" in played.record["error"]


def test_a_configuration_that_is_missing_or_wrong_is_named(played):
    (played.folder / "backup.json").write_text('{"stack": "gitlab/dev"}')
    assert "backup.json is invalid" in played.run("now")[2]
    (played.folder / "backup.json").unlink()
    assert "No such file or directory. Run as root; pulumi up creates the file" in played.run("now")[2]


# Other programs of the machine ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("lock", "way"), [("lock", fcntl.LOCK_EX), ("backup.json", fcntl.LOCK_EX)])
def test_a_machine_that_is_busy_is_left_alone_until_the_next_time(played, monkeypatch, lock, way):
    monkeypatch.setattr(machine, "CHECK_TIME", 0.1)
    with (played.folder / lock).open() as held:
        fcntl.flock(held, way)
        status, out, errors = played.run("now")
    assert (status, out) == (75, "")
    assert errors.startswith(
        "gitlab-backup-volume now: not started: a step of pulumi up, a garbage collection or another"
    )
    assert len(errors.splitlines()) == 1
    assert played.calls == []
    assert not (played.folder / "state/last-backup.json").exists()


def test_a_backup_and_the_doctor_do_not_keep_each_other_from_running(played):
    with (played.folder / "lock").open() as doctor:
        fcntl.flock(doctor, fcntl.LOCK_SH)
        assert played.run("now")[0] == 0


def test_a_step_that_holds_the_lock_takes_a_backup_itself(played):
    with (played.folder / "lock").open() as step:
        fcntl.flock(step, fcntl.LOCK_EX)
        assert played.run("now", "--in-step")[0] == 0


def test_the_locks_are_held_to_the_end_and_by_no_command(played):
    held = f"flock --nonblock {played.folder}/lock true && touch {played.folder}/free; exit 0"
    played.put("sync", held)
    played.ec2.faults["LockSnapshot"] = lambda: None
    played.run("now")
    assert not (played.folder / "free").exists()


# Kills ----------------------------------------------------------------------------------------------------------------


def test_a_run_killed_between_freeze_and_thaw_leaves_nothing_frozen_and_no_snapshot_that_counts(played):
    played.ec2.faults["CreateSnapshot"] = "hangs"
    child = played.start("now")
    wait_until(lambda: "CreateSnapshot" in played.ec2.actions())
    played.kill(child)
    assert played.frozen
    with played.time_of_the_thaw():
        wait_until(lambda: not played.frozen, seconds=2)
    late = played.ec2.add(datetime.datetime.now(datetime.UTC), gitlab_stack="gitlab/dev", gitlab_role="server")
    played.ec2.faults.clear()
    assert played.run("now")[0] == 0
    assert late not in played.ec2.snapshots
    assert list(played.ec2.snapshots) == [played.record["snapshot"]]


def test_a_run_that_systemd_stops_thaws_the_file_system_itself(played):
    played.ec2.faults["CreateSnapshot"] = "hangs"
    child = played.start("now")
    wait_until(lambda: "CreateSnapshot" in played.ec2.actions())
    os.kill(child, signal.SIGTERM)
    os.waitpid(child, 0)
    assert not played.frozen
    assert not played.armed


def test_the_next_run_thaws_what_a_killed_one_left_frozen_before_it_writes_to_the_volume(played):
    (played.folder / "frozen").touch()
    psql = "[ ! -e {folder}/frozen ] || touch {folder}/hung; echo 'users|1'"
    played.put("gitlab-psql", psql)
    assert played.run("now")[0] == 0
    assert not (played.folder / "hung").exists()


@pytest.mark.parametrize("action", ["LockSnapshot", "DeleteSnapshot"])
def test_a_run_killed_after_its_snapshot_was_complete_keeps_it_and_is_a_failure(played, action):
    if action == "DeleteSnapshot":
        played.ec2.add(
            datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=900),
            gitlab_stack="gitlab/dev",
            gitlab_role="server",
            gitlab_keep="hourly",
        )
        next(iter(played.ec2.snapshots.values()))["state"] = "error"
    played.ec2.faults[action] = "hangs"
    child = played.start("now")
    wait_until(lambda: action in played.ec2.actions())
    played.kill(child)
    kept = played.record["snapshot"]
    assert "interrupted before" in played.record["error"]
    played.ec2.faults.clear()
    assert played.run("now")[0] == 0
    assert kept in played.ec2.snapshots
    assert "error" not in played.record


# Wrong programs -------------------------------------------------------------------------------------------------------


def test_a_program_that_does_not_freeze_is_seen(played, monkeypatch):
    monkeypatch.setattr(freezing.Frozen, "__enter__", lambda self: self)
    assert played.run("now")[0] == 1, "a snapshot of a file system in use counted as a backup"
    assert not played.ec2.snapshots


def test_a_program_that_arms_no_thaw_leaves_the_file_system_frozen_when_it_is_killed(played):
    played.put("systemd-run", "")
    played.ec2.faults["CreateSnapshot"] = "hangs"
    child = played.start("now")
    wait_until(lambda: "CreateSnapshot" in played.ec2.actions())
    played.kill(child)
    with played.time_of_the_thaw():
        time.sleep(0.3)
    assert played.frozen, "the test above passes without an armed thaw"


# The program ----------------------------------------------------------------------------------------------------------


def test_a_time_limit_covers_the_whole_block_and_is_gone_after_it():
    with pytest.raises(time_limits.TimeLimitError), time_limits.time_limit(0.05):
        time.sleep(1)
    with time_limits.time_limit(0.05):
        pass
    time.sleep(0.1)


def test_its_files_are_those_of_the_paths():
    assert (machine.CONFIGURATION, machine.RECORD) == (paths.BACKUP_CONFIGURATION, paths.LAST_BACKUP)
    assert machine.STEPS_LOCK == paths.LOCK
    assert manifest.TOKEN_CERTIFICATE == paths.TOKEN_CERTIFICATE
    assert f"{paths.REGISTRY_DATA}/{manifest.BLOBS}".startswith(f"{paths.REGISTRY_IMAGES}/")


@pytest.mark.parametrize(
    ("minutes", "text"), [(0, "0 min"), (119, "119 min"), (120, "2 h"), (48 * 60 - 1, "47 h"), (48 * 60, "2 days")]
)
def test_an_age_is_rounded_down(minutes, text):
    now = datetime.datetime.now(datetime.UTC)
    assert backup.age(now - datetime.timedelta(minutes=minutes), now) == text


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_it_is_written_in_python_3_6_and_needs_only_the_standard_library(path):
    tree = ast.parse(path.read_text(), feature_version=(3, 6))
    nodes = list(ast.walk(tree))
    imported = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    imported |= {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom) and not node.level}
    assert {name.split(".")[0] for name in imported} <= sys.stdlib_module_names - {"dataclasses", "graphlib", "tomllib"}
    assert not re.search(r"capture_output=|text=True|:=|removeprefix|fromisoformat\(\w|datetime\.UTC", path.read_text())
