"""Files that reconfigure writes for the Rails application (gitlab/recipes/gitlab-rails.rb)."""

import json
from typing import Any

from lab_gitlab import accounts, files, ip_rate_limiter, paths
from lab_gitlab.accounts import Owner
from lab_gitlab.configuration import Configuration


def write(configuration: Configuration, git: Owner) -> bool:
    """Write the files; return whether one has changed that the application reads only at startup."""
    files.folder(paths.RAILS_VAR, owner=git)
    for name in ("tmp", "working", "shared", "uploads", "sockets"):
        files.folder(paths.RAILS_VAR / name, owner=git, mode=0o750)
    files.folder(paths.BUILDS.parent, owner=git)
    for private in (paths.RAILS_ETC, paths.UPGRADE_STATUS, paths.BACKUPS, paths.BUILDS, paths.LOGS / "gitlab-rails"):
        files.folder(private, owner=git, mode=0o700)
    _write_token_key(configuration, git)
    _write_command_settings(configuration)
    group = Owner(accounts.ROOT_OWNER.uid, git.gid)
    secrets = json.dumps({"db_key_base": configuration.get("gitlab_rails", "db_key_base")})
    changed = files.write(paths.RAILS_SECRETS, secrets, owner=group, mode=0o640)
    settings = json.dumps(_settings(configuration))
    return files.write(paths.RAILS_CONFIGURATION, settings, owner=group, mode=0o640) or changed


def _write_token_key(configuration: Configuration, git: Owner) -> None:
    """Overwrite the token key in every run: `internal_key` always has a value (secrets_file)."""
    key = configuration.get("registry", "internal_key")
    if configuration.get("gitlab_rails", "registry_enabled") and key:
        files.write(paths.at(configuration.registry_key_path), key, owner=git)


def _write_command_settings(configuration: Configuration) -> None:
    """Write the files that `gitlab-rails` and `gitlab-rake` read first."""
    files.write(paths.RAILS_RC, "gitlab_user='git'\ngitlab_group='git'\n")
    files.folder(paths.RAILS_ENVIRONMENT)
    environment = {"HOME": paths.VAR, "RAILS_ENV": "production", **configuration.get("gitlab_rails", "env", {})}
    for old in paths.RAILS_ENVIRONMENT.iterdir():
        if old.name not in environment:
            old.unlink()
    for name, value in environment.items():
        files.write(paths.RAILS_ENVIRONMENT / name, str(value))


def _settings(configuration: Configuration) -> dict[str, Any]:
    """Return the part of gitlab.yml that is read. It is written as JSON, a subset of YAML."""

    def rails(name: str, default: Any = None) -> Any:
        return configuration.get("gitlab_rails", name, default)

    return {
        "gitlab": {
            "url": configuration.external_url,
            "host": configuration.host,
            "port": configuration.port,
            "https": configuration.https,
            "trusted_proxies": configuration.trusted_proxies,
        },
        "registry": {
            "enabled": bool(rails("registry_enabled", False)),
            "host": rails("registry_host"),
            "port": rails("registry_port"),
            "api_url": rails("registry_api_url"),
            "path": rails("registry_path", str(paths.RAILS_VAR / "shared/registry")),
            "key": str(paths.at(configuration.registry_key_path)),
            "issuer": rails("registry_issuer", "omnibus-gitlab-issuer"),
        },
        "smtp": {
            "enabled": bool(rails("smtp_enable", False)),
            "address": rails("smtp_address"),
            "port": rails("smtp_port", 25),
            "user_name": rails("smtp_user_name"),
            "password": rails("smtp_password"),
            "tls": bool(rails("smtp_tls", False)),
            "starttls": bool(rails("smtp_enable_starttls_auto", True)),
            "from": rails("gitlab_email_from", f"gitlab@{configuration.host}"),
        },
        "backup": {"keep_time": int(rails("backup_keep_time", 0))},
        "rack_attack": {"git_basic_auth": {**ip_rate_limiter.DEFAULTS, **(rails("rack_attack_git_basic_auth") or {})}},
        "monitoring": {"ip_whitelist": rails("monitoring_whitelist", ["127.0.0.0/8", "::1/128"])},
    }
