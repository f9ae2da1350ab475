"""The end of a stack on the lab: it leaves no secrets behind, and no resources."""

import json
import re
import subprocess

import pytest

from lab import stack
from lab.cloud import actions
from lab.workspace import LOGS, ROOT, STATE
from tests.e2e import backups, kept, permissions, recovery, restored
from tests.e2e.operations import (
    ROLES,
    certificates,
    client,
    instances,
    lab,
    must,
    on,
    repair,
    repeat_acceptance,
    setting,
)
from tests.e2e.programs import changed_program

pytestmark = pytest.mark.end

TOKEN = r"gl(pat|cbt|dt|rt)-[A-Za-z0-9_-]{20}|eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}"
"""GitLab's tokens by their prefixes, and any JSON web token: the jobs' and the acceptance's expire very soon."""

PLACES = (
    *("/var/log", "/var/lib/cloud", "/var/lib/docker/containers", "/tmp", "/var/tmp"),
    *("/var/opt/gitlab/gitlab-ci/builds", "/var/opt/gitlab/gitlab-rails/shared/artifacts"),
)
"""Folders with logs and temporary files; the last two contain the logs and artifacts of jobs."""


def test_no_token_lies_about_after_an_acceptance_that_failed_and_one_that_did_not(outputs):
    with changed_program({"acceptance/push.sh": [("begin push\n", "begin push\nbroken 'on purpose'\n")]}) as program:
        failed = repeat_acceptance(program=program)
    assert failed.status != 0
    assert "push failed" in failed.output
    assert "on purpose" in failed.output
    repair()
    look = f"grep -rlaE '{TOKEN}' {' '.join(PLACES)} 2>/dev/null; journalctl --no-pager | grep -E '{TOKEN}'"
    found = [f"{role}: {line}" for role in ROLES for line in on(role, look).output.splitlines()]
    found += [
        str(path)
        for path in [*(STATE / "state").rglob("*"), *LOGS.rglob("*")]
        if path.is_file() and re.search(TOKEN.encode(), path.read_bytes())
    ]
    assert not found
    # Verify the search itself: it finds an existing token, and the last two folders contain job logs.
    assert on("runner", f"grep -qE '{TOKEN}' /etc/gitlab-runner/config.toml").status == 0
    assert must("server", f"grep -rlaE 'check (push|pull) ' {' '.join(PLACES[-2:])}")


def test_no_secret_lies_about_in_clear(outputs):
    secrets = {
        "first password of root": must("server", "cat /etc/gitlab/seeded-root-password"),
        "private key of the administrators": stack.PRIVATE_KEY.read_text().splitlines()[-2],
        "runner token": must("runner", r"sed -n 's/^ *token = \"\(.*\)\"/\1/p' /etc/gitlab-runner/config.toml"),
        "private key of the tokens": must("server", "sed -n 2p /etc/gitlab/registry-token.key"),
        "http secret of the registry": must("registry", "cut -d = -f 2 /srv/registry/http-secret.env"),
    }
    assert all(len(secret) >= 20 for secret in secrets.values()), "a secret to search for is missing"
    found = []
    assert list(LOGS.glob("engine-events-*-up.jsonl")), "the engine wrote no event log"
    files = [path for path in [*(STATE / "state").rglob("*"), *LOGS.rglob("*")] if path.is_file()]
    for name, secret in secrets.items():
        found += [f"{name} in {path}" for path in files if secret.encode() in path.read_bytes()]
        for role in ROLES:
            look = (
                "cat >/run/needle; grep -rlFf /run/needle /var/log /var/lib/cloud /run/cloud-init 2>/dev/null;"
                " journalctl --no-pager | grep -cFf /run/needle; rm /run/needle"
            )
            answer = on(role, look, stdin=secret + "\n").output.split()
            found += [f"{name} in {place} of the {role} machine" for place in answer if place != "0"]
    for instance in instances():
        attribute = client("ec2").describe_instance_attribute(InstanceId=instance["InstanceId"], Attribute="userData")
        user_data = json.dumps(attribute["UserData"])
        found += [f"{name} in user-data" for name, secret in secrets.items() if secret in user_data]
    assert not found


@pytest.fixture(scope="module")
def image(outputs) -> str:
    """An image that the last backup has."""
    name = kept.push("before-the-end")
    recovery.take_pair()
    return name


@pytest.mark.usefixtures("image")
def test_destroy_ends_clean_also_when_a_machine_is_already_gone(outputs):
    zone = setting("hostedZoneId")
    client("ec2").terminate_instances(InstanceIds=[outputs["instanceIds"]["runner"]])
    actions.forget()
    stack.destroy()
    recorded = json.loads(permissions.RECORDED.read_text())
    assert set(actions.called()) <= {*recorded["destroy"], *recorded["refresh"]}, "docs/iam does not allow it"
    ec2 = client("ec2")
    assert instances() == []
    assert ec2.describe_addresses()["Addresses"] == []
    assert ec2.describe_volumes()["Volumes"] == []
    assert ec2.describe_network_interfaces()["NetworkInterfaces"] == []
    assert [vpc for vpc in ec2.describe_vpcs()["Vpcs"] if not vpc["IsDefault"]] == []
    assert client("elbv2").describe_load_balancers()["LoadBalancers"] == []
    assert client("elbv2").describe_target_groups()["TargetGroups"] == []
    assert certificates() == []
    records = client("route53").list_resource_record_sets(HostedZoneId=zone)["ResourceRecordSets"]
    assert {record["Type"] for record in records} == {"NS", "SOA"}


@pytest.mark.long
def test_a_stack_of_which_only_its_backups_are_left_is_restored_in_another_zone(outputs, image, tmp_path):
    recovery.raise_quota()
    try:
        done = restored.restore("--zone", "us-east-1b")
        assert done.status == 0, done.output
        assert f"no machine of {stack.STACK} is running" in done.output
        zones = {each["Placement"]["AvailabilityZone"] for each in instances() if each["State"]["Name"] == "running"}
        assert zones == {"us-east-1b"}
        restored.log_in(outputs)
        recovery.on(restored.NEW, "runner", f"docker pull {image}")
        assert restored.commits_of("acceptance", {**outputs, **recovery.outputs(restored.NEW)}, tmp_path / "clone")
    finally:
        restored.destroy()
    assert recovery.left_of(restored.NEW) == []


def test_forgetting_its_backups_deletes_only_those_whose_locks_have_ended():
    before = backups.ids()
    unlocked = backups.all_of("server")[0].id
    client("ec2").unlock_snapshot(SnapshotId=unlocked)
    command = ["make", "forget-backups", f"STACK={stack.STACK}", "YES=1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 snapshots deleted." in done.stdout
    assert backups.ids() == before - {unlocked}
    assert all(left in done.stdout for left in backups.ids())


@pytest.mark.usefixtures("outputs")
def test_down_leaves_nothing_on_the_machine(leftovers):
    done = lab("down")
    assert done.status == 0, done.output
    assert leftovers() == []
