"""Pipelines. Source: gitlab-org/gitlab lib/api/ci/pipelines.rb, lib/api/entities/ci/pipeline.rb."""

from typing import Any

from lab_gitlab import ci_records, pipeline_creation, pipeline_processing, projects, users
from lab_gitlab.api.common import for_user, invalid, needed, number, page, project_of, record_not_found, require
from lab_gitlab.application import Application
from lab_gitlab.authentication import Caller
from lab_gitlab.ci_records import PIPELINE
from lab_gitlab.http_server import Request, Response, Routes, json_response
from lab_gitlab.records import Record, seconds_between, shown

ROUTES = Routes()
PIPELINES = "/api/v4/projects/:project/pipelines"
ICONS = {"success": "status_success", "failed": "status_failed", "running": "status_running"}
LABELS = {"success": "passed", "failed": "failed"}


@ROUTES.add("POST", "/api/v4/projects/:project/pipeline")
@for_user()
def create_pipeline(app: Application, request: Request, caller: Caller, project: str) -> Response:
    found = project_of(app, caller, project)
    require(projects.may_write(app, found, caller.user))
    (ref,) = needed(request.fields, "ref")
    variables = request.fields.get("variables") or []
    if not isinstance(variables, list) or not all(isinstance(v, dict) and v.get("key") for v in variables):
        raise invalid("variables is invalid")
    made = pipeline_creation.create(
        app,
        found,
        caller.user,
        ref,
        source="api",
        variables=[{"value": "", "variable_type": "env_var", **variable} for variable in variables],
        save_on_errors=False,
        ignore_skip=True,
    )
    return json_response(201, present(app, found, made))


@ROUTES.add("GET", PIPELINES)
@for_user(job=True)
def list_pipelines(app: Application, request: Request, caller: Caller, project: str) -> Response:
    found = project_with_pipelines(app, caller, project)
    wanted = {
        name: request.parameter(name) for name in ("ref", "sha", "status", "source", "name") if request.parameter(name)
    }
    direction = request.parameter("sort") or "desc"
    listed = PIPELINE.select(app, {"project_id": found["id"], **wanted}, order=[("id", direction)])
    return page(request, listed, lambda one: present_basic(app, found, one))


@ROUTES.add("GET", f"{PIPELINES}/latest")
@for_user(job=True)
def show_latest(app: Application, request: Request, caller: Caller, project: str) -> Response:
    found = project_with_pipelines(app, caller, project)
    ref = request.parameter("ref") or found["default_branch"]
    listed = PIPELINE.select(app, {"project_id": found["id"], "ref": ref}, order=[("id", "desc")], limit=1)
    if not listed:
        raise record_not_found()
    return json_response(200, present(app, found, listed[0]))


@ROUTES.add("GET", f"{PIPELINES}/:pipeline")
@for_user(job=True)
def show_pipeline(app: Application, _request: Request, caller: Caller, project: str, pipeline: str) -> Response:
    found = project_with_pipelines(app, caller, project)
    return json_response(200, present(app, found, pipeline_of(app, found, pipeline)))


@ROUTES.add("GET", f"{PIPELINES}/:pipeline/variables")
@for_user()
def list_variables(app: Application, _request: Request, caller: Caller, project: str, pipeline: str) -> Response:
    found = project_with_pipelines(app, caller, project)
    require(projects.may_write(app, found, caller.user))
    one = pipeline_of(app, found, pipeline)
    return json_response(200, [{"raw": False, **variable} for variable in one["variables"] or []])


@ROUTES.add("GET", f"{PIPELINES}/:pipeline/bridges")
@for_user()
def list_bridges(app: Application, request: Request, caller: Caller, project: str, pipeline: str) -> Response:
    """There are none: `trigger` is not played."""
    found = project_with_pipelines(app, caller, project)
    pipeline_of(app, found, pipeline)
    return page(request, [], lambda one: one)


@ROUTES.add("POST", f"{PIPELINES}/:pipeline/cancel")
@for_user()
def cancel_pipeline(app: Application, _request: Request, caller: Caller, project: str, pipeline: str) -> Response:
    found = project_with_pipelines(app, caller, project)
    require(projects.may_write(app, found, caller.user))
    one = pipeline_of(app, found, pipeline)
    pipeline_processing.cancel(app, found, ci_records.jobs_of(app, one))
    return json_response(200, present(app, found, pipeline_of(app, found, pipeline)))


@ROUTES.add("POST", f"{PIPELINES}/:pipeline/retry")
@for_user()
def retry_pipeline(app: Application, _request: Request, caller: Caller, project: str, pipeline: str) -> Response:
    found = project_with_pipelines(app, caller, project)
    require(projects.may_write(app, found, caller.user))
    made = pipeline_processing.retry_pipeline(app, found, pipeline_of(app, found, pipeline), caller.user)
    return json_response(201, present(app, found, made))


@ROUTES.add("DELETE", f"{PIPELINES}/:pipeline")
@for_user()
def delete_pipeline(app: Application, _request: Request, caller: Caller, project: str, pipeline: str) -> Response:
    """For owners; its jobs, logs and artifacts go with it."""
    found = project_with_pipelines(app, caller, project)
    require(projects.may_own(app, found, caller.user))
    PIPELINE.destroy(app, pipeline_of(app, found, pipeline))
    return Response(204)


def project_with_pipelines(app: Application, caller: Caller, name: str) -> Record:
    """The project, if the caller may see what its pipelines and jobs do. Raises RefusedError."""
    pipeline_processing.drop_stuck(app)
    found = project_of(app, caller, name)
    require(projects.may_read_code(app, found, caller.user))
    return found


def pipeline_of(app: Application, project: Record, pipeline: str) -> Record:
    """Raises RefusedError."""
    found = PIPELINE.find(app, id=number(pipeline, "pipeline_id"), project_id=project["id"])
    if found is None:
        raise record_not_found()
    return found


def present_basic(app: Application, project: Record, pipeline: Record) -> dict[str, Any]:
    """As in a list, and beside a job."""
    return {
        "id": pipeline["id"],
        "iid": pipeline["iid"],
        "project_id": pipeline["project_id"],
        "sha": pipeline["sha"],
        "ref": pipeline["ref"],
        "status": pipeline["status"],
        "source": pipeline["source"],
        "created_at": shown(pipeline["created_at"]),
        "updated_at": shown(pipeline["updated_at"]),
        "web_url": f"{projects.web_url(app, project)}/-/pipelines/{pipeline['id']}",
        "name": pipeline["name"],
    }


def present(app: Application, project: Record, pipeline: Record) -> dict[str, Any]:
    user = users.USER.find(app, id=pipeline["user_id"])
    status = pipeline["status"]
    queued = seconds_between(pipeline["created_at"], pipeline["started_at"])
    return {
        **present_basic(app, project, pipeline),
        "before_sha": pipeline["before_sha"],
        "tag": pipeline["tag"],
        "yaml_errors": pipeline["yaml_errors"],
        "user": users.present_basic(app, user) if user else None,
        "started_at": shown(pipeline["started_at"]),
        "finished_at": shown(pipeline["finished_at"]),
        "committed_at": shown(pipeline["committed_at"]),
        "duration": pipeline["duration"],
        "queued_duration": None if queued is None else int(queued),
        "coverage": None,
        "detailed_status": {
            "icon": ICONS.get(status, f"status_{status}"),
            "text": str(LABELS.get(status, status)).capitalize(),
            "label": LABELS.get(status, status),
            "group": status,
            "tooltip": LABELS.get(status, status),
            "has_details": True,
            "details_path": f"/{project['full_path']}/-/pipelines/{pipeline['id']}",
            "illustration": None,
            "favicon": f"/assets/ci_favicons/favicon_status_{status}.png",
        },
    }
