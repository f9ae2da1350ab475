"""What a stack has in AWS, without its snapshots.

Every service is asked for its own resources. The Resource Groups Tagging API needs one call only, but also returns
resources that no longer exist ("tagged or previously tagged", GetResources), and knows no roles.
"""

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, NamedTuple

from validation.values import STACK_TAG

Client = Any
"""A client of boto3, which has no types."""

Clients = Callable[[str], Client]
"""Returns the client of a service in the stack's region."""

OF_EC2 = (
    ("volume", "describe_volumes", "Volumes", "VolumeId"),
    ("elastic address", "describe_addresses", "Addresses", "AllocationId"),
    ("network interface", "describe_network_interfaces", "NetworkInterfaces", "NetworkInterfaceId"),
    ("security group", "describe_security_groups", "SecurityGroups", "GroupId"),
    ("route table", "describe_route_tables", "RouteTables", "RouteTableId"),
    ("subnet", "describe_subnets", "Subnets", "SubnetId"),
    ("internet gateway", "describe_internet_gateways", "InternetGateways", "InternetGatewayId"),
    ("VPC", "describe_vpcs", "Vpcs", "VpcId"),
    ("key pair", "describe_key_pairs", "KeyPairs", "KeyPairId"),
)
"""Kind, call, and where its answer has the ID."""

OF_LOAD_BALANCING = (
    ("load balancer", "describe_load_balancers", "LoadBalancers", "LoadBalancerArn"),
    ("target group", "describe_target_groups", "TargetGroups", "TargetGroupArn"),
)

OF_IAM = (
    ("role", "list_roles", "Roles", "RoleName"),
    ("instance profile", "list_instance_profiles", "InstanceProfiles", "InstanceProfileName"),
)

EXISTING = ("pending", "running", "shutting-down", "stopping", "stopped")
"""States of machines. AWS lists terminated ones for another hour; they do not count."""

MOST_ARNS = 20
"""The most resources of which one call of DescribeTags of Elastic Load Balancing returns the tags."""

KEY_TYPES = ("RSA_1024", "RSA_2048", "RSA_3072", "RSA_4096", "EC_prime256v1", "EC_secp384r1", "EC_secp521r1")
"""Of certificates; without them ListCertificates returns those of the first two only."""

PATIENCE = 60
"""Seconds until AWS no longer lists what has been deleted: its answers are eventually consistent."""

INTERVAL = 5  # seconds


class Resource(NamedTuple):
    """A resource in AWS."""

    kind: str
    id: str

    def __str__(self) -> str:
        """For people."""
        return f"{self.kind} {self.id}"


def remaining(clients: Clients, stack_tag: str, expected: Collection[str] = ()) -> list[Resource]:
    """What the stack still has in AWS, except resources with an expected ID, after waiting for it to disappear."""
    deadline = time.monotonic() + PATIENCE
    while True:
        found = [each for each in resources(clients, stack_tag) if each.id not in expected]
        if not found or time.monotonic() >= deadline:
            return found
        time.sleep(INTERVAL)


def resources(clients: Clients, stack_tag: str) -> Iterator[Resource]:
    """Everything in AWS that is marked as the stack's."""
    ec2 = clients("ec2")
    yield from (Resource("machine", found) for found in machines(ec2, stack_tag))
    for kind, call, key, name in OF_EC2:
        yield from (Resource(kind, found[name]) for found in _listed(ec2, call, key, Filters=_owned_by(stack_tag)))
    yield from _load_balancing(clients("elbv2"), stack_tag)
    yield from _certificates(clients("acm"), stack_tag)
    # IAM cannot list by tag; the path is the stack's own (components/naming.py).
    path = f"/{stack_tag}/"
    for kind, call, key, name in OF_IAM:
        found = _listed(clients("iam"), call, key, PathPrefix=path)
        yield from (Resource(kind, each[name]) for each in found if each["Path"] == path)


def machines(ec2: Client, stack_tag: str, states: Sequence[str] = EXISTING) -> list[str]:
    """The IDs of the stack's machines that are in one of these states."""
    found = _listed(ec2, "describe_instances", "Reservations", Filters=_owned_by(stack_tag))
    machines = [instance for reservation in found for instance in reservation["Instances"]]
    return [each["InstanceId"] for each in machines if each["State"]["Name"] in states]


def _owned_by(stack_tag: str) -> list[dict[str, Any]]:
    # Resources that AWS creates without tags get a longer value (components/naming.py, TaggedLate).
    return [{"Name": f"tag:{STACK_TAG}", "Values": [stack_tag, f"{stack_tag}/*"]}]


def _listed(client: Client, call: str, key: str, **parameters: Any) -> Iterator[dict[str, Any]]:  # noqa: ANN401
    paged = client.can_paginate(call)
    pages = client.get_paginator(call).paginate(**parameters) if paged else [getattr(client, call)(**parameters)]
    for page in pages:
        yield from page[key]


def _load_balancing(elb: Client, stack_tag: str) -> Iterator[Resource]:
    found = [
        Resource(kind, each[name]) for kind, call, key, name in OF_LOAD_BALANCING for each in _listed(elb, call, key)
    ]
    for first in range(0, len(found), MOST_ARNS):
        some = found[first : first + MOST_ARNS]
        described = _described(elb, [each.id for each in some])
        owned = {each["ResourceArn"] for each in described if _owns(stack_tag, each["Tags"])}
        yield from (each for each in some if each.id in owned)


def _described(elb: Client, arns: list[str]) -> list[dict[str, Any]]:
    """The tags of load balancing resources. AWS describes none if one of them was deleted after it was listed."""
    gone = (elb.exceptions.LoadBalancerNotFoundException, elb.exceptions.TargetGroupNotFoundException)
    try:
        return list(elb.describe_tags(ResourceArns=arns)["TagDescriptions"])
    except gone:
        if len(arns) == 1:
            return []
        return [found for arn in arns for found in _described(elb, [arn])]


def _certificates(acm: Client, stack_tag: str) -> Iterator[Resource]:
    for found in _listed(acm, "list_certificates", "CertificateSummaryList", Includes={"keyTypes": list(KEY_TYPES)}):
        arn = found["CertificateArn"]
        try:
            tags = acm.list_tags_for_certificate(CertificateArn=arn)["Tags"]
        except acm.exceptions.ResourceNotFoundException:  # deleted after it was listed
            continue
        if _owns(stack_tag, tags):
            yield Resource("certificate", arn)


def _owns(stack_tag: str, tags: list[dict[str, str]]) -> bool:
    return {"Key": STACK_TAG, "Value": stack_tag} in tags
