"""Names and tags of AWS resources."""

import pulumi

from settings import Settings


def named(name: str) -> str:
    """The Name of a resource in AWS, which distinguishes the stacks of one account."""
    return f"{name}-{pulumi.get_stack()}"


def tagged(settings: Settings, name: str) -> dict[str, str]:
    """The tags of a resource: those of the settings, and its Name."""
    return {**settings.tags, "Name": named(name)}
