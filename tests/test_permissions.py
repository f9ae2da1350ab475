"""The policies in docs/iam: exactly what the provider was seen to call, and what is known to be needed beside it.

tests/e2e/permissions.py records; here the record is compared with the policies, and with what the program is made of.
"""

import json
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
IAM = ROOT / "docs/iam"
RECORDED = json.loads((IAM / "recorded.json").read_text())
OPERATIONS = ("up", "refresh", "preview", "change", "destroy")

NOT_RECORDED = {
    "elasticloadbalancing:ModifyListener": "another port, certificate or TLS policy; moto changes none with TLS",
    "iam:CreateServiceLinkedRole": "the account's first balancer makes Elastic Load Balancing's own role",
}
"""What the policy for `up` has beside the record, and why."""


def policy(name: str) -> list[dict[str, Any]]:
    document = json.loads((IAM / f"{name}.json").read_text())
    assert document["Version"] == "2012-10-17"
    found: list[dict[str, Any]] = document["Statement"]
    return found


def allowed(name: str) -> set[str]:
    return {action for statement in policy(name) for action in statement["Action"]}


def recorded(*operations: str) -> set[str]:
    return {action for operation in operations for action in RECORDED[operation]}


def test_the_policy_for_up_allows_what_was_recorded_and_nothing_that_was_not():
    assert allowed("up") == recorded(*OPERATIONS) | set(NOT_RECORDED)
    assert not recorded(*OPERATIONS) & set(NOT_RECORDED)


def test_the_policy_for_previews_allows_what_a_preview_and_a_refresh_call_and_that_is_reading():
    assert allowed("preview") == recorded("preview", "refresh")
    assert not [action for action in allowed("preview") if not re.search(r":(Describe|Get|List)", action)]


def test_the_program_is_made_of_what_was_recorded(graph, tls_graph):
    """A new type of resource calls other actions: record them anew with `python -m tests.e2e.permissions`."""
    types = {resource.type for each in (graph, tls_graph) for resource in each.resources}
    assert {type_ for type_ in types if type_.startswith("aws:")} <= set(RECORDED["types"])
    lookups = {token for each in (graph, tls_graph) for token, _ in each.invokes}
    assert lookups <= {"aws:ec2/getAmi:getAmi", "aws:ebs/getVolume:getVolume", "aws:ec2/getElasticIp:getElasticIp"}
    assert {"ec2:DescribeImages", "ec2:DescribeVolumes", "ec2:DescribeAddresses"} <= recorded("preview")


@pytest.mark.parametrize("name", ["preview", "up", "state-preview", "state-up"])
def test_a_policy_names_every_action_and_fits_into_a_managed_policy(name):
    for statement in policy(name):
        assert statement["Effect"] == "Allow"
        assert statement["Action"] == sorted(set(statement["Action"]))
        assert not [action for action in statement["Action"] if "*" in action]
    size = len(re.sub(r"\s", "", (IAM / f"{name}.json").read_text()))
    assert size <= 6144, "characters without white space (IAM quotas)"


def test_what_is_made_is_made_in_the_stacks_region_only():
    for statement in policy("up"):
        making = [action for action in statement["Action"] if action.startswith(("ec2:", "elasticloadbalancing:"))]
        if any(not re.search(r":(Describe|Get)", action) for action in making):
            assert statement["Condition"]["StringEquals"]["aws:RequestedRegion"] == "REGION"


@pytest.mark.parametrize("name", ["trust-github", "trust-gitlab"])
def test_a_role_is_for_one_repository_by_name(name):
    [statement] = policy(name)
    conditions = {key: value for test in statement["Condition"].values() for key, value in test.items()}
    [subject] = [value for key, value in conditions.items() if key.endswith(":sub")]
    assert re.match(r"(repo:OWNER/NAME:environment:|project_path:GROUP/PROJECT:)", subject)
    assert [value for key, value in conditions.items() if key.endswith(":aud")] == ["sts.amazonaws.com"]


def test_the_policies_of_the_state_cover_one_bucket_and_one_key():
    for name in ("state-preview", "state-up"):
        for statement in policy(name):
            assert re.fullmatch(
                r"arn:aws:(s3:::BUCKET(/\.pulumi/\*)?|kms:REGION:ACCOUNT:key/KEY)", statement["Resource"]
            )
    assert not allowed("state-preview") & {"s3:PutObject", "s3:DeleteObject", "kms:Encrypt"}
