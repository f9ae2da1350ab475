"""Resources that outlive a stack and can be adopted by a later one."""

from collections.abc import Sequence

import pulumi

from settings import Settings


def kept(
    settings: Settings, parent: pulumi.Resource, *, adopted_id: str | None, only_at_creation: Sequence[str] = ()
) -> pulumi.ResourceOptions:
    """Options of a resource that `deletionProtection` protects, and that is imported instead of created if a setting
    contains its ID: `adopted_id`. Changes of the inputs `only_at_creation` do not affect an existing one.
    """
    return pulumi.ResourceOptions(
        parent=parent,
        protect=settings.deletion_protection,
        import_=adopted_id,
        # An import fails if an input differs from the resource in AWS, which still has the tags of its former stack.
        ignore_changes=[*only_at_creation, *(["tags", "tagsAll"] if adopted_id else [])] or None,
    )
