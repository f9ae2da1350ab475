"""Paths on the machine, the same as those of the real package.

The environment variable LAB_ROOT is a folder that is prepended to every absolute path, so that tests need no machine.
"""

import os
import shutil
from pathlib import Path

ROOT = Path(os.environ.get("LAB_ROOT", "/"))
IS_MACHINE = Path("/") == ROOT
"""False if LAB_ROOT is set: then there are no system accounts and no systemd, and the caller owns all files."""


def at(path: str | Path) -> Path:
    """Return `path` below LAB_ROOT; a path that is already there is unchanged."""
    path = Path(path)
    return path if path.is_relative_to(ROOT) else ROOT / path.relative_to("/")


def program(hidden: str, usual: str) -> str:
    """Return the path of a program that the machine image keeps out of PATH, or of the host's own."""
    return hidden if Path(hidden).exists() else shutil.which(usual) or usual


RUBY = program("/usr/libexec/lab/ruby", "ruby")
GIT = program("/usr/libexec/lab/git", "git")
NGINX = program("/usr/libexec/lab/nginx", "/usr/sbin/nginx")
SV = program("/usr/libexec/lab/sv", "sv")
SVLOGD = program("/usr/libexec/lab/svlogd", "svlogd")

RAILS = Path(__file__).resolve().parents[1]
"""/opt/gitlab/embedded/service/gitlab-rails when installed; in the repository, the folder of the spec."""
RUBY_LIBRARY = RAILS / "lab_gitlab/ruby"

OPT = at("/opt/gitlab")
SERVICES = OPT / "service"
SERVICE_DEFINITIONS = OPT / "sv"
RAILS_RC = OPT / "etc/gitlab-rails-rc"
PSQL_RC = OPT / "etc/gitlab-psql-rc"
RAILS_ENVIRONMENT = OPT / "etc/gitlab-rails/env"

CLOCK_OFFSET = at("/run/lab/clock-offset")
CONSOLE_DELAY = at("/run/lab/console-delay")

ETC = at("/etc/gitlab")
GITLAB_RB = ETC / "gitlab.rb"
SECRETS = ETC / "gitlab-secrets.json"

VAR = at("/var/opt/gitlab")
BOOTSTRAPPED = VAR / "bootstrapped"
RAILS_VAR = VAR / "gitlab-rails"
RAILS_ETC = RAILS_VAR / "etc"
RAILS_CONFIGURATION = RAILS_ETC / "gitlab.yml"
RAILS_SECRETS = RAILS_ETC / "secrets.yml"
UPGRADE_STATUS = RAILS_VAR / "upgrade-status"
PUMA_SOCKET = RAILS_VAR / "sockets/gitlab.socket"
WORKHORSE_SOCKET = VAR / "gitlab-workhorse/sockets/socket"
POSTGRESQL = VAR / "postgresql"
POSTGRESQL_DATA = POSTGRESQL / "data"
POSTGRESQL_SOCKET = POSTGRESQL / ".s.PGSQL.5432"
REDIS = VAR / "redis"
REDIS_SOCKET = REDIS / "redis.socket"
REPOSITORIES = VAR / "git-data/repositories"
BUILDS = VAR / "gitlab-ci/builds"
ARTIFACTS = RAILS_VAR / "shared/artifacts"
UPLOADS = RAILS_VAR / "uploads"
GITALY = VAR / "gitaly"
GITALY_SOCKET = GITALY / "gitaly.socket"
NGINX_DIRECTORY = VAR / "nginx"
BACKUPS = VAR / "backups"

LOGS = at("/var/log/gitlab")
