"""`make drill`: a copy is checked and destroyed, however the drill ends, and its result is stored."""

import datetime
import json

import pytest
import yaml

from recovery import drill
from recovery.copy_checks import Outcome, Verdict
from recovery.errors import RecoveryError
from recovery.leftovers import Resource
from recovery.pulumi_cli import Interrupted
from recovery.quotas import ADDRESSES, CPUS, NETWORKS, STANDARD
from tests.aws_answers import failure
from tests.recovery_doubles import START, World, arguments

PAIR = "20261127T230004Z"
GONE = ["cancel", "destroy", "rm"]
BEFORE_UP = ["init passphrase", "set gitlab:certificateKeyPem", "set gitlab:sshPrivateKey"]


def verdict(*, passed: bool) -> Verdict:
    check = Outcome("repositories", "server", passed, 3.0, "" if passed else "group/project.git")
    return Verdict((check,), datetime.timedelta(minutes=4))


@pytest.fixture
def world(tmp_path, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda _: None)
    monkeypatch.setattr(drill, "utc_now", lambda: START + datetime.timedelta(hours=1))
    monkeypatch.setattr("recovery.leftovers.remaining", lambda clients, tag: [])
    monkeypatch.setattr("recovery.leftovers.resources", lambda clients, tag: iter(()))
    monkeypatch.setattr(drill, "check_copy", lambda inspection, pair, external_url, limit: verdict(passed=True))
    return World(tmp_path)


def drilled(world, pulumi=None, **given) -> int:
    return drill.Drill(world.source, pulumi or world.pulumi("prod-drill"), arguments(**given)).run()


def results(world) -> list[str]:
    return [world.home.tags(f"snap-{role}-{PAIR}").get("gitlab-drilled", "") for role in ("server", "registry")]


def test_a_good_drill_checks_stores_its_result_and_leaves_nothing(world, tmp_path, capsys):
    file = tmp_path / "result.json"
    assert drilled(world, json=file) == 0
    tagged = [event for event in world.cloud.events if event.startswith("tag")]
    assert world.cloud.events == [*BEFORE_UP, "up", *tagged, *GONE]
    assert results(world) == ["2026-11-28 passed"] * 2
    assert world.stacks == {}
    assert sorted(path.name for path in world.folder.iterdir()) == ["Pulumi.prod.yaml", "result.json"]
    found = json.loads(file.read_text())
    assert (found["passed"], found["backup"], found["newestEventSeconds"]) == (True, PAIR, 240)
    assert found["checks"][0]["name"] == "repositories"
    out = capsys.readouterr().out
    assert "PASSED" in out
    assert "Cost: about $" in out


@pytest.mark.parametrize("broken", ["verdict", "check", "up"])
def test_a_bad_drill_is_destroyed_and_stored_too(world, monkeypatch, broken, capsys):
    pulumi = world.pulumi("prod-drill")
    if broken == "up":
        pulumi.fails_at = "up"
    elif broken == "check":
        monkeypatch.setattr(drill, "check_copy", lambda *_, **__: int("not understood"))
    else:
        monkeypatch.setattr(drill, "check_copy", lambda *_, **__: verdict(passed=False))
    assert drilled(world, pulumi) == 1
    assert world.cloud.events[-3:] == GONE
    assert [result.split()[-1] for result in results(world)] == ["failed", "failed"]
    assert world.stacks == {}
    assert "FAILED" in capsys.readouterr().out


def test_a_newest_backup_that_is_old_is_a_failure_but_an_older_one_may_be_chosen(world, monkeypatch, capsys):
    monkeypatch.setattr(drill, "utc_now", lambda: START + datetime.timedelta(hours=2, seconds=1))
    assert drilled(world) == 1
    assert results(world) == ["2026-11-28 passed"] * 2
    assert (
        "is older than twice the interval of backupSchedule (hourly): make doctor STACK=prod" in capsys.readouterr().out
    )
    assert drilled(world, backup=PAIR) == 0


def test_a_result_that_cannot_be_stored_is_reported_and_the_copy_destroyed(world, monkeypatch, tmp_path, capsys):
    def refused(**_):
        raise failure("UnauthorizedOperation")

    monkeypatch.setattr(world.home, "create_tags", refused)
    file = tmp_path / "result.json"
    assert drilled(world, json=file) == 1
    assert world.cloud.events == [*BEFORE_UP, "up", *GONE]
    assert json.loads(file.read_text())["passed"]
    out = capsys.readouterr().out
    assert (
        "could not be stored as the tag gitlab-drilled of the backup: An error occurred (UnauthorizedOperation)" in out
    )
    assert "PASSED" in out


@pytest.mark.parametrize("phase", ["init", "set", "up"])
def test_an_interrupted_drill_is_destroyed_and_has_no_result(world, phase):
    pulumi = world.pulumi("prod-drill")
    pulumi.fails_at, pulumi.failure = phase, Interrupted("SIGTERM")
    with pytest.raises(Interrupted):
        drilled(world, pulumi)
    assert results(world) == ["", ""]
    assert "prod-drill" not in world.stacks
    assert not (world.folder / "Pulumi.prod-drill.yaml").exists()


@pytest.mark.parametrize("phase", ["init", "set", "up", "destroy", "rm"])
@pytest.mark.parametrize("file_is_left", [True, False])
def test_the_next_drill_first_removes_what_a_killed_one_left(world, monkeypatch, phase, file_is_left):
    killed = world.pulumi("prod-drill")
    killed.fails_at, killed.failure = phase, Interrupted("SIGKILL")
    with monkeypatch.context() as patch:
        if phase in ("init", "set", "up"):  # after SIGKILL nothing is removed
            patch.setattr(drill.Drill, "_end", lambda self: "")
        with pytest.raises(Interrupted):
            drilled(world, killed, region="eu-west-1")
    if not file_is_left:  # the next drill runs on another machine
        (world.folder / "Pulumi.prod-drill.yaml").unlink(missing_ok=True)
    existed = "prod-drill" in world.stacks
    del world.cloud.events[:]
    assert drilled(world, region="eu-west-1") == 0
    assert world.cloud.events[:3] == (GONE if existed else world.cloud.events[:3])
    assert world.cloud.events[-5:-2] == GONE
    assert world.cloud.region("eu-west-1").snapshots == {}
    assert world.stacks == {}


def test_copies_for_a_drill_in_another_region_are_deleted_and_the_originals_are_marked(world):
    assert drilled(world, region="eu-west-1") == 0
    assert world.cloud.region("eu-west-1").snapshots == {}
    assert [event for event in world.cloud.events if event.startswith("delete")] == [
        "delete snap-copy-0",
        "delete snap-copy-1",
    ]
    assert [result.split()[-1] for result in results(world)] == ["passed", "passed"]


@pytest.mark.parametrize("known", [True, False])
def test_too_few_addresses_are_refused_with_the_request_before_anything_is_made(world, known):
    world.cloud.quotas[ADDRESSES] = 5
    world.home.quotas_known = known
    with pytest.raises(RecoveryError, match=r"only 1 of 5 are free(.|\n)*--desired-value 8 --region eu-central-1"):
        drilled(world)
    assert world.cloud.events == []
    assert results(world) == ["", ""]
    world.home.addresses = [*world.home.addresses, {"PublicIpv4Pool": "ipv4pool-ec2-own"}]
    world.cloud.quotas[ADDRESSES] = 8
    assert drilled(world) == 0, "own addresses do not count"


def test_all_quotas_without_room_are_named_with_their_requests_before_a_backup_is_copied(world):
    """The machines of the stack run on, and count."""
    target = world.cloud.region("eu-west-1")
    target.running = ["i-server", "i-registry"]
    world.cloud.quotas = {ADDRESSES: 7, NETWORKS: 2, CPUS: 15}
    with pytest.raises(RecoveryError) as refused:
        drilled(world, region="eu-west-1")
    requests = [line.split("increase ")[1] for line in str(refused.value).splitlines() if line.startswith("  aws ")]
    assert requests == [
        "--service-code ec2 --quota-code L-0263D0A3 --desired-value 8 --region eu-west-1",
        "--service-code vpc --quota-code L-F678F1CE --desired-value 3 --region eu-west-1",
        "--service-code ec2 --quota-code L-1216C47A --desired-value 16 --region eu-west-1",
    ]
    assert world.cloud.events == []
    world.cloud.quotas = {ADDRESSES: 8, NETWORKS: 3, CPUS: 16}
    assert drilled(world, region="eu-west-1") == 0


def test_quotas_that_cannot_be_read_are_no_reason_to_refuse(world, capsys):
    world.home.quotas_known = False
    world.cloud.quotas = {ADDRESSES: 8, NETWORKS: 0, CPUS: 0}
    assert drilled(world) == 0
    out = capsys.readouterr().out
    assert "The quota vpc/L-F678F1CE (VPC) of eu-central-1 cannot be read, so `up` may reach it: An error" in out
    assert "The quota ec2/L-1216C47A (vCPUs of running On-Demand Standard instances) of eu-central-1 cannot" in out


@pytest.mark.parametrize(
    ("machine", "counts"),
    [
        ({}, True),
        ({"State": {"Name": "pending"}}, True),
        ({"State": {"Name": "stopping"}}, False),
        ({"InstanceLifecycle": "spot"}, False),
        ({"InstanceType": "inf2.xlarge"}, False),
    ],
    ids=["running", "pending", "stopping", "spot", "another family"],
)
def test_the_vcpus_of_standard_machines_count_while_they_run_on_demand(world, machine, counts):
    world.home.others = [machine]
    world.cloud.quotas[CPUS] = 11
    if counts:
        with pytest.raises(RecoveryError, match="only 7 of 11 are free"):
            drilled(world)
    else:
        assert drilled(world) == 0


def test_networks_that_other_accounts_share_do_not_count(world):
    world.home.networks = [*world.home.networks, "444455556666"]
    world.cloud.quotas[NETWORKS] = 3
    assert drilled(world) == 0


def test_a_drill_counts_the_machines_of_its_own_settings(world):
    world.cloud.quotas[CPUS] = 8
    with pytest.raises(RecoveryError, match="needs 12 vCPUs"):
        drilled(world, overrides=[("serverInstanceType", "c7i.2xlarge")])
    other = [("serverInstanceType", "inf2.xlarge"), ("registryInstanceType", "inf2.xlarge")]
    world.cloud.quotas[CPUS] = 2
    assert drilled(world, overrides=other) == 0


@pytest.mark.parametrize("standard", ["a1", "c6gn", "d3en", "h1", "im4gn", "is4gen", "m6i", "r5b", "t3a", "z1d"])
def test_families_that_count_as_standard(standard):
    assert STANDARD.match(f"{standard}.large")


@pytest.mark.parametrize("other", ["dl1", "f1", "g5", "hpc7a", "inf2", "mac2", "p4d", "trn1", "u-6tb1", "vt1", "x2idn"])
def test_families_that_have_quotas_of_their_own(other):
    assert not STANDARD.match(f"{other}.large")


def test_what_could_not_be_destroyed_makes_the_drill_fail(world, monkeypatch, capsys):
    monkeypatch.setattr("recovery.leftovers.remaining", lambda clients, tag: [Resource("volume", "vol-1")])
    monkeypatch.setattr(drill, "sweep", lambda clients, tag, **_: None)
    assert drilled(world) == 1
    assert "these resources of gitlab/prod-drill still exist: volume vol-1" in capsys.readouterr().out
    assert [result.split()[-1] for result in results(world)] == ["passed", "passed"]
    assert "prod-drill" in world.stacks, "the next drill still finds it"


@pytest.mark.parametrize("refused", [True, False])
def test_what_pulumi_does_not_know_is_deleted_too(world, monkeypatch, refused):
    """An engine that was killed during a call did not record what the call created."""
    unknown = [Resource("network interface", "eni-1")]
    monkeypatch.setattr("recovery.leftovers.remaining", lambda clients, tag: list(unknown))
    monkeypatch.setattr(drill, "sweep", lambda clients, tag, **_: unknown.clear())
    pulumi = world.pulumi("prod-drill")
    pulumi.fails_at = "destroy" if refused else ""
    assert drilled(world, pulumi) == 0
    assert unknown == []
    assert world.stacks == {}


def test_what_uses_networks_and_is_unknown_to_pulumi_is_deleted_before_pulumi_destroys(world, monkeypatch):
    """Otherwise Pulumi would wait for twenty minutes until it can delete the networks."""

    def note(clients, tag, *, kinds, known):
        assert set(kinds) == {"machine", "load balancer"}
        world.cloud.events.append(f"sweep {tag} except {', '.join(known)}")

    world.stacks["prod-drill"] = 70
    monkeypatch.setattr(drill, "sweep", note)
    assert drilled(world) == 0
    assert world.cloud.events[:3] == ["cancel", "sweep gitlab/prod-drill except i-known", "destroy"]


def test_a_kept_copy_is_described_and_removed_by_the_next_drill(world, capsys):
    assert drilled(world, keep=True) == 0
    assert world.stacks == {"prod-drill": 139}
    assert "pulumi config get gitlab:sshPrivateKey --stack prod-drill" in capsys.readouterr().out
    del world.cloud.events[:]
    assert drilled(world) == 0
    assert world.cloud.events[:3] == GONE


def test_secrets_of_pulumi_cloud_that_a_copy_must_not_have_are_not_copied(world):
    settings = yaml.safe_load(world.settings.read_text())
    del settings["encryptionsalt"]
    settings["config"]["gitlab:sshPrivateKey"] = {"secure": "v1:key"}
    world.settings.write_text(yaml.safe_dump(settings))
    assert drilled(world) == 0
    assert [event for event in world.cloud.events if event.startswith("cp")] == ["cp gitlab:gitlabRb prod"]


def test_a_drill_does_not_start_without_knowing_whom_to_admit(world, monkeypatch):
    def unreachable(*_, **__):
        raise OSError("no route")

    monkeypatch.setattr("urllib.request.urlopen", unreachable)
    with pytest.raises(RecoveryError, match=r"set it with CALLER="):
        drilled(world, caller=None)
    assert world.cloud.events == []
