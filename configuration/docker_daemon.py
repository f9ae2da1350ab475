"""Docker's daemon.json on the runner's and the registry's machine."""

import json


def render_docker_daemon(*, insecure_registry: str | None = None) -> str:
    """Bounded logs; `insecure_registry` is the registry's host:port, written as in image names, where it speaks
    plain HTTP.
    """
    daemon: dict[str, object] = {"log-driver": "json-file", "log-opts": {"max-size": "50m", "max-file": "3"}}
    if insecure_registry:
        daemon["insecure-registries"] = [insecure_registry]
    return json.dumps(daemon, indent=2, sort_keys=True) + "\n"
