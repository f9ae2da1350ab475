"""The policies in docs/iam allow the recorded calls of the provider, and what else is known to be needed.

tests/e2e/permissions.py records the calls; these tests compare the record with the policies and with the program.
"""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from lab.cloud.permissions.reference import actions
from recovery import leftovers
from recovery.catalogue import DRILLED
from recovery.copies import COPY_OF
from recovery.drill import COPY
from recovery.quotas import ADDRESSES, CPUS, NETWORKS
from tests.policies import FIRST_UP, RESTORE

ROOT = Path(__file__).resolve().parent.parent
IAM = ROOT / "docs/iam"
RECORDED = json.loads((IAM / "recorded.json").read_text())
OPERATIONS = ("up", "refresh", "preview", "change", "destroy")

NOT_RECORDED = {
    "ec2:AssociateIamInstanceProfile": "a machine that was created by a version without backups",
    "ec2:DisassociateIamInstanceProfile": "a machine that is stopped when its profile changes",
    "elasticloadbalancing:ModifyListenerAttributes": "another idle timeout of a listener, set by provider 6",
    "iam:PutRolePermissionsBoundary": "permissionsBoundary was set when the roles existed already",
}
"""Calls of the provider in changes that were not recorded, and why the policy for `up` allows them."""

ASKED_BY_AWS = {
    # For the tags of a new certificate: hashicorp/terraform-provider-aws issue 11903.
    "acm:RequestCertificate": {"acm:AddTagsToCertificate"},
    # Service Authorization Reference: dependent actions of each
    "ec2:ReplaceIamInstanceProfileAssociation": {"iam:PassRole"},
    "ec2:RunInstances": {"iam:PassRole"},
    "iam:AddRoleToInstanceProfile": {"iam:PassRole"},
    # Elastic Load Balancing User Guide, "Elastic Load Balancing API permissions"
    "elasticloadbalancing:CreateLoadBalancer": {
        "ec2:DescribeAccountAttributes",
        "ec2:DescribeAddresses",
        "ec2:DescribeInternetGateways",
        "ec2:DescribeSecurityGroups",
        "ec2:DescribeSubnets",
        "ec2:DescribeVpcs",
        # Not on that page, but users were denied it: kubernetes-sigs/aws-load-balancer-controller issue 3917.
        "ec2:GetSecurityGroupsForVpc",
        # The account's first load balancer creates the service-linked role of Elastic Load Balancing.
        "iam:CreateServiceLinkedRole",
    },
    "elasticloadbalancing:CreateTargetGroup": {"ec2:DescribeInternetGateways", "ec2:DescribeVpcs"},
    "elasticloadbalancing:RegisterTargets": {
        "ec2:DescribeInstances",
        "ec2:DescribeInternetGateways",
        "ec2:DescribeSubnets",
        "ec2:DescribeVpcs",
    },
}
"""Calls that an AWS service makes on the caller's behalf, by action: they do not appear in the record."""

NOT_NEEDED = {
    "ec2:GetInstanceUefiData": "the provider calls this with the image's ID while it reads the image, and accepts an "
    "error (terraform-provider-aws, ec2_ami_data_source.go)",
    "route53:ListHostedZones": "provider 5 lists all zones to find one; later ones request only that one (PR 39671)",
}
"""Recorded calls that no policy allows, and why."""

LOOKED_UP = {
    "aws:ebs/getEbsVolumes:getEbsVolumes": ("ec2:DescribeVolumes",),
    "aws:ebs/getSnapshot:getSnapshot": ("ec2:DescribeSnapshots",),
    "aws:ebs/getVolume:getVolume": ("ec2:DescribeVolumes",),
    "aws:ec2/getAmi:getAmi": ("ec2:DescribeImages",),
    "aws:ec2/getEips:getEips": ("ec2:DescribeAddresses",),
    "aws:ec2/getElasticIp:getElasticIp": ("ec2:DescribeAddresses", "ec2:DescribeAddressesAttribute"),
    "aws:ec2/getInstanceType:getInstanceType": ("ec2:DescribeInstanceTypes",),
    "aws:ec2/getInstanceTypeOfferings:getInstanceTypeOfferings": ("ec2:DescribeInstanceTypeOfferings",),
    "aws:ec2/getInstances:getInstances": ("ec2:DescribeInstances",),
    "aws:ec2/getNetworkInterface:getNetworkInterface": ("ec2:DescribeNetworkInterfaces",),
    "aws:ec2/getSecurityGroups:getSecurityGroups": ("ec2:DescribeSecurityGroups",),
    "aws:ec2/getVpcs:getVpcs": ("ec2:DescribeVpcs",),
    "aws:route53/getZone:getZone": ("route53:GetHostedZone", "route53:ListTagsForResource"),
}
"""The program's lookups, some of which depend on settings, and their actions (source: HashiCorp's provider)."""


def policy(name: str) -> list[dict[str, Any]]:
    document = json.loads((IAM / f"{name}.json").read_text())
    assert document["Version"] == "2012-10-17"
    found: list[dict[str, Any]] = document["Statement"]
    return found


def allowed(*names: str) -> set[str]:
    return {action for name in names for statement in policy(name) for action in statement["Action"]}


def recorded(*operations: str) -> set[str]:
    return {action for operation in operations for action in RECORDED[operation]}


def test_the_policy_for_up_allows_what_was_recorded_and_what_no_record_shows_and_nothing_else():
    asked = {action for action in recorded(*OPERATIONS) if action in ASKED_BY_AWS}
    assert asked == set(ASKED_BY_AWS)
    in_the_callers_name = set().union(*(ASKED_BY_AWS[action] for action in asked))
    assert allowed(*FIRST_UP) == recorded(*OPERATIONS) - set(NOT_NEEDED) | set(NOT_RECORDED) | in_the_callers_name
    assert not recorded(*OPERATIONS) & set(NOT_RECORDED)


def test_volumes_and_copies_with_keys_of_the_account_may_be_made_and_grants_are_for_aws_only():
    # AWS, "Requirements for Amazon EBS encryption", "Permissions for users", and "Copy an Amazon EBS snapshot",
    # "Permissions for copying encrypted snapshots"; ReEncrypt is two actions of IAM.
    assert allowed("ebs-key") == {
        *("kms:CreateGrant", "kms:Decrypt", "kms:DescribeKey", "kms:GenerateDataKey"),
        *("kms:GenerateDataKeyWithoutPlaintext", "kms:ReEncryptFrom", "kms:ReEncryptTo"),
    }
    for statement in policy("ebs-key"):
        assert statement["Resource"] == ["EBS-KEYS"]
        grants = statement["Action"] == ["kms:CreateGrant"]
        assert ("kms:CreateGrant" in statement["Action"]) == grants
        assert statement.get("Condition") == ({"Bool": {"kms:GrantIsForAWSResource": "true"}} if grants else None)


def test_the_policy_for_previews_allows_what_a_preview_and_a_refresh_call_and_that_is_reading():
    assert allowed("preview") == recorded("preview", "refresh") - set(NOT_NEEDED)
    assert not [action for action in allowed("preview") if not re.search(r":(Describe|Get|List)", action)]


def test_a_restore_may_use_the_snapshots_of_one_former_stack_and_stop_its_machines():
    assert recorded("restore") - allowed(*FIRST_UP) - set(NOT_NEEDED) == {"ec2:DescribeSnapshots"}
    former = {"StringEquals": {"aws:ResourceTag/gitlab-stack": "FORMER-STACK"}}
    [quotas, find, stop, use] = policy("restore")
    assert quotas == READ_QUOTAS
    assert find["Condition"] == {"StringEquals": {"aws:RequestedRegion": ["FORMER-REGION", "REGION"]}}
    assert not [action for action in find["Action"] if not action.startswith("ec2:Describe")]
    assert stop["Resource"] == "arn:aws:ec2:FORMER-REGION:ACCOUNT:instance/*"
    assert (stop["Action"], stop["Condition"]) == (["ec2:StopInstances"], former)
    assert (use["Action"], use["Resource"]) == (["ec2:CreateVolume"], "arn:aws:ec2:REGION::snapshot/*")
    assert use["Condition"] == former


def test_the_program_is_made_of_what_was_recorded(graph, tls_graph, requested_graph, own_graph):
    """A new resource type makes other calls: record them with `python -m tests.e2e.permissions`."""
    graphs = (graph, tls_graph, requested_graph, own_graph)
    types = {resource.type for each in graphs for resource in each.resources}
    assert {type_ for type_ in types if type_.startswith("aws:")} <= set(RECORDED["types"])
    lookups = {token for each in graphs for token, _ in each.invokes}
    assert lookups <= set(LOOKED_UP)
    assert {action for actions in LOOKED_UP.values() for action in actions} <= recorded("preview", "restore")


@pytest.mark.parametrize(
    "name", [*RESTORE, "boundary", "state-preview", "state-up", "ebs-key", "recovery", "drill", "copy-backup"]
)
def test_a_policy_names_every_action_and_fits_into_a_managed_policy(name):
    for statement in policy(name):
        assert statement["Effect"] == "Allow"
        assert statement["Action"] == sorted(set(statement["Action"]))
        assert not [action for action in statement["Action"] if "*" in action]
    size = len(re.sub(r"\s", "", (IAM / f"{name}.json").read_text()))
    assert size <= 6144, "too many characters without white space (IAM quotas)"


def test_what_is_made_is_made_in_the_stacks_region_only():
    for statement in [each for name in FIRST_UP for each in policy(name)]:
        if any(action.startswith(("acm:", "ec2:", "elasticloadbalancing:")) for action in statement["Action"]):
            resources = statement["Resource"] if isinstance(statement["Resource"], list) else [statement["Resource"]]
            asked = statement.get("Condition", {}).get("StringEquals", {}).get("aws:RequestedRegion")
            assert asked == "REGION" or all(each.split(":")[3] == "REGION" for each in resources), statement["Sid"]


def test_reading_is_written_down_once_and_changing_is_in_no_policy_for_previews():
    assert not allowed("preview") & allowed("up-ec2", "up-load-balancer", "up-roles", "first-up")


def test_the_recovery_commands_may_make_their_calls_and_delete_snapshots_of_the_stack_only():
    called = {
        "ec2": {each for _, each, *_ in leftovers.OF_EC2} | {"describe_instances", "describe_snapshots"},
        "elasticloadbalancing": {each for _, each, *_ in leftovers.OF_LOAD_BALANCING} | {"describe_tags"},
        "iam": {each for _, each, *_ in leftovers.OF_IAM},
        "acm": {"list_certificates", "list_tags_for_certificate"},
    }
    called["ec2"] |= {"describe_locked_snapshots", "delete_snapshot"}
    needed = {f"{name}:{call.title().replace('_', '')}" for name, calls in called.items() for call in calls}
    assert needed <= allowed("preview", "recovery")
    counted = ("Addresses", "Vpcs", "Instances", "InstanceTypes")
    assert {f"ec2:Describe{each}" for each in counted} <= allowed("preview"), "recovery/quotas.py"
    assert "ec2:DescribeAccountAttributes" in allowed(*FIRST_UP), "recovery/quotas.py"
    assert "route53:ListResourceRecordSets" in allowed("preview"), "recovery/domain_record.py"
    assert allowed("recovery") == needed - allowed("preview")
    changing = [
        each for each in policy("recovery") if not all(re.search(":(Describe|List)", a) for a in each["Action"])
    ]
    assert [each["Action"] for each in changing] == [["ec2:DeleteSnapshot"]]
    assert changing[0]["Condition"] == {"StringEquals": {"aws:ResourceTag/gitlab-stack": "STACK"}}


SUBJECTS = {
    # Repositories created, renamed or transferred since summer 2026 have another prefix, which GitHub's API returns.
    "trust-github-preview": ["repo:OWNER/NAME:environment:preview", "SUBJECT-PREFIX:environment:preview"],
    "trust-github-drift": ["repo:OWNER/NAME:ref:refs/heads/main", "SUBJECT-PREFIX:ref:refs/heads/main"],
    "trust-github-drill": ["repo:OWNER/NAME:ref:refs/heads/main", "SUBJECT-PREFIX:ref:refs/heads/main"],
    "trust-gitlab-drill": "project_path:GROUP/PROJECT:ref_type:branch:ref:main",
    "trust-gitlab-preview": "project_path:GROUP/PROJECT:ref_type:branch:ref:PROTECTED-BRANCH",
    "trust-gitlab-drift": "project_path:GROUP/PROJECT:ref_type:branch:ref:main",
}


def test_what_github_calls_a_repository_is_asked_of_github_and_not_guessed():
    page = (ROOT / "docs/pull-requests.md").read_text()
    assert "gh api repos/OWNER/NAME/actions/oidc/customization/sub --jq .sub_claim_prefix" in page


def test_every_role_of_ci_has_its_trust():
    assert {path.stem for path in IAM.glob("trust-*.json")} == {*SUBJECTS, "trust-operators"}


@pytest.mark.parametrize("name", SUBJECTS)
def test_a_role_is_for_one_repository_by_name(name):
    [statement] = policy(name)
    assert set(statement["Condition"]) == {"StringEquals"}, "a pattern would admit other repositories or branches"
    assert "*" not in (IAM / f"{name}.json").read_text()
    conditions = statement["Condition"]["StringEquals"]
    assert [value for key, value in conditions.items() if key.endswith(":sub")] == [SUBJECTS[name]]
    assert [value for key, value in conditions.items() if key.endswith(":aud")] == ["sts.amazonaws.com"]


def test_the_policies_of_the_state_cover_one_bucket_and_one_key_in_its_own_region():
    for name in ("state-preview", "state-up"):
        for statement in policy(name):
            assert re.fullmatch(
                r"arn:aws:(s3:::BUCKET(/\.pulumi/\*)?|kms:STATE-REGION:ACCOUNT:key/KEY)", statement["Resource"]
            )
    assert not allowed("state-preview") & {"s3:PutObject", "s3:DeleteObject", "kms:Encrypt"}


READ_QUOTAS = {
    "Sid": "ReadQuotas",
    "Effect": "Allow",
    "Action": ["servicequotas:GetServiceQuota"],
    "Resource": [
        f"arn:aws:servicequotas:REGION:ACCOUNT:{each.service}/{each.code}" for each in (ADDRESSES, CPUS, NETWORKS)
    ],
}
"""Without it the quotas of VPCs and vCPUs are not checked (recovery/quotas.py)."""

COPY_OWN_SNAPSHOTS = {
    "Sid": "CopyTheBackup",
    "Effect": "Allow",
    "Action": ["ec2:CopySnapshot"],
    "Resource": "arn:aws:ec2:*::snapshot/snap-*",
    "Condition": {"StringEquals": {"ec2:Owner": "ACCOUNT"}},
}
"""AWS evaluates no tags of the original (Service Authorization Reference, CopySnapshot). The copy's ID is `*`, which
this pattern does not match (Amazon EBS User Guide, "Example IAM policies", "Copying snapshots").
"""


def test_the_tags_of_an_original_decide_nothing_as_long_as_aws_does_not_evaluate_them():
    """If this fails, the policies can be limited to the backups of one stack."""
    assert not {"aws:ResourceTag", "ec2:ResourceTag"} & actions()["ec2:CopySnapshot"].known("snapshot")


def test_a_backup_is_copied_to_the_region_as_a_backup_of_the_former_stack_and_as_a_copy():
    original, copy, mark = policy("copy-backup")
    assert original == COPY_OWN_SNAPSHOTS
    assert copy["Resource"] == "arn:aws:ec2:REGION::snapshot/${*}"
    assert mark["Condition"]["StringEquals"].pop("ec2:CreateAction") == "CopySnapshot"
    assert mark["Condition"] == copy["Condition"]
    assert copy["Condition"]["StringEquals"] == {"aws:RequestTag/gitlab-stack": "FORMER-STACK"}
    assert copy["Condition"]["Null"] == {f"aws:RequestTag/{COPY_OF}": "false"}


def test_a_drill_may_mark_and_copy_the_original_and_delete_only_its_own_copies():
    statements = {statement["Sid"]: statement for statement in policy("drill")}
    of_original = {name: each["Action"] for name, each in statements.items() if "FORMER-STACK" in json.dumps(each)}
    assert of_original == {"RestoreTheBackup": ["ec2:CreateVolume"], "StoreTheResult": ["ec2:CreateTags"]}
    assert statements["CopyTheBackup"] == COPY_OWN_SNAPSHOTS
    assert statements["StoreTheResult"]["Condition"]["ForAllValues:StringEquals"] == {"aws:TagKeys": DRILLED}
    # ForAllValues is also true for a request without any key.
    assert statements["StoreTheResult"]["Condition"]["Null"] == {"aws:TagKeys": "false"}
    assert statements["CopyWhatIsMarked"]["Resource"] == "arn:aws:ec2:REGION::snapshot/${*}"
    for name in ("CopyWhatIsMarked", "MarkItsCopies"):
        assert statements[name]["Condition"]["StringEquals"][f"aws:RequestTag/{COPY}"] == "STACK"
    assert statements["DeleteItsCopies"]["Condition"] == {"StringEquals": {f"aws:ResourceTag/{COPY}": "STACK"}}
    assert statements["ReadQuotas"] == READ_QUOTAS
