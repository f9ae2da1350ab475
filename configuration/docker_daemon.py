"""Docker's daemon.json on the runner's and the registry's machine. Source: Docker docs, "dockerd"."""

import json

from validation.values import DOCKER_NETWORK

JOB_NETWORK_SIZE = 24
"""Prefix length of each network that Docker makes on the runner's machine."""

DEFAULT_BRIDGE = next(DOCKER_NETWORK.subnets(new_prefix=JOB_NETWORK_SIZE))
"""The runner's network of containers without one of their own. The others of the block are for jobs: one each."""


VPC_RESOLVER = "169.254.169.253"
"""AWS's name server as every machine of a VPC reaches it (VPC User Guide, "Understanding Amazon DNS")."""


def render_docker_in_docker(*, insecure_registry: str | None) -> str:
    """The daemon.json of a Docker that runs in a job. Its own name server there is one that Docker has put into the
    network namespace, which no container inside reaches: they would get a public one, which the VPC lets nobody ask.
    """
    daemon: dict[str, object] = {"dns": [VPC_RESOLVER]}
    if insecure_registry:
        daemon["insecure-registries"] = [insecure_registry]
    return json.dumps(daemon, indent=2, sort_keys=True) + "\n"


def render_docker_daemon(*, insecure_registry: str | None = None, network_per_job: bool = False) -> str:
    """Bounded logs; `insecure_registry` is the registry's host:port, written as in image names, where it speaks
    plain HTTP. With `network_per_job` there is room for 255 networks, in the one block that no VPC may overlap;
    Docker's own pools have some thirty, and reach to 192.168.0.0/16.
    """
    daemon: dict[str, object] = {"log-driver": "json-file", "log-opts": {"max-size": "50m", "max-file": "3"}}
    if insecure_registry:
        daemon["insecure-registries"] = [insecure_registry]
    if network_per_job:
        daemon["bip"] = f"{DEFAULT_BRIDGE[1]}/{JOB_NETWORK_SIZE}"
        daemon["default-address-pools"] = [{"base": str(DOCKER_NETWORK), "size": JOB_NETWORK_SIZE}]
    return json.dumps(daemon, indent=2, sort_keys=True) + "\n"
