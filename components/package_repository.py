"""Configures a vendor's package repository on a machine, before anything is installed from it."""

from collections.abc import Sequence

import pulumi

from components.remote_host import RemoteHost, Step
from configuration.package_repositories import PackageRepository

LIMIT = 600
"""Seconds, for a few files of some kB each; curl tries up to four times per file."""


def add_repository(
    host: RemoteHost,
    repository: PackageRepository,
    fingerprints: Sequence[str],
    *,
    version: str,
    after: Sequence[pulumi.Resource],
    parent: pulumi.Resource,
) -> Step:
    """Add a repository and its signing keys, if `fingerprints` contains the fingerprint of every key.

    The keys are downloaded again before another `version` is installed: vendors extend the expiry of their keys, and
    the copy on the machine would expire.
    """
    return host.run(
        "add_repository",
        name=f"add_{repository.product}_repository",
        arguments=repository.arguments(fingerprints),
        payload=[repository.render()],
        after=after,
        triggers=[version],
        limit=LIMIT,
        parent=parent,
    )
