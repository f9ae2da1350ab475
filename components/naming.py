"""Names and tags of AWS resources."""

import hashlib
from enum import StrEnum

import pulumi

from settings import Settings
from validation.values import STACK_TAG

LONGEST_ROLE_NAME = 64
"""IAM and AWS STS quotas, "IAM name requirements": role names; those of instance profiles can be longer."""


class TaggedLate(StrEnum):
    """Resources that AWS creates without tags, so that a second call must tag them; until then they have no owner.

    The stack's operators may tag such a resource as their own if it has no owner (docs/iam). Its tag value differs from
    that of other resources and grants few permissions, so that operators cannot take over another stack's machine or
    group this way.
    """

    ROOT_VOLUME = "root-volume"
    DEFAULT_GROUP = "default-group"


def named(name: str) -> str:
    """The Name of a resource in AWS, which distinguishes the stacks of one account."""
    return f"{name}-{pulumi.get_stack()}"


def stack_tag() -> str:
    """The value of the tag that all resources of this stack have, and no others in the account."""
    return f"{pulumi.get_project()}/{pulumi.get_stack()}"


def account_wide(name: str) -> str:
    """The name of an IAM resource, of which an account has only one with that name, in all regions and stacks."""
    full = f"{pulumi.get_project()}-{pulumi.get_stack()}-{name}"
    if len(full) <= LONGEST_ROLE_NAME:
        return full
    digest = hashlib.sha256(full.encode()).hexdigest()[:8]
    return f"{full[: LONGEST_ROLE_NAME - 9]}-{digest}"


def owned_path() -> str:
    """The path of the stack's IAM resources. It is a part of their ARN, and so policies can name those of one stack:
    IAM does not check the tags of a role when it is changed or passed.
    """
    return f"/{stack_tag()}/"


def tagged(settings: Settings, name: str, late: TaggedLate | None = None) -> dict[str, str]:
    """The tags of a resource: those of the settings, its Name and its owner."""
    owner = f"{stack_tag()}/{late}" if late else stack_tag()
    return {**settings.tags, "Name": named(name), STACK_TAG: owner}
