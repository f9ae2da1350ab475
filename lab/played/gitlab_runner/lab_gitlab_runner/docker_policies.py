"""What [runners.docker] lets a job have (common/config.go, executors/docker, executors/docker/internal/pull)."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

Settings = Mapping[str, Any]


def cache_volumes(settings: Settings) -> list[str]:
    """Volumes that name no folder of the machine: Docker keeps them for the project's next job."""
    return [str(volume) for volume in settings.get("volumes") or () if ":" not in str(volume)]


def pull_policies(settings: Settings, job: Mapping[str, Any]) -> list[str]:
    """The job's own, else config.toml's."""
    return _job_policies(job) or _listed(settings.get("pull_policy")) or ["always"]


def refused_pull_policies(settings: Settings, job: Mapping[str, Any]) -> str | None:
    """Why the policies are refused; None when one of them is allowed.

    One is enough at 17.10: an allowed policy carries those beside it (`verifyPullPolicies`). 18.0 drops those.
    """
    wanted = pull_policies(settings, job)
    allowed = _listed(settings.get("allowed_pull_policies")) or _listed(settings.get("pull_policy")) or ["always"]
    if set(wanted) & set(allowed):
        return None
    source = "GitLab pipeline config" if _job_policies(job) else "Runner config"
    return (
        f"pull_policy ([{' '.join(wanted)}]) defined in {source} is not one of the allowed_pull_policies "
        f"([{' '.join(allowed)}])"
    )


def is_privileged(settings: Settings, image: str) -> bool:
    """Whether a container of the image, as the job names it, is privileged; without a list each is."""
    allowed = settings.get("allowed_privileged_images")
    return bool(settings.get("privileged")) and (not allowed or any(_matches(image, pattern) for pattern in allowed))


def _job_policies(job: Mapping[str, Any]) -> list[str]:
    return _listed((job.get("image") or {}).get("pull_policy"))


def _listed(given: str | Sequence[str] | None) -> list[str]:
    return [given] if isinstance(given, str) else list(given or ())


def _matches(image: str, pattern: str) -> bool:
    """As doublestar does: `*` ends at a slash, `**` does not."""
    wild = {"**": ".*", "*": "[^/]*"}
    parts = (wild.get(part) or re.escape(part) for part in re.split(r"(\*+)", pattern))
    return re.fullmatch("".join(parts), image) is not None
