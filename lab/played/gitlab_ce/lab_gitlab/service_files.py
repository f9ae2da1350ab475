"""Files and folders that reconfigure creates for services before they start."""

import json
import os
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

from lab_gitlab import accounts, database_server, files, nginx_configuration, paths
from lab_gitlab.accounts import Owner
from lab_gitlab.configuration import Configuration

Owners = Mapping[str, Owner]
"""Owners by the gitlab.rb section that configures them."""

HOST_KEYS = ("rsa", "ecdsa", "ed25519")


def write_sshd(configuration: Configuration, owners: Owners) -> bool:
    """Write the configuration of gitlab-sshd. Its host keys are created once and kept on the data volume."""
    git, keys = owners["user"], paths.VAR / "gitlab-sshd"
    for folder in (paths.VAR / "gitlab-shell", keys):
        files.folder(folder, owner=git, mode=0o700)
    names = [keys / f"ssh_host_{kind}_key" for kind in HOST_KEYS]
    if not any(name.exists() for name in names):
        for name, kind in zip(names, HOST_KEYS, strict=True):
            _make_host_key(name, kind, git)
    settings = {
        "listen": configuration.get("gitlab_sshd", "listen_address", "localhost:2222"),
        "host_key_files": [str(name) for name in names],
        "proxy_protocol": configuration.get("gitlab_sshd", "proxy_protocol", default=False),
    }
    content = json.dumps({"user": "git", "sshd": settings})
    group = Owner(accounts.ROOT_OWNER.uid, git.gid)
    return files.write(paths.VAR / "gitlab-shell/config.yml", content, owner=group, mode=0o640)


def make_redis(_configuration: Configuration, owners: Owners) -> bool:
    files.folder(paths.REDIS, owner=Owner(owners["redis"].uid, owners["user"].gid), mode=0o750)
    return False


def make_gitaly(_configuration: Configuration, owners: Owners) -> bool:
    for folder in (paths.GITALY, paths.VAR / "git-data"):
        files.folder(folder, owner=owners["user"], mode=0o700)
    return False


def make_postgresql(_configuration: Configuration, owners: Owners) -> bool:
    """Create the data directory. Like Chef, this sets the owner of the folder itself but not of its contents."""
    owner = owners["postgresql"]
    files.folder(paths.POSTGRESQL, owner=owner, mode=0o2775)
    files.folder(paths.POSTGRESQL_DATA, owner=owner, mode=0o700)
    if not (paths.POSTGRESQL_DATA / "PG_VERSION").exists():
        accounts.run_as(owner, lambda: database_server.initialise(paths.POSTGRESQL_DATA))
    files.write(paths.PSQL_RC, "psql_user='gitlab-psql'\n")
    return False


def make_workhorse(_configuration: Configuration, owners: Owners) -> bool:
    owner = Owner(owners["user"].uid, owners["web_server"].gid)
    for folder in (paths.WORKHORSE_SOCKET.parent.parent, paths.WORKHORSE_SOCKET.parent):
        files.folder(folder, owner=owner, mode=0o750)
    return False


def write_nginx(configuration: Configuration, owners: Owners) -> bool:
    owner = Owner(accounts.ROOT_OWNER.uid, owners["web_server"].gid)
    folder = paths.NGINX_DIRECTORY / "conf"
    for part in (paths.NGINX_DIRECTORY, folder):
        files.folder(part, owner=owner, mode=0o750)
    files.folder(paths.LOGS / "nginx", mode=0o750)
    contents = nginx_configuration.render(configuration)
    left_over = [file for file in folder.iterdir() if file.name not in contents]
    for file in left_over:
        file.unlink()
    changed = [files.write(folder / name, content) for name, content in contents.items()]
    return bool(left_over) or any(changed)


PREPARATIONS: Mapping[str, Callable[[Configuration, Owners], bool]] = {
    "gitaly": make_gitaly,
    "gitlab-sshd": write_sshd,
    "gitlab-workhorse": make_workhorse,
    "nginx": write_nginx,
    "postgresql": make_postgresql,
    "redis": make_redis,
}
"""Functions by service name; each returns whether a running service must be restarted to read its changed files."""


def _make_host_key(file: Path, kind: str, git: Owner) -> None:
    # Of ssh-keygen's default size, 3072 bits, an RSA key takes several times as long.
    size = ["-b", "2048"] if kind == "rsa" else []
    subprocess.run(
        ["ssh-keygen", "-q", "-N", "", "-t", kind, *size, "-f", file],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=True,
    )
    if os.geteuid() == 0:
        os.chown(file, git.uid, git.gid)
