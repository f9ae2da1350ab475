"""Makes a machine trust the authority of the setting certificateAuthority."""

from collections.abc import Sequence

import pulumi

from components.remote_host import RemoteHost, Step
from configuration.trusted_authority import certificates
from settings import Settings

LIMIT = 600
"""Seconds, for a few small files, and on the registry's machine a restart of Docker."""


def trust_authority(
    host: RemoteHost,
    settings: Settings,
    *,
    folders: Sequence[str] = (),
    limit: int = LIMIT,
    after: Sequence[pulumi.Resource],
    parent: pulumi.Resource,
) -> Step:
    """Store the authority's certificates in the machine's trust store and in `folders`, before anything connects to
    GitLab over TLS. Docker and gitlab-runner are restarted if they are running and the authority has changed.

    The step also runs without an authority, so that removing the setting removes the certificates.
    """
    return host.run(
        "trust_authority",
        arguments=folders,
        payload=certificates(settings.certificate_authority),
        after=after,
        limit=limit,
        parent=parent,
    )
