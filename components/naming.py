"""Names and tags of AWS resources."""

from enum import StrEnum

import pulumi

from settings import Settings
from validation.values import STACK_TAG


class TaggedLate(StrEnum):
    """What AWS makes without tags, so that it is tagged by a second call: the first one names nobody as its owner.

    The stack's operators may call such a thing theirs once nobody does (docs/iam). So that they do not get a stranger's
    machine or group that way, it is marked apart from the rest, and there is little that they may do with it.
    """

    ROOT_VOLUME = "root-volume"
    DEFAULT_GROUP = "default-group"


def named(name: str) -> str:
    """The Name of a resource in AWS, which distinguishes the stacks of one account."""
    return f"{name}-{pulumi.get_stack()}"


def stack_tag() -> str:
    """Value of the tag that all resources of this stack have, and no others of the account."""
    return f"{pulumi.get_project()}/{pulumi.get_stack()}"


def tagged(settings: Settings, name: str, late: TaggedLate | None = None) -> dict[str, str]:
    """The tags of a resource: those of the settings, its Name, and whose it is."""
    owner = f"{stack_tag()}/{late}" if late else stack_tag()
    return {**settings.tags, "Name": named(name), STACK_TAG: owner}
