"""Keys of config.toml that are played, with their types (common/config.go). The real runner ignores a key that it does
not know, so that a misspelt one changes nothing: here it is an error, as is a key of the real one that is not played.
"""

import datetime
from collections.abc import Mapping
from typing import Any

from lab_gitlab_runner import feature_flags

TEXTS = (list[str],)
GLOBAL: Mapping[str, Any] = {
    **dict.fromkeys(("concurrent", "check_interval", "shutdown_timeout"), int),
    **dict.fromkeys(("connection_max_age", "log_level", "log_format", "user"), str),
    "session_server": {"session_timeout": int},
    "runners": list,
}
RUNNER: Mapping[str, Any] = {
    **dict.fromkeys(("name", "url", "token", "executor", "clone_url", "unhealthy_interval"), str),
    **dict.fromkeys(("token_obtained_at", "token_expires_at"), datetime.datetime),
    **dict.fromkeys(("id", "unhealthy_requests_limit"), int),
    "environment": TEXTS,
    "feature_flags": dict.fromkeys(feature_flags.PLAYED, bool),
    "cache": {"MaxUploadedArchiveSize": int, "s3": {}, "gcs": {}, "azure": {}},
    "docker": dict,
}
DOCKER: Mapping[str, Any] = {
    **dict.fromkeys(("host", "image", "helper_image", "network_mode"), str),
    # Limits are texts as well: "1g", "0.5".
    **dict.fromkeys(("memory", "cpus", "service_memory", "service_cpus"), str),
    **dict.fromkeys(("privileged", "services_privileged", "disable_cache", "tls_verify"), bool),
    **dict.fromkeys(("disable_entrypoint_overwrite", "oom_kill_disable"), bool),
    **dict.fromkeys(("shm_size", "network_mtu"), int),
    **dict.fromkeys(("volumes", "extra_hosts", "allowed_pull_policies"), TEXTS),
    **dict.fromkeys(("allowed_privileged_images", "allowed_privileged_services"), TEXTS),
    "pull_policy": (str, list[str]),
}


def problem(content: Mapping[str, Any]) -> str | None:
    """What is wrong with the keys; None when nothing is."""
    found = _problem(content, GLOBAL, "")
    for runner in content.get("runners", ()) if found is None else ():
        docker = runner.get("docker", {})
        found = found or _problem(runner, RUNNER, "runners.") or _problem(docker, DOCKER, "runners.docker.")
    return found


def _problem(table: Mapping[str, Any], known: Mapping[str, Any], where: str) -> str | None:
    for name, value in table.items():
        if name not in known:
            return f"the lab plays gitlab-runner without {where}{name}"
        expected = known[name]
        if isinstance(expected, Mapping) and isinstance(value, dict):
            if found := _problem(value, expected, f"{where}{name}."):
                return found
        elif isinstance(expected, Mapping) or not _fits(value, expected):
            return f'toml: (last key "{where}{name}"): incompatible types: TOML value has type {type(value).__name__}'
    return None


def _fits(value: object, expected: Any) -> bool:
    if isinstance(expected, tuple):
        return any(_fits(value, one) for one in expected)
    if expected == list[str]:
        return isinstance(value, list) and all(isinstance(entry, str) for entry in value)
    # A boolean is an integer in Python only.
    return isinstance(value, expected) and not (expected is int and isinstance(value, bool))
