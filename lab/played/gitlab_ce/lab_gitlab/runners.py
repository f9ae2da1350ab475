"""CI runners. Source: gitlab-org/gitlab app/models/ci/runner.rb, app/services/ci/runners/."""

from collections.abc import Mapping
from typing import Any

from lab_gitlab import crypto, instance_settings, projects
from lab_gitlab.application import Application
from lab_gitlab.records import Column, Errors, Model, Record, after, now

TOKEN_PREFIXES = {"instance_type": "glrt-t1_", "project_type": "glrt-t3_"}
"""Of runners that a user has created."""

MOST_TAGS = 50
"""TAG_LIST_MAX_LENGTH of app/models/ci/runner.rb."""


class Runner(Model):
    """A runner and its restrictions; `active` is the opposite of "paused" in the web interface.

    `project_id` is the only project from which a project runner takes jobs.
    """

    name = "Ci::Runner"
    table = "ci_runners"
    columns = {
        "runner_type": Column("text", "instance_type"),
        "project_id": Column("integer"),
        "description": Column(),
        "active": Column("boolean", True),
        "run_untagged": Column("boolean", True),
        "access_level": Column("text", "not_protected"),
        "tag_list": Column("list", []),
        "token_encrypted": Column(),
        "token_expires_at": Column("time"),
        "created_at": Column("time"),
    }
    scopes = {
        **{kind: f"runner_type = '{kind}'" for kind in TOKEN_PREFIXES},
        "paused": "active = 0",
    }

    def validate(self, _app: Application, record: Record) -> Errors:
        if not record["run_untagged"] and not record["tag_list"]:
            return [("tags_list", "can not be empty when runner is not allowed to pick untagged jobs")]
        if len(record["tag_list"]) > MOST_TAGS:
            return [("tags_list", f"Too many tags specified. Please limit the number of tags to {MOST_TAGS}")]
        return []

    def before_save(self, app: Application, record: Record) -> None:
        if not record["token_encrypted"]:
            if lifetime := instance_settings.current(app)["runner_token_expiration_interval"]:
                record["token_expires_at"] = after(lifetime)
            record["token_encrypted"] = app.cipher.encrypt(
                TOKEN_PREFIXES[record["runner_type"]] + crypto.friendly_token()
            )


RUNNER = Runner()


def create_runner(app: Application, user: Record, params: Mapping[str, Any]) -> Record:
    """Create a runner, like Ci::Runners::CreateRunnerService; `paused` is converted to `active`.

    `scope` is the id of a project runner's project. Raises RecordInvalidError, UnknownAttributeError, PermissionError.
    """
    attributes = dict(params)
    scope = attributes.pop("scope", None)
    if attributes["runner_type"] == "project_type":
        project = projects.PROJECT.find(app, id=scope)
        if project is None:
            raise PermissionError("Missing/invalid scope")
        allowed, attributes["project_id"] = projects.may_administer(app, project, user), project["id"]
    else:
        allowed = user["admin"]
    if not allowed:
        raise PermissionError("Insufficient permissions")
    if "paused" in attributes:
        attributes["active"] = not attributes.pop("paused")
    return RUNNER.create(app, **attributes)


def runner_with_token(app: Application, token: str) -> Record | None:
    """Return the runner of a token that has not expired (lib/authn/token_field/base.rb)."""
    found = RUNNER.find(app, token_encrypted=app.cipher.encrypt(token)) if token else None
    return found if found and (found["token_expires_at"] is None or found["token_expires_at"] >= now()) else None
