"""The AWS accounts that publish Red Hat's images."""

import re

ACCOUNTS = (
    (r"cn-\w+-\d+", "841258680906"),
    (r"us-gov-\w+-\d+", "219670896067"),
    (r"[a-z]{2}-[a-z]+-\d+", "309956199498"),
)
"""Red Hat's AWS account by names of regions: China, GovCloud, and the rest are partitions with accounts of their own.

The names are those of botocore's partitions.json, the accounts those of Red Hat's own cloudigrade
(RHEL_IMAGES_AWS_ACCOUNTS). AWS's isolated and sovereign partitions are not among them.
"""


def account(region: str) -> str:
    """Red Hat's account in the partition of a region. Raises LookupError where it is not known."""
    for pattern, number in ACCOUNTS:
        if re.fullmatch(pattern, region):
            return number
    raise LookupError(f"Red Hat's AWS account is unknown in {region}")
