"""Resources that outlive a stack, and that a later stack adopts."""

import pulumi

from settings import Settings


def kept(settings: Settings, parent: pulumi.Resource, *, adopted_id: str | None) -> pulumi.ResourceOptions:
    """Options of a resource that is protected as `deletionProtection` says, and that is not created but imported when
    a setting names it: `adopted_id`.
    """
    return pulumi.ResourceOptions(
        parent=parent,
        protect=settings.deletion_protection,
        import_=adopted_id,
        # An import fails when an input differs from what AWS has, and the tags are those of the stack that left it.
        ignore_changes=["tags", "tagsAll"] if adopted_id else None,
    )
