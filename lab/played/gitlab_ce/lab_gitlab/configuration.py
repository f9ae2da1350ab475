"""gitlab.rb: evaluated as Ruby and checked as the package's cookbooks do it.

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
"""Name, home and shell of the package's system accounts by the section that gives them a number, in the order in which
it makes them; each has a group of its name.
"""


class ConfigurationError(Exception):
    """gitlab.rb does not pass. `detail` is where, as far as the real package would say it."""

    def __init__(self, message: str, detail: str = "") -> None:
        super().__init__(message)
        self.detail = detail


def load(file: Path) -> "Configuration":
    """Evaluate the file. Raises ConfigurationError with the real package's words."""
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
        """What gitlab.rb says below one top-level name; the secrets are completed in place."""
        section: Section = self.settings[name]
        return section

    def get(self, section: str, key: str, default: Any = None) -> Any:
        """A setting, or the package's default. Reading a missing key in gitlab.rb leaves {}."""
        value = self.section(section).get(key)
        return default if value is None or value == {} else value

    def enabled(self, section: str, *, default: bool) -> bool:
        """Whether a service is switched on."""
        return bool(self.get(section, "enable", default))

    def check(self) -> None:
        """Refuse what cannot be. Raises ConfigurationError."""
        url = urlsplit(self.external_url)
        if not url.hostname:
            raise ConfigurationError(
                "GitLab external URL must include a schema and FQDN, e.g. http://gitlab.example.com/"
            )
        if url.scheme not in ("http", "https"):
            raise ConfigurationError(f"Unsupported external URL scheme: {url.scheme}")
        if url.path:
            raise ConfigurationError(f"external_url has the path {url.path}: not played by the lab")
        if self.get("nginx", "listen_https", self.https):
            raise ConfigurationError("the lab's nginx speaks no TLS: end it in front of GitLab (nginx['listen_https'])")

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
        """Where nginx listens."""
        return int(self.get("nginx", "listen_port") or self.port)

    @property
    def real_ip_trusted_addresses(self) -> list[str]:
        """Whose word nginx takes for the client's address."""
        return list(self.get("nginx", "real_ip_trusted_addresses", []))

    @property
    def trusted_proxies(self) -> list[str]:
        """Addresses whose X-Forwarded-For Rails believes: nginx's, unless they are given."""
        given = self.get("gitlab_rails", "trusted_proxies")
        return self.real_ip_trusted_addresses if given is None else list(given)

    @property
    def registry_key_path(self) -> str:
        usual = "/var/opt/gitlab/gitlab-rails/etc/gitlab-registry.key"
        return str(self.get("gitlab_rails", "registry_key_path", usual))

    @property
    def mountpoints(self) -> list[str]:
        """Services refuse to start until these are mounted."""
        return list(self.get("high_availability", "mountpoint", []))

    def accounts(self) -> dict[str, Account]:
        """By their section."""
        return {
            section: Account(name, home, shell, *(_number(self.get(section, key)) for key in ("uid", "gid")))
            for section, (name, home, shell) in ACCOUNTS.items()
        }


def _number(value: Any) -> int | None:
    return None if value is None else int(value)
