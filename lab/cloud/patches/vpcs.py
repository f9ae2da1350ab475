"""VPCs: how many there are, and which ranges they can have beside each other."""

import ipaddress
from typing import Any

from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models import EC2Backend

from lab.cloud.patches import quotas, state
from lab.cloud.patches.correction import correction


def _overlap(one: str, other: str) -> bool:
    return ipaddress.IPv4Network(one, strict=False).overlaps(ipaddress.IPv4Network(other))


@correction
def vpcs_of_a_region_are_limited() -> None:
    """AWS refuses a VPC if account and region have as many as the quota allows, five at first with the default one.
    (moto: any number.)"""
    original = EC2Backend.create_vpc

    def create_vpc(self: Any, cidr_block: str, *args: Any, is_default: bool = False, **kwargs: Any) -> Any:
        most = quotas.allowed(quotas.VPCS, self.account_id, self.region_name)
        if not is_default and len(self.vpcs) >= most:
            raise EC2ClientError("VpcLimitExceeded", "The maximum number of VPCs has been reached.")
        return original(self, cidr_block, *args, is_default=is_default, **kwargs)

    EC2Backend.create_vpc = create_vpc


@correction
def ranges_of_vpcs_do_not_overlap() -> None:
    """A limit of the lab, whose machines are all on one host: VPCs have different addresses, in all regions together.
    AWS and moto allow the same range in each VPC. Every region has a default VPC with the same range, which has no
    machines here."""
    original = EC2Backend.create_vpc

    def create_vpc(self: Any, cidr_block: str, *args: Any, is_default: bool = False, **kwargs: Any) -> Any:
        for ec2, _ in state.regions() if not is_default else ():
            for vpc in list(ec2.vpcs.values()):
                if str(vpc.is_default).lower() != "true" and _overlap(cidr_block, vpc.cidr_block):
                    raise EC2ClientError(
                        "UnsupportedOperation",
                        f"The lab does not model VPCs with overlapping ranges: {cidr_block} overlaps {vpc.cidr_block} "
                        f"of {vpc.id} in {ec2.region_name}. Set another networkCidr.",
                    )
        return original(self, cidr_block, *args, is_default=is_default, **kwargs)

    EC2Backend.create_vpc = create_vpc
