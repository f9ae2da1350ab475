"""gitlab.rb, evaluated as Ruby and checked like in the package's cookbooks.

Source of names, defaults and messages: omnibus-gitlab 17.10.4+ce.0, files/gitlab-cookbooks.
"""

import json
import subprocess
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lab_gitlab import paths
from lab_gitlab.accounts import Account

Section = dict[str, Any]

ACCOUNTS = {
    "web_server": ("gitlab-www", "/var/opt/gitlab/nginx", "/bin/false"),
    "user": ("git", "/var/opt/gitlab", "/bin/sh"),
    "redis": ("gitlab-redis", "/var/opt/gitlab/redis", "/bin/false"),
    "postgresql": ("gitlab-psql", "/var/opt/gitlab/postgresql", "/bin/sh"),
    "prometheus": ("gitlab-prometheus", "/var/opt/gitlab/prometheus", "/bin/sh"),
}
"""Name, home and shell of the package's system accounts by the gitlab.rb section that sets their IDs, in the order of
their creation. Each account has a group of the same name.
"""


class ConfigurationError(Exception):
    """gitlab.rb is invalid. `detail` is the location, if the real package reports it."""

    def __init__(self, message: str, detail: str = "") -> None:
        super().__init__(message)
        self.detail = detail


def load(file: Path) -> "Configuration":
    """Evaluate the file. Raises ConfigurationError with the real package's message."""
    done = subprocess.run(
        [paths.RUBY, "--disable=gems", paths.RUBY_LIBRARY / "gitlab_rb.rb", file],
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        settings = json.loads(done.stdout)
    except ValueError:
        raise ConfigurationError(f"{file}: {done.stderr.strip()}") from None
    if "error" in settings:
        error = settings["error"]
        raise ConfigurationError(error["message"], f"{error['class']} {error['line'] or ''}".strip())
    return Configuration(settings)


@dataclass
class Configuration:
    """The settings of one gitlab.rb."""

    settings: dict[str, Any]

    def section(self, name: str) -> Section:
        """Return the settings of one section; missing secrets are later added to it in place."""
        section: Section = self.settings[name]
        return section

    def get(self, section: str, key: str, default: Any = None) -> Any:
        """Return a setting or its default. Reading a missing key in gitlab.rb leaves {}, which counts as missing."""
        value = self.section(section).get(key)
        return default if value is None or value == {} else value

    def enabled(self, section: str, *, default: bool) -> bool:
        """Return whether a service is enabled."""
        return bool(self.get(section, "enable", default))

    def check(self) -> None:
        """Raises ConfigurationError for values that GitLab rejects or that the lab does not support."""
        url = urlsplit(self.external_url)
        if not url.hostname:
            raise ConfigurationError(
                "GitLab external URL must include a schema and FQDN, e.g. http://gitlab.example.com/"
            )
        if url.scheme not in ("http", "https"):
            raise ConfigurationError(f"Unsupported external URL scheme: {url.scheme}")
        if url.path:
            raise ConfigurationError(f"external_url has the path {url.path}, which the lab does not support")

    @cached_property
    def external_url(self) -> str:
        """Without a trailing slash."""
        return str(self.settings["external_url"] or "").rstrip("/")

    @property
    def https(self) -> bool:
        return urlsplit(self.external_url).scheme == "https"

    @property
    def host(self) -> str:
        return urlsplit(self.external_url).hostname or ""

    @property
    def port(self) -> int:
        return urlsplit(self.external_url).port or (443 if self.https else 80)

    @property
    def listen_port(self) -> int:
        """The port on which nginx listens."""
        return int(self.get("nginx", "listen_port") or self.port)

    @property
    def listens_with_tls(self) -> bool:
        """Whether nginx itself terminates TLS; unless set, it does if external_url is https."""
        return bool(self.get("nginx", "listen_https", self.https))

    @property
    def real_ip_trusted_addresses(self) -> list[str]:
        """Addresses that nginx trusts to report the client's address."""
        return list(self.get("nginx", "real_ip_trusted_addresses", []))

    @property
    def trusted_proxies(self) -> list[str]:
        """Addresses whose X-Forwarded-For Rails trusts; by default those that nginx trusts."""
        given = self.get("gitlab_rails", "trusted_proxies")
        return self.real_ip_trusted_addresses if given is None else list(given)

    @property
    def registry_key_path(self) -> str:
        usual = "/var/opt/gitlab/gitlab-rails/etc/gitlab-registry.key"
        return str(self.get("gitlab_rails", "registry_key_path", usual))

    @property
    def mountpoints(self) -> list[str]:
        """Mount points without which services do not start."""
        return list(self.get("high_availability", "mountpoint", []))

    def accounts(self) -> dict[str, Account]:
        """Return the system accounts by section."""
        return {
            section: Account(name, home, shell, *(_number(self.get(section, key)) for key in ("uid", "gid")))
            for section, (name, home, shell) in ACCOUNTS.items()
        }


def _number(value: Any) -> int | None:
    return None if value is None else int(value)
