"""Who may do what in a project: members of it and of the groups above it.

Source: gitlab-org/gitlab lib/gitlab/access.rb, app/policies/project_policy.rb.
"""

from collections.abc import Mapping
from typing import Any

from lab_gitlab.application import Application
from lab_gitlab.records import Column, Errors, Model, Record

NO_ACCESS, GUEST, REPORTER, DEVELOPER, MAINTAINER, OWNER = 0, 10, 20, 30, 40, 50
NAMES: Mapping[int, str] = {
    GUEST: "Guest",
    REPORTER: "Reporter",
    DEVELOPER: "Developer",
    MAINTAINER: "Maintainer",
    OWNER: "Owner",
}


class Member(Model):
    """A user's place in a project or group; `source_type` says which of the two `source_id` is."""

    name = "Member"
    table = "members"
    columns = {
        "source_type": Column(),
        "source_id": Column("integer"),
        "user_id": Column("integer"),
        "access_level": Column("integer"),
        "expires_at": Column("date"),
        "created_at": Column("time"),
    }
    scopes = {"active": "expires_at IS NULL OR expires_at > date('now')"}

    def validate(self, _app: Application, record: Record) -> Errors:
        return [] if record["access_level"] in NAMES else [("access_level", "is not included in the list")]


MEMBER = Member()


def add(app: Application, kind: str, source: Record, user: Record, *, level: int, expires_at: Any = None) -> Record:
    """Make somebody a member, or give a member another level. Raises RecordInvalidError."""
    known = MEMBER.find(app, source_type=kind, source_id=source["id"], user_id=user["id"])
    if known:
        return MEMBER.update(app, known, access_level=level, expires_at=expires_at)
    return MEMBER.create(
        app, source_type=kind, source_id=source["id"], user_id=user["id"], access_level=level, expires_at=expires_at
    )


def level(app: Application, project: Record, user: Record | None) -> int:
    """The highest of what a user is in the project, in its groups, as its owner, or as an administrator."""
    if user is None or user["state"] != "active":
        return NO_ACCESS
    if user["admin"] or user["id"] == project["creator_id"]:
        return OWNER
    found = [
        member["access_level"]
        for kind, source in _sources(app, project)
        for member in MEMBER.select(
            app, {"source_type": kind, "source_id": source, "user_id": user["id"]}, scopes=["active"]
        )
    ]
    return max(found, default=NO_ACCESS)


def remove_all(app: Application, kind: str, source: Record) -> None:
    for member in MEMBER.select(app, {"source_type": kind, "source_id": source["id"]}):
        MEMBER.destroy(app, member)


def _sources(app: Application, project: Record) -> list[tuple[str, int]]:
    sources = [("Project", project["id"])]
    namespace = project["namespace_id"]
    while namespace:
        sources.append(("Namespace", namespace))
        parent = app.database.first("SELECT parent_id FROM namespaces WHERE id = ?", namespace)
        namespace = parent and parent["parent_id"]
    return sources
