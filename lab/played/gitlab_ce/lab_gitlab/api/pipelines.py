"""Pipelines and jobs, as users see them. Source: gitlab-org/gitlab lib/api/ci/pipelines.rb, jobs.rb."""

from typing import Any

from lab_gitlab import ci_records, pipeline_creation, pipeline_processing, projects
from lab_gitlab.api.common import for_user, invalid, needed, not_found, number, page, project_of, require
from lab_gitlab.application import Application
from lab_gitlab.authentication import Caller
from lab_gitlab.ci_records import BUILD, PIPELINE
from lab_gitlab.http_server import Request, Response, Routes, json_response
from lab_gitlab.records import Record, now, seconds_between, shown

ROUTES = Routes()
PIPELINES = "/api/v4/projects/:project/pipelines"
JOBS = "/api/v4/projects/:project/jobs"


@ROUTES.add("POST", "/api/v4/projects/:project/pipeline")
@for_user()
def create_pipeline(app: Application, request: Request, caller: Caller, project: str) -> Response:
    found = project_of(app, caller, project)
    require(projects.may_write(app, found, caller.user))
    (ref,) = needed(request.fields, "ref")
    variables = request.fields.get("variables") or []
    if not all(variable.keys() == {"key", "value"} for variable in variables):
        raise invalid("variables is invalid")
    made = pipeline_creation.create(app, found, caller.user, ref, source="api", variables=variables)
    return json_response(201, present(made))


@ROUTES.add("GET", PIPELINES)
@for_user()
def list_pipelines(app: Application, request: Request, caller: Caller, project: str) -> Response:
    found = _readable(app, caller, project)
    listed = PIPELINE.select(app, {"project_id": found["id"]}, order=[("id", request.parameter("sort") or "desc")])
    return page(request, listed, present)


@ROUTES.add("POST", f"{PIPELINES}/:pipeline/cancel")
@for_user()
def cancel_pipeline(app: Application, _request: Request, caller: Caller, project: str, pipeline: str) -> Response:
    found = _readable(app, caller, project)
    require(projects.may_write(app, found, caller.user))
    one = _pipeline(app, found, pipeline)
    pipeline_processing.cancel(app, ci_records.jobs_of(app, one["id"]))
    return json_response(200, present(one))


@ROUTES.add("DELETE", f"{PIPELINES}/:pipeline")
@for_user()
def delete_pipeline(app: Application, _request: Request, caller: Caller, project: str, pipeline: str) -> Response:
    """Delete a pipeline with its jobs, logs and reports; only for owners."""
    found = _readable(app, caller, project)
    require(projects.may_own(app, found, caller.user))
    PIPELINE.destroy(app, _pipeline(app, found, pipeline))
    return Response(204)


@ROUTES.add("GET", f"{PIPELINES}/:pipeline/jobs")
@for_user()
def list_jobs(app: Application, request: Request, caller: Caller, project: str, pipeline: str) -> Response:
    """List the jobs, newest (highest id) first."""
    one = _pipeline(app, _readable(app, caller, project), pipeline)
    return page(request, BUILD.select(app, {"pipeline_id": one["id"]}, order=[("id", "desc")]), present_job)


@ROUTES.add("GET", f"{JOBS}/:job")
@for_user()
def show_job(app: Application, _request: Request, caller: Caller, project: str, job: str) -> Response:
    return json_response(200, present_job(_job(app, _readable(app, caller, project), job)))


@ROUTES.add("GET", f"{JOBS}/:job/trace")
@for_user()
def show_log(app: Application, _request: Request, caller: Caller, project: str, job: str) -> Response:
    return Response(200, ci_records.log(app, _job(app, _readable(app, caller, project), job)), "text/plain")


@ROUTES.add("POST", f"{JOBS}/:job/cancel")
@for_user()
def cancel_job(app: Application, _request: Request, caller: Caller, project: str, job: str) -> Response:
    found = _readable(app, caller, project)
    require(projects.may_write(app, found, caller.user))
    pipeline_processing.cancel(app, [_job(app, found, job)])
    return json_response(201, present_job(_job(app, found, job)))


def _readable(app: Application, caller: Caller, name: str) -> Record:
    """Return the project, if the caller may see its pipelines and jobs. Raises RefusedError."""
    found = project_of(app, caller, name)
    require(projects.may_read_code(app, found, caller.user))
    return found


def _pipeline(app: Application, project: Record, pipeline: str) -> Record:
    """Return a pipeline of the project. Raises RefusedError if it does not exist."""
    found = PIPELINE.find(app, id=number(pipeline, "pipeline_id"), project_id=project["id"])
    if found is None:
        raise not_found()
    return found


def _job(app: Application, project: Record, job: str) -> Record:
    """Return a job of the project. Raises RefusedError if it does not exist."""
    found = BUILD.find(app, id=number(job, "job_id"), project_id=project["id"])
    if found is None:
        raise not_found()
    return found


def present(pipeline: Record) -> dict[str, Any]:
    return {name: pipeline[name] for name in ("id", "project_id", "ref", "sha", "source", "status")}


def present_job(job: Record) -> dict[str, Any]:
    shown_job: dict[str, Any] = {
        **{name: job[name] for name in ("id", "status", "stage", "name")},
        "finished_at": shown(job["finished_at"]),
        "queued_duration": seconds_between(job["queued_at"], job["started_at"] or now()),
    }
    return shown_job | ({"failure_reason": job["failure_reason"]} if job["status"] == "failed" else {})
