"""Names, descriptions and tags of the program's resources have the characters and length that AWS documents."""

import dataclasses
import re

import pytest

from tests.engine import Graph, Registered
from tests.test_security import EGRESS, GROUP, INGRESS, UNTAGGABLE

DESCRIPTION = re.compile(r"[a-zA-Z0-9. _\-:/()#,@\[\]+=&;{}!$*]{1,255}")
"""Descriptions of security groups and rules (Amazon EC2 API Reference, CreateSecurityGroup, IpRange). The reference
omits the ampersand for a rule that refers to a group."""

TAG_KEY = re.compile(r"(?!aws:)[\w .:/=+\-@]{1,128}", re.IGNORECASE)
TAG_VALUE = re.compile(r"[\w .:/=+\-@]{0,256}")
"""Load balancers accept these (Elastic Load Balancing API Reference, Tag). EC2 accepts more, but all get the same."""

NAMES = {
    "aws:ec2/securityGroup:SecurityGroup": re.compile(r"(?!sg-)[a-zA-Z0-9. _\-:/()#,@\[\]+=;{}!$*]{1,255}"),
    "aws:ec2/keyPair:KeyPair": re.compile(r"[\x20-\x7e]{1,255}"),
    "aws:iam/instanceProfile:InstanceProfile": re.compile(r"[\w+=,.@-]{1,128}", re.ASCII),
    "aws:iam/role:Role": re.compile(r"[\w+=,.@-]{1,64}", re.ASCII),
    "aws:lb/loadBalancer:LoadBalancer": re.compile(r"(?!-|internal-)[a-zA-Z0-9-]{1,32}(?<!-)"),
    "aws:lb/targetGroup:TargetGroup": re.compile(r"(?!-)[a-zA-Z0-9-]{1,32}(?<!-)"),
    "aws:route53/record:Record": re.compile(r"[a-z0-9.-]{1,255}"),
}
"""Names of resource types that have one (API references, CreateSecurityGroup, CreateKeyPair, CreateInstanceProfile,
CreateRole, CreateLoadBalancer, CreateTargetGroup; Amazon Route 53 Developer Guide, DNS domain name format)."""

SUFFIX = "-0123abc"
"""The suffix that Pulumi adds to a resource's name if the program does not set its name in AWS."""


def offences(resource: Registered) -> list[str]:
    inputs = resource.inputs
    texts = []
    if resource.type in (GROUP, INGRESS, EGRESS) or "description" in inputs:
        texts.append((DESCRIPTION, inputs.get("description", "")))
    if resource.type in NAMES:
        texts.append((NAMES[resource.type], inputs.get("name", inputs.get("keyName", resource.name + SUFFIX))))
    for tags in (inputs.get("tags", {}), inputs.get("rootBlockDevice", {}).get("tags", {})):
        for key, value in tags.items():
            texts += [(TAG_KEY, key), (TAG_VALUE, value)]
    return [f"{resource.type} {resource.name}: {text!r}" for allowed, text in texts if not allowed.fullmatch(text)]


@pytest.fixture(params=["graph", "tls_graph"])
def any_graph(request) -> Graph:
    found: Graph = request.getfixturevalue(request.param)
    return found


def test_descriptions_names_and_tags_are_of_characters_and_lengths_that_aws_takes(any_graph):
    assert [each for resource in any_graph.resources for each in offences(resource)] == []
    tagged = [each for each in any_graph.resources if each.type.startswith("aws:") and each.type not in UNTAGGABLE]
    assert tagged
    assert all(each.inputs.get("tags") for each in tagged)


def test_a_type_that_gets_a_name_by_itself_is_looked_at(any_graph):
    """A new resource type either has a pattern in NAMES, or no name in AWS."""
    without_a_name = {*UNTAGGABLE, INGRESS, EGRESS} | {
        f"aws:{name}"
        for name in (
            *("ebs/volume:Volume", "ec2/defaultSecurityGroup:DefaultSecurityGroup", "ec2/eip:Eip"),
            *("ec2/instance:Instance", "ec2/internetGateway:InternetGateway", "ec2/vpc:Vpc", "ec2/subnet:Subnet"),
            *("ec2/networkInterface:NetworkInterface", "ec2/routeTable:RouteTable", "lb/listener:Listener"),
        )
    }
    types = {each.type for each in any_graph.resources if each.type.startswith("aws:")}
    assert types <= {*without_a_name, *NAMES}


@pytest.mark.parametrize(
    ("type_name", "wrong"),
    [
        (GROUP, {"description": "the server's"}),
        (GROUP, {"description": "d" * 256}),
        (GROUP, {"name": "sg-server"}),
        (INGRESS, {"description": "from → to"}),
        (EGRESS, {"description": None}),
        ("aws:ec2/networkInterface:NetworkInterface", {"description": "the machine's"}),
        ("aws:lb/targetGroup:TargetGroup", {"name": "n" * 33}),
        ("aws:ec2/instance:Instance", {"tags": {"aws:own": "x"}}),
        ("aws:ec2/instance:Instance", {"rootBlockDevice": {"tags": {"Name": "one, two"}}}),
    ],
)
def test_a_text_that_aws_refuses_is_found(graph, type_name, wrong):
    resource = graph.of_type(type_name)[0]
    inputs = {key: value for key, value in {**resource.inputs, **wrong}.items() if value is not None}
    assert offences(dataclasses.replace(resource, inputs=inputs))
