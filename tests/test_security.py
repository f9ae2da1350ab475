"""Public security rules, checked for every resource that the program registers, with and without optional settings.

CKV_AWS_* and CKV2_AWS_* are Checkov's rules, EC2.* and ELB.* those of AWS Security Hub. Checkov cannot read Pulumi
programs, so each rule is implemented here; `spoils` verifies that it can fail.
"""

import base64
import dataclasses
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import pytest

from tests.engine import Graph, Registered

INSTANCE = "aws:ec2/instance:Instance"
VOLUME = "aws:ebs/volume:Volume"
GROUP = "aws:ec2/securityGroup:SecurityGroup"
DEFAULT_GROUP = "aws:ec2/defaultSecurityGroup:DefaultSecurityGroup"
INGRESS = "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule"
EGRESS = "aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule"
EIP = "aws:ec2/eip:Eip"
SUBNET = "aws:ec2/subnet:Subnet"
VPC = "aws:ec2/vpc:Vpc"
BALANCER = "aws:lb/loadBalancer:LoadBalancer"
LISTENER = "aws:lb/listener:Listener"
TARGET_GROUP = "aws:lb/targetGroup:TargetGroup"
CERTIFICATE = "aws:acm/certificate:Certificate"
ROLE = "aws:iam/role:Role"
ROLE_POLICY = "aws:iam/rolePolicy:RolePolicy"
BY_EC2 = {"Service": "ec2.amazonaws.com"}
WORLD = ("0.0.0.0/0", "::/0")

UNTAGGABLE = (
    "aws:acm/certificateValidation:CertificateValidation",
    "aws:ec2/route:Route",
    "aws:ec2/routeTableAssociation:RouteTableAssociation",
    "aws:ec2/volumeAttachment:VolumeAttachment",
    ROLE_POLICY,
    "aws:lb/targetGroupAttachment:TargetGroupAttachment",
    "aws:route53/record:Record",
)

SECRET = re.compile(r"PRIVATE KEY|AKIA[0-9A-Z]{16}|glrt-|gldt-|glpat-|-Secret-|-secret\b|(?i:password|token)\s*[=:]")

TLS_POLICIES = ("ELBSecurityPolicy-TLS13-1-2-2021-06", "ELBSecurityPolicy-TLS13-1-3-2021-06")

Inputs = Mapping[str, Any]
Holds = Callable[[Inputs, Registered, Graph], bool]


@dataclass(frozen=True)
class Rule:
    """A requirement of the public rules `ids` for every resource of `types`; empty `types` are all AWS resources.

    `spoils` are inputs (None removes one) that violate the rule.
    """

    ids: str
    asks: str
    types: tuple[str, ...]
    holds: Holds
    spoils: Inputs
    applies: Callable[[Registered], bool] = lambda resource: True

    def offenders(self, graph: Graph, spoils: Inputs = MappingProxyType({})) -> list[str]:
        found = []
        for resource in self.resources(graph):
            inputs = {key: value for key, value in {**resource.inputs, **spoils}.items() if value is not None}
            if not self.holds(inputs, resource, graph):
                found.append(f"{resource.type} {resource.name}")
        return found

    def resources(self, graph: Graph) -> list[Registered]:
        return [
            resource
            for resource in graph.resources
            if resource.type.startswith("aws:")
            and (not self.types or resource.type in self.types)
            and self.applies(resource)
        ]


def user_data(inputs: Inputs) -> str:
    return base64.b64decode(inputs["userDataBase64"]).decode() + inputs.get("userData", "")


def closed(port: int) -> Holds:
    return lambda inputs, resource, graph: (
        inputs.get("cidrIpv4") not in WORLD or not inputs["fromPort"] <= port <= inputs["toPort"]
    )


def of_the_balancer(inputs: Inputs) -> bool:
    return bool(inputs["securityGroupId"] == "gitlab-balancer-id" and inputs["fromPort"] in (80, 443, 22, 5000))


def statements(inputs: Inputs, policy: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(inputs[policy])["Statement"]
    return found


def uses(group: Registered, graph: Graph) -> bool:
    users = [*graph.of_type("aws:ec2/networkInterface:NetworkInterface"), *graph.of_type(BALANCER)]
    return any(f"{group.name}-id" in user.inputs.get("securityGroups", []) for user in users)


def has_egress(group: Registered, graph: Graph) -> bool:
    return any(rule.inputs["securityGroupId"] == f"{group.name}-id" for rule in graph.of_type(EGRESS))


RULES = (
    Rule(
        "CKV_AWS_8",
        "root volumes are encrypted",
        (INSTANCE,),
        lambda inputs, *_: inputs["rootBlockDevice"].get("encrypted") is True,
        {"rootBlockDevice": {"volumeSize": 40}},
    ),
    Rule(
        "CKV_AWS_3 EC2.3",
        "volumes are encrypted",
        (VOLUME,),
        lambda inputs, *_: inputs.get("encrypted") is True,
        {"encrypted": None},
    ),
    Rule(
        "CKV_AWS_79 EC2.8",
        "the metadata service requires a session (IMDSv2)",
        (INSTANCE,),
        lambda inputs, *_: inputs.get("metadataOptions", {}).get("httpTokens") == "required",
        {"metadataOptions": None},
    ),
    Rule(
        "CKV_AWS_341",
        "containers cannot reach the metadata service",
        (INSTANCE,),
        lambda inputs, *_: inputs["metadataOptions"].get("httpPutResponseHopLimit") == 1,
        {"metadataOptions": {"httpTokens": "required"}},
    ),
    Rule(
        "CKV_AWS_46",
        "no secret in user data",
        (INSTANCE,),
        lambda inputs, *_: not SECRET.search(user_data(inputs)),
        {"userData": "password: first"},
    ),
    Rule(
        "CKV_AWS_88 EC2.9",
        "no automatic public address, which a new machine would not keep",
        (INSTANCE,),
        lambda inputs, *_: not inputs.get("associatePublicIpAddress"),
        {"associatePublicIpAddress": True},
    ),
    Rule(
        "CKV_AWS_130 EC2.15",
        "a subnet assigns no public addresses",
        (SUBNET,),
        lambda inputs, *_: not inputs.get("mapPublicIpOnLaunch"),
        {"mapPublicIpOnLaunch": True},
    ),
    Rule(
        "CKV2_AWS_12 EC2.2",
        "the VPC's default group is managed and empty",
        (DEFAULT_GROUP,),
        lambda inputs, *_: not {"ingress", "egress"} & set(inputs),
        {"ingress": [{"protocol": "-1"}]},
    ),
    Rule(
        "CKV_AWS_23",
        "every group and rule has a description",
        (GROUP, INGRESS, EGRESS),
        lambda inputs, *_: len(inputs.get("description", "")) > 10,
        {"description": None},
    ),
    Rule(
        "CKV_AWS_24 EC2.13",
        "the machines' SSH is closed to the internet",
        (INGRESS,),
        lambda inputs, resource, graph: closed(22)(inputs, resource, graph) or of_the_balancer(inputs),
        {"cidrIpv4": "0.0.0.0/0", "fromPort": 22, "toPort": 22, "securityGroupId": "gitlab-server-id"},
    ),
    Rule(
        "CKV_AWS_25 EC2.19",
        "remote desktop is closed to the internet",
        (INGRESS,),
        closed(3389),
        {"cidrIpv4": "0.0.0.0/0", "fromPort": 3000, "toPort": 4000},
    ),
    Rule(
        "CKV_AWS_260 CKV_AWS_277 EC2.18 EC2.19",
        "the internet reaches only the load balancer's public ports",
        (INGRESS,),
        lambda inputs, *_: inputs.get("cidrIpv4") not in WORLD or of_the_balancer(inputs),
        {"cidrIpv4": "0.0.0.0/0", "fromPort": 80, "toPort": 80, "securityGroupId": "gitlab-server-id"},
    ),
    Rule(
        "CKV_AWS_382",
        "no egress rule permits every port",
        (EGRESS,),
        lambda inputs, *_: inputs["ipProtocol"] == "tcp" and inputs["fromPort"] == inputs["toPort"],
        {"ipProtocol": "-1"},
    ),
    Rule(
        "CKV_AWS_382 implicit",
        "no group keeps AWS's default rule, which permits all egress",
        (GROUP,),
        lambda inputs, resource, graph: "egress" not in inputs and has_egress(resource, graph),
        {"egress": [{"protocol": "-1"}]},
    ),
    Rule(
        "CKV2_AWS_5 EC2.22",
        "every group is used",
        (GROUP,),
        lambda inputs, resource, graph: uses(
            dataclasses.replace(resource, name=inputs.get("name", resource.name)), graph
        ),
        {"name": "unused"},
    ),
    Rule(
        "CKV2_AWS_19 EC2.12",
        "every address is on a machine's interface or the load balancer",
        (EIP,),
        lambda inputs, resource, graph: (
            "networkInterface" in inputs
            or (
                any(
                    f"eipalloc-{resource.name}" in str(each.inputs["subnetMappings"])
                    for each in graph.of_type(BALANCER)
                )
                and "instance" not in inputs
            )
        ),
        {"networkInterface": None, "instance": "i-1"},
    ),
    Rule(
        "CKV_AWS_2 ELB.17",
        "with a certificate, every port but git's SSH uses TLS with a current policy",
        (LISTENER,),
        lambda inputs, *_: (
            inputs["port"] == 22
            or (inputs["protocol"] == "TLS" and inputs.get("sslPolicy") in TLS_POLICIES and "certificateArn" in inputs)
        ),
        {"protocol": "TCP", "port": 443},
        applies=lambda resource: resource.inputs["protocol"] == "TLS",
    ),
    Rule(
        "CKV_AWS_103",
        "no TLS below 1.2",
        (LISTENER,),
        lambda inputs, *_: inputs["protocol"] != "TLS" or inputs.get("sslPolicy") in TLS_POLICIES,
        {"protocol": "TLS", "sslPolicy": "ELBSecurityPolicy-2016-08"},
    ),
    Rule(
        "ACM.2",
        "requested certificates have an RSA key of at least 2048 bits; settings.py checks imported ones",
        (CERTIFICATE,),
        lambda inputs, *_: "certificateBody" in inputs or inputs.get("keyAlgorithm") in ("RSA_2048", "RSA_3072"),
        {"keyAlgorithm": "RSA_1024"},
    ),
    Rule(
        "ACM.1",
        "requested certificates are validated by a DNS record, so that AWS renews them without anyone's help",
        (CERTIFICATE,),
        lambda inputs, *_: "certificateBody" in inputs or inputs.get("validationMethod") == "DNS",
        {"validationMethod": "EMAIL"},
    ),
    Rule(
        "CKV_AWS_261",
        "every target group has a health check",
        (TARGET_GROUP,),
        lambda inputs, *_: bool(inputs.get("healthCheck", {}).get("protocol")),
        {"healthCheck": None},
    ),
    Rule(
        "CKV_AWS_60 CKV_AWS_61",
        "only EC2 can assume a role",
        (ROLE,),
        lambda inputs, *_: [each["Principal"] for each in statements(inputs, "assumeRolePolicy")] == [BY_EC2],
        {"assumeRolePolicy": json.dumps({"Statement": [{"Principal": {"AWS": "*"}}]})},
    ),
    Rule(
        "CKV_AWS_62 CKV_AWS_63 CKV_AWS_355 IAM.1 IAM.21",
        "the policy of a role names every action, and every resource unless it only reads",
        (ROLE_POLICY,),
        lambda inputs, *_: (
            all(
                each["Resource"] != "*" or each["Action"] == ["ec2:DescribeSnapshots"]
                for each in statements(inputs, "policy")
            )
            and "*" not in "".join(action for each in statements(inputs, "policy") for action in each["Action"])
        ),
        {"policy": json.dumps({"Statement": [{"Action": ["ec2:*"], "Resource": "arn:aws:ec2:::volume/x"}]})},
    ),
    Rule(
        "CKV2_AWS_1 tags",
        "every taggable resource has a name and the tags of the settings",
        (),
        lambda inputs, *_: {"Project", "Environment", "Name"} <= set(inputs.get("tags", {})),
        {"tags": None},
        applies=lambda resource: resource.type not in UNTAGGABLE,
    ),
)


@dataclass(frozen=True)
class Accepted:
    """A public rule that the program violates intentionally. `broken` verifies that it still does."""

    ids: str
    reason: str
    types: tuple[str, ...]
    broken: Callable[[Inputs], bool]


ACCEPTED = (
    Accepted(
        "CKV_AWS_189 CKV2_AWS_9",
        "volumes use AWS's key: losing a customer managed key would lose the data",
        (VOLUME,),
        lambda inputs: "kmsKeyId" not in inputs,
    ),
    Accepted(
        "EC2.9 public addresses",
        "machines need an address for SSH and for downloads; a NAT gateway costs more than a machine",
        (EIP,),
        lambda inputs: inputs.get("domain") == "vpc",
    ),
    Accepted(
        "CKV_AWS_126",
        "one-minute metrics cost money, and nothing here reads them",
        (INSTANCE,),
        lambda inputs: not inputs.get("monitoring"),
    ),
    Accepted(
        "CKV_AWS_135",
        "the accepted instance types are EBS-optimized by default",
        (INSTANCE,),
        lambda inputs: "ebsOptimized" not in inputs,
    ),
    Accepted(
        "CKV2_AWS_41",
        "the runner's machine needs no AWS permissions, so a compromised one has none; the others only take backups",
        (INSTANCE,),
        lambda inputs: "iamInstanceProfile" not in inputs,
    ),
    Accepted(
        "CKV_AWS_91 ELB.5",
        "access logs require a bucket; GitLab's logs have the clients' addresses",
        (BALANCER,),
        lambda inputs: "accessLogs" not in inputs,
    ),
    Accepted(
        "CKV_AWS_150 ELB.6",
        "a load balancer stores nothing; only its address must not be lost, and that is protected",
        (BALANCER,),
        lambda inputs: not inputs.get("enableDeletionProtection"),
    ),
    Accepted(
        "CKV_AWS_152 ELB.13",
        "one zone on purpose: a fixed address belongs to one zone",
        (BALANCER,),
        lambda inputs: len(inputs["subnetMappings"]) == 1,
    ),
    Accepted(
        "CKV2_AWS_11 EC2.6",
        "flow logs require a log group and cost by volume; the table of flows limits the traffic",
        (VPC,),
        lambda inputs: "flowLogs" not in inputs,
    ),
)


GRAPHS = ("graph", "tls_graph", "requested_graph", "own_graph")


@pytest.fixture(params=GRAPHS)
def any_graph(request) -> Graph:
    found: Graph = request.getfixturevalue(request.param)
    return found


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.ids)
def test_every_resource_keeps(rule, any_graph):
    assert rule.offenders(any_graph) == []


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.ids)
def test_a_resource_that_is_spoiled_breaks(rule, requested_graph):
    assert rule.resources(requested_graph), "no resource is subject to this rule"
    assert rule.offenders(requested_graph, rule.spoils)


@pytest.mark.parametrize("accepted", ACCEPTED, ids=lambda accepted: accepted.ids)
def test_what_is_accepted_is_still_needed_and_has_its_reason(accepted, any_graph):
    resources = [resource for resource in any_graph.resources if resource.type in accepted.types]
    assert any(accepted.broken(resource.inputs) for resource in resources)
    assert len(accepted.reason) > 20


def test_no_rule_is_kept_and_excepted_at_once():
    assert not {rule.ids for rule in RULES} & {accepted.ids for accepted in ACCEPTED}


def test_data_and_the_address_are_protected_unless_the_settings_say_otherwise(graph, tls_graph):
    """EC2.28 and CKV2_AWS_9 require backups; protection from accidental deletion comes first."""
    protected = {resource.name for resource in graph.resources if resource.request.protect}
    assert protected == {"server-data", "registry-data", "gitlab-balancer"}
    assert not [resource for resource in tls_graph.resources if resource.request.protect]


def test_every_image_lookup_names_its_owner(graph):
    """CKV_AWS_386: without an owner, a third party's image of that name would be used."""
    assert [arguments["owners"] for arguments in graph.asked("aws:ec2/getAmi:getAmi")] == [["309956199498"]]


def test_every_type_of_the_graph_is_known_to_this_table(any_graph):
    """For a new resource type, add its rules, or list it here."""
    without_rules = {
        "aws:ec2/internetGateway:InternetGateway",
        "aws:iam/instanceProfile:InstanceProfile",
        "aws:ec2/keyPair:KeyPair",
        "aws:ec2/networkInterface:NetworkInterface",
        "aws:ec2/routeTable:RouteTable",
    }
    known = {type_ for row in (*RULES, *ACCEPTED) for type_ in row.types} | set(UNTAGGABLE) | without_rules
    assert {resource.type for resource in any_graph.resources if resource.type.startswith("aws:")} <= known
