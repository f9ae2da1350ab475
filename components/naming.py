"""Tags of AWS resources."""

import pulumi

from settings import Settings


def tagged(settings: Settings, name: str) -> dict[str, str]:
    """The tags of the settings and a Name that tells stacks of one account apart."""
    return {**settings.tags, "Name": f"{name}-{pulumi.get_stack()}"}
