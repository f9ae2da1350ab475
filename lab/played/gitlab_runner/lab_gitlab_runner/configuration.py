"""config.toml and the machine's system ID next to it (common/config.go, common/system_id_state.go).

The real runner ignores unknown keys, so a misspelt key has no effect. Here an unknown key is an error, and so is a key
of the real runner that the stand-in does not support.
"""

import re
import secrets
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lab_gitlab_runner import log

DEFAULT_CHECK_INTERVAL = 3.0  # seconds
SYSTEM_ID = re.compile(r"[sr]_[0-9a-zA-Z]{12}")
NETWORK_PER_BUILD = "FF_NETWORK_PER_BUILD"

DOCKER: Mapping[str, Any] = {
    # Limits are also strings: "1g", "0.5".
    **dict.fromkeys(("image", "memory", "cpus", "service_memory", "service_cpus"), str),
    **dict.fromkeys(("privileged", "services_privileged", "disable_cache"), bool),
    "volumes": [str],
    "extra_hosts": [str],
    "allowed_pull_policies": [str],
    "allowed_privileged_images": [str],
    "allowed_privileged_services": [str],
}
RUNNER: Mapping[str, Any] = {
    **dict.fromkeys(("name", "url", "token", "executor", "clone_url", "unhealthy_interval"), str),
    "unhealthy_requests_limit": int,
    "environment": [str],
    "feature_flags": {NETWORK_PER_BUILD: bool},
    "docker": DOCKER,
}
SUPPORTED: Mapping[str, Any] = {"concurrent": int, "check_interval": int, "runners": [RUNNER]}
"""The supported keys with the types of their values."""

Runner = Mapping[str, Any]


class ConfigurationError(Exception):
    """The file is not a valid configuration."""


@dataclass
class Configuration:
    """The content of the file when it was read; a missing file is an empty configuration."""

    file: Path
    system_id: str
    content: Mapping[str, Any] = field(default_factory=dict)
    modified: float = 0.0

    @property
    def runners(self) -> list[Runner]:
        return list(self.content.get("runners", ()))

    @property
    def concurrent(self) -> int:
        return int(self.content.get("concurrent", 1))

    @property
    def check_interval(self) -> float:
        return float(self.content.get("check_interval") or DEFAULT_CHECK_INTERVAL)


def load(file: Path) -> Configuration:
    """Read the file.

    Raises ConfigurationError if it is not TOML or has an unsupported key, OSError if it cannot be read.
    """
    system_id = _system_id(file.with_name(".runner_system_id"))
    try:
        modified = file.stat().st_mtime
        content = tomllib.loads(file.read_text())
    except FileNotFoundError:
        return Configuration(file, system_id)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"decoding configuration file: toml: {error}") from None
    _check(content, SUPPORTED)
    return Configuration(file, system_id, content, modified)


def _check(value: Any, expected: Any, where: str = "") -> None:
    """Raises ConfigurationError."""
    if isinstance(expected, Mapping) and isinstance(value, dict):
        for name, part in value.items():
            place = f"{where}.{name}".lstrip(".")
            if name not in expected:
                raise ConfigurationError(
                    f"decoding configuration file: the lab's gitlab-runner does not support {place}"
                )
            _check(part, expected[name], place)
    elif isinstance(expected, list) and isinstance(value, list):
        for part in value:
            _check(part, expected[0], where)
    elif type(value) is not expected:
        words = f'(last key "{where}"): incompatible types: TOML value has type {type(value).__name__}'
        raise ConfigurationError(f"decoding configuration file: toml: {words}")


def _system_id(file: Path) -> str:
    """Return the system ID, stored next to config.toml. A missing one is random, not derived from the machine's ID."""
    if file.exists() and SYSTEM_ID.fullmatch(file.read_text().strip()):
        return file.read_text().strip()
    made = f"s_{secrets.token_hex(6)}"
    log.info("Created missing unique system ID", system_id=made)
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    file.touch(mode=0o600)
    file.write_text(made)
    return made
