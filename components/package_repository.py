"""A vendor's package repository on a machine, before anything is installed from it."""

from collections.abc import Sequence

import pulumi

from components.remote_host import RemoteHost, Step
from configuration.package_repositories import PackageRepository

LIMIT = 600
"""Seconds, for a few files of some kB each: curl tries each four times."""


def add_repository(
    host: RemoteHost,
    repository: PackageRepository,
    fingerprints: Sequence[str],
    *,
    version: str,
    after: Sequence[pulumi.Resource],
    parent: pulumi.Resource,
) -> Step:
    """Lay down a repository and its signing keys, if `fingerprints` has that of each.

    The keys are fetched again before another `version` is installed: vendors extend the expiry of a key now and then,
    and the one on the machine would run out.
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
