"""CI runners. Source: gitlab-org/gitlab app/models/ci/runner.rb, app/services/ci/runners/."""

from collections.abc import Mapping
from typing import Any

from lab_gitlab import crypto
from lab_gitlab.application import Application
from lab_gitlab.records import Column, Errors, Model, Record

TOKEN_PREFIX = "glrt-t1_"  # of instance runners that a user has created


class Runner(Model):
    """A runner and its restrictions; `active` is the opposite of "paused" in the web interface."""

    name = "Ci::Runner"
    table = "ci_runners"
    columns = {
        "runner_type": Column(),
        "description": Column(),
        "active": Column("boolean", True),
        "run_untagged": Column("boolean", True),
        "access_level": Column("text", "not_protected"),
        "tag_list": Column("list", []),
        "token_encrypted": Column(),
        "created_at": Column("time"),
    }
    scopes = {"instance_type": "runner_type = 'instance_type'", "paused": "active = 0"}

    def validate(self, _app: Application, record: Record) -> Errors:
        if not record["run_untagged"] and not record["tag_list"]:
            return [("tags_list", "can not be empty when runner is not allowed to pick untagged jobs")]
        return []

    def before_save(self, app: Application, record: Record) -> None:
        if not record["token_encrypted"]:
            record["token_encrypted"] = app.cipher.encrypt(TOKEN_PREFIX + crypto.friendly_token())


RUNNER = Runner()


def create_runner(app: Application, user: Record, params: Mapping[str, Any]) -> Record:
    """Create an instance runner, like Ci::Runners::CreateRunnerService; `paused` is converted to `active`.

    Raises RecordInvalidError, UnknownAttributeError, PermissionError.
    """
    if not user["admin"]:
        raise PermissionError("Insufficient permissions")
    attributes = dict(params)
    if "paused" in attributes:
        attributes["active"] = not attributes.pop("paused")
    return RUNNER.create(app, **attributes)


def runner_with_token(app: Application, token: str) -> Record | None:
    return RUNNER.find(app, token_encrypted=app.cipher.encrypt(token)) if token else None
