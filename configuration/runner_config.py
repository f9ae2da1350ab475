"""The runner's config.toml. Source: docs/configuration/advanced-configuration.md of gitlab-runner 17.10.1."""

import json

from settings import Settings

UNHEALTHY_INTERVAL = "30s"
"""How long the runner pauses after GitLab has refused it three times in a row (maintenance mode, a restored secrets
file). The runner's default of an hour is meant for a GitLab with many runners, and would outlast the cause.
"""


def render_runner_config(settings: Settings, *, name: str, external_url: str, token: str) -> str:
    """One runner with the docker executor. `token` is a secret."""
    # JSON strings are TOML basic strings: both escape with backslashes.
    quoted = json.dumps
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
            "  [runners.docker]",
            f"    image = {quoted(settings.runner_default_image)}",
            f"    privileged = {quoted(settings.runner_privileged)}",
            '    volumes = ["/cache"]',
            "",
        ]
    )
