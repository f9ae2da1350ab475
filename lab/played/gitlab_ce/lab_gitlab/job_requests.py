"""Assignment of jobs to runners (Ci::RegisterJobService) and the payload that a runner receives.

Source: gitlab-org/gitlab app/services/ci/register_job_service.rb, app/presenters/ci/build_runner_presenter.rb,
lib/api/entities/ci/job_request/; limited to the fields that gitlab-runner 17.10 uses (common/network.go).
"""

from typing import Any

from lab_gitlab import ci_records, job_variables, pipeline_processing, projects, repositories
from lab_gitlab.application import Application
from lab_gitlab.ci_records import BUILD, PIPELINE
from lab_gitlab.records import Record, now

TIMEOUT = 3600  # seconds, for jobs without their own timeout
DEPTH = 20  # commits
MASKED_PREFIXES = ("glpat-", "gldt-", "glrt-", "glrtr-", "glcbt-", "glptt-", "glft-")
FAILURE_REASONS = ("unknown_failure", "script_failure", "runner_system_failure", "job_execution_timeout")
"""Those of lib/enums/ci/commit_status.rb that a runner may send; image_pull_failure is not one of them."""


def take(app: Application, runner: Record) -> dict[str, Any] | None:
    """Assign the oldest suitable job to the runner and return its payload; None if there is none."""
    if not runner["active"]:
        return None
    for waiting in BUILD.select(app, {"status": "pending"}, order=[("id", "asc")]):
        tags = set(waiting["tag_list"])
        if not tags <= set(runner["tag_list"]) or (not tags and not runner["run_untagged"]):
            continue
        if runner["project_id"] not in (None, waiting["project_id"]):
            continue
        if runner["access_level"] == "ref_protected" and not waiting["protected"]:
            continue
        project = projects.PROJECT.select(app, {"id": waiting["project_id"]})[0]
        if runner["runner_type"] == "instance_type" and not project["shared_runners_enabled"]:
            continue
        job = _claimed(app, waiting)
        if job is not None:
            pipeline = PIPELINE.select(app, {"id": job["pipeline_id"]})[0]
            pipeline_processing.process(app, pipeline["id"])
            return _payload(app, project, pipeline, job, runner)
    return None


def _claimed(app: Application, job: Record) -> Record | None:
    """Mark the job as running; return None if another request has claimed it in the meantime."""
    with app.database.transaction():
        current = BUILD.find(app, id=job["id"], status="pending")
        if current is None:
            return None
        timeout = current["timeout"] or TIMEOUT
        return BUILD.update(app, current, status="running", started_at=now(), timeout=timeout)


def _payload(app: Application, project: Record, pipeline: Record, job: Record, runner: Record) -> dict[str, Any]:
    token = BUILD.token(app, job) or ""
    before = pipeline_processing.earlier(job, ci_records.jobs_of(app, pipeline["id"]))
    inherited = {name: value for other in before for name, value in (other["output_variables"] or {}).items()}
    variables = job_variables.for_job(app, project, pipeline, job, runner=runner, token=token, inherited=inherited)
    options, kept, branch = job["options"], pipeline_processing.reference(pipeline), pipeline["ref"]
    return {
        "id": job["id"],
        "token": token,
        "allow_git_fetch": True,
        "job_info": {
            **{name: job[name] for name in ("id", "name", "stage", "project_id")},
            "project_name": project["name"],
        },
        "git_info": {
            "repo_url": job_variables.repository_url(app, project, token),
            "ref": branch,
            "sha": pipeline["sha"],
            "before_sha": repositories.NOWHERE,
            "ref_type": "branch",
            "refspecs": [f"+{kept}:{kept}", f"+refs/heads/{branch}:refs/remotes/origin/{branch}"],
            "depth": DEPTH,
        },
        "runner_info": {"timeout": job["timeout"]},
        "variables": variables,
        "steps": [{"name": "script", "script": options["script"], "timeout": job["timeout"], "when": "on_success"}],
        "image": options["image"] and _image(options["image"]),
        "artifacts": _artifacts(options) if options["dotenv"] else [],
        "credentials": _credentials(app, token),
        "features": {
            "trace_sections": True,
            "token_mask_prefixes": list(MASKED_PREFIXES),
            "failure_reasons": list(FAILURE_REASONS),
        },
    }


def _image(image: dict[str, Any]) -> dict[str, Any]:
    policy = image.get("pull_policy")
    return {**image, "pull_policy": [policy] if isinstance(policy, str) else policy}


def _artifacts(options: dict[str, Any]) -> list[dict[str, Any]]:
    about = {"name": ".env", "paths": options["dotenv"], "when": "on_success", "expire_in": options["expire_in"]}
    return [{**about, "artifact_type": "dotenv", "artifact_format": "gzip"}]


def _credentials(app: Application, token: str) -> list[dict[str, str]]:
    if not app.registry["enabled"]:
        return []
    host = projects.registry_host(app)
    return [{"type": "registry", "url": host, "username": job_variables.JOB_USER, "password": token}]
