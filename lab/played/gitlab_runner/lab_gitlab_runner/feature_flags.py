"""Feature flags of the real runner (helpers/featureflags) that are played: any other is refused in config.toml."""

from collections.abc import Mapping
from typing import Any

NETWORK_PER_BUILD = "FF_NETWORK_PER_BUILD"
PLAYED = (NETWORK_PER_BUILD,)
TRUE = ("1", "t", "T", "TRUE", "true", "True")  # strconv.ParseBool


def is_on(name: str, runner: Mapping[str, Any], variables: Mapping[str, str]) -> bool:
    """config.toml's word is the last; without one the job's variables decide (common/build_settings.go)."""
    flags = runner.get("feature_flags") or {}
    return bool(flags[name]) if name in flags else variables.get(name) in TRUE
