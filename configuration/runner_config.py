"""Renders the runner's config.toml. Source: docs/configuration/advanced-configuration.md of gitlab-runner 17.10.1."""

import json
from collections.abc import Sequence

from configuration.job_limits import JobLimits
from configuration.paths import DOCKER_IN_DOCKER
from settings import Settings

UNHEALTHY_INTERVAL = "30s"
"""How long the runner pauses after GitLab has rejected it three times in a row (maintenance mode, a restored secrets
file). The runner's default of one hour suits a GitLab with many runners, and would outlast the cause.
"""

SHARED_CACHE = "/cache"
"""Where the runner stores the `cache:` of pipelines, in one volume per project and slot."""


def render_runner_config(
    settings: Settings,
    *,
    name: str,
    limits: JobLimits,
    external_url: str,
    token: str,
    extra_hosts: Sequence[str] = (),
) -> str:
    """The config.toml of one runner with the docker executor. `token` is a secret; `extra_hosts` are NAME:ADDRESS for
    the containers of jobs, which do not read the machine's own file.

    Jobs are isolated from each other. The volume of a job's checkout is deleted with the job, unless the job uses the
    strategy `fetch` and caches are enabled (executors/docker/docker.go of gitlab-runner, `createBuildVolume`). Its
    containers have their own network, regardless of its variables: a feature flag in this file takes precedence
    (common/build_settings.go, `populateFeatureFlags`).
    """
    # JSON strings are TOML basic strings: both escape with backslashes.
    quoted = json.dumps
    volumes = [SHARED_CACHE] if settings.runner_shared_cache else []
    if settings.runner_privileged:
        # All containers of a job get it, including services; those without Docker ignore it.
        volumes.append(f"{DOCKER_IN_DOCKER}:/etc/docker/daemon.json:ro")
    return "\n".join(
        [
            f"concurrent = {settings.runner_concurrency}",
            "check_interval = 0",
            "",
            "[[runners]]",
            f"  name = {quoted(name)}",
            f"  url = {quoted(external_url)}",
            f"  token = {quoted(token)}",
            f"  unhealthy_interval = {quoted(UNHEALTHY_INTERVAL)}",
            '  executor = "docker"',
            # For jobs that do not set a strategy.
            '  environment = ["GIT_STRATEGY=clone"]',
            "  [runners.feature_flags]",
            "    FF_NETWORK_PER_BUILD = true",
            "  [runners.docker]",
            f"    image = {quoted(settings.runner_default_image)}",
            f"    privileged = {quoted(settings.runner_privileged)}",
            *(_privileged_images(settings.runner_privileged_images) if settings.runner_privileged else []),
            # Per container; services have separate keys.
            *[f"    {service}memory = {quoted(f'{limits.memory}m')}" for service in ("", "service_")],
            *[f"    {service}cpus = {quoted(str(limits.cpus))}" for service in ("", "service_")],
            *([f"    extra_hosts = {quoted(extra_hosts)}"] if extra_hosts else []),
            f"    disable_cache = {quoted(not settings.runner_shared_cache)}",
            f"    volumes = {quoted(volumes)}",
            # Otherwise Docker would start an image that another project's job pulled, for any job that knows its name.
            '    allowed_pull_policies = ["always"]',
            "",
        ]
    )


def _privileged_images(images: Sequence[str]) -> list[str]:
    """The lists of privileged images: without them, all images would be privileged (executors/docker/docker.go,
    `isInAllowedPrivilegedImages`).
    """
    return [
        "    services_privileged = true",
        f"    allowed_privileged_images = {json.dumps(images)}",
        f"    allowed_privileged_services = {json.dumps(images)}",
    ]
