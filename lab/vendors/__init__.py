"""The vendors' addresses: signed package repositories and a container registry behind TLS, as on the Internet."""

from lab.vendors import front, packages, registry


def start() -> None:
    """Build what is missing or out of date, then answer for every vendor. Idempotent.

    Needs the lab's engine to run. Raises LabError when a step fails.
    """
    packages.ensure()
    registry.ensure()
    registry.start()
    front.start()


def stop() -> None:
    """No vendor answers any more. Idempotent."""
    front.stop()
    registry.stop()
