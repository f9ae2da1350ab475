"""Every text that AWS keeps of the program's resources is of the characters and the length that AWS documents."""

import dataclasses
import re

import pytest

from tests.engine import Graph, Registered
from tests.test_security import EGRESS, GROUP, INGRESS, UNTAGGABLE

DESCRIPTION = re.compile(r"[a-zA-Z0-9. _\-:/()#,@\[\]+=&;{}!$*]{1,255}")
"""Of a security group and of a rule (Amazon EC2 API Reference, CreateSecurityGroup, IpRange). For a rule that names a
group the reference leaves out the ampersand, so here it is left out for all."""

TAG_KEY = re.compile(r"(?!aws:)[\w .:/=+\-@]{1,128}", re.IGNORECASE)
TAG_VALUE = re.compile(r"[\w .:/=+\-@]{0,256}")
"""EC2 takes any character, load balancers these (Elastic Load Balancing API Reference, Tag), and tags are the same."""

NAMES = {
    "aws:ec2/securityGroup:SecurityGroup": re.compile(r"(?!sg-)[a-zA-Z0-9. _\-:/()#,@\[\]+=;{}!$*]{1,255}"),
    "aws:ec2/keyPair:KeyPair": re.compile(r"[\x20-\x7e]{1,255}"),
    "aws:lb/loadBalancer:LoadBalancer": re.compile(r"(?!-|internal-)[a-zA-Z0-9-]{1,32}(?<!-)"),
    "aws:lb/targetGroup:TargetGroup": re.compile(r"(?!-)[a-zA-Z0-9-]{1,32}(?<!-)"),
    "aws:route53/record:Record": re.compile(r"[a-z0-9.-]{1,255}"),
}
"""Of what has a name in AWS (API references, CreateSecurityGroup, CreateKeyPair, CreateLoadBalancer, CreateTargetGroup;
Amazon Route 53 Developer Guide, DNS domain name format)."""

SUFFIX = "-0123abc"
"""What Pulumi adds to the name of a resource whose name in AWS the program leaves open."""


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
    """A new type of resource is either named here, or AWS has no name for it."""
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
