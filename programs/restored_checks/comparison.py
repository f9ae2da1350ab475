"""How a copy compares with the manifest on its volume (programs/volume_backup/manifest.py)."""

from typing import Any, List, Mapping

from .outcomes import FailedCheckError, listed

DELETED_BY_ACCEPTANCE = {"users": 1, "namespaces": 1, "members": 1, "events": 1}
"""Rows by which a table may shrink in the acceptance of the copy, which runs before these checks.

It deletes the user of its former token, of which a backup has at most two: that of the last run, and one more while a
run replaces it. With a user GitLab deletes its namespace, membership and events (app/models/user.rb): that it joined
the project, and its push if that run changed the acceptance's files. The acceptance adds the user of its own token.
"""


def known(manifest: Mapping[str, Any], name: str) -> Any:  # noqa: ANN401, JSON of any shape
    """A value of the manifest. Raises FailedCheckError if it could not be found out when the backup was made."""
    value = manifest.get(name)
    if value is None:
        problems = [str(problem) for problem in manifest.get("problems") or ()]
        raise FailedCheckError(f"the manifest does not contain {name}: {listed(problems) or 'made by another version'}")
    return value


def missing_rows(expected: Mapping[str, int], found: Mapping[str, int]) -> List[str]:
    """The tables with fewer rows than in the manifest."""
    return [
        f"{table} has {found.get(table, 0)} of {rows} rows"
        for table, rows in sorted(expected.items())
        if found.get(table, 0) < rows - DELETED_BY_ACCEPTANCE.get(table, 0)
    ]


def wal_bytes(position: str) -> int:
    """A position in PostgreSQL's write-ahead log as a number of bytes: `16/B374D848` (pg_lsn in its manual)."""
    high, _, low = position.partition("/")
    return (int(high, 16) << 32) + int(low, 16)
