"""The manifest: a file on the volume that lists what a snapshot of it must contain, so that a restore can be checked.

It is written before the freeze, so a snapshot may contain more, but never less.
"""

import contextlib
import hashlib
import json
import os
from typing import Any, Dict, List, Mapping, Optional

from .commands import run
from .errors import BackupError

NAME = "backup-manifest.json"
TABLES = (
    *("users", "namespaces", "projects", "members", "keys", "issues", "merge_requests", "notes", "events", "uploads"),
    *("lfs_objects", "ci_runners"),
)
"""Tables whose rows are counted. If one of them does not exist, none is."""
DATABASE = "gitlabhq_production"
QUERY_LIMIT = 20  # seconds
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
    """Write the manifest to the volume. What cannot be found out is null, and `problems` explains why."""
    problems: List[str] = []
    contents = server(problems) if role == "server" else registry(mountpoint, problems)
    path = os.path.join(mountpoint, NAME)
    try:
        with open(f"{path}.new", "w", opener=_private) as file:
            json.dump({**facts, **contents, "problems": problems}, file, indent=1, sort_keys=True)
            file.write("\n")
        os.rename(f"{path}.new", path)
    except OSError as error:
        # A full volume needs its backup more than its manifest.
        print(f"{path} was not written: {error.strerror}")


def server(problems: List[str]) -> Dict[str, Any]:
    """What GitLab's volume contains. Each problem is added to `problems`."""
    counts = " UNION ALL ".join(f"SELECT '{table}', count(*) FROM {table}" for table in TABLES)
    rows = [row.split("|") for row in _query(counts, problems).splitlines()]
    return {
        "tables": {row[0]: int(row[1]) for row in rows if len(row) == 2} or None,
        "newest_event": _query("SELECT created_at FROM events ORDER BY id DESC LIMIT 1", problems) or None,
        # Last, since it covers everything above.
        "wal_position": _query("SELECT pg_current_wal_lsn()", problems) or None,
        "rails_secrets_sha256": _rails_secrets(problems),
        "token_certificate_sha256": _fingerprint(TOKEN_CERTIFICATE, problems),
    }


def registry(mountpoint: str, problems: List[str]) -> Dict[str, Any]:
    """What the registry's volume contains: the number of blobs, and the bytes that are used on the volume."""
    blobs = None
    folder = os.path.join(mountpoint, BLOBS)
    try:
        blobs = sum(len(os.listdir(os.path.join(folder, prefix))) for prefix in os.listdir(folder))
    except FileNotFoundError:
        blobs = 0  # nothing was pushed yet
    except OSError as error:
        problems.append(f"{folder}: {error.strerror}")
    disk = os.statvfs(mountpoint)
    return {"blobs": blobs, "used_bytes": (disk.f_blocks - disk.f_bfree) * disk.f_frsize}


def _query(statement: str, problems: List[str]) -> str:
    """The rows of a statement; empty if it fails, for example because GitLab is stopped."""
    try:
        return run(
            *("gitlab-psql", "-d", DATABASE, "-At", "-c", statement),
            timeout=QUERY_LIMIT + 10,
            # Also ends the query in the server, which a killed client does not.
            PGOPTIONS=f"-c statement_timeout={QUERY_LIMIT}s",
        )
    except BackupError as error:
        problems.append(f"{statement[:40]}: {error}")
        return ""


def _rails_secrets(problems: List[str]) -> Optional[str]:
    """A fingerprint of the keys that encrypt data.

    Not of the whole file: it also contains the registry's token key (secrets_helper.rb of omnibus-gitlab), which a copy
    replaces.
    """
    try:
        with open(SECRETS) as file:
            keys = json.load(file)["gitlab_rails"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        problems.append(f"{SECRETS}: {error}")
        return None
    return hashlib.sha256(json.dumps(keys, sort_keys=True).encode()).hexdigest()


def _fingerprint(path: str, problems: List[str]) -> Optional[str]:
    try:
        with open(path, "rb") as file:
            return hashlib.sha256(file.read()).hexdigest()
    except OSError as error:
        problems.append(f"{path}: {error.strerror}")
        return None


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
