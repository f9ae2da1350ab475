"""Deletes what a stack has in AWS and Pulumi does not know: a killed engine does not record its last calls.

Such resources are found by the tag of their stack. Resources of every kind are deleted only of a drill.
"""

import time
from collections.abc import Collection

from botocore.exceptions import ClientError  # type: ignore[import-untyped]

from recovery import leftovers
from recovery.leftovers import Clients

DELETED_BY = {
    "machine": ("ec2", "terminate_instances", "InstanceIds"),
    "load balancer": ("elbv2", "delete_load_balancer", "LoadBalancerArn"),
    "target group": ("elbv2", "delete_target_group", "TargetGroupArn"),
    "certificate": ("acm", "delete_certificate", "CertificateArn"),
    "volume": ("ec2", "delete_volume", "VolumeId"),
    "elastic address": ("ec2", "release_address", "AllocationId"),
    "network interface": ("ec2", "delete_network_interface", "NetworkInterfaceId"),
    "security group": ("ec2", "delete_security_group", "GroupId"),
    "subnet": ("ec2", "delete_subnet", "SubnetId"),
    "route table": ("ec2", "delete_route_table", "RouteTableId"),
    "internet gateway": ("ec2", "delete_internet_gateway", "InternetGatewayId"),
    "VPC": ("ec2", "delete_vpc", "VpcId"),
    "key pair": ("ec2", "delete_key_pair", "KeyPairId"),
}
"""Service, call, and parameter with the ID. A drill has no other kinds of resources."""

USERS_OF_NETWORKS = ("load balancer", "machine")
"""Kinds whose interfaces keep Pulumi from deleting networks, addresses and groups; it waits for twenty minutes."""

ROUNDS = 12
INTERVAL = 10  # seconds: a machine needs up to a minute to release its volume and its interface


def unrecorded(
    clients: Clients, stack_tag: str, *, kinds: Collection[str], known: Collection[str]
) -> list[leftovers.Resource]:
    """The stack's resources of these kinds, except those with a `known` ID."""
    return [each for each in leftovers.resources(clients, stack_tag) if each.kind in kinds and each.id not in known]


def sweep(
    clients: Clients, stack_tag: str, *, kinds: Collection[str] = tuple(DELETED_BY), known: Collection[str] = ()
) -> None:
    """Delete the stack's resources of these kinds, except those with a `known` ID, repeatedly, since some can be
    deleted only after others.
    """
    for _ in range(ROUNDS):
        found = unrecorded(clients, stack_tag, kinds=kinds, known=known)
        if not found:
            return
        for resource in found:
            service, call, parameter = DELETED_BY[resource.kind]
            value = [resource.id] if parameter.endswith("Ids") else resource.id
            try:
                getattr(clients(service), call)(**{parameter: value})
            except ClientError as error:
                print(f"{resource}: {error}")
            else:
                print(f"deleted {resource}, which Pulumi did not know")
        time.sleep(INTERVAL)
