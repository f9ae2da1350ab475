"""Names and tags of AWS resources."""

import pulumi

from settings import Settings


def named(name: str) -> str:
    """What the Name of a resource is: it tells stacks of one account apart."""
    return f"{name}-{pulumi.get_stack()}"


def tagged(settings: Settings, name: str) -> dict[str, str]:
    """The tags of the settings and the Name."""
    return {**settings.tags, "Name": named(name)}
