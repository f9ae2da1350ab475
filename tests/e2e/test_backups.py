"""Backups: locked pairs of snapshots that contain what was accepted before, and faults while a volume is frozen."""

import base64
import contextlib
import json
import shlex
import subprocess
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from configuration.remote_step import PROGRAMS
from configuration.zipapp import build_zipapp
from lab import stack
from lab.cloud import faults
from programs.volume_backup.backup import time_of
from tests.e2e import backups, loads
from tests.e2e.backups import MOUNTPOINTS, ROLES
from tests.e2e.operations import client, configure, eventually, must, on, repair, setting, target_health, up
from tests.e2e.programs import Edits, changed_program
from tests.e2e.test_doctor import examine
from tests.e2e.test_reachability import ASK_METADATA

TIMER = "gitlab-backup-volume.timer"
CHECKS = ("server-backup-fresh", "registry-backup-fresh")
DAYS = {"hourly": 1, "daily": 14, "weekly": 56}
"""For how long a backup is kept with the default settings, and so locked, by the value of its tag gitlab-keep."""

MANIFEST = "backup-manifest.json"
THAWED = 16  # seconds; the timer that thaws the volume is started shortly before the freeze, and fires after 15
ANSWERED = 11  # seconds; a request may take 10

AS_THE_ROLE = """
import json, sys
sys.path.insert(0, "/usr/bin/gitlab-backup-volume")
from programs.volume_backup.ec2 import ApiError, Ec2
from programs.volume_backup.metadata import credentials
ec2 = Ec2("us-east-1", credentials())
for action, parameters in json.load(sys.stdin):
    try:
        ec2._prepared(action, parameters)()
        print("allowed")
    except ApiError as error:
        print(" ".join(str(error).split()))
"""
"""Calls EC2 with the role of the machine, by means of the program itself."""

UNFROZEN: Edits = {
    "programs/volume_backup/backup.py": [
        ("        with frozen:\n            return send()\n", "        return send()\n")
    ]
}
NO_TIMER: Edits = {"programs/volume_backup/freezing.py": [('            "systemd-run",\n', '            "true",\n')]}
"""A volume that nothing but the backup itself thaws."""


@pytest.fixture(autouse=True)
def no_faults() -> Iterator[None]:
    """Faults that a test injects end with it."""
    yield
    faults.clear()


@pytest.fixture
def discarded(outputs) -> Iterator[None]:
    """The backups of a test are deleted, except a last pair."""
    before = backups.ids()
    yield
    for role in ROLES:
        backups.take(role)
    last = {backups.all_of(role)[-1].id for role in ROLES}
    backups.discard(backups.ids() - before - last)


def states() -> dict[str, str]:
    """The doctor's results, by the IDs of the checks."""
    return {check["check"]: check["state"] for check in examine("--quick").report["checks"]}


def as_the_role(role: str, *calls: tuple[str, dict[str, str]]) -> list[str]:
    """The results of calls of EC2 with the credentials of a machine's role: `allowed`, or the error."""
    command = f"/usr/libexec/platform-python -c {shlex.quote(AS_THE_ROLE)}"
    return must(role, command, stdin=json.dumps(calls)).splitlines()


@contextlib.contextmanager
def wrong_program(edits: Edits, *roles: str) -> Iterator[None]:
    """The program with these edits is installed on these machines, without a step."""
    with changed_program(edits) as program:
        wrong = build_zipapp(program / "programs/volume_backup")
    try:
        for role in roles:
            install(role, wrong)
        yield
    finally:
        for role in roles:
            install(role, build_zipapp(PROGRAMS / "volume_backup"))


def install(role: str, program: bytes) -> None:
    new = "/usr/bin/gitlab-backup-volume.new"
    put = f"base64 -d >{new} && chmod 0755 {new} && mv {new} /usr/bin/gitlab-backup-volume"
    must(role, put, stdin=base64.b64encode(program).decode() + "\n")


def killed_while_frozen(seconds: float) -> None:
    """Kill a backup of the server while it waits for AWS, which takes the snapshot after these seconds nonetheless."""
    faults.inject("CreateSnapshot", "slow", seconds=seconds)
    must("server", "systemd-run --quiet --collect --unit killed gitlab-backup-volume now")
    eventually(lambda: faults.served()["CreateSnapshot", "slow"], interval=0.2)
    must("server", "systemctl kill --kill-who main --signal KILL killed")


@contextlib.contextmanager
def watching_health() -> Iterator[set[str]]:
    """The states of GitLab's target at the load balancer for a while."""
    seen: set[str] = set()
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.3):
            seen.add(target_health(80))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield seen
    finally:
        ended.set()
        watcher.join()


def losses(load: loads.Load) -> list[str]:
    """Take a backup of both machines under load. Returns what was accepted before and is missing in the copies."""
    load.wait_for_more()
    commits = list(load.commits)
    backups.take("server")
    images = load.images()
    backups.take("registry")
    assert backups.record("registry")["pair"] == backups.record("server")["pair"]
    lost = []
    for role in ROLES:
        try:
            with backups.restored(backups.record(role)["snapshot"]) as volume:
                lost += load.lost_commits(volume, commits) if role == "server" else loads.lost_images(volume, images)
        except (OSError, subprocess.CalledProcessError) as error:
            lost.append(f"the {role}'s file system: {error} {getattr(error, 'stderr', '')}")
    return lost


# --- what every stack has --------------------------------------------------------------------------------


def test_up_has_taken_one_backup_of_both_machines_and_it_is_locked_for_as_long_as_it_is_kept(outputs):
    eventually(lambda: all(backups.all_of(role)[0].state == "completed" for role in ROLES))
    server, registry = (backups.all_of(role)[0] for role in ROLES)
    assert server.pair == registry.pair
    taken_after = server.started - time_of(server.pair)
    assert timedelta(0) <= taken_after < timedelta(minutes=2)
    assert server.started < registry.started
    ec2 = client("ec2")
    for role, backup in zip(ROLES, (server, registry), strict=True):
        name, software = f"{role}-data-{stack.STACK}", "gitlab" if role == "server" else "registry"
        firsts = [each for each in backups.all_of(role) if each.tags["gitlab-reason"] == "first"]
        assert firsts == [backup]
        [volume] = ec2.describe_volumes(Filters=[{"Name": "tag:Name", "Values": [name]}])["Volumes"]
        assert (backup.volume, backup.encrypted) == (volume["VolumeId"], True)
        version = backup.tags[f"{software}-version"]
        assert version in must(role, "rpm -q gitlab-ce" if role == "server" else "docker ps --format '{{.Image}}'")
        kept = backup.tags["gitlab-keep"]
        assert backup.tags == {
            "gitlab-stack": f"gitlab/{stack.STACK}",
            "gitlab-role": role,
            "gitlab-backup": server.pair,
            "gitlab-keep": kept,
            "gitlab-reason": "first",
            "Name": name,
            f"{software}-version": version,
        }
        assert (backup.lock["LockState"], backup.lock["LockDuration"]) == ("governance", DAYS[kept])
        locked_for = backup.lock["LockExpiresOn"] - backup.lock["LockDurationStartTime"]
        assert locked_for == timedelta(days=DAYS[kept])


@pytest.mark.parametrize("role", ROLES)
def test_a_backup_has_the_manifest_of_its_volume_and_the_data_of_that_moment(outputs, role):
    must(role, f"echo before >{MOUNTPOINTS[role]}/before-the-backup")
    backups.take(role)
    must(role, f"rm {MOUNTPOINTS[role]}/before-the-backup")
    known = backups.record(role)
    with backups.restored(known["snapshot"]) as volume:
        manifest = json.loads((volume / MANIFEST).read_text())
        assert (volume / MANIFEST).stat().st_mode & 0o777 == 0o600
        assert (volume / "before-the-backup").read_text() == "before\n"
    [backup] = [each for each in backups.all_of(role) if each.id == known["snapshot"]]
    assert (manifest["pair"], manifest["tags"]) == (backup.pair, backup.tags)
    if role == "server":
        assert manifest["token_certificate_sha256"] == must(role, "sha256sum /etc/gitlab/registry-token.crt").split()[0]
        assert len(manifest["rails_secrets_sha256"]) == 64
    else:
        assert manifest["blobs"] > 0


def test_a_backup_now_holds_writes_for_a_moment_is_listed_and_passes_the_checks(outputs):
    before = backups.ids()
    for role in ROLES:
        with backups.writing(role) as writes:
            backups.take(role)
            assert writes.longest() < 2
        assert backups.record(role)["frozen_ms"] < 2000
    server, registry = (backups.record(role) for role in ROLES)
    assert server["pair"] == registry["pair"]
    new = {server["snapshot"], registry["snapshot"]}
    assert new <= backups.ids() - before
    for role in ROLES:
        [backup] = [each for each in backups.all_of(role) if each.id in new]
        assert backup.lock["LockDuration"] == DAYS[backup.tags["gitlab-keep"]]
        listed = must(role, "gitlab-backup-volume list").splitlines()
        shown = {tuple(line.split()[:3]) for line in listed}
        assert {
            (server["pair"], "server", server["snapshot"]),
            (server["pair"], "registry", registry["snapshot"]),
        } <= shown
    found = states()
    assert {found[check] for check in CHECKS} == {"ok"}


@pytest.mark.parametrize("role", ROLES)
def test_a_backup_during_a_step_is_not_started_and_says_so(outputs, role):
    before = backups.ids(role)
    refused = on(role, "flock /run/gitlab-stack.lock gitlab-backup-volume now")
    assert refused.status == backups.BUSY
    assert refused.output.startswith("gitlab-backup-volume now: not started: a step of pulumi up")
    assert len(refused.output.splitlines()) == 1
    assert backups.ids(role) == before


@pytest.mark.parametrize(("role", "other"), [ROLES, ROLES[::-1]])
def test_a_machine_cannot_destroy_or_read_its_backups_and_only_its_root_has_the_role(outputs, role, other):
    own, others = backups.all_of(role)[0], backups.all_of(other)[0]
    longer = {"LockMode": "governance", "LockDuration": str(DAYS[own.tags["gitlab-keep"]] + 1)}
    denied = {
        "UnlockSnapshot": {"SnapshotId": own.id},
        "CreateVolume": {"SnapshotId": own.id, "AvailabilityZone": setting("availabilityZone")},
        "LockSnapshot": {"SnapshotId": own.id, **longer},
        "CreateTags": {"ResourceId.1": own.id, "Tag.1.Key": "gitlab-keep", "Tag.1.Value": "hourly"},
        "DeleteSnapshot": {"SnapshotId": others.id},
        "CreateSnapshot": {"VolumeId": others.volume},
    }
    said = as_the_role(role, *denied.items())
    assert len(said) == len(denied)
    for action, answer in zip(denied, said, strict=True):
        assert f"AWS refused {action}: UnauthorizedOperation" in answer
    locked, allowed = as_the_role(
        role, ("DeleteSnapshot", {"SnapshotId": own.id}), ("DescribeSnapshots", {"Owner.1": "self"})
    )
    assert "is locked" in locked
    assert allowed == "allowed"
    assert (backups.all_of(role)[0], backups.all_of(other)[0]) == (own, others)
    assert must(role, ASK_METADATA) == "metadata 200"
    assert must(role, f"runuser -u ec2-user -- sh -c {shlex.quote(ASK_METADATA)}") == "metadata 000"


@pytest.mark.fault(
    "a backup is killed while the volume is frozen",
    sees="writes to the volume wait for at most 16 s; until the next backup, `backup of the server fresh failed`",
    heals="nothing to do: a timer thaws the volume, and the next backup deletes what the killed one left",
)
def test_after_a_backup_that_is_killed_writes_continue_and_the_next_one_deletes_what_it_left(outputs, measured):
    before = backups.ids("server")
    with backups.writing("server") as writes:
        killed_while_frozen(seconds=THAWED + 1)
        eventually(lambda: writes.held() > 1, seconds=5, interval=0.3)  # the volume is still frozen
        eventually(lambda: writes.held() < 1, seconds=THAWED, interval=0.3)
        longest = writes.longest()
    assert longest < THAWED
    measured(longest)
    eventually(lambda: backups.ids("server") > before, interval=0.3)
    [left] = backups.ids("server") - before
    assert "unfinished" in backups.record("server")
    assert f"deleted {left} " in backups.take("server")
    assert backups.ids("server") - before == {backups.record("server")["snapshot"]} != {left}
    assert not {"unfinished", "error"} & set(backups.record("server"))
    eventually(lambda: target_health(80) == "healthy")


# --- faults and wrong programs ---------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.fault(
    "AWS does not answer, answers a 500 or throttles while a volume is frozen",
    sees="writes to the volume wait for at most 11 s; `backup of the server fresh failed`, with AWS's answer",
    heals="nothing to do: the next backup; or `sudo gitlab-backup-volume now`",
)
@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("slow", "AWS did not answer CreateSnapshot within 10 s"),
        ("error", "AWS refused CreateSnapshot: InternalError"),
        ("throttle", "AWS refused CreateSnapshot: RequestLimitExceeded"),
    ],
)
def test_a_fault_of_aws_during_the_freeze_ends_it_and_is_named_and_gitlab_stays_ready(outputs, measured, kind, says):
    before = backups.ids("server")
    # The snapshot of the slow one is taken nonetheless, after the volume was thawed.
    faults.inject("CreateSnapshot", kind, seconds=2 * ANSWERED if kind == "slow" else 0)
    with watching_health() as health, backups.writing("server") as writes:
        failed = on("server", "systemctl start gitlab-backup-volume")
        longest = writes.longest()
    assert failed.status != 0
    assert on("server", "systemctl is-failed gitlab-backup-volume").output.strip() == "failed"
    assert longest < ANSWERED
    assert health == {"healthy"}
    found = examine("--quick")
    assert found.broken == "server-backup-fresh"
    assert says in found.detail
    if kind == "slow":
        eventually(lambda: backups.ids("server") > before)
    started = time.monotonic()
    backups.take("server")
    measured(time.monotonic() - started, kind)
    assert backups.ids("server") - before == {backups.record("server")["snapshot"]}
    must("server", "systemctl reset-failed gitlab-backup-volume")
    assert states()["server-backup-fresh"] == "ok"


@pytest.mark.long
def test_without_a_timer_that_thaws_it_the_volume_of_a_killed_backup_stays_frozen(outputs):
    with wrong_program(NO_TIMER, "server"), backups.writing("server") as writes:
        killed_while_frozen(seconds=THAWED + 1)
        eventually(lambda: writes.held() > 2 * THAWED, interval=2)
        must("server", f"fsfreeze --unfreeze {MOUNTPOINTS['server']}")
        eventually(lambda: writes.held() < 1)
    eventually(lambda: target_health(80) == "healthy")
    backups.take("server")


@pytest.mark.long
def test_twenty_backups_under_load_have_everything_that_was_accepted_before_them(outputs, discarded, tmp_path: Path):
    pauses = []
    with loads.running(outputs, tmp_path) as load:
        for _ in range(20):
            assert losses(load) == []
            pauses += [backups.record(role)["frozen_ms"] for role in ROLES]
        assert len(load.commits) > 20
        assert len(load.images()) > 20
    print(f"longest pause of writes in {len(pauses)} backups: {max(pauses)} ms")
    assert max(pauses) < 2000


@pytest.mark.long
def test_without_a_freeze_a_backup_lacks_something_that_was_accepted_before_it(outputs, discarded, tmp_path: Path):
    with wrong_program(UNFROZEN, *ROLES), loads.running(outputs, tmp_path) as load:
        assert any(losses(load) for _ in range(5))


@pytest.mark.long
def test_backups_are_turned_off_and_on_by_a_setting_and_those_that_exist_stay(outputs):
    before = backups.ids()
    configure(backup="false")
    try:
        off = up()
        assert off.status == 0, off.output
        assert "backup: false, so GitLab's data and the pushed images are not backed up" in off.output
        for role in ROLES:
            assert on(role, f"systemctl cat {TIMER}").status != 0
        assert not set(CHECKS) & set(states())
        assert backups.ids() >= before
        assert all(backup.lock for role in ROLES for backup in backups.all_of(role) if backup.id in before)
    finally:
        configure(backup=None)
        repair()
    for role in ROLES:
        assert must(role, f"systemctl is-enabled {TIMER}") == "enabled"
        backups.take(role)
    found = states()
    assert {found[check] for check in CHECKS} == {"ok"}
