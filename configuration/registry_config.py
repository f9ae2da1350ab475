"""Renders the container registry's config.yml. Source: docs/configuration.md of container-registry 4.15.2."""

import yaml

from configuration.gitlab_rb import TOKEN_ISSUER
from configuration.paths import REGISTRY_TOKEN_CERTIFICATE

TOKEN_SERVICE = "container_registry"
"""`aud` of the registry's tokens."""


def render_registry_config(*, external_url: str, port: int) -> str:
    """The config.yml, with token authentication by GitLab. `http.secret` is omitted: the machine generates it and
    passes it as REGISTRY_HTTP_SECRET.
    """
    return yaml.safe_dump(
        {
            "version": "0.1",
            "log": {"level": "info", "formatter": "json", "fields": {"service": "registry"}},
            "storage": {
                "filesystem": {"rootdirectory": "/var/lib/registry"},
                "cache": {"blobdescriptor": "inmemory"},
                "delete": {"enabled": True},
            },
            # From 4.40.0 on, a registry prefers a database: a new one does not start without it, and an older one does
            # not collect its garbage (container-registry issue 2391).
            "database": {"enabled": False},
            "http": {
                "addr": f":{port}",
                # TLS may terminate at the load balancer: the registry does not know the client's scheme.
                "relativeurls": True,
                "headers": {"X-Content-Type-Options": ["nosniff"]},
            },
            "health": {"storagedriver": {"enabled": True, "interval": "10s", "threshold": 3}},
            "auth": {
                "token": {
                    "realm": f"{external_url}/jwt/auth",
                    "service": TOKEN_SERVICE,
                    "issuer": TOKEN_ISSUER,
                    "rootcertbundle": REGISTRY_TOKEN_CERTIFICATE,
                    "autoredirect": False,
                }
            },
        },
        sort_keys=False,
    )


def registry_image(version: str) -> str:
    """The name of GitLab's own registry image (CNG images)."""
    return f"registry.gitlab.com/gitlab-org/build/cng/gitlab-container-registry:v{version}-gitlab"
