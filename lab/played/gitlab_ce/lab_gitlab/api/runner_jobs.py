"""Runners as they speak for themselves, and the jobs that they have.

Source: gitlab-org/gitlab lib/api/ci/runner.rb, lib/api/ci/helpers/runner.rb.
"""

import re
import secrets
from functools import wraps

from lab_gitlab import authentication, job_files, job_requests, pipeline_processing, projects, runners
from lab_gitlab.api.common import (
    FORBIDDEN,
    Handler,
    RefusedError,
    answers,
    forbidden,
    invalid,
    message,
    not_found,
    number,
)
from lab_gitlab.application import Application
from lab_gitlab.authentication import AccessDeniedError
from lab_gitlab.ci_records import BUILD, HOLDS_A_RUNNER, JOB_ARTIFACT
from lab_gitlab.http_server import Request, Response, Routes, json_response
from lab_gitlab.job_files import InvalidArtifactError
from lab_gitlab.records import Record, RecordInvalidError, now

ROUTES = Routes()
LAST_UPDATE = "X-GitLab-Last-Update"
STATUS = "Job-Status"
UPDATE_INTERVAL = "X-GitLab-Trace-Update-Interval"
UNWATCHED = "60"  # seconds between two pieces of a log that nobody has open in a browser
ARTIFACT_MAXIMUM = 100 * 1024 * 1024  # bytes
TRACE_MAXIMUM = 100 * 1024 * 1024
FILE_TYPES = ("archive", "metadata", "dotenv", "junit")


@ROUTES.add("POST", "/api/v4/runners")
def register(_app: Application, _request: Request) -> Response:
    """Registration tokens are switched off on a server of this version."""
    return json_response(
        410, {"message": "410 Gone - runner registration disallowed", "reason": "runner_registration_disallowed"}
    )


@ROUTES.add("POST", "/api/v4/runners/verify")
def verify(app: Application, request: Request) -> Response:
    runner = _runner(app, request)
    if runner is None:
        return FORBIDDEN
    runners.heartbeat(app, runner, request.fields, request.client)
    return json_response(200, runners.credentials(app, runner))


@ROUTES.add("DELETE", "/api/v4/runners")
def delete_runner(app: Application, request: Request) -> Response:
    runner = _runner(app, request)
    if runner is None:
        return FORBIDDEN
    runners.RUNNER.destroy(app, runner)
    return Response(204)


@ROUTES.add("DELETE", "/api/v4/runners/managers")
def delete_runner_manager(app: Application, request: Request) -> Response:
    runner = _runner(app, request)
    if runner is None:
        return FORBIDDEN
    system = request.fields.get("system_id")
    if not system:
        return json_response(400, {"error": "system_id is missing"})
    manager = runners.manager_of(app, runner, system)
    if manager is None:
        return message(404, "404 Runner manager not found Not Found")
    runners.RUNNER_MANAGER.destroy(app, manager)
    return Response(204)


@ROUTES.add("POST", "/api/v4/jobs/request")
def request_job(app: Application, request: Request) -> Response:
    """A paused runner is told there is nothing to do, for ever."""
    runner = _runner(app, request)
    if runner is None:
        return FORBIDDEN
    manager = runners.heartbeat(app, runner, request.fields, request.client)
    pipeline_processing.drop_stuck(app)
    features = (request.fields.get("info") or {}).get("features") or {}
    job = job_requests.take(app, runner, manager, features)
    if job is not None:
        return json_response(201, job)
    return Response(204, headers={LAST_UPDATE: request.fields.get("last_update") or secrets.token_hex(16)})


def for_job(handler: Handler) -> Handler:
    """Only with the token of the job itself, while it runs; hands project and job over."""

    @wraps(handler)
    def checked(app: Application, request: Request, job: str, **path: str) -> Response:
        found = BUILD.find(app, id=number(job, "id"))
        if found is None:
            raise not_found()
        token = request.headers.get("job-token") or str(request.fields.get("token") or "")
        if not token or token != BUILD.token(app, found):
            raise forbidden()
        project = projects.PROJECT.find(app, id=found["project_id"])
        if project is None:
            raise forbidden("Project has been deleted!")
        if found["status"] not in HOLDS_A_RUNNER:
            refused = message(403, "403 Forbidden - Job is not running")
            raise RefusedError(Response(403, refused.body, refused.content_type, {STATUS: found["status"]}))
        _heard(app, found)
        return handler(app, request, project, found, **path)

    return answers(checked)


@ROUTES.add("PUT", "/api/v4/jobs/:job")
@for_job
def update_job(app: Application, request: Request, project: Record, job: Record) -> Response:
    fields = request.fields
    state = fields.get("state")
    if state == "success":
        pipeline_processing.finish(app, project, job, "success", exit_code=0)
    elif state == "failed":
        reason = fields.get("failure_reason") or "unknown_failure"
        if reason not in job_requests.FAILURE_REASONS:
            reason = "unknown_failure"
        pipeline_processing.finish(app, project, job, "failed", reason=reason, exit_code=fields.get("exit_code"))
    current = BUILD.select(app, {"id": job["id"]})[0]
    headers = {STATUS: current["status"], UPDATE_INTERVAL: UNWATCHED}
    return Response(200, b"true" if state == "running" else b"200", "application/json", headers)


@ROUTES.add("PATCH", "/api/v4/jobs/:job/trace")
@for_job
def append_trace(_app: Application, request: Request, _project: Record, job: Record) -> Response:
    """The next piece of the log; one that does not begin where the log ends is sent again from there."""
    given = re.fullmatch(r"(\d+)-(\d+)", request.headers.get("content-range", ""))
    if given is None:
        return message(400, "400 Bad request - Missing header Content-Range")
    start = int(given[1])
    if int(given[2]) - start + 1 != len(request.body) or start + len(request.body) > TRACE_MAXIMUM:
        return Response(416, headers={"Range": f"0-{len(job_files.trace(job))}", STATUS: job["status"]})
    size = job_files.append(job, start, request.body)
    if size is None:
        return Response(416, headers={"Range": f"0-{len(job_files.trace(job))}", STATUS: job["status"]})
    return Response(
        202,
        f"0-{size}".encode(),
        headers={STATUS: job["status"], "Range": f"0-{size}", UPDATE_INTERVAL: UNWATCHED},
    )


# Artifacts. Workhorse asks for leave before it lets a client send a file, then hands the file over.


@ROUTES.add("POST", "/api/v4/jobs/:job/artifacts/authorize")
def authorize_artifacts(_app: Application, _request: Request, **_path: str) -> Response:
    """For workhorse alone, which the played one has no need of."""
    return FORBIDDEN


@ROUTES.add("POST", "/api/v4/jobs/:job/artifacts")
@for_job
def upload_artifacts(app: Application, request: Request, _project: Record, job: Record) -> Response:
    files = [part for part in request.parts if part.name == "file" and part.filename]
    if not files:
        raise invalid("file is missing")
    fields = request.fields
    kind, form = fields.get("artifact_type", "archive"), fields.get("artifact_format", "zip")
    if kind not in FILE_TYPES:
        raise invalid("artifact_type does not have a valid value")
    if len(files[0].content) > ARTIFACT_MAXIMUM:
        return message(413, "413 Request Entity Too Large")
    name = (files[0].filename or "artifacts.zip").rpartition("/")[2]
    try:
        job_files.keep(
            app,
            job,
            kind=kind,
            form=form,
            filename=name,
            sent=files[0].content,
            expire_in=fields.get("expire_in"),
        )
    except InvalidArtifactError as error:
        return message(400, str(error))
    except RecordInvalidError:
        return message(400, "another artifact of the same type already exists")
    return json_response(201, {"message": "201 Created"})


@ROUTES.add("GET", "/api/v4/jobs/:job/artifacts")
@answers
def download_artifacts(app: Application, request: Request, job: str) -> Response:
    """Of another job of the same project, with the token of the job that runs."""
    token = request.headers.get("job-token") or request.parameter("token") or ""
    try:
        caller = authentication.caller_of_job(app, token)
    except AccessDeniedError:
        raise forbidden() from None
    other = BUILD.find(app, id=number(job, "id"))
    if other is None or caller.job is None or other["project_id"] != caller.job["project_id"]:
        raise forbidden()
    artifact = JOB_ARTIFACT.find(app, job_id=other["id"], file_type="archive")
    if artifact is None or (artifact["expire_at"] and artifact["expire_at"] < now()):
        raise not_found()
    named = {"Content-Disposition": f'attachment; filename="{artifact["filename"]}"'}
    return Response(200, job_files.content(artifact), "application/zip", named)


def _runner(app: Application, request: Request) -> Record | None:
    return runners.runner_with_token(app, str(request.fields.get("token") or ""))


def _heard(app: Application, job: Record) -> None:
    """A sign of life of the job's runner, without which the job is dropped after an hour."""
    BUILD.update(app, job, runner_id=job["runner_id"])
    runner = runners.RUNNER.find(app, id=job["runner_id"])
    if runner:
        runners.RUNNER.update(app, runner, contacted_at=now())
