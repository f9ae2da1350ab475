"""GitLab's client for the registry at `api_url` of gitlab.yml."""

import http.client
import json
from collections.abc import Sequence
from urllib.parse import urlsplit

from lab_gitlab import registry_tokens
from lab_gitlab.application import Application

TIMEOUT = 10.0  # seconds
MANIFEST_TYPES = (
    "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, "
    "application/vnd.docker.distribution.manifest.v2+json, application/vnd.docker.distribution.manifest.list.v2+json"
)


class RegistryError(Exception):
    """The registry cannot be reached or denies access to GitLab's own token."""


def tags(app: Application, repository: str) -> list[str]:
    """Return the tag names, sorted; empty if the registry does not know the repository. Raises RegistryError."""
    status, _, body = _request(app, "GET", repository, "tags/list", "pull")
    if status == 404:
        return []
    return sorted(json.loads(body).get("tags") or [])


def digest(app: Application, repository: str, tag: str) -> str | None:
    """Return the digest that the tag points to; None if the tag does not exist. Raises RegistryError."""
    status, headers, _ = _request(app, "HEAD", repository, f"manifests/{tag}", "pull")
    return None if status == 404 else headers.get("docker-content-digest")


def delete_tag(app: Application, repository: str, tag: str) -> bool:
    """Delete one tag, not its manifest; return False if the tag does not exist. Raises RegistryError.

    In a registry that cannot delete only a tag (Docker's own), delete the manifest, which deletes its tags.
    """
    status, _, _ = _request(app, "DELETE", repository, f"manifests/{tag}", "pull", "delete", "*", tolerate=(400, 405))
    if status < 400:
        return True
    found = digest(app, repository, tag)
    if found is None:
        return False
    _request(app, "DELETE", repository, f"manifests/{found}", "pull", "delete", "*")
    return True


def delete_tags(app: Application, repository: str) -> None:
    """Delete all tags of a repository with their manifests. Raises RegistryError."""
    if not app.registry["enabled"]:
        return
    for found in {digest(app, repository, tag) for tag in tags(app, repository)} - {None}:
        _request(app, "DELETE", repository, f"manifests/{found}", "pull", "delete", "*")


def _request(
    app: Application, method: str, repository: str, path: str, *actions: str, tolerate: Sequence[int] = ()
) -> tuple[int, dict[str, str], bytes]:
    url = urlsplit(app.registry["api_url"] or "http://localhost:5000/")
    connection = http.client.HTTPConnection(url.netloc, timeout=TIMEOUT)
    token = registry_tokens.own_token(app, repository, *actions)
    try:
        connection.request(
            method,
            f"{url.path.rstrip('/')}/v2/{repository}/{path}",
            headers={"Authorization": f"Bearer {token}", "Accept": MANIFEST_TYPES},
        )
        response = connection.getresponse()
        body = response.read()
    except OSError as error:
        raise RegistryError(f"{url.netloc}: {error.strerror or error}") from None
    finally:
        connection.close()
    if response.status >= 400 and response.status not in (404, *tolerate):
        raise RegistryError(f"{url.netloc} answered {response.status} to {method} {repository}/{path}")
    return response.status, {name.lower(): value for name, value in response.getheaders()}, body
