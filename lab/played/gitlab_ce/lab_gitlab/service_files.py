"""Files and folders that reconfigure makes for single services before they start."""

import json
import os
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

from lab_gitlab import accounts, database_server, files, nginx_configuration, paths
from lab_gitlab.accounts import Owner
from lab_gitlab.configuration import Configuration

Owners = Mapping[str, Owner]
"""Owners by the section of gitlab.rb that names them."""

HOST_KEYS = ("rsa", "ecdsa", "ed25519")


def write_sshd(configuration: Configuration, owners: Owners) -> bool:
    """The host keys are made once and kept on the data volume."""
    git = owners["user"]
    for folder in (paths.VAR / "gitlab-shell", paths.at(configuration.get("gitlab_sshd", "dir"))):
        files.folder(folder, owner=git, mode=0o700)
    keys = paths.at(configuration.get("gitlab_sshd", "host_keys_dir"))
    pattern = configuration.get("gitlab_sshd", "host_keys_glob")
    generate = configuration.get("gitlab_sshd", "generate_host_keys")
    if generate and keys.is_dir() and not list(keys.glob(pattern)):
        for kind in HOST_KEYS:
            _make_host_key(keys / f"ssh_host_{kind}_key", kind, git)
    settings = {
        "listen": configuration.get("gitlab_sshd", "listen_address"),
        "host_key_files": sorted(str(file) for file in keys.glob(pattern)),
        **{
            name: configuration.get("gitlab_sshd", name)
            for name in ("proxy_protocol", "proxy_policy", "proxy_header_timeout")
        },
    }
    content = json.dumps({"user": configuration.get("user", "username"), "sshd": settings})
    group = Owner(accounts.ROOT_OWNER.uid, git.gid)
    return files.write(paths.VAR / "gitlab-shell/config.yml", content, owner=group, mode=0o640)


def make_redis(_configuration: Configuration, owners: Owners) -> bool:
    files.folder(paths.REDIS, owner=Owner(owners["redis"].uid, owners["user"].gid), mode=0o750)
    return False


def make_gitaly(_configuration: Configuration, owners: Owners) -> bool:
    for folder in (paths.GITALY, paths.VAR / "git-data"):
        files.folder(folder, owner=owners["user"], mode=0o700)
    return False


def make_postgresql(configuration: Configuration, owners: Owners) -> bool:
    """Like Chef, this gives the folder itself to the user, but nothing that is in it."""
    owner = owners["postgresql"]
    files.folder(paths.POSTGRESQL, owner=owner, mode=0o2775)
    files.folder(paths.POSTGRESQL_DATA, owner=owner, mode=0o700)
    if not (paths.POSTGRESQL_DATA / "PG_VERSION").exists():
        accounts.run_as(owner, lambda: database_server.initialise(paths.POSTGRESQL_DATA))
    files.write(paths.PSQL_RC, f"psql_user='{configuration.get('postgresql', 'username')}'\n")
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
"""By the service's name; each returns whether a running service has to read something anew."""


def _make_host_key(file: Path, kind: str, git: Owner) -> None:
    subprocess.run(
        ["ssh-keygen", "-q", "-N", "", "-t", kind, "-f", file],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=True,
    )
    if os.geteuid() == 0:
        os.chown(file, git.uid, git.gid)
