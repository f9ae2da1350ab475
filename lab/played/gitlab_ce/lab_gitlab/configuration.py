"""gitlab.rb: evaluated as Ruby, checked and completed as the package's cookbooks do it.

Source of names, defaults and messages: omnibus-gitlab 17.10.4+ce.0, files/gitlab-cookbooks.
"""

import json
import os
import subprocess
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lab_gitlab import paths
from lab_gitlab.accounts import Account
from lab_gitlab.removed_settings import removed_settings

Section = dict[str, Any]

DEFAULTS: dict[str, Section] = {
    "user": {"username": "git", "group": "git", "home": "/var/opt/gitlab", "shell": "/bin/sh"},
    "web_server": {
        "username": "gitlab-www",
        "group": "gitlab-www",
        "home": "/var/opt/gitlab/nginx",
        "shell": "/bin/false",
    },
    "redis": {
        "username": "gitlab-redis",
        "group": "gitlab-redis",
        "home": "/var/opt/gitlab/redis",
        "shell": "/bin/false",
    },
    "postgresql": {
        "username": "gitlab-psql",
        "group": "gitlab-psql",
        "home": "/var/opt/gitlab/postgresql",
        "shell": "/bin/sh",
    },
    "prometheus": {
        "username": "gitlab-prometheus",
        "group": "gitlab-prometheus",
        "home": "/var/opt/gitlab/prometheus",
        "shell": "/bin/sh",
    },
    "gitlab_rails": {
        "registry_issuer": "omnibus-gitlab-issuer",
        "registry_key_path": "/var/opt/gitlab/gitlab-rails/etc/gitlab-registry.key",
        "monitoring_whitelist": ["127.0.0.0/8", "::1/128"],
        "auto_migrate": True,
    },
    "gitlab_sshd": {
        "generate_host_keys": True,
        "dir": "/var/opt/gitlab/gitlab-sshd",
        "listen_address": "localhost:2222",
        "proxy_protocol": False,
        "proxy_policy": "use",
        "proxy_header_timeout": "500ms",
        "host_keys_dir": "/var/opt/gitlab/gitlab-sshd",
        "host_keys_glob": "ssh_host_*_key",
    },
    "nginx": {
        "client_max_body_size": 0,
        "listen_addresses": ["*"],
        "proxy_read_timeout": 3600,
        "proxy_connect_timeout": 300,
        "real_ip_trusted_addresses": [],
        "redirect_http_to_https_port": 80,
        "http2_enabled": True,
        "ssl_protocols": "TLSv1.2 TLSv1.3",
        "hsts_max_age": 63072000,
        "error_log_level": "error",
    },
}

ACCOUNT_SECTIONS = ("web_server", "user", "redis", "postgresql", "prometheus")
MONITORING = (
    "prometheus",
    "alertmanager",
    "node_exporter",
    "redis_exporter",
    "postgres_exporter",
    "gitlab_exporter",
)


class ConfigurationError(Exception):
    """gitlab.rb does not pass. `detail` is where, as far as the real package would say it."""

    def __init__(self, message: str, detail: str = "") -> None:
        super().__init__(message)
        self.detail = detail


def load(file: Path) -> "Configuration":
    """Evaluate the file and complete what it says. Raises ConfigurationError with the real package's words."""
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
    """The settings of one gitlab.rb. `settings` holds what it says; `get` adds the package's defaults."""

    settings: dict[str, Any]

    def section(self, name: str) -> Section:
        """What gitlab.rb says below one top-level name, to be completed in place."""
        section: Section = self.settings[name]
        return section

    def get(self, section: str, key: str, default: Any = None) -> Any:
        """A setting, its default in the package, or `default`. Reading a missing key in gitlab.rb leaves {}."""
        value = self.section(section).get(key)
        if value is None or value == {}:
            return DEFAULTS.get(section, {}).get(key, default)
        return value

    def enabled(self, section: str, *, default: bool) -> bool:
        """Whether a service is switched on."""
        value = self.get(section, "enable")
        return default if value is None else bool(value)

    def complete(self) -> None:
        """Derive what follows from other settings and refuse what cannot be. Raises ConfigurationError."""
        removed = removed_settings(self.settings)
        if removed:
            raise ConfigurationError(
                "Removed configurations found in gitlab.rb. Aborting reconfigure.", "\n".join(removed)
            )
        self._check_external_url()
        self._check_mail()
        self._check_ssh_host()
        self._complete_registry()
        if self._obtains_certificate():
            raise ConfigurationError(
                f"letsencrypt_certificate[{self.host}] (letsencrypt::http_authorization line 6) had an error: "
                f"RuntimeError: [{self.host}] Validation failed, unable to request certificate",
                "the lab has no certificate authority that answers ACME: bring a certificate to "
                f"{self.certificate} or end TLS in front of GitLab",
            )

    # external_url and what follows from it (gitlab/libraries/gitlab_rails.rb, nginx.rb)

    @cached_property
    def external_url(self) -> str:
        """Without a trailing slash. A machine without the setting is called by its own name, as the real one."""
        return str(self.settings["external_url"] or f"http://{os.uname().nodename}").rstrip("/")

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
    def listen_https(self) -> bool:
        """Whether nginx itself speaks TLS."""
        value = self.get("nginx", "listen_https")
        return self.https if value is None else bool(value)

    @property
    def certificate(self) -> str:
        return str(self.get("nginx", "ssl_certificate", f"/etc/gitlab/ssl/{self.host}.crt"))

    @property
    def certificate_key(self) -> str:
        return str(self.get("nginx", "ssl_certificate_key", f"/etc/gitlab/ssl/{self.host}.key"))

    @property
    def trusted_proxies(self) -> list[str]:
        """Addresses whose X-Forwarded-For Rails believes: nginx's, unless they are given."""
        given = self.get("gitlab_rails", "trusted_proxies")
        return list(self.get("nginx", "real_ip_trusted_addresses") if given is None else given)

    @property
    def mountpoints(self) -> list[str]:
        """Services refuse to start until these are mounted."""
        value = self.get("high_availability", "mountpoint")
        if value is None:
            return []
        return [value] if isinstance(value, str) else list(value)

    def accounts(self) -> dict[str, Account]:
        """The package's system accounts by their section, in the order in which it makes them."""
        return {
            section: Account(
                user=self.get(section, "username"),
                group=self.get(section, "group"),
                home=self.get(section, "home"),
                shell=self.get(section, "shell"),
                uid=_number(self.get(section, "uid")),
                gid=_number(self.get(section, "gid")),
            )
            for section in ACCOUNT_SECTIONS
        }

    def _check_external_url(self) -> None:
        if not self.settings["external_url"]:
            return
        url = urlsplit(self.external_url)
        if not url.hostname:
            raise ConfigurationError(
                "GitLab external URL must include a schema and FQDN, e.g. http://gitlab.example.com/"
            )
        if url.scheme not in ("http", "https"):
            raise ConfigurationError(f"Unsupported external URL scheme: {url.scheme}")
        if url.path:
            raise ConfigurationError(f"external_url has the path {url.path}: not played by the lab")

    def _check_mail(self) -> None:
        rails = self.section("gitlab_rails")
        if rails.get("smtp_enable") and rails.get("smtp_tls") and rails.get("smtp_enable_starttls_auto"):
            raise ConfigurationError(
                "gitlab_rails['smtp_tls'] and gitlab_rails['smtp_enable_starttls_auto'] are mutually exclusive. "
                "Set one of them to false. "
                "SMTP providers usually use port 465 for TLS and port 587 for STARTTLS."
            )

    def _check_ssh_host(self) -> None:
        host = self.get("gitlab_rails", "gitlab_ssh_host")
        if host and any(character in host for character in ":/@ "):
            raise ConfigurationError(
                f"gitlab_rails['gitlab_ssh_host'] is set to {host}, but it must only contain a valid hostname."
            )

    def _complete_registry(self) -> None:
        """registry_external_url switches the bundled registry on and overwrites host and port (registry.rb)."""
        given = self.settings["registry_external_url"]
        if not given:
            return
        url = urlsplit(given)
        if not url.hostname:
            raise ConfigurationError(
                "GitLab Container Registry external URL must include a schema and FQDN, "
                "e.g. https://registry.example.com/"
            )
        if url.scheme not in ("http", "https"):
            raise ConfigurationError(f"Unsupported GitLab Registry external URL scheme: {url.scheme}")
        if url.path not in ("", "/"):
            raise ConfigurationError(f"Unsupported GitLab Registry external URL path: {url.path}")
        rails, registry = self.section("gitlab_rails"), self.section("registry")
        if registry.get("enable") is None:
            registry["enable"] = True
        if registry["enable"]:
            rails["registry_enabled"] = True
        rails["registry_host"] = url.hostname
        if not rails.get("registry_api_url"):
            rails["registry_api_url"] = "http://127.0.0.1:5000"
        port = url.port or (443 if url.scheme == "https" else 80)
        if port not in (80, 443):
            rails["registry_port"] = port

    def _obtains_certificate(self) -> bool:
        """Let's Encrypt is on by itself when nginx is to speak TLS and has no certificate (lets_encrypt.rb)."""
        chosen = self.get("letsencrypt", "enable")
        if chosen is not None:
            return bool(chosen)
        missing = not paths.at(self.certificate).exists() and not paths.at(self.certificate_key).exists()
        return self.https and self.get("nginx", "listen_https") in (None, True) and missing


def _number(value: Any) -> int | None:
    return None if value is None else int(value)
