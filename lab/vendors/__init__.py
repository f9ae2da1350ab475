"""The vendors' sites: signed package repositories and container registries behind TLS, as on the Internet."""

from lab.vendors import front, packages, registry


def start() -> None:
    """Build what is missing or outdated, then serve every vendor's sites. Idempotent.

    The lab's Docker engine must be running. Raises LabError if a step fails.
    """
    packages.ensure()
    registry.ensure()
    registry.start()
    front.start()


def stop() -> None:
    """Stop serving the vendors' sites. Idempotent."""
    front.stop()
    registry.stop()
