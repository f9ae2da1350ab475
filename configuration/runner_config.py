"""The runner's config.toml. Source: docs/configuration/advanced-configuration.md of gitlab-runner 17.10.1."""

import json
from collections.abc import Sequence

from configuration.job_limits import JobLimits
from configuration.paths import DOCKER_IN_DOCKER
from settings import Settings

UNHEALTHY_INTERVAL = "30s"
"""How long the runner pauses after GitLab has refused it three times in a row (maintenance mode, a restored secrets
file). The runner's default of an hour is meant for a GitLab with many runners, and would outlast the cause.
"""

SHARED_CACHE = "/cache"
"""Where the runner keeps what `cache:` of a pipeline names, in a volume for each project and slot."""


def render_runner_config(settings: Settings, *, name: str, limits: JobLimits, external_url: str, token: str) -> str:
    """One runner with the docker executor. `token` is a secret.

    A job finds nothing of another one. The volume of its checkout goes with it, unless it is of the strategy `fetch`
    and caches are not disabled (executors/docker/docker.go of gitlab-runner, `createBuildVolume`). Its containers have
    a network of their own, whatever its variables say: a feature flag of this file takes precedence
    (common/build_settings.go, `populateFeatureFlags`).
    """
    # JSON strings are TOML basic strings: both escape with backslashes.
    quoted = json.dumps
    volumes = [SHARED_CACHE] if settings.runner_shared_cache else []
    if settings.runner_privileged:
        # Every container of a job has it, services too; without Docker in them nobody reads it.
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
            # The strategy of jobs that name none.
            '  environment = ["GIT_STRATEGY=clone"]',
            "  [runners.feature_flags]",
            "    FF_NETWORK_PER_BUILD = true",
            "  [runners.docker]",
            f"    image = {quoted(settings.runner_default_image)}",
            f"    privileged = {quoted(settings.runner_privileged)}",
            *(_privileged_images(settings.runner_privileged_images) if settings.runner_privileged else []),
            # Of each container; those of services have keys of their own.
            *[f"    {service}memory = {quoted(f'{limits.memory}m')}" for service in ("", "service_")],
            *[f"    {service}cpus = {quoted(str(limits.cpus))}" for service in ("", "service_")],
            f"    disable_cache = {quoted(not settings.runner_shared_cache)}",
            f"    volumes = {quoted(volumes)}",
            # Docker would start an image that another project's job has pulled for whoever knows its name.
            '    allowed_pull_policies = ["always"]',
            "",
        ]
    )


def _privileged_images(images: Sequence[str]) -> list[str]:
    """Without a list every image would be privileged (executors/docker/docker.go, `isInAllowedPrivilegedImages`)."""
    return [
        "    services_privileged = true",
        f"    allowed_privileged_images = {json.dumps(images)}",
        f"    allowed_privileged_services = {json.dumps(images)}",
    ]
