"""`make restore`: a new stack from a backup, with the former machines stopped, continued after any interruption."""

import datetime
import os
import re

import pytest
import yaml

from recovery import catalogue, restore
from recovery.errors import RecoveryError
from recovery.quotas import ADDRESSES, CPUS, NETWORKS
from tests.conftest import openssh_pair
from tests.recovery_doubles import START, World, arguments

PAIR = "20261127T230004Z"
UP = ["init passphrase", "up"]


@pytest.fixture
def world(tmp_path, monkeypatch):
    made = World(tmp_path)

    def swept(_clients, tag, *, kinds, known):
        made.cloud.events.append(f"sweep {' and '.join(kinds)} of {tag} except {', '.join(known)}")

    monkeypatch.setattr("time.sleep", lambda _: None)
    monkeypatch.setattr(restore, "sweep", swept)
    monkeypatch.setattr("validation.ssh_agent.problem", lambda public_key: None)
    return made


def restored(world, pulumi=None, **given):
    pulumi = pulumi or world.pulumi("new")
    restore.Restore(world.source, pulumi, arguments(**given)).run()
    return yaml.safe_load(pulumi.file.read_text())


def test_the_former_machines_are_stopped_before_the_new_stack_comes_up(world, capsys):
    world.home.running = ["i-server", "i-runner"]
    settings = restored(world)
    assert world.cloud.events == ["stop i-server i-runner", "stopped", *UP]
    assert settings["config"]["gitlab:serverDataSnapshotId"] == f"snap-server-{PAIR}"
    out = capsys.readouterr().out
    assert "everything written after 2026-11-27 23:00:05 UTC is lost" in out
    assert "RTO: " in out
    assert "(find 0 s, fence 0 s, up 0 s)" in out


def test_the_former_stack_must_not_take_the_record_of_the_domain_back(world, capsys):
    restored(world)
    assert "make destroy STACK=prod shows how to keep the record before it asks." in capsys.readouterr().out
    settings = yaml.safe_load(world.settings.read_text())
    del settings["config"]["gitlab:hostedZoneId"]
    world.settings.write_text(yaml.safe_dump(settings))
    restored(world, world.pulumi("other"))
    assert "make destroy" not in capsys.readouterr().out


def test_nothing_happens_without_a_confirmation(world):
    world.home.running = ["i-server"]
    with pytest.raises(RecoveryError, match="needs a confirmation"):
        restored(world, yes=False)
    assert world.cloud.events == []
    assert not (world.folder / "Pulumi.new.yaml").exists()


@pytest.mark.parametrize(
    ("quota", "value", "problem"),
    [
        (ADDRESSES, 7, "needs 4 Elastic IP addresses, and only 3 of 7 are free in eu-central-1"),
        (NETWORKS, 2, "needs 1 VPC, and only 0 of 2 are free in eu-central-1"),
        (CPUS, 7, "needs 8 vCPUs of running On-Demand Standard instances, and only 7 of 7 are free in eu-central-1"),
    ],
    ids=["addresses", "networks", "cpus"],
)
def test_a_quota_without_room_is_reported_before_a_machine_is_stopped(world, quota, value, problem):
    world.home.running = ["i-server"]
    world.cloud.quotas[quota] = value
    with pytest.raises(RecoveryError, match=problem):
        restored(world)
    assert world.cloud.events == []


def test_the_machines_that_are_stopped_make_room_for_the_new_ones_only_in_their_region(world):
    world.cloud.quotas[CPUS] = 8
    target = world.cloud.region("eu-west-1")
    target.running = ["i-server"]
    with pytest.raises(RecoveryError, match="only 4 of 8 are free in eu-west-1"):
        restored(world, region="eu-west-1")
    assert world.cloud.events == []
    world.home.running = ["i-server", "i-runner"]
    restored(world)
    assert world.cloud.events == ["stop i-server i-runner", "stopped", *UP]


def test_machines_of_the_size_of_the_new_settings_are_counted(world):
    world.cloud.quotas[CPUS] = 11
    with pytest.raises(RecoveryError, match=r"needs 12 vCPUs .*only 11 of 11 are free"):
        restored(world, overrides=[("serverInstanceType", "c7i.2xlarge")])
    assert world.cloud.events == []


def test_a_restore_that_is_continued_does_not_count_what_it_has_made(world):
    pulumi = world.pulumi("new")
    pulumi.fails_at = "up"
    with pytest.raises(RecoveryError):
        restored(world, pulumi)
    world.cloud.quotas = {ADDRESSES: 4, NETWORKS: 2, CPUS: 0}
    restored(world)
    assert world.cloud.events[-1] == "up"


STATUS_PAGE = {"Name": "git.example.com.", "Type": "CNAME"}


def test_a_cname_of_the_domain_is_reported_before_a_machine_is_stopped(world):
    world.home.running = ["i-server"]
    world.cloud.records = [STATUS_PAGE]
    with pytest.raises(RecoveryError, match=r"git\.example\.com is a CNAME record in the hosted zone Z0123456789ABC"):
        restored(world)
    assert world.cloud.events == []
    restored(world, overrides=[("domain", "code.example.com")])
    assert world.cloud.events[-1] == "up"


def test_a_cname_is_no_reason_to_refuse_if_the_settings_have_no_hosted_zone(world):
    world.cloud.records = [STATUS_PAGE]
    restored(world, overrides=[("hostedZoneId", "")])
    assert world.cloud.events == UP


def test_a_restore_that_is_continued_reports_a_cname_too(world):
    restored(world)
    done = list(world.cloud.events)
    world.cloud.records = [STATUS_PAGE]
    with pytest.raises(RecoveryError, match="is a CNAME record"):
        restored(world)
    assert world.cloud.events == done


def test_a_dns_service_that_does_not_answer_hinders_no_restore(world, capsys):
    world.cloud.dns_available = False
    restored(world)
    assert world.cloud.events == UP
    assert "Route 53 does not answer" in capsys.readouterr().out


def test_a_region_that_does_not_answer_hinders_no_restore_from_copies(world, capsys):
    world.cloud.region("eu-west-1").add_pair(PAIR)
    world.home.available = False
    settings = restored(world, region="eu-west-1")
    assert settings["config"]["aws:region"] == "eu-west-1"
    assert world.cloud.events == UP
    out = capsys.readouterr().out
    assert "does not answer" in out
    assert "CANNOT BE STOPPED" in out


def test_in_its_own_region_a_restore_needs_an_answer_and_a_backup(world):
    with pytest.raises(RecoveryError, match="there is no backup 20200101T000004Z"):
        restored(world, backup="20200101T000004Z")
    world.home.available = False
    with pytest.raises(Exception, match="Could not connect"):
        restored(world)
    assert world.cloud.events == []


def test_a_backup_is_copied_once_to_another_region_and_kept_there(world, capsys):
    target = world.cloud.region("eu-west-1")
    first = world.pulumi("new")
    first.fails_at = "init"
    with pytest.raises(RecoveryError):
        restored(world, first, region="eu-west-1")
    (world.folder / "Pulumi.new.yaml").unlink()  # as if it had been killed before it wrote the file
    settings = restored(world, region="eu-west-1")
    copied = [event for event in world.cloud.events if event.startswith("copy")]
    assert copied == [f"copy snap-server-{PAIR}", f"copy snap-registry-{PAIR}"]
    assert target.tags("snap-copy-0")["gitlab-backup"] == PAIR
    config = settings["config"]
    assert (config["gitlab:serverDataSnapshotId"], config["gitlab:registryDataSnapshotId"]) == (
        "snap-copy-0",
        "snap-copy-1",
    )
    assert len(target.snapshots) == 2
    assert "copying to eu-west-1: 50% and 50%" in capsys.readouterr().out
    assert restored(world, region="eu-west-1") == settings, "the original is not newer than its copy"


@pytest.mark.parametrize("phase", ["init", "up"])
def test_the_same_command_continues_an_interrupted_restore_with_the_same_backup(world, phase):
    world.home.running = ["i-server"]
    pulumi = world.pulumi("new")
    pulumi.fails_at, pulumi.failure = phase, KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        restored(world, pulumi)
    world.home.add_pair("20261128T000004Z", START + datetime.timedelta(hours=1))  # it was pending before
    settings = restored(world)
    assert settings["config"]["gitlab:serverDataSnapshotId"] == f"snap-server-{PAIR}"
    assert world.cloud.events[-1] == "up"
    assert world.cloud.events.count("stop i-server") == 1


def test_a_restore_that_was_given_up_is_not_continued_when_there_is_a_newer_backup(world):
    """After make destroy the stack's file is still there."""
    restored(world)
    done = list(world.cloud.events)
    world.home.add_pair("20261128T000004Z", START + datetime.timedelta(hours=1))
    file = world.folder / "Pulumi.new.yaml"
    os.utime(file, (START.timestamp(), START.timestamp()))
    with pytest.raises(RecoveryError, match=f"restores the backup {PAIR}, but 20261128T000004Z is newer.*rm new"):
        restored(world)
    assert world.cloud.events == done
    settings = restored(world, backup=PAIR)
    assert settings["config"]["gitlab:serverDataSnapshotId"] == f"snap-server-{PAIR}"


def test_a_restore_is_continued_without_what_a_killed_engine_left(world):
    pulumi = world.pulumi("new")
    pulumi.fails_at = "up"
    with pytest.raises(RecoveryError):
        restored(world, pulumi)
    restored(world)
    swept = "sweep load balancer and machine of gitlab/new except i-known"
    assert world.cloud.events[-3:] == ["cancel", swept, "up"]


def test_an_interrupted_restore_of_another_backup_is_not_continued(world):
    restored(world)
    world.home.add_pair("20261128T000004Z", START + datetime.timedelta(hours=1))
    with pytest.raises(RecoveryError, match="snapshots that are not this backup"):
        restored(world, backup="20261128T000004Z")


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"zone": "eu-central-1c"}, "gitlab:availabilityZone: eu-central-1c"),
        ({"region": "eu-west-1"}, "aws:region: eu-west-1"),
        ({"overrides": [("serverInstanceType", "m6i.2xlarge")]}, "gitlab:serverInstanceType: m6i.2xlarge"),
    ],
)
def test_an_interrupted_restore_with_other_settings_is_not_continued(world, given, named):
    restored(world)
    done = list(world.cloud.events)
    with pytest.raises(RecoveryError, match=f"does not have {named}. Change it there .* make destroy STACK=new"):
        restored(world, **given)
    assert world.cloud.events == done


def test_an_interrupted_restore_is_continued_with_the_same_settings(world):
    given = {
        "zone": "eu-central-1c",
        "region": "eu-central-1",
        "overrides": [("serverDataVolumeSize", 200), ("backup", False)],
    }
    restored(world, **given)
    file = world.folder / "Pulumi.new.yaml"
    text = file.read_text().replace("serverDataVolumeSize: 200", "serverDataVolumeSize: '200'")
    file.write_text(text.replace("backup: false", "backup: 'false'"))
    restored(world, **given)
    assert world.cloud.events.count("up") == 2


def test_machines_are_not_stopped_before_the_agent_can_log_in_to_the_new_ones(world, monkeypatch):
    world.home.running = ["i-server"]
    monkeypatch.setattr("validation.ssh_agent.problem", lambda public_key: f"the agent does not hold {public_key}")
    with pytest.raises(RecoveryError, match="sshPrivateKey is not set, and the agent does not hold ssh-ed25519 AAAA"):
        restored(world)
    assert world.cloud.events == []
    restored(world, overrides=[("sshPrivateKey", {"secure": "v1:key"})])
    assert world.cloud.events[-1] == "up"


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"overrides": [("serverInstancetype", "m6i.xlarge")]}, "serverInstancetype: unknown setting"),
        ({"overrides": [("securityUpdates", 1320)]}, "securityUpdates: '1320' is not"),
        ({"region": "eu-west-1"}, "certificateArn: the certificate is in 'eu-central-1'"),
    ],
)
def test_machines_are_not_stopped_for_settings_that_up_would_refuse(world, given, problem):
    """Secrets, which this command cannot decrypt, are no reason to refuse."""
    world.home.running = ["i-server"]
    file = yaml.safe_load(world.settings.read_text())
    arn = "arn:aws:acm:eu-central-1:111122223333:certificate/12345678-90ab-cdef-1234-567890abcdef"
    file["config"] |= {"gitlab:certificateArn": arn, "gitlab:sshPublicKey": openssh_pair()[0]}
    file["config"] |= {"gitlab:smtpUserName": "git", "gitlab:emailFrom": "git@example.com"}
    world.settings.write_text(yaml.safe_dump(file))
    with pytest.raises(RecoveryError, match=f"(?s)would be invalid; nothing was changed.*{re.escape(problem)}"):
        restored(world, **given)
    assert world.cloud.events == []
    restored(world)
    assert world.cloud.events[0] == "stop i-server"


def test_the_command_that_starts_the_former_machines_again_is_shown(world, capsys):
    world.home.running = ["i-server", "i-runner"]
    restored(world)
    command = "aws ec2 start-instances --region eu-central-1 --instance-ids i-server i-runner"
    out = capsys.readouterr().out
    assert (
        f"{command}\nthen make destroy STACK=new, pulumi stack rm new, and pulumi up --stack prod, for DNS records."
        in out
    )


def test_a_copy_that_aws_could_not_make_is_named_with_the_reason_and_copied_again(world, monkeypatch):
    target = world.cloud.region("eu-west-1")
    copied = target.copy_snapshot

    def refused(**parameters):
        made = copied(**parameters)
        target.snapshots[made["SnapshotId"]] |= {"State": "error", "StateMessage": "Given key ID is not accessible"}
        return made

    monkeypatch.setattr(target, "copy_snapshot", refused)
    with pytest.raises(RecoveryError, match=r"failed to copy snap-copy-0 \(Given key ID is not accessible\) and "):
        restored(world, region="eu-west-1")
    monkeypatch.setattr(target, "copy_snapshot", copied)
    restored(world, region="eu-west-1")
    assert world.cloud.events[-1] == "up"


def test_a_stack_that_exists_is_not_overwritten(world):
    world.stacks["new"] = 12
    with pytest.raises(RecoveryError, match="the stack new already exists"):
        restored(world)
    (world.folder / "Pulumi.new.yaml").write_text("config: {gitlab:domain: git.example.org}\n")
    with pytest.raises(RecoveryError, match=r"Pulumi\.new\.yaml already exists and is not from a restore"):
        restored(world)
    with pytest.raises(RecoveryError, match="into itself"):
        restored(world, world.pulumi("prod"))
    assert world.cloud.events == []


def test_secrets_of_pulumi_cloud_are_copied_by_its_cli(world):
    settings = yaml.safe_load(world.settings.read_text())
    del settings["encryptionsalt"]
    world.settings.write_text(yaml.safe_dump(settings))
    config = restored(world)["config"]
    assert "gitlab:gitlabRb" not in config
    assert world.cloud.events == ["init None", "cp gitlab:gitlabRb prod", "cp gitlab:smtpPassword prod", "up"]


@pytest.mark.parametrize(("name", "second"), [(PAIR, 4), ("20261127T2300Z", 0)])
def test_a_copy_is_as_old_as_its_original(world, name, second):
    target = world.cloud.region("eu-west-1")
    target.add_pair(name, START + datetime.timedelta(hours=9))
    [pair] = catalogue.pairs(catalogue.snapshots(target, "gitlab/prod"))
    assert restore.taken_at(pair) == START.replace(second=second)


def test_a_backup_of_an_earlier_version_is_found_by_its_id(world):
    world.home.add_pair("20261127T2200Z", START - datetime.timedelta(hours=1))
    settings = restored(world, backup="20261127T2200Z")
    assert settings["config"]["gitlab:serverDataSnapshotId"] == "snap-server-20261127T2200Z"
