"""Jobs as people see them: lists, logs, artifacts, and what can be done to a job.

Source: gitlab-org/gitlab lib/api/ci/jobs.rb, job_artifacts.rb, lib/api/entities/ci/job.rb.
"""

import io
import zipfile
from collections.abc import Mapping
from typing import Any

from lab_gitlab import ci_records, job_files, pipeline_processing, projects, repositories, runners, users
from lab_gitlab.api import pipelines
from lab_gitlab.api.common import (
    boolean,
    for_user,
    forbidden,
    message,
    needed,
    not_found,
    number,
    page,
    require,
)
from lab_gitlab.application import Application
from lab_gitlab.authentication import Caller
from lab_gitlab.ci_records import BUILD, CANCELABLE, JOB_ARTIFACT, PIPELINE
from lab_gitlab.http_server import Request, Response, Routes, json_response
from lab_gitlab.records import Record, now, seconds_between, shown

ROUTES = Routes()
JOBS = "/api/v4/projects/:project/jobs"
RETRYABLE = ("success", "failed", "canceled")


@ROUTES.add("GET", JOBS)
@for_user()
def list_jobs(app: Application, request: Request, caller: Caller, project: str) -> Response:
    found = pipelines.project_with_pipelines(app, caller, project)
    listed = BUILD.select(app, {"project_id": found["id"], **_scope(request)}, order=[("id", "desc")])
    return page(request, listed, lambda job: present(app, found, job))


@ROUTES.add("GET", "/api/v4/projects/:project/pipelines/:pipeline/jobs")
@for_user(job=True)
def list_jobs_of_pipeline(app: Application, request: Request, caller: Caller, project: str, pipeline: str) -> Response:
    """Newest first, as the database's numbers go."""
    found = pipelines.project_with_pipelines(app, caller, project)
    one = pipelines.pipeline_of(app, found, pipeline)
    scopes = [] if boolean(request.parameter("include_retried")) else ["latest"]
    listed = BUILD.select(app, {"pipeline_id": one["id"], **_scope(request)}, scopes=scopes, order=[("id", "desc")])
    return page(request, listed, lambda job: present(app, found, job))


@ROUTES.add("GET", "/api/v4/job")
@for_user(job=True)
def show_own_job(app: Application, _request: Request, caller: Caller) -> Response:
    if caller.job is None:
        raise not_found("Job")
    project = projects.PROJECT.select(app, {"id": caller.job["project_id"]})[0]
    return json_response(200, present(app, project, caller.job))


@ROUTES.add("GET", f"{JOBS}/:job")
@for_user()
def show_job(app: Application, _request: Request, caller: Caller, project: str, job: str) -> Response:
    found = pipelines.project_with_pipelines(app, caller, project)
    return json_response(200, present(app, found, _job(app, found, job)))


@ROUTES.add("GET", f"{JOBS}/:job/trace")
@for_user()
def show_trace(app: Application, _request: Request, caller: Caller, project: str, job: str) -> Response:
    found = pipelines.project_with_pipelines(app, caller, project)
    return Response(200, job_files.trace(_job(app, found, job)), "text/plain")


@ROUTES.add("POST", f"{JOBS}/:job/cancel")
@for_user()
def cancel_job(app: Application, _request: Request, caller: Caller, project: str, job: str) -> Response:
    found, one = _changeable(app, caller, project, job)
    if one["status"] not in CANCELABLE:
        raise forbidden("Job is not cancelable")
    pipeline_processing.cancel(app, found, [one])
    return json_response(201, present(app, found, _job(app, found, job)))


@ROUTES.add("POST", f"{JOBS}/:job/retry")
@for_user()
def retry_job(app: Application, _request: Request, caller: Caller, project: str, job: str) -> Response:
    found, one = _changeable(app, caller, project, job)
    if one["retried"] or one["status"] not in RETRYABLE:
        raise forbidden("Job is not retryable")
    return json_response(201, present(app, found, pipeline_processing.retry_job(app, found, one, caller.user)))


@ROUTES.add("POST", f"{JOBS}/:job/play")
@for_user()
def play_job(app: Application, _request: Request, caller: Caller, project: str, job: str) -> Response:
    found, one = _changeable(app, caller, project, job)
    if one["status"] != "manual":
        return message(400, "400 Bad request - Unplayable Job")
    return json_response(200, present(app, found, pipeline_processing.play(app, found, one, caller.user)))


@ROUTES.add("POST", f"{JOBS}/:job/erase")
@for_user()
def erase_job(app: Application, _request: Request, caller: Caller, project: str, job: str) -> Response:
    """Log and artifacts go, the job stays."""
    found, one = _changeable(app, caller, project, job)
    if one["status"] not in ci_records.COMPLETED or one["erased_at"]:
        raise forbidden("Job is not erasable!")
    for artifact in JOB_ARTIFACT.select(app, {"job_id": one["id"]}):
        JOB_ARTIFACT.destroy(app, artifact)
    job_files.remove_trace(one)
    return json_response(201, present(app, found, BUILD.update(app, one, erased_at=now())))


# Artifacts


@ROUTES.add("GET", f"{JOBS}/artifacts/:ref/download")
@for_user(job=True)
def download_by_ref(app: Application, request: Request, caller: Caller, project: str, ref: str) -> Response:
    found = pipelines.project_with_pipelines(app, caller, project)
    return _archive(app, _latest(app, found, ref, request))


@ROUTES.add("GET", f"{JOBS}/artifacts/:ref/raw/*path")
@for_user(job=True)
def download_file_by_ref(
    app: Application, request: Request, caller: Caller, *, project: str, ref: str, path: str
) -> Response:
    found = pipelines.project_with_pipelines(app, caller, project)
    return _from_archive(app, _latest(app, found, ref, request), path)


@ROUTES.add("GET", f"{JOBS}/:job/artifacts")
@for_user(job=True)
def download(app: Application, _request: Request, caller: Caller, project: str, job: str) -> Response:
    found = pipelines.project_with_pipelines(app, caller, project)
    return _archive(app, _job(app, found, job))


@ROUTES.add("GET", f"{JOBS}/:job/artifacts/*path")
@for_user(job=True)
def download_file(
    app: Application, _request: Request, caller: Caller, *, project: str, job: str, path: str
) -> Response:
    found = pipelines.project_with_pipelines(app, caller, project)
    return _from_archive(app, _job(app, found, job), path)


@ROUTES.add("DELETE", f"{JOBS}/:job/artifacts")
@for_user()
def delete_artifacts(app: Application, _request: Request, caller: Caller, project: str, job: str) -> Response:
    _, one = _changeable(app, caller, project, job)
    for artifact in JOB_ARTIFACT.select(app, {"job_id": one["id"]}):
        JOB_ARTIFACT.destroy(app, artifact)
    return Response(204)


def _archive(app: Application, job: Record) -> Response:
    artifact = JOB_ARTIFACT.find(app, job_id=job["id"], file_type="archive")
    if artifact is None:
        raise not_found()
    named = {"Content-Disposition": f'attachment; filename="{artifact["filename"]}"'}
    return Response(200, job_files.content(artifact), "application/zip", named)


def _from_archive(app: Application, job: Record, path: str) -> Response:
    artifact = JOB_ARTIFACT.find(app, job_id=job["id"], file_type="archive")
    if artifact is None:
        raise not_found()
    with zipfile.ZipFile(io.BytesIO(job_files.content(artifact))) as archive:
        if path not in archive.namelist():
            raise not_found()
        return Response(200, archive.read(path), "application/octet-stream")


def _latest(app: Application, project: Record, ref: str, request: Request) -> Record:
    """The job of that name in the newest pipeline of the branch that went well."""
    (name,) = needed({"job": request.parameter("job") or ""}, "job")
    for one in PIPELINE.select(app, {"project_id": project["id"], "ref": ref}, order=[("id", "desc")]):
        if one["status"] == "success":
            jobs = [job for job in ci_records.jobs_of(app, one) if job["name"] == name]
            if jobs:
                return jobs[0]
    raise not_found()


def _job(app: Application, project: Record, job: str) -> Record:
    found = BUILD.find(app, id=number(job, "job_id"), project_id=project["id"])
    if found is None:
        raise not_found()
    return found


def _changeable(app: Application, caller: Caller, project: str, job: str) -> tuple[Record, Record]:
    found = pipelines.project_with_pipelines(app, caller, project)
    require(projects.may_write(app, found, caller.user))
    return found, _job(app, found, job)


def _scope(request: Request) -> dict[str, Any]:
    """scope=failed, or scope[]=failed&scope[]=canceled."""
    wanted = [*request.query.get("scope", ()), *request.query.get("scope[]", ())]
    return {"status": wanted} if wanted else {}


def present(app: Application, project: Record, job: Record) -> dict[str, Any]:
    pipeline = PIPELINE.select(app, {"id": job["pipeline_id"]})[0]
    user = users.USER.find(app, id=job["user_id"])
    url = projects.web_url(app, project)
    artifacts = JOB_ARTIFACT.select(app, {"job_id": job["id"]}, order=[("id", "asc")])
    archive = next((one for one in artifacts if one["file_type"] == "archive"), None)
    runner = runners.RUNNER.find(app, id=job["runner_id"]) if job["runner_id"] else None
    manager = runners.RUNNER_MANAGER.find(app, id=job["runner_manager_id"]) if job["runner_manager_id"] else None
    shown_job: dict[str, Any] = {
        "id": job["id"],
        "status": job["status"],
        "stage": job["stage"],
        "name": job["name"],
        "ref": pipeline["ref"],
        "tag": pipeline["tag"],
        "coverage": None,
        "allow_failure": job["allow_failure"],
        "created_at": shown(job["created_at"]),
        "started_at": shown(job["started_at"]),
        "finished_at": shown(job["finished_at"]),
        "erased_at": shown(job["erased_at"]),
        "duration": seconds_between(job["started_at"], job["finished_at"] or (now() if job["started_at"] else None)),
        "queued_duration": seconds_between(
            job["queued_at"], job["started_at"] or (now() if job["queued_at"] else None)
        ),
        "user": users.present_basic(app, user) if user else None,
        "commit": repositories.present(repositories.commit(project, pipeline["sha"]), url),
        "pipeline": pipelines.present_basic(app, project, pipeline),
        "web_url": f"{url}/-/jobs/{job['id']}",
        "project": {"ci_job_token_scope_enabled": False},
        "artifacts": [_shown_file(one) for one in [*artifacts, *job_files.trace_entry(job)]],
        "runner": runners.present(app, runner) if runner else None,
        "runner_manager": runners.present_manager(manager) if manager else None,
        "artifacts_expire_at": shown(archive["expire_at"]) if archive else None,
        "archived": False,
        "tag_list": job["tag_list"],
    }
    if archive:
        shown_job["artifacts_file"] = {"filename": archive["filename"], "size": archive["size"]}
    if job["status"] == "failed":
        shown_job["failure_reason"] = job["failure_reason"]
    return shown_job


def _shown_file(artifact: Mapping[str, Any]) -> dict[str, Any]:
    return {name: artifact[name] for name in ("file_type", "size", "filename", "file_format")}
