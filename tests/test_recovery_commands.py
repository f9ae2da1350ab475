"""The commands `backups`, `destroy` and `forget-backups`, with a stub for Pulumi."""

import datetime
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from recovery import __main__ as recovery
from recovery import backups, catalogue, destroy, leftovers, stack
from recovery.errors import RecoveryError
from recovery.pulumi_cli import Interrupted, Pulumi, exclusive
from tests.aws_answers import Aws, failure, once
from tests.engine import ROOT
from tests.snapshots import HOURLY, STACK, at, described, locked

NOW = at("11-27 23:30")
DESTROY = "destroy --yes --skip-preview --suppress-progress --stack prod"
PULUMI = """\
#!/bin/bash
# Stub of Pulumi: records its arguments, and answers `stack export` with $folder/state.json.
folder={folder}
shift
echo "$*" >>"$folder/pulumi"
case "$*" in
    "stack ls "*) echo '[{{"name": "prod"}}]' && exit ;;
    "stack export "*) exec cat "$folder/state.json" ;;
esac
exit "$(cat "$folder/status" 2>/dev/null || echo 0)"
"""


def resource(type_: str, id_: str, **more: Any) -> dict[str, Any]:
    return {"type": type_, "id": id_, "custom": True, **more}


COMPONENTS = (
    {"type": "pulumi:pulumi:Stack", "custom": False},
    {"type": "pulumi:providers:aws", "custom": True, "id": "provider"},
)
VOLUMES = (resource("aws:ebs/volume:Volume", "vol-1"), resource("aws:ebs/volume:Volume", "vol-2"))
MACHINES = tuple(resource("aws:ec2/instance:Instance", f"i-{number}") for number in range(3))


class Commands:
    """Runs commands on a stack. `aws` has its answers, `resources` are those of the state."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.aws = Aws()
        self.aws.answers["DescribeSnapshots"] = {"Snapshots": HOURLY}
        self._capsys = capsys
        self.settings = folder / "Pulumi.prod.yaml"
        self.settings.write_text("config:\n  aws:region: eu-central-1\n")
        self.resources(*MACHINES, *VOLUMES)

    def resources(self, *found: Mapping[str, Any]) -> None:
        text = json.dumps({"deployment": {"resources": [*COMPONENTS, *found]}})
        (self.folder / "state.json").write_text(text)

    def pulumi(self) -> list[str]:
        """The commands of Pulumi that change something."""
        log = self.folder / "pulumi"
        lines = log.read_text().splitlines() if log.exists() else []
        return [line for line in lines if not line.startswith(("stack export ", "stack ls "))]

    def __call__(self, *arguments: str) -> tuple[int, str]:
        """The exit status, and both outputs."""
        status = recovery.main([*arguments, "--stack", "prod", "--settings", str(self.settings)])
        out, err = self._capsys.readouterr()
        return status, out + err


@pytest.fixture
def run(tmp_path, monkeypatch, capsys) -> Commands:
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin/pulumi"
    program.write_text(PULUMI.format(folder=tmp_path))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    commands = Commands(tmp_path, capsys)
    monkeypatch.setattr(stack.Stack, "client", lambda self, service: commands.aws(service, self.region))
    monkeypatch.setattr(destroy, "exclusive", lambda: exclusive(tmp_path))  # tests run at the same time
    monkeypatch.setattr(leftovers, "PATIENCE", 0)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    for module in ("backups", "destroy"):
        monkeypatch.setattr(f"recovery.{module}.utc_now", lambda: NOW)
    return commands


@pytest.fixture
def typed(monkeypatch) -> Callable[[str | None], None]:
    """A terminal on which a text, or the end of the input, is typed."""

    def type_(text: str | None) -> None:
        def answer(prompt: str) -> str:
            if text is None:
                raise EOFError
            return text

        monkeypatch.setattr("sys.stdin.isatty", lambda: True)
        monkeypatch.setattr("builtins.input", answer)

    return type_


# --- the stack --------------------------------------------------------------------------------------------


def read(tmp_path: Path, text: str | None, *arguments: str) -> stack.Stack:
    file = tmp_path / "Pulumi.prod.yaml"
    if text is not None:
        file.write_text(text)
    chosen = recovery.parser().parse_args(
        ["backups", "--stack", "acme/gitlab/prod", "--settings", str(file), *arguments]
    )
    return stack.read(chosen)


def test_the_region_is_that_of_the_settings_or_of_the_command(tmp_path):
    settings = "config:\n  aws:region: eu-west-1\n  aws:profile: operators\n"
    found = read(tmp_path, settings)
    assert (found.region, found.tag, found.config["aws:profile"]) == ("eu-west-1", STACK, "operators")
    assert read(tmp_path, settings, "--region", "eu-north-1").region == "eu-north-1"
    for text in ("", "config:\n", "encryptionsalt: v1\n"):
        with pytest.raises(RecoveryError, match=r"Pulumi.prod.yaml does not contain aws:region, .* --region"):
            read(tmp_path, text)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("aws:assumeRoles", "[{roleArn: 'arn:aws:iam::123456789012:role/up'}]"),
        ("aws:secretKey", "{secure: 'v1:key'}"),
    ],
)
def test_credentials_that_only_pulumi_can_use_are_refused_since_another_account_would_be_searched(
    tmp_path, setting, value
):
    with pytest.raises(RecoveryError, match=rf"contains {setting}, which only pulumi can use.* \(aws:profile\)"):
        read(tmp_path, f"config:\n  aws:region: eu-west-1\n  {setting}: {value}\n")


def test_keys_of_the_settings_are_used_as_pulumi_uses_them(tmp_path):
    found = read(tmp_path, "config: {aws:region: eu-west-1, aws:accessKey: AKIDEXAMPLE, aws:secretKey: secret}")
    signer = found.client("ec2")._request_signer
    assert signer._credentials.access_key == "AKIDEXAMPLE"


def test_a_file_of_settings_may_be_missing_only_if_it_is_not_named(tmp_path):
    with pytest.raises(RecoveryError, match=r"--settings: .*Pulumi.prod.yaml does not exist"):
        read(tmp_path, None, "--region", "eu-west-1")
    chosen = recovery.parser().parse_args(["backups", "--stack", "lost", "--region", "eu-west-1"])
    assert stack.read(chosen) == stack.Stack("lost", "eu-west-1")
    chosen = recovery.parser().parse_args(["backups", "--stack", "lost"])
    with pytest.raises(RecoveryError, match=r"Pulumi.lost.yaml does not exist, so the region is unknown"):
        stack.read(chosen)


def test_an_error_of_aws_is_reported_in_one_line(run):
    run.aws.answers["DescribeSnapshots"] = failure("UnauthorizedOperation", "You are not authorized")
    status, said = run("backups")
    assert status == 1
    assert said.startswith("recovery: AWS: An error occurred (UnauthorizedOperation)")
    assert said.count("\n") == 1


def test_a_missing_pulumi_is_reported(run, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    status, said = run("destroy", "--yes")
    assert (status, said[:33]) == (1, "recovery: pulumi is not installed")


# --- backups ----------------------------------------------------------------------------------------------


def test_backups_are_listed_with_age_sizes_version_and_lock(run):
    ends = [locked("snap-s2", "11-28 23:00"), locked("snap-r2", "11-28 23:03"), locked("snap-s1", "11-28 22:00")]
    run.aws.answers["DescribeLockedSnapshots"] = {"Snapshots": ends}
    drilled = {"gitlab_drilled": "2026-11-27 passed"}
    first = described("snap-s1", "server", "11-27 22:00", more_tags=drilled)
    run.aws.answers["DescribeSnapshots"] = {"Snapshots": [first, *HOURLY[1:]]}
    status, said = run("backups")
    header, *lines = [line.split("  ") for line in said.splitlines()]
    rows = [[cell.strip() for cell in line if cell.strip()] for line in (header, *lines)]
    assert status == 0
    assert rows == [
        ["backup", "age", "state", "server GiB", "registry GiB", "GitLab", "kept as", "locked until", "drilled"],
        ["20261127T230004Z", "30 min", "complete", "100", "50", "17.10.4", "hourly", "2026-11-28 23:00 UTC", "never"],
        ["20261127T220004Z", "90 min", "complete", "100", "50", "17.10.4", "hourly", "not locked", "2026-11-27 passed"],
    ]


def test_backups_are_listed_for_programs(run):
    status, said = run("backups", "--json")
    newest, _ = json.loads(said)
    assert (status, newest["id"], newest["usable"]) == (0, "20261127T230004Z", True)
    assert newest["server"]["id"] == "snap-s2"
    assert newest["registry"]["started"] == "2026-11-27T23:03:00+00:00"


def warned(*snapshots: Any, now: datetime.datetime = NOW, schedule: str = "hourly") -> list[str]:
    aws = Aws()
    aws.answers["DescribeSnapshots"] = {"Snapshots": snapshots}
    found = catalogue.snapshots(aws("ec2"), STACK)
    return list(backups.warnings(found, now, schedule))


def test_old_and_incomplete_backups_are_warned_about():
    assert warned(*HOURLY) == []
    assert warned(*HOURLY, now=at("11-28 01:00")) == []
    [old] = warned(*HOURLY, now=at("11-28 01:01"))
    assert old.startswith("the newest complete backup is 2 h old")
    [alone] = warned(*HOURLY[:3])
    assert alone.startswith("20261127T230004Z is not complete")
    none, alone = warned(HOURLY[0])
    assert none == "none of the backups is complete."
    assert alone.startswith("20261127T220004Z is not complete")


def test_backups_that_are_taken_less_often_are_old_after_twice_their_interval():
    assert warned(*HOURLY, now=at("11-28 01:01"), schedule="*:0/30") == warned(*HOURLY, now=at("11-28 01:01"))
    assert warned(*HOURLY[:2], now=at("12-20 01:01"), schedule="daily") == [], "one does not show the interval"
    daily = [{**each, "StartTime": each["StartTime"] - datetime.timedelta(days=1)} for each in HOURLY[:2]]
    assert warned(*daily, *HOURLY[2:], now=at("11-29 01:00"), schedule="daily") == []
    [old] = warned(*daily, *HOURLY[2:], now=at("11-30 02:00"), schedule="daily")
    assert "old (make doctor shows why)" in old


def test_a_stack_without_backups_is_no_error(run):
    run.aws.answers["DescribeSnapshots"] = {}
    assert run("backups") == (0, "gitlab/prod has no backups in eu-central-1.\n")


# --- destroy ----------------------------------------------------------------------------------------------


def test_destroying_shows_what_is_lost_and_ends_with_what_is_left(run):
    run.aws.answers["DescribeLockedSnapshots"] = {"Snapshots": [locked("snap-s2", "12-11 23:00")]}
    status, said = run("destroy", "--yes")
    assert status == 0
    assert run.pulumi() == [DESTROY + f" --config-file {run.settings}"]
    assert said.splitlines() == [
        "Destroying the stack deletes 5 resources, 3 of them machines.",
        "Deletion protection is off: the data volumes vol-1 and vol-2 are deleted with all data.",
        "The newest complete backup is 20261127T230004Z, 30 min old.",
        "Comparing with AWS what is left...",
        "4 snapshots are left, from 2026-11-27 to 2026-11-27.",
        "1 of them are locked, the last one until 2026-12-11.",
        "Cost: $5.40 a month if they contain 100 GB; AWS charges for each changed block once.",
        "To delete those that are not locked: make forget-backups STACK=prod",
    ]


@pytest.mark.parametrize("protection", ["protect", "retainOnDelete"])
def test_protected_volumes_are_kept_and_are_not_left_behind(run, protection):
    kept = [volume | {protection: True} for volume in VOLUMES]
    run.resources(*MACHINES, *kept)
    run.aws.answers["DescribeVolumes"] = {"Volumes": [{"VolumeId": "vol-1"}, {"VolumeId": "vol-2"}]}
    status, said = run("destroy", "--yes")
    assert status == 0, said
    assert run.pulumi()[0].endswith(" --exclude-protected")
    assert "Deletion protection keeps vol-1, vol-2." in said
    assert "Kept by deletion protection: vol-1, vol-2." in said
    assert "docs/operations.md, Destroy, and keep the data" in said
    assert "protection is off" not in said
    assert "## Destroy, and keep the data" in (ROOT / "docs/operations.md").read_text()


def test_destroying_shows_how_a_restored_stack_keeps_the_record_of_the_domain(run):
    urn = "urn:pulumi:prod::gitlab::gitlab:dns:DomainRecord$aws:route53/record:Record::gitlab"
    address = resource(destroy.RECORD, "Z0_git_A", urn=urn, outputs={"name": "git.example.com", "type": "A"})
    validation = resource(destroy.RECORD, "Z0_x_CNAME", urn="urn", outputs={"name": "_x", "type": "CNAME"})
    run.resources(*MACHINES, address, validation)
    _, said = run("destroy", "--yes")
    assert "The A record of git.example.com is deleted, even if a restored stack uses it now. If so, first:\n" in said
    assert f"  pulumi state delete --yes --target-dependents --stack prod '{urn}'\n" in said
    assert "_x" not in said
    run.resources(*MACHINES, address | {"protect": True}, validation)
    assert "state delete" not in run("destroy", "--yes")[1]


def test_a_stack_of_which_only_protected_resources_are_left_is_not_destroyed_again(run):
    run.resources(*[volume | {"protect": True} for volume in VOLUMES])
    assert run("destroy", "--yes")[0] == 0
    assert run.pulumi() == []


def test_without_a_fresh_backup_destroying_says_so(run):
    run.aws.answers["DescribeSnapshots"] = {"Snapshots": HOURLY[:2]}
    assert "What was written since then is in no backup." not in run("destroy", "--yes")[1]
    run.aws.answers["DescribeSnapshots"] = {"Snapshots": [described("snap-s1", "server", "11-27 21:00"), HOURLY[1]]}
    assert "2 h old.\nWhat was written since then is in no backup." in run("destroy", "--yes")[1]
    run.aws.answers["DescribeSnapshots"] = {}
    said = run("destroy", "--yes")[1]
    assert "There is no complete backup." in said
    assert "No snapshots are left." in said


@pytest.mark.parametrize("command", ["destroy", "forget-backups"])
@pytest.mark.parametrize("text", ["", "y", "yes", "PROD", "prod-b", None])
def test_without_the_stacks_name_nothing_is_changed(run, typed, command, text):
    typed(text)
    status, said = run(command)
    assert (status, said.splitlines()[-1]) == (1, "recovery: not confirmed; nothing was changed")
    assert run.pulumi() == []
    assert not run.aws.sent("DeleteSnapshot")


@pytest.mark.parametrize("command", ["destroy", "forget-backups"])
def test_without_a_terminal_nothing_is_changed(run, command, monkeypatch):
    monkeypatch.setattr("sys.stdin.isatty", lambda: False)
    status, said = run(command)
    assert status == 1
    assert "needs a confirmation: run it in a terminal, or add --yes" in said
    assert run.pulumi() == []
    assert not run.aws.sent("DeleteSnapshot")


def test_the_stacks_name_confirms(run, typed):
    typed("prod")
    assert run("destroy")[0] == 0
    assert len(run.pulumi()) == 1
    assert run("forget-backups")[0] == 0
    assert len(run.aws.sent("DeleteSnapshot")) == 4


def test_a_failed_destroy_is_no_success(run):
    (run.folder / "status").write_text("255")
    status, said = run("destroy", "--yes")
    assert (status, said.splitlines()[-1]) == (1, "recovery: pulumi destroy --yes failed (status 255): see above")
    assert "left" not in said


def test_a_resource_that_is_left_fails_the_command(run):
    run.aws.answers["DescribeAddresses"] = {"Addresses": [{"AllocationId": "eipalloc-1"}]}
    status, said = run("destroy", "--yes")
    assert status == 1
    assert "4 snapshots are left" in said
    assert "recovery: AWS still has 1 other resources that are tagged as those of gitlab/prod" in said
    assert "\n  elastic address eipalloc-1\n" in said


def test_what_an_engine_that_was_killed_did_not_record_is_named_and_deleted_first(run, typed):
    # Its interface would keep Pulumi from deleting the network.
    there = {"Reservations": [{"Instances": [{"InstanceId": "i-lost", "State": {"Name": "running"}}]}]}
    run.aws.answers["DescribeInstances"] = once(there, there, {"Reservations": []})
    typed("prod")
    status, said = run("destroy")
    assert status == 0, said
    assert "Pulumi does not know the stack's machine i-lost, which is deleted, too.\n" in said
    assert run.aws.sent("TerminateInstances") == [{"InstanceIds": ["i-lost"]}]
    assert len(run.pulumi()) == 1


BALANCER = "arn:aws:elasticloadbalancing:eu-central-1:123456789012:loadbalancer/net/gitlab-prod/1"


def machine_until_terminated(aws: Aws) -> None:
    def answer(_: dict[str, Any]) -> dict[str, Any]:
        name = "terminated" if aws.sent("TerminateInstances") else "running"
        return {"Reservations": [{"Instances": [{"InstanceId": "i-1", "State": {"Name": name}}]}]}

    aws.answers["DescribeInstances"] = answer


def load_balancer_until_deleted(aws: Aws) -> None:
    tags = {"ResourceArn": BALANCER, "Tags": [{"Key": "gitlab-stack", "Value": STACK}]}
    aws.answers["DescribeTags"] = {"TagDescriptions": [tags]}
    aws.answers["DescribeLoadBalancers"] = lambda _: {
        "LoadBalancers": [] if aws.sent("DeleteLoadBalancer") else [{"LoadBalancerArn": BALANCER}]
    }


@pytest.mark.parametrize(
    ("there", "named", "deletion"),
    [
        (machine_until_terminated, "machine i-1", "TerminateInstances"),
        (load_balancer_until_deleted, f"load balancer {BALANCER}", "DeleteLoadBalancer"),
    ],
)
def test_a_stack_that_may_have_its_state_in_another_backend_is_destroyed_only_if_the_state_is_lost(
    run, there, named, deletion
):
    there(run.aws)
    run.resources()
    status, said = run("destroy", "--yes")
    assert status == 1
    assert said.startswith(f"recovery: the state of prod has no resources, but AWS has {named} of gitlab/prod; nothing")
    assert "another backend" in said
    assert "pulumi login" in said
    assert said.endswith("If the state is lost, add --lost-state (make: LOST_STATE=1), which deletes them\n")
    assert not run.aws.sent(deletion)
    assert run.pulumi() == []
    status, said = run("destroy", "--yes", "--lost-state")
    assert status == 0, said
    assert len(run.aws.sent(deletion)) == 1


def test_a_stack_that_was_destroyed_completely_may_be_destroyed_again(run):
    run.resources()
    assert run("destroy", "--yes")[0] == 0
    assert run.pulumi() == []


def test_a_stack_that_pulumi_does_not_know_is_not_destroyed(run):
    (run.folder / "bin/pulumi").write_text("#!/bin/bash\necho '[]'\n")
    status, said = run("destroy", "--yes")
    assert (status, said[:36]) == (1, "recovery: Pulumi has no stack prod: ")


def test_an_interrupted_command_says_how_it_is_continued(run, monkeypatch):
    def interrupt(*_: Any, **__: Any) -> None:
        raise Interrupted("SIGTERM")

    monkeypatch.setattr(Pulumi, "destroy", interrupt)
    status, said = run("destroy", "--yes")
    assert (status, said.splitlines()[-1]) == (
        130,
        "recovery: interrupted by SIGTERM; run the same command again",
    )


# --- forget-backups ---------------------------------------------------------------------------------------


def test_unlocked_snapshots_are_deleted_and_locked_ones_listed(run):
    ends = [
        locked("snap-r2", "11-29 23:03"),
        locked("snap-s2", "11-28 23:00"),
        locked("snap-s1", None, LockState="expired"),
    ]
    run.aws.answers["DescribeLockedSnapshots"] = {"Snapshots": ends}
    status, said = run("forget-backups", "--yes")
    assert status == 0
    assert [each["SnapshotId"] for each in run.aws.sent("DeleteSnapshot")] == ["snap-r1", "snap-s1"]
    assert said.splitlines() == [
        "gitlab/prod has 4 snapshots in eu-central-1, of which 2 are locked.",
        "The others are deleted for ever:",
        "  snap-r1  20261127T220004Z  registry  50 GiB",
        "  snap-s1  20261127T220004Z  server  100 GiB",
        "2 snapshots deleted.",
        "Locked; run this again when the locks have ended:",
        "  2026-11-28 23:00 UTC  snap-s2  20261127T230004Z  server  100 GiB",
        "  2026-11-29 23:03 UTC  snap-r2  20261127T230004Z  registry  50 GiB",
    ]


def test_a_stack_that_has_machines_keeps_its_backups(run):
    state = {"Name": "stopped"}
    machine = {"InstanceId": "i-1", "State": state}
    run.aws.answers["DescribeInstances"] = {"Reservations": [{"Instances": [machine]}]}
    status, said = run("forget-backups", "--yes")
    assert status == 1
    assert "gitlab/prod still has the machines i-1, which take backups" in said
    assert not run.aws.sent("DeleteSnapshot")
    state["Name"] = "terminated"  # AWS lists it for another hour
    assert run("forget-backups", "--yes")[0] == 0


def test_a_snapshot_that_cannot_be_deleted_does_not_keep_the_others(run):
    denied = failure("UnauthorizedOperation", "not authorized")
    run.aws.answers["DeleteSnapshot"] = once(denied, failure("InvalidSnapshot.NotFound"), {})
    status, said = run("forget-backups", "--yes")
    assert status == 1
    assert "3 snapshots deleted." in said
    assert said.splitlines()[-1].startswith("recovery: An error occurred (UnauthorizedOperation)")
    assert len(run.aws.sent("DeleteSnapshot")) == 4


def test_nothing_is_asked_if_there_is_nothing_to_delete(run):
    run.aws.answers["DescribeSnapshots"] = {}
    assert run("forget-backups") == (
        0,
        "gitlab/prod has 0 snapshots in eu-central-1, of which 0 are locked.\n0 snapshots deleted.\n",
    )
