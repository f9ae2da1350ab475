"""The API that runners use, for themselves and for their jobs.

Source: gitlab-org/gitlab lib/api/ci/runner.rb, lib/api/ci/helpers/runner.rb.
"""

import gzip
import re
from functools import wraps

from lab_gitlab import ci_records, job_requests, pipeline_processing, runners
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
from lab_gitlab.ci_records import BUILD, HOLDS_A_RUNNER
from lab_gitlab.http_server import Request, Response, Routes, json_response
from lab_gitlab.records import Record

ROUTES = Routes()
STATUS = "Job-Status"
UPDATE_INTERVAL = "X-GitLab-Trace-Update-Interval"
UNWATCHED = "60"  # seconds between two uploads of a log that is not open in a browser
DOTENV_LINE = re.compile(r"\s*(\w+)\s*=(.*)")


@ROUTES.add("POST", "/api/v4/runners/verify")
def verify(app: Application, request: Request) -> Response:
    runner = _runner(app, request)
    if runner is None:
        return FORBIDDEN
    token = runners.RUNNER.token(app, runner)
    return json_response(200, {"id": runner["id"], "token": token, "token_expires_at": None})


@ROUTES.add("DELETE", "/api/v4/runners")
def delete_runner(app: Application, request: Request) -> Response:
    runner = _runner(app, request)
    if runner is None:
        return FORBIDDEN
    runners.RUNNER.destroy(app, runner)
    return Response(204)


@ROUTES.add("POST", "/api/v4/jobs/request")
def request_job(app: Application, request: Request) -> Response:
    """Assign a job to the runner; a paused runner always gets 204, no job."""
    runner = _runner(app, request)
    if runner is None:
        return FORBIDDEN
    job = job_requests.take(app, runner)
    return Response(204) if job is None else json_response(201, job)


def for_job(handler: Handler) -> Handler:
    """Require the token of a running job and pass the job to the handler."""

    @wraps(handler)
    def checked(app: Application, request: Request, job: str) -> Response:
        found = BUILD.find(app, id=number(job, "id"))
        if found is None:
            raise not_found()
        if (request.headers.get("job-token") or request.fields.get("token")) != BUILD.token(app, found):
            raise forbidden()
        if found["status"] not in HOLDS_A_RUNNER:
            refused = message(403, "403 Forbidden - Job is not running")
            raise RefusedError(Response(403, refused.body, refused.content_type, {STATUS: found["status"]}))
        return handler(app, request, found)

    return answers(checked)


@ROUTES.add("PUT", "/api/v4/jobs/:job")
@for_job
def update_job(app: Application, request: Request, job: Record) -> Response:
    state, reason = request.fields.get("state"), request.fields.get("failure_reason")
    if state == "success":
        pipeline_processing.finish(app, job, "success")
    elif state == "failed":
        known = reason if reason in job_requests.FAILURE_REASONS else "unknown_failure"
        pipeline_processing.finish(app, job, "failed", reason=known)
    current = BUILD.select(app, {"id": job["id"]})[0]
    return Response(200, b"200", "application/json", {STATUS: current["status"], UPDATE_INTERVAL: UNWATCHED})


@ROUTES.add("PATCH", "/api/v4/jobs/:job/trace")
@for_job
def append_log(app: Application, request: Request, job: Record) -> Response:
    """Append to the log; 416 if the part does not start at the log's end, after which the runner resends from there."""
    given = re.fullmatch(r"(\d+)-(\d+)", request.headers.get("content-range", ""))
    if given is None:
        return message(400, "400 Bad request - Missing header Content-Range")
    accepted = ci_records.append_to_log(job, int(given[1]), request.body)
    headers = {STATUS: job["status"], "Range": f"0-{len(ci_records.log(app, job))}", UPDATE_INTERVAL: UNWATCHED}
    return Response(202 if accepted else 416, headers=headers)


@ROUTES.add("POST", "/api/v4/jobs/:job/artifacts")
@for_job
def upload_report(app: Application, request: Request, job: Record) -> Response:
    """Store a dotenv report, the variables for jobs of later stages."""
    if request.fields.get("artifact_type") != "dotenv":
        raise invalid("artifact_type does not have a valid value")
    [content] = [part.content for part in request.parts if part.name == "file"]
    lines = [line for line in gzip.decompress(content).decode().splitlines() if line.strip()]
    found = [DOTENV_LINE.fullmatch(line) for line in lines]
    if not all(found):
        return message(400, "Invalid Format")
    BUILD.update(app, job, output_variables={match[1]: match[2].strip() for match in found if match})
    ci_records.keep_artifact(app, job, ci_records.DOTENV, ".env.gz", content)
    return json_response(201, {"message": "201 Created"})


def _runner(app: Application, request: Request) -> Record | None:
    return runners.runner_with_token(app, str(request.fields.get("token") or ""))
