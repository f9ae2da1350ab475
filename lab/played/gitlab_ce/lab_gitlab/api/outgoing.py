"""Webhooks, push mirrors, pipeline schedules and instance settings, as far as tests of a restored copy set them.

Source: gitlab-org/gitlab lib/api/project_hooks.rb, remote_mirrors.rb, ci/pipeline_schedules.rb, settings.rb.
"""

import re
from typing import Any

from lab_gitlab import instance_settings, pipeline_schedules, projects
from lab_gitlab.api.common import boolean, for_user, needed, page, project_of, require
from lab_gitlab.application import Application
from lab_gitlab.authentication import Caller
from lab_gitlab.http_server import Request, Response, Routes, json_response
from lab_gitlab.outgoing import PROJECT_HOOK, REMOTE_MIRROR
from lab_gitlab.pipeline_schedules import PIPELINE_SCHEDULE
from lab_gitlab.records import Record

ROUTES = Routes()
PROJECT = "/api/v4/projects/:project"
SETTINGS = "/api/v4/application/settings"


def _administered(app: Application, caller: Caller, name: str) -> Record:
    found = project_of(app, caller, name)
    require(projects.may_administer(app, found, caller.user))
    return found


@ROUTES.add("POST", f"{PROJECT}/hooks")
@for_user()
def create_hook(app: Application, request: Request, caller: Caller, project: str) -> Response:
    found = _administered(app, caller, project)
    (url,) = needed(request.fields, "url")
    flags = {
        name: boolean(request.fields[name])
        for name in ("push_events", "enable_ssl_verification")
        if name in request.fields
    }
    made = PROJECT_HOOK.create(app, project_id=found["id"], url=url, token=request.fields.get("token"), **flags)
    return json_response(201, {name: value for name, value in made.items() if name != "token_encrypted"})


@ROUTES.add("POST", f"{PROJECT}/remote_mirrors")
@for_user()
def create_mirror(app: Application, request: Request, caller: Caller, project: str) -> Response:
    found = _administered(app, caller, project)
    (url,) = needed(request.fields, "url")
    enabled = boolean(request.fields.get("enabled", False))
    made = REMOTE_MIRROR.create(app, project_id=found["id"], url=url, enabled=enabled)
    hidden = re.sub(r"//[^@/]*@", "//*****:*****@", url)
    return json_response(201, {"id": made["id"], "enabled": enabled, "url": hidden})


@ROUTES.add("POST", f"{PROJECT}/pipeline_schedules")
@for_user()
def create_schedule(app: Application, request: Request, caller: Caller, project: str) -> Response:
    found = project_of(app, caller, project)
    require(projects.may_write(app, found, caller.user))
    description, ref, cron = needed(request.fields, "description", "ref", "cron")
    about = {"project_id": found["id"], "owner_id": caller.user["id"]}
    active = boolean(request.fields.get("active", True))
    made = PIPELINE_SCHEDULE.create(app, **about, description=description, ref=ref, cron=cron, active=active)
    return json_response(201, pipeline_schedules.present(made))


@ROUTES.add("GET", f"{PROJECT}/pipeline_schedules")
@for_user()
def list_schedules(app: Application, request: Request, caller: Caller, project: str) -> Response:
    found = project_of(app, caller, project)
    require(projects.may_read_code(app, found, caller.user))
    return page(request, PIPELINE_SCHEDULE.select(app, {"project_id": found["id"]}), pipeline_schedules.present)


@ROUTES.add("GET", SETTINGS)
@for_user()
def show_settings(app: Application, _request: Request, caller: Caller) -> Response:
    require(caller.user["admin"])
    return json_response(200, instance_settings.current(app))


@ROUTES.add("PUT", SETTINGS)
@for_user()
def change_settings(app: Application, request: Request, caller: Caller) -> Response:
    require(caller.user["admin"])
    model = instance_settings.APPLICATION_SETTING
    given: dict[str, Any] = {
        name: boolean(value) if model.columns[name].kind == "boolean" else value
        for name, value in request.fields.items()
        if name in model.columns
    }
    return json_response(200, model.update(app, instance_settings.current(app), **given))
