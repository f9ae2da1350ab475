"""Whether a region's quotas have room for another stack: for its Elastic IP addresses, its VPC and its vCPUs.

By default AWS allows five addresses, of which a stack has four, five VPCs with the default one, and five vCPUs. Without
room `up` fails in the middle, and a restore has stopped the former machines by then.

Sources: Service Quotas, "EC2-VPC Elastic IPs", "VPCs per Region" and "Running On-Demand Standard (A, C, D, H, I, M, R,
T, Z) instances"; Amazon EC2 API Reference, DescribeAccountAttributes; Amazon VPC User Guide, "Amazon VPC quotas" and
"Bring your own IP addresses" (own addresses do not count); Amazon EC2 User Guide, "On-Demand Instance quotas" (running
machines count with the vCPUs of their types, Spot Instances do not count).
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError  # type: ignore[import-untyped]

from configuration.flows import MACHINES
from recovery import stack_file
from recovery.errors import RecoveryError


@dataclass(frozen=True)
class Quota:
    """A quota by its codes, and what it counts."""

    service: str
    code: str
    counted: str


ADDRESSES = Quota("ec2", "L-0263D0A3", "Elastic IP addresses")
NETWORKS = Quota("vpc", "L-F678F1CE", "VPC")
CPUS = Quota("ec2", "L-1216C47A", "vCPUs of running On-Demand Standard instances")

ADDRESSES_NEEDED = len(MACHINES) + 1
"""One for each machine and one for the load balancer."""

AMAZONS = "amazon"
"""The pool of addresses that do not belong to the customer."""

STANDARD = re.compile(r"([acdhimrtz]|im|is)\d")
"""How types of the Standard families begin. Others with these first letters, such as hpc, inf and trn, have quotas of
their own.
"""

COUNTED = ("pending", "running")
"""States of machines that count. AWS names `running` only, which a pending one will be."""

MOST_VALUES = 200
"""The most values of a filter (Amazon EC2 API Reference, Filter)."""

Client = Any
"""A client of boto3, which has no types."""


def check(ec2: Client, quotas: Client, types: Sequence[str], *, stopped: Collection[str] = ()) -> None:
    """Raise RecoveryError, with a command that requests a higher quota, for each one without room for a stack whose
    machines have these types. `stopped` are the IDs of machines that will be stopped before the stack is created.
    """
    if problems := list(_problems(ec2, quotas, types, stopped)):
        raise RecoveryError("\n".join(problems))


def instance_types(settings: stack_file.Document, overrides: Mapping[str, Any]) -> list[str]:
    """The types of a stack's machines, with the settings that `overrides` change."""
    names = [f"{place}InstanceType" for place in MACHINES]
    return [str(overrides.get(name, stack_file.setting(settings, name))) for name in names]


def _problems(ec2: Client, quotas: Client, types: Sequence[str], stopped: Collection[str]) -> Iterator[str]:
    found = ec2.describe_addresses()["Addresses"]
    addresses = sum(each.get("PublicIpv4Pool", AMAZONS) == AMAZONS for each in found)
    yield from _problem(ec2, ADDRESSES, _allowed_addresses(ec2, quotas), addresses, ADDRESSES_NEEDED)
    if known := _known(ec2, quotas, NETWORKS):
        yield from _problem(ec2, NETWORKS, int(known["Value"]), _networks(ec2, known["QuotaArn"]), 1)
    needed = _cpus(ec2, types, {"InstanceTypes": sorted(set(types))})
    if needed and (known := _known(ec2, quotas, CPUS)):
        yield from _problem(ec2, CPUS, int(known["Value"]), _running_cpus(ec2, stopped), needed)


def _problem(ec2: Client, quota: Quota, allowed: int, used: int, needed: int) -> Iterator[str]:
    """What is wrong, if anything is."""
    region = ec2.meta.region_name
    if allowed - used < needed:
        yield (
            f"the new stack needs {needed} {quota.counted}, and only {max(0, allowed - used)} of {allowed} are free "
            f"in {region}. Use another region with REGION=, or request a higher quota, which is granted within minutes "
            f"to days:\n  aws service-quotas request-service-quota-increase --service-code {quota.service} "
            f"--quota-code {quota.code} --desired-value {used + needed} --region {region}"
        )


def _allowed_addresses(ec2: Client, quotas: Client) -> int:
    """The applied quota. Service Quotas does not have every one that AWS's support raised, and EC2 reports it, too."""
    try:
        return int(_quota(quotas, ADDRESSES)["Value"])
    except ClientError:
        [found] = ec2.describe_account_attributes(AttributeNames=["vpc-max-elastic-ips"])["AccountAttributes"]
        return int(found["AttributeValues"][0]["AttributeValue"])


def _known(ec2: Client, quotas: Client, quota: Quota) -> dict[str, Any] | None:
    """The applied quota, or None: no other service reports it, and a restore does not fail for a check."""
    try:
        return _quota(quotas, quota)
    except ClientError as error:
        name = f"{quota.service}/{quota.code} ({quota.counted}) of {ec2.meta.region_name}"
        print(f"The quota {name} cannot be read, so `up` may reach it: {error}")
        return None


def _quota(quotas: Client, quota: Quota) -> dict[str, Any]:
    found = quotas.get_service_quota(ServiceCode=quota.service, QuotaCode=quota.code)
    return dict(found["Quota"])


def _networks(ec2: Client, quota_arn: str) -> int:
    """The number of VPCs of the account of the quota. Those that other accounts share with it do not count."""
    account = quota_arn.split(":")[4]
    pages = ec2.get_paginator("describe_vpcs").paginate()
    return sum(each["OwnerId"] == account for page in pages for each in page["Vpcs"])


def _running_cpus(ec2: Client, stopped: Collection[str]) -> int:
    """The vCPUs that count, without those of the machines `stopped`."""
    states = [{"Name": "instance-state-name", "Values": list(COUNTED)}]
    pages = ec2.get_paginator("describe_instances").paginate(Filters=states)
    machines = [each for page in pages for found in page["Reservations"] for each in found["Instances"]]
    types = [
        each["InstanceType"]
        for each in machines
        # Of Spot Instances and of those of a Capacity Block.
        if "InstanceLifecycle" not in each and each["InstanceId"] not in stopped
    ]
    different = sorted(set(types))
    selections = (
        {"Filters": [{"Name": "instance-type", "Values": different[first : first + MOST_VALUES]}]}
        for first in range(0, len(different), MOST_VALUES)
    )
    return sum(_cpus(ec2, types, selection) for selection in selections)


def _cpus(ec2: Client, types: Sequence[str], selection: Mapping[str, Any]) -> int:
    """The vCPUs of machines of these types, as far as the types are Standard and in the selection."""
    pages = ec2.get_paginator("describe_instance_types").paginate(**selection)
    cpus = {each["InstanceType"]: each["VCpuInfo"]["DefaultVCpus"] for page in pages for each in page["InstanceTypes"]}
    return sum(cpus.get(each, 0) for each in types if STANDARD.match(each))
