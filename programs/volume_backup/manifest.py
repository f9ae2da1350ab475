"""The manifest: a file on the volume that lists what a snapshot of it must contain, so that a restore can be checked.

It is written before the freeze, so a snapshot may contain more, but never less. The checks of a restored copy find out
each value with the function that found it out for the manifest.
"""

import contextlib
import hashlib
import json
import os
from typing import Any, Callable, Dict, Iterable, List, Mapping, Optional

from .commands import run
from .errors import BackupError

NAME = "backup-manifest.json"
TABLES = (
    *("users", "namespaces", "projects", "members", "keys", "issues", "merge_requests", "notes", "events", "uploads"),
    *("lfs_objects", "ci_runners"),
)
"""Tables whose rows are counted. If one of them does not exist, none is."""
DATABASE = "gitlabhq_production"
QUERY_LIMIT = 20
"""Seconds that a backup waits for each query."""
SECRETS = "/etc/gitlab/gitlab-secrets.json"
TOKEN_CERTIFICATE = "/etc/gitlab/registry-token.crt"
GITLAB_VERSION = "/opt/gitlab/embedded/service/gitlab-rails/VERSION"
BLOBS = "images/docker/registry/v2/blobs/sha256"


def versions(role: str, configured: Mapping[str, str]) -> Dict[str, str]:
    """The versions of the software whose data is on the volume.

    GitLab's is that of the installed package: after an upgrade that failed half way, the configured one is the former.
    """
    found = dict(configured)
    if role == "server":
        # A new machine may have the volume already, but not the package yet.
        with contextlib.suppress(OSError), open(GITLAB_VERSION) as file:
            found["gitlab"] = file.read().strip()
    return found


def write(mountpoint: str, role: str, facts: Mapping[str, Any]) -> None:
    """Write the manifest, these facts and the contents, to the volume."""
    path, found = _path(mountpoint), contents(role, mountpoint)
    try:
        with open(f"{path}.new", "w", opener=_private) as file:
            json.dump({**facts, **found}, file, indent=1, sort_keys=True)
            file.write("\n")
        os.rename(f"{path}.new", path)
    except OSError as error:
        # A full volume needs its backup more than its manifest.
        print(f"{path} was not written: {error.strerror}")


def read(mountpoint: str) -> Dict[str, Any]:
    """The manifest on a volume. Raises BackupError."""
    path = _path(mountpoint)
    try:
        with open(path) as file:
            return dict(json.load(file))
    except OSError as error:
        raise BackupError(f"{path}: {error.strerror}") from None
    except (ValueError, TypeError) as error:
        raise BackupError(f"{path} is not a manifest: {error}") from None


def contents(role: str, mountpoint: str) -> Dict[str, Any]:
    """What the volume of this role's machine contains. What cannot be found out is None; `problems` explains why."""
    problems: List[str] = []

    def value(find_out: Callable[..., Any], *arguments: object) -> Any:  # noqa: ANN401, JSON of any shape
        try:
            return find_out(*arguments)
        except BackupError as error:
            problems.append(str(error))
            return None

    if role == "server":
        found = {
            "tables": value(rows, TABLES) or None,
            "newest_event": value(newest_event),
            # After the rows and the event, since it covers both.
            "wal_position": value(wal_position) or None,
            "rails_secrets_sha256": value(rails_secrets),
            "token_certificate_sha256": value(token_certificate),
        }
    else:
        found = {"blobs": value(blobs, mountpoint), "used_bytes": used_bytes(mountpoint)}
    return {**found, "problems": problems}


def rows(tables: Iterable[str], *, limit: float = QUERY_LIMIT) -> Dict[str, int]:
    """The number of rows of each of these tables. `limit` is in seconds. Raises BackupError."""
    counts = " UNION ALL ".join(f"SELECT '{table}', count(*) FROM {table}" for table in tables)
    found = [row.split("|") for row in _query("rows of tables", counts, limit).splitlines()]
    return {row[0]: int(row[1]) for row in found if len(row) == 2}


def newest_event(*, limit: float = QUERY_LIMIT) -> Optional[str]:
    """When GitLab recorded its newest event, in PostgreSQL's form; None if there is none. Raises BackupError."""
    return _query("newest event", "SELECT created_at FROM events ORDER BY id DESC LIMIT 1", limit) or None


def wal_position(*, limit: float = QUERY_LIMIT) -> str:
    """The position in PostgreSQL's write-ahead log: `16/B374D848` (pg_lsn in its manual). Raises BackupError."""
    return _query("write-ahead log", "SELECT pg_current_wal_lsn()", limit)


def rails_secrets() -> str:
    """A fingerprint of the keys that encrypt data. Raises BackupError.

    Not of the whole file: it also contains the registry's token key (secrets_helper.rb of omnibus-gitlab), which a copy
    replaces.
    """
    try:
        with open(SECRETS) as file:
            keys = json.load(file)["gitlab_rails"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BackupError(f"{SECRETS}: {error}") from None
    return hashlib.sha256(json.dumps(keys, sort_keys=True).encode()).hexdigest()


def token_certificate() -> str:
    """A fingerprint of the certificate of the registry's token key. Raises BackupError."""
    try:
        with open(TOKEN_CERTIFICATE, "rb") as file:
            return hashlib.sha256(file.read()).hexdigest()
    except OSError as error:
        raise BackupError(f"{TOKEN_CERTIFICATE}: {error.strerror}") from None


def blobs(mountpoint: str) -> int:
    """The number of blobs on the registry's volume. Raises BackupError."""
    folder = os.path.join(mountpoint, BLOBS)
    try:
        return sum(len(os.listdir(os.path.join(folder, prefix))) for prefix in os.listdir(folder))
    except FileNotFoundError:
        return 0  # nothing was pushed yet
    except OSError as error:
        raise BackupError(f"{folder}: {error.strerror}") from None


def used_bytes(mountpoint: str) -> int:
    """The bytes that are used on a volume."""
    disk = os.statvfs(mountpoint)
    return (disk.f_blocks - disk.f_bfree) * disk.f_frsize


def _query(what: str, statement: str, limit: float) -> str:
    """The rows of a statement. Raises BackupError, which names `what`, for example because GitLab is stopped."""
    try:
        return run(
            *("gitlab-psql", "-d", DATABASE, "-At", "-c", statement),
            timeout=limit + 10,
            # Also ends the query in the server, which a killed client does not.
            PGOPTIONS=f"-c statement_timeout={limit:g}s",
        )
    except BackupError as error:
        raise BackupError(f"{what}: {error}") from None


def _path(mountpoint: str) -> str:
    return os.path.join(mountpoint, NAME)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
