"""Names and tags of AWS resources."""

from enum import StrEnum

import pulumi

from settings import Settings
from validation.values import STACK_TAG


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


def tagged(settings: Settings, name: str, late: TaggedLate | None = None) -> dict[str, str]:
    """The tags of a resource: those of the settings, its Name and its owner."""
    owner = f"{stack_tag()}/{late}" if late else stack_tag()
    return {**settings.tags, "Name": named(name), STACK_TAG: owner}
