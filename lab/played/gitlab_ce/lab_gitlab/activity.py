"""Events, and tables of which the lab has no other use than that their rows are counted.

Source: gitlab-org/gitlab app/models/event.rb.
"""

from lab_gitlab.application import Application
from lab_gitlab.records import Column, Model

CREATED, PUSHED, JOINED = 1, 5, 8


class Event(Model):
    """Something that a user did in a project; `action` is one of the constants above."""

    name = "Event"
    table = "events"
    columns = {
        "project_id": Column("integer"),
        "author_id": Column("integer"),
        "action": Column("integer"),
        "created_at": Column("time"),
    }


EVENT = Event()


class Key(Model):
    name = "Key"
    table = "keys"
    columns = {"user_id": Column("integer")}


class Issue(Model):
    name = "Issue"
    table = "issues"
    columns = {"project_id": Column("integer")}


class MergeRequest(Model):
    name = "MergeRequest"
    table = "merge_requests"
    columns = {"target_project_id": Column("integer")}


class Note(Model):
    name = "Note"
    table = "notes"
    columns = {"project_id": Column("integer")}


class LfsObject(Model):
    name = "LfsObject"
    table = "lfs_objects"
    columns = {"oid": Column()}


class Environment(Model):
    """A place to which jobs deploy; GitLab stops it at `auto_stop_at`, the stand-in never."""

    name = "Environment"
    table = "environments"
    columns = {"project_id": Column("integer"), "name": Column(), "auto_stop_at": Column("time")}


ALWAYS_EMPTY = (Key(), Issue(), MergeRequest(), Note(), LfsObject(), Environment())
"""Unless a test inserts rows."""


def record(app: Application, project_id: int, author_id: int | None, action: int) -> None:
    EVENT.create(app, project_id=project_id, author_id=author_id, action=action)
