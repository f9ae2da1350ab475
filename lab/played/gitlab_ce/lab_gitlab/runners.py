"""CI runners, their managers (machines) and what they ask the server.

Source: gitlab-org/gitlab app/models/ci/runner.rb, app/services/ci/runners/, lib/api/ci/runner.rb.
"""

import datetime
from collections.abc import Mapping
from typing import Any

from lab_gitlab import crypto
from lab_gitlab.application import Application
from lab_gitlab.ci_records import BUILD, HOLDS_A_RUNNER
from lab_gitlab.records import Column, Errors, Model, Record, now, shown

TOKEN_PREFIX = "glrt-t1_"  # of runners made by a user, for the whole instance
ONLINE = datetime.timedelta(hours=2)
STALE = datetime.timedelta(days=7)
TYPES = ("instance_type", "group_type", "project_type")
LEGACY_SYSTEM = "<legacy>"


class Runner(Model):
    """What a runner may do is decided here; `active` is the opposite of what the web pages call paused."""

    name = "Ci::Runner"
    table = "ci_runners"
    columns = {
        "runner_type": Column(),
        "description": Column(),
        "active": Column("boolean", True),
        "run_untagged": Column("boolean", True),
        "locked": Column("boolean", False),
        "access_level": Column("text", "not_protected"),
        "maximum_timeout": Column("integer"),
        "maintenance_note": Column(),
        "tag_list": Column("list", []),
        "token_encrypted": Column(),
        "registration_type": Column("text", "registration_token"),
        "creator_id": Column("integer"),
        "contacted_at": Column("time"),
        "created_at": Column("time"),
    }
    scopes = {
        "active": "active = 1",
        "group_type": "runner_type = 'group_type'",
        "instance_type": "runner_type = 'instance_type'",
        "paused": "active = 0",
        "project_type": "runner_type = 'project_type'",
    }

    def validate(self, _app: Application, record: Record) -> Errors:
        errors: Errors = []
        if record["runner_type"] not in TYPES:
            errors.append(("runner_type", "can't be blank"))
        if not record["run_untagged"] and not record["tag_list"]:
            errors.append(("tags_list", "can not be empty when runner is not allowed to pick untagged jobs"))
        if record["maximum_timeout"] is not None and int(record["maximum_timeout"]) < 600:
            errors.append(("maximum_timeout", "needs to be at least 10 minutes"))
        if len(record["description"] or "") > 1024:
            errors.append(("description", "is too long (maximum is 1024 characters)"))
        return errors

    def before_save(self, app: Application, record: Record) -> None:
        if not record["token_encrypted"]:
            record["token_encrypted"] = app.cipher.encrypt(TOKEN_PREFIX + crypto.friendly_token())

    def before_destroy(self, app: Application, record: Record) -> None:
        for manager in RUNNER_MANAGER.select(app, {"runner_id": record["id"]}):
            RUNNER_MANAGER.destroy(app, manager)


class RunnerManager(Model):
    """A machine that works under a runner's token, told apart by its system id."""

    name = "Ci::RunnerManager"
    table = "ci_runner_machines"
    columns = {
        "runner_id": Column("integer"),
        "system_xid": Column(),
        "version": Column(),
        "revision": Column(),
        "platform": Column(),
        "architecture": Column(),
        "executor": Column(),
        "ip_address": Column(),
        "contacted_at": Column("time"),
        "created_at": Column("time"),
    }


RUNNER = Runner()
RUNNER_MANAGER = RunnerManager()


def create_runner(app: Application, user: Record, params: Mapping[str, Any]) -> Record:
    """Ci::Runners::CreateRunnerService for the whole instance; `paused` is turned into `active`.

    Raises RecordInvalidError, UnknownAttributeError, PermissionError.
    """
    if params.get("runner_type") == "instance_type" and not user["admin"]:
        raise PermissionError("Insufficient permissions")
    attributes = dict(params)
    attributes.pop("scope", None)
    if "paused" in attributes:
        attributes["active"] = not attributes.pop("paused")
    return RUNNER.create(app, creator_id=user["id"], registration_type="authenticated_user", **attributes)


def runner_with_token(app: Application, token: str) -> Record | None:
    return RUNNER.find(app, token_encrypted=app.cipher.encrypt(token)) if token else None


def heartbeat(app: Application, runner: Record, request: Mapping[str, Any], address: str) -> Record:
    """A runner was heard of: note when, and from which machine, which is returned."""
    moment = now()
    RUNNER.update(app, runner, contacted_at=moment)
    info = request.get("info") or {}
    known = {
        name: info[name] for name in ("version", "revision", "platform", "architecture", "executor") if name in info
    }
    seen = {**known, "ip_address": address, "contacted_at": moment}
    system = request.get("system_id") or LEGACY_SYSTEM
    manager = manager_of(app, runner, system)
    if manager is None:
        return RUNNER_MANAGER.create(app, runner_id=runner["id"], system_xid=system, **seen)
    return RUNNER_MANAGER.update(app, manager, **seen)


def manager_of(app: Application, runner: Record, system: str) -> Record | None:
    return RUNNER_MANAGER.find(app, runner_id=runner["id"], system_xid=system)


def status(runner: Record) -> str:
    """online, offline, stale or never_contacted: by when the runner was last heard of, not by whether it is paused."""
    heard = runner["contacted_at"]
    age = _age(heard or runner["created_at"])
    if heard is None:
        return "stale" if age > STALE else "never_contacted"
    if age <= ONLINE:
        return "online"
    return "stale" if age > STALE else "offline"


def credentials(app: Application, runner: Record) -> dict[str, Any]:
    """What only the runner itself and who made it get."""
    return {"id": runner["id"], "token": RUNNER.token(app, runner), "token_expires_at": None}


def present(app: Application, runner: Record) -> dict[str, Any]:
    """As the API lists a runner: without its token."""
    managers = _managers(app, runner)
    state = status(runner)
    return {
        "id": runner["id"],
        "description": runner["description"],
        "ip_address": managers[0]["ip_address"] if managers else None,
        "active": runner["active"],
        "paused": not runner["active"],
        "is_shared": runner["runner_type"] == "instance_type",
        "runner_type": runner["runner_type"],
        "name": "gitlab-runner" if managers else None,
        "online": None if state == "never_contacted" else state == "online",
        "status": state,
        "created_at": shown(runner["created_at"]),
        "created_by": None,
        "job_execution_status": "active" if _is_busy(app, runner) else "idle",
    }


def present_details(app: Application, runner: Record) -> dict[str, Any]:
    """As the API shows a single runner."""
    managers = _managers(app, runner)
    machine = managers[0] if managers else {}
    return {
        **present(app, runner),
        "tag_list": runner["tag_list"],
        "run_untagged": runner["run_untagged"],
        "locked": runner["locked"],
        "maximum_timeout": runner["maximum_timeout"],
        "access_level": runner["access_level"],
        "maintenance_note": runner["maintenance_note"],
        **{name: machine.get(name) for name in ("version", "revision", "platform", "architecture")},
        "contacted_at": shown(runner["contacted_at"]),
        "projects": [],
        "groups": [],
    }


def present_manager(manager: Record) -> dict[str, Any]:
    """As the API shows a machine that works under a runner's token."""
    return {
        "id": manager["id"],
        "system_id": manager["system_xid"],
        **{name: manager[name] for name in ("version", "revision", "platform", "architecture")},
        "created_at": shown(manager["created_at"]),
        "contacted_at": shown(manager["contacted_at"]),
        "ip_address": manager["ip_address"],
        "status": status(manager),
    }


def _managers(app: Application, runner: Record) -> list[Record]:
    return RUNNER_MANAGER.select(app, {"runner_id": runner["id"]}, order=[("contacted_at", "desc")], limit=1)


def _is_busy(app: Application, runner: Record) -> bool:
    return bool(BUILD.select(app, {"runner_id": runner["id"], "status": list(HOLDS_A_RUNNER)}, limit=1))


def _age(moment: str) -> datetime.timedelta:
    return datetime.datetime.now(datetime.UTC) - datetime.datetime.fromisoformat(moment)
