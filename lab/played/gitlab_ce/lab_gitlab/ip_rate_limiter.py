"""Bans addresses with too many failed logins of git or Docker clients: gitlab_rails['rack_attack_git_basic_auth'].

Source: gitlab-org/gitlab lib/gitlab/auth/ip_rate_limiter.rb, config/initializers/1_settings.rb; rack-attack
lib/rack/attack/allow2ban.rb. The real one counts in Redis, this one in the memory of the service puma.
"""

import threading
import time
from collections.abc import Mapping
from ipaddress import ip_address, ip_network
from typing import Any

DEFAULTS: Mapping[str, Any] = {
    "enabled": False,
    "ip_whitelist": ["127.0.0.1"],
    "maxretry": 10,
    "findtime": 60,
    "bantime": 3600,
}


class IpRateLimiter:
    """Counts failures by address in periods of `findtime` seconds; `settings` comes from gitlab.yml."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._settings = settings
        self._failures: dict[tuple[str, int], int] = {}
        self._banned_until: dict[str, float] = {}
        self._lock = threading.Lock()

    def banned(self, address: str) -> bool:
        return time.monotonic() < self._banned_until.get(address, 0.0)

    def reset(self, address: str) -> None:
        """Forget an address's failures after a successful login."""
        with self._lock:
            self._banned_until.pop(address, None)
            for key in [key for key in self._failures if key[0] == address]:
                del self._failures[key]

    def register_failure(self, address: str) -> None:
        """Count a failed login; a ban takes effect with the next request."""
        if not self._settings["enabled"] or self._trusted(address):
            return
        key = (address, int(time.monotonic() / self._settings["findtime"]))
        with self._lock:
            self._failures[key] = self._failures.get(key, 0) + 1
            if self._failures[key] >= self._settings["maxretry"]:
                self._banned_until[address] = time.monotonic() + self._settings["bantime"]

    def _trusted(self, address: str) -> bool:
        networks = (ip_network(network, strict=False) for network in self._settings["ip_whitelist"])
        return any(ip_address(address) in network for network in networks)
