"""The AWS accounts that publish Red Hat's images."""

import re

ACCOUNTS = (
    (r"cn-\w+-\d+", "841258680906"),
    (r"us-gov-\w+-\d+", "219670896067"),
    (r"[a-z]{2}-[a-z]+-\d+", "309956199498"),
)
"""Red Hat's AWS account by region name: China, GovCloud and all other regions are partitions with separate accounts.

The region names are from botocore's partitions.json, the accounts from Red Hat's own cloudigrade
(RHEL_IMAGES_AWS_ACCOUNTS). AWS's isolated and sovereign partitions are not included.
"""


def account(region: str) -> str:
    """Red Hat's account in a region's partition. Raises LookupError if it is unknown."""
    for pattern, number in ACCOUNTS:
        if re.fullmatch(pattern, region):
            return number
    raise LookupError(f"Red Hat's AWS account is unknown in {region}")
