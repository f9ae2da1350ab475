"""Renders Docker's daemon.json for the runner's and the registry's machine. Source: Docker docs, "dockerd"."""

import json

from validation.values import DOCKER_NETWORK

JOB_NETWORK_SIZE = 24
"""Prefix length of each network that Docker creates on the runner's machine."""

DEFAULT_BRIDGE = next(DOCKER_NETWORK.subnets(new_prefix=JOB_NETWORK_SIZE))
"""The runner's network for containers that have no network of their own. Each job gets one of the other subnets."""


VPC_RESOLVER = "169.254.169.253"
"""The address at which every machine in a VPC reaches AWS's DNS server (VPC User Guide, "Understanding Amazon DNS")."""


def render_docker_in_docker(*, insecure_registry: str | None) -> str:
    """The daemon.json of a Docker daemon that runs in a job. In a job, the name server is one that Docker provides in
    the network namespace, and nested containers cannot reach it. They would fall back to a public one, which the VPC
    blocks.
    """
    daemon: dict[str, object] = {"dns": [VPC_RESOLVER]}
    if insecure_registry:
        daemon["insecure-registries"] = [insecure_registry]
    return json.dumps(daemon, indent=2, sort_keys=True) + "\n"


def render_docker_daemon(*, insecure_registry: str | None = None, network_per_job: bool = False) -> str:
    """The daemon.json of a machine. Logs are limited in size. `insecure_registry` is the registry's host:port, written
    as in image names, if it uses plain HTTP. `network_per_job` provides 255 networks in the one block that the VPC must
    not overlap; Docker's default pools provide about thirty and extend to 192.168.0.0/16.
    """
    daemon: dict[str, object] = {"log-driver": "json-file", "log-opts": {"max-size": "50m", "max-file": "3"}}
    if insecure_registry:
        daemon["insecure-registries"] = [insecure_registry]
    if network_per_job:
        daemon["bip"] = f"{DEFAULT_BRIDGE[1]}/{JOB_NETWORK_SIZE}"
        daemon["default-address-pools"] = [{"base": str(DOCKER_NETWORK), "size": JOB_NETWORK_SIZE}]
    return json.dumps(daemon, indent=2, sort_keys=True) + "\n"
