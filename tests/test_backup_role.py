"""The roles with which the machines take backups: what they may do, and that only root's processes can use them."""

import copy
import json
import os
import subprocess
from collections.abc import Mapping
from typing import Any

import pulumi
import pytest

from components import naming
from configuration.backup_policy import backup_policy, trust_policy
from configuration.flows import Place
from configuration.remote_step import PROGRAMS, program, script
from configuration.systemd_units import restrict_metadata_service
from lab.cloud.permissions.policies import Asked, allowed
from lab.cloud.permissions.reference import actions
from programs.volume_backup.retention import KINDS, Keep
from settings import LONGEST_LOCK
from tests.conftest import OTHER_BOUNDARY
from tests.engine import Graph
from tests.policies import NAMES, filled
from tests.shell import run_with_tools
from tests.test_program import payload

REGION, STACK = NAMES["REGION"], NAMES["STACK"]
VOLUME = f"arn:aws:ec2:{REGION}:{NAMES['ACCOUNT']}:volume/vol-0123456789abcdef0"
SNAPSHOT = f"arn:aws:ec2:{REGION}::snapshot/snap-0123456789abcdef0"
KEEP = Keep(hourly=24, daily=14, weekly=8)
DAYS = {"hourly": 1, "daily": 14, "weekly": 56}
POLICY = backup_policy(volume_arn=VOLUME, stack=STACK, role=Place.SERVER, keep=KEEP)

ROLE = "aws:iam/role:Role"
PROFILE = "aws:iam/instanceProfile:InstanceProfile"
ROLE_POLICY = "aws:iam/rolePolicy:RolePolicy"
INSTANCE = "aws:ec2/instance:Instance"


def tags(kind: str, stack: str = STACK, role: str = "server", **more: str) -> dict[str, str]:
    return {f"aws:{kind}/gitlab-{key}": value for key, value in {"stack": stack, "role": role, **more}.items()}


def may(action: str, resource: str, keys: Mapping[str, str], policy: Mapping[str, Any] = POLICY) -> bool:
    return allowed([policy], asked(action, resource, keys))


def asked(action: str, resource: str, keys: Mapping[str, str]) -> Asked:
    known = {"aws:RequestedRegion": REGION, **keys}
    return Asked(f"ec2:{action}", resource, {key: [value] for key, value in known.items()})


def locking(kind: str, days: int, **of: str) -> dict[str, str]:
    return {**tags("ResourceTag", keep=kind, **of), "ec2:SnapshotLockDuration": str(days)}


NEEDED = [
    ("CreateSnapshot", VOLUME, {}),
    ("CreateSnapshot", SNAPSHOT, tags("RequestTag")),
    ("CreateTags", SNAPSHOT, {**tags("RequestTag"), "ec2:CreateAction": "CreateSnapshot"}),
    *(("LockSnapshot", SNAPSHOT, locking(kind, days)) for kind, days in DAYS.items()),
    ("DeleteSnapshot", SNAPSHOT, tags("ResourceTag")),
    ("DescribeSnapshots", "*", {}),
]
"""What gitlab-backup-volume does."""


@pytest.mark.parametrize(("action", "resource", "keys"), NEEDED)
def test_a_machine_may_do_what_its_backups_need(action, resource, keys):
    assert may(action, resource, keys)


OTHER_VOLUME = VOLUME.replace("vol-0", "vol-1")
OTHERS = {"another stack": tags("ResourceTag", "gitlab/prod"), "the registry": tags("ResourceTag", role="registry")}


@pytest.mark.parametrize(
    ("action", "resource", "keys"),
    [
        ("CreateSnapshot", OTHER_VOLUME, {}),
        ("CreateSnapshot", SNAPSHOT, {}),
        ("CreateSnapshot", SNAPSHOT, tags("RequestTag", "gitlab/prod")),
        ("CreateSnapshot", SNAPSHOT, tags("RequestTag", role="registry")),
        ("CreateTags", SNAPSHOT, {**tags("RequestTag"), **tags("ResourceTag")}),
        ("CreateTags", SNAPSHOT, {**tags("RequestTag"), "ec2:CreateAction": "CopySnapshot"}),
        ("CreateTags", VOLUME, {**tags("RequestTag"), "ec2:CreateAction": "CreateSnapshot"}),
        ("LockSnapshot", SNAPSHOT, tags("ResourceTag", keep="weekly")),
        ("LockSnapshot", SNAPSHOT, locking("monthly", 56)),
        ("LockSnapshot", SNAPSHOT, locking("weekly", 56, stack="gitlab/prod")),
        ("LockSnapshot", SNAPSHOT, locking("weekly", 56, role="registry")),
        ("DeleteSnapshot", SNAPSHOT, {}),
        *(("DeleteSnapshot", SNAPSHOT, keys) for keys in OTHERS.values()),
        ("DescribeSnapshots", "*", {"aws:RequestedRegion": "us-east-1"}),
        ("UnlockSnapshot", SNAPSHOT, tags("ResourceTag")),
        ("CreateVolume", SNAPSHOT, tags("ResourceTag")),
        ("ModifySnapshotAttribute", SNAPSHOT, tags("ResourceTag")),
        ("DeleteTags", SNAPSHOT, tags("ResourceTag")),
        ("DeleteVolume", VOLUME, {}),
    ],
)
def test_a_machine_may_do_nothing_with_what_is_not_its_own_backup_and_nothing_else(action, resource, keys):
    assert not may(action, resource, keys)


@pytest.mark.parametrize("kind", KINDS)
def test_a_lock_can_be_neither_shortened_nor_made_longer_than_its_snapshot_is_kept(kind):
    """LockSnapshot also changes an existing lock in governance mode."""
    days = DAYS[kind]
    allowed_days = [other for other in (*range(1, 100), 36500) if may("LockSnapshot", SNAPSHOT, locking(kind, other))]
    assert allowed_days == [days]
    loose = copy.deepcopy(POLICY)
    for statement in loose["Statement"]:
        statement.get("Condition", {}).pop("NumericEquals", None)
    assert may("LockSnapshot", SNAPSHOT, locking(kind, days + 1), loose)


def test_a_kind_that_is_not_kept_is_never_locked():
    keep = Keep(hourly=48, daily=0, weekly=0)
    policy = backup_policy(volume_arn=VOLUME, stack=STACK, role=Place.SERVER, keep=keep)
    locked = {kind: may("LockSnapshot", SNAPSHOT, locking(kind, keep.days(kind)), policy) for kind in KINDS}
    assert locked == {"hourly": True, "daily": False, "weekly": False}


@pytest.mark.parametrize(("region", "partition"), [("cn-north-1", "aws-cn"), ("us-gov-west-1", "aws-us-gov")])
def test_the_policies_are_of_the_partition_of_the_volume(region, partition):
    volume = f"arn:{partition}:ec2:{region}:123456789012:volume/vol-0123456789abcdef0"
    policy = backup_policy(volume_arn=volume, stack=STACK, role=Place.REGISTRY, keep=KEEP)
    named = {statement["Resource"] for statement in policy["Statement"]}
    assert named == {volume.replace("123456789012", "*"), f"arn:{partition}:ec2:{region}::snapshot/*", "*"}
    [trusted] = trust_policy(region)["Statement"]
    assert trusted["Principal"] == {"Service": f"ec2.amazonaws.com{'.cn' if partition == 'aws-cn' else ''}"}


def test_a_provider_that_does_not_know_the_account_makes_the_same_policy():
    """It then omits the account from ARNs (skipRequestingAccountId)."""
    unknown = VOLUME.replace(NAMES["ACCOUNT"], "")
    assert backup_policy(volume_arn=unknown, stack=STACK, role=Place.SERVER, keep=KEEP) == POLICY


def test_a_policy_fits_into_the_inline_policies_of_a_role():
    # IAM and AWS STS quotas: 10,240 characters without white space.
    assert len(json.dumps(POLICY)) < 10_240


# --- the permissions boundary -----------------------------------------------------------------------------


def test_the_boundary_of_the_documentation_limits_no_backup():
    own = {"aws:ResourceTag/gitlab-stack": STACK}
    for action, resource, keys in NEEDED:
        more = own if resource == VOLUME else {}
        assert allowed(filled(("boundary",)), asked(action, resource, {**keys, **more})), action
    longest = locking("weekly", LONGEST_LOCK)
    assert allowed(filled(("boundary",)), asked("LockSnapshot", SNAPSHOT, longest))


def test_the_boundary_limits_no_backup_of_a_stack_that_is_restored_in_another_region():
    restored, region = "gitlab/dev-b", "eu-west-1"
    for action, resource, keys in NEEDED:
        there = {key: restored if key.endswith("/gitlab-stack") else value for key, value in keys.items()}
        own = tags("ResourceTag", restored) if resource == VOLUME else {}
        call = asked(action, resource.replace(REGION, region), {"aws:RequestedRegion": region, **there, **own})
        assert allowed(filled(("boundary",)), call), action


@pytest.mark.parametrize(
    ("action", "resource", "keys"),
    [
        ("CreateSnapshot", VOLUME, {"aws:ResourceTag/gitlab-stack": "gitlab/prod"}),
        ("CreateSnapshot", VOLUME, {"aws:ResourceTag/gitlab-stack": STACK, "aws:RequestedRegion": "us-east-1"}),
        ("DescribeSnapshots", "*", {"aws:RequestedRegion": "us-east-1"}),
        ("CreateSnapshot", SNAPSHOT, tags("RequestTag", "gitlab/prod")),
        ("LockSnapshot", SNAPSHOT, locking("weekly", LONGEST_LOCK + 1)),
        ("DeleteSnapshot", SNAPSHOT, tags("ResourceTag", "gitlab/prod")),
        ("UnlockSnapshot", SNAPSHOT, tags("ResourceTag")),
        ("RunInstances", "*", {}),
    ],
)
def test_with_the_boundary_a_role_may_do_no_more_whatever_its_policy_says(action, resource, keys):
    assert not allowed(filled(("boundary",)), asked(action, resource, keys))


def test_every_action_of_a_role_is_in_the_boundary():
    named = {action for statement in POLICY["Statement"] for action in statement["Action"]}
    [boundary] = filled(("boundary",))
    assert named == {action for statement in boundary["Statement"] for action in statement["Action"]}
    assert named <= set(actions())


# --- the resources ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["server", "registry"])
def test_a_machine_with_data_has_a_role_from_its_launch_on_and_its_first_backup_waits_for_the_policy(graph, role):
    instance, profile = graph.one(INSTANCE, role), graph.one(PROFILE, f"gitlab-test-{role}")
    assert instance.inputs["iamInstanceProfile"] == f"gitlab-test-{role}-1234567"
    assert profile.inputs["role"] == graph.one(ROLE, role).inputs["name"]
    policy = graph.one(ROLE_POLICY, role)
    assert json.loads(policy.inputs["policy"])["Statement"][0]["Resource"].endswith(f":volume/{role}-data-id")
    assert policy.inputs["role"] == profile.inputs["role"]
    assert graph.comes_after(instance, profile)
    assert graph.comes_after(graph.step(f"{role}-schedule-backups"), policy)


def test_roles_and_profiles_are_in_the_stacks_own_path_and_have_its_tag(graph):
    made = [*graph.of_type(ROLE), *graph.of_type(PROFILE)]
    assert len(made) == 4
    for resource in made:
        assert resource.inputs["path"] == "/gitlab/test/"
        assert resource.inputs["tags"]["gitlab-stack"] == "gitlab/test"


def test_the_runners_machine_has_no_role(graph):
    assert "iamInstanceProfile" not in graph.one(INSTANCE, "runner").inputs


def test_without_backups_no_role_exists_and_with_them_again_the_profile_has_another_name(graph, reduced_graph):
    """A machine keeps the profile without an input: the provider's schema has it as optional and computed."""
    assert not [resource for resource in reduced_graph.resources if resource.type.startswith("aws:iam")]
    assert not [each for each in reduced_graph.of_type(INSTANCE) if "iamInstanceProfile" in each.inputs]
    assert not [profile for profile in graph.of_type(PROFILE) if "name" in profile.inputs]


def test_every_role_has_the_permissions_boundary_of_the_settings(graph, other_graph):
    roles = other_graph.of_type(ROLE)
    assert [role.inputs["permissionsBoundary"] for role in roles] == [OTHER_BOUNDARY, OTHER_BOUNDARY]
    assert not [role for role in graph.of_type(ROLE) if "permissionsBoundary" in role.inputs]


def test_names_of_roles_are_short_enough_and_differ(monkeypatch):
    monkeypatch.setattr(pulumi, "get_project", lambda: "gitlab")
    names = []
    for stack in ("prod", "p" * 60 + "1", "p" * 60 + "2"):
        monkeypatch.setattr(pulumi, "get_stack", lambda stack=stack: stack)
        names += [naming.account_wide("server"), naming.account_wide("registry")]
    assert names[:2] == ["gitlab-prod-server", "gitlab-prod-registry"]
    assert max(map(len, names)) == naming.LONGEST_ROLE_NAME
    assert len(set(names)) == 6


# --- the metadata service ---------------------------------------------------------------------------------

NETWORK = """\
set -euo pipefail
mount -t tmpfs tmpfs /run
ip link set lo up
ip netns add aws
ip link add eth0 type veth peer name eth0 netns aws
ip address add 10.42.0.20/24 dev eth0
ip link set eth0 up
ip -n aws address add 10.42.0.1/24 dev eth0
ip -n aws address add 169.254.169.254/32 dev lo
ip -n aws link set eth0 up
ip -n aws link set lo up
ip route add default via 10.42.0.1
ip netns exec aws python3 -m http.server 80 >/dev/null 2>&1 &
trap 'kill $!' EXIT
reaches() { # USER:ADDRESS...
    python3 -c 'import encodings.idna, os, socket, sys
for asked in sys.argv[1:]:
    user, address = asked.split(":")
    if os.fork():
        os.wait()
        continue
    os.setuid(int(user))
    try:
        socket.create_connection((address, 80), timeout=2).close()
        answer = "reached"
    except PermissionError:
        answer = "denied"
    except OSError as error:
        answer = error
    print(answer, flush=True)
    os._exit(0)' "$@"
}
until [ "$(reaches 0:169.254.169.254)" = reached ]; do sleep 0.1; done
look() { reaches 0:169.254.169.254 1:169.254.169.254 998:169.254.169.254 998:10.42.0.1; }
look
echo then
bash "$1"
bash "$1"
look
ip rule list | grep -c prohibit
ip rule add to 169.254.169.254 lookup main priority 50
bash "$1" 2>&1 && echo "not noticed"
exit 0
"""


@pytest.mark.needs("ip", "unshare", root=True)
def test_only_root_reaches_the_metadata_service_and_a_rule_that_admits_others_is_noticed(tmp_path):
    command = ["unshare", "--net", "--mount", "bash", "-c", NETWORK, "network", str(PROGRAMS / "restrict-metadata")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    before, after = done.stdout.split("then\n")
    assert before.split() == ["reached"] * 4
    *seen, rules, noticed = after.splitlines()
    assert seen == ["reached", "denied", "denied", "reached"]
    assert rules == "1"
    assert noticed.startswith("another routing rule lets every user reach the metadata service")


@pytest.mark.parametrize("role", ["server", "registry"])
def test_the_services_of_a_machine_with_a_role_start_after_its_metadata_is_restricted(graph: Graph, role):
    assert graph.comes_after(graph.step(f"{role}-mount-data"), graph.step(f"{role}-restrict-metadata"))
    assert payload(graph, f"{role}-restrict-metadata") == [
        program("restrict-metadata"),
        restrict_metadata_service(),
    ]


def test_metadata_is_restricted_at_once_and_at_every_boot_before_the_network_is_up(tmp_path):
    for folder in ("usr/local/sbin", "etc/systemd/system", "bin"):
        (tmp_path / folder).mkdir(parents=True)
    for tool in ("ip", "systemctl"):
        (tmp_path / f"bin/{tool}").write_text(f'#!/bin/bash\necho "{tool} $*" >>{tmp_path}/calls\n[ "$1" != route ]\n')
        (tmp_path / f"bin/{tool}").chmod(0o755)
    text = script("install_boot_program.sh").replace("/usr/local/", f"{tmp_path}/usr/local/")
    text = text.replace("/etc/", f"{tmp_path}/etc/")
    parts = [program("restrict-metadata"), restrict_metadata_service()]
    done = run_with_tools(
        text, "restrict_metadata", ["restrict-metadata"], parts, tools=tmp_path / "bin", result=f"{tmp_path}/result"
    )
    assert done.returncode == 0, done.stderr
    assert os.access(tmp_path / "usr/local/sbin/restrict-metadata", os.X_OK)
    unit = (tmp_path / "etc/systemd/system/restrict-metadata.service").read_text()
    assert "Before=network-pre.target\n" in unit
    assert "WantedBy=multi-user.target\n" in unit
    assert (tmp_path / "calls").read_text().splitlines() == [
        "systemctl daemon-reload",
        "systemctl enable --quiet restrict-metadata",
        "ip rule add to 169.254.169.254 uidrange 1-4294967294 prohibit priority 100",
        "ip route get 169.254.169.254 uid 65534",
        "systemctl start restrict-metadata",
    ]
