"""Permissions in a project, from membership in it and in its group.

Source: gitlab-org/gitlab lib/gitlab/access.rb, app/policies/project_policy.rb.
"""

from lab_gitlab.application import Application
from lab_gitlab.records import Column, Errors, Model, Record

NO_ACCESS, GUEST, REPORTER, DEVELOPER, MAINTAINER, OWNER = 0, 10, 20, 30, 40, 50
LEVELS = (GUEST, REPORTER, DEVELOPER, MAINTAINER, OWNER)


class Member(Model):
    """A user's membership in the project or group `source_id`; `source_type` is Project or Namespace."""

    name = "Member"
    table = "members"
    columns = {
        "source_type": Column(),
        "source_id": Column("integer"),
        "user_id": Column("integer"),
        "access_level": Column("integer"),
        "created_at": Column("time"),
    }

    def validate(self, _app: Application, record: Record) -> Errors:
        return [] if record["access_level"] in LEVELS else [("access_level", "is not included in the list")]


MEMBER = Member()


def add(app: Application, kind: str, source: Record, user: Record, *, level: int) -> Record:
    """Add a member or change a member's access level. Raises RecordInvalidError."""
    known = MEMBER.find(app, source_type=kind, source_id=source["id"], user_id=user["id"])
    if known:
        return MEMBER.update(app, known, access_level=level)
    return MEMBER.create(app, source_type=kind, source_id=source["id"], user_id=user["id"], access_level=level)


def level(app: Application, project: Record, user: Record | None) -> int:
    """Return the user's highest access level: as administrator, creator, or member of the project or its group."""
    if user is None or user["state"] != "active":
        return NO_ACCESS
    if user["admin"] or user["id"] == project["creator_id"]:
        return OWNER
    sources = (("Project", project["id"]), ("Namespace", project["namespace_id"]))
    found = [
        member["access_level"]
        for kind, source in sources
        for member in MEMBER.select(app, {"source_type": kind, "source_id": source, "user_id": user["id"]})
    ]
    return max(found, default=NO_ACCESS)


def remove_all(app: Application, kind: str, source: Record) -> None:
    for member in MEMBER.select(app, {"source_type": kind, "source_id": source["id"]}):
        MEMBER.destroy(app, member)
