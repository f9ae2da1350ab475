"""Whether a region has enough Elastic IP addresses for another stack: AWS allows five by default, and a stack has four.

Sources: Service Quotas, "EC2-VPC Elastic IPs"; Amazon EC2 API Reference, DescribeAccountAttributes; Amazon VPC User
Guide, "Amazon VPC quotas" and "Bring your own IP addresses" (own addresses do not count).
"""

from typing import Any

from botocore.exceptions import ClientError  # type: ignore[import-untyped]

from configuration.flows import MACHINES
from recovery.errors import RecoveryError

QUOTA = "L-0263D0A3"
NEEDED = len(MACHINES) + 1
"""One for each machine and one for the load balancer."""

AMAZONS = "amazon"
"""The pool of addresses that do not belong to the customer."""

Client = Any
"""A client of boto3, which has no types."""


def check(ec2: Client, quotas: Client) -> None:
    """Raise RecoveryError, with the command that requests a higher quota, unless enough addresses are free."""
    used = sum(each.get("PublicIpv4Pool", AMAZONS) == AMAZONS for each in ec2.describe_addresses()["Addresses"])
    allowed = _allowed(ec2, quotas)
    if allowed - used >= NEEDED:
        return
    region = ec2.meta.region_name
    raise RecoveryError(
        f"the new stack needs {NEEDED} Elastic IP addresses, and only {max(0, allowed - used)} of {allowed} are free "
        f"in {region}. Use another region with REGION=, or request a higher quota, which is usually granted within "
        f"minutes:\n  aws service-quotas request-service-quota-increase --service-code ec2 --quota-code {QUOTA} "
        f"--desired-value {used + NEEDED} --region {region}"
    )


def _allowed(ec2: Client, quotas: Client) -> int:
    """The applied quota. Service Quotas does not have every one that AWS's support raised, and EC2 reports it, too."""
    try:
        return int(quotas.get_service_quota(ServiceCode="ec2", QuotaCode=QUOTA)["Quota"]["Value"])
    except ClientError:
        [found] = ec2.describe_account_attributes(AttributeNames=["vpc-max-elastic-ips"])["AccountAttributes"]
        return int(found["AttributeValues"][0]["AttributeValue"])
