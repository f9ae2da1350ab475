"""What a runner gets when it asks for a job, and which one (Ci::RegisterJobService).

Source: gitlab-org/gitlab app/services/ci/register_job_service.rb, app/presenters/ci/build_runner_presenter.rb,
lib/api/entities/ci/job_request/.
"""

import re
from collections.abc import Mapping
from typing import Any

from lab_gitlab import ci_records, job_variables, pipeline_processing, projects, users
from lab_gitlab.application import Application
from lab_gitlab.ci_records import BUILD, JOB_ARTIFACT, PIPELINE
from lab_gitlab.records import Record, now, seconds_between

REPORTS = {"dotenv": ".env", "junit": "junit.xml"}
"""Names that reports get, by their kinds."""
MASKED_PREFIXES = (
    "glpat-",
    "gloas-",
    "gldt-",
    "glrt-",
    "glrtr-",
    "glcbt-",
    "glptt-",
    "glft-",
    "glimt-",
    "glagent-",
    "glsoat-",
    "glffct-",
)
FAILURE_REASONS = (
    *("unknown_failure", "script_failure", "api_failure", "stuck_or_timeout_failure", "runner_system_failure"),
    *("missing_dependency_failure", "runner_unsupported", "stale_schedule", "job_execution_timeout"),
    *("archived_failure", "unmet_prerequisites", "scheduler_failure", "data_integrity_failure"),
    *("forward_deployment_failure", "user_blocked", "project_deleted", "ci_quota_exceeded", "pipeline_loop_detected"),
    *("no_matching_runner", "trace_size_exceeded", "builds_disabled", "environment_creation_failure"),
    *("deployment_rejected", "failed_outdated_deployment_job"),
)
"""Of jobs (lib/enums/ci/commit_status.rb). An image that cannot be pulled is not among them."""


def take(app: Application, runner: Record, manager: Record, features: Mapping[str, Any]) -> dict[str, Any] | None:
    """The oldest job that the runner may have, now running on it; None when there is none."""
    if not runner["active"]:
        return None
    for waiting in BUILD.select(app, {"status": "pending"}, order=[("id", "asc")]):
        tags = set(waiting["tag_list"])
        if not tags <= set(runner["tag_list"]) or (not tags and not runner["run_untagged"]):
            continue
        project = projects.PROJECT.find(app, id=waiting["project_id"])
        if project is None or not project["shared_runners_enabled"]:
            continue
        if runner["access_level"] == "ref_protected" and not _is_protected(app, project, waiting):
            continue
        job = _claimed(app, project, waiting, runner=runner, manager=manager, features=features)
        if job is None:
            continue
        if _lost_dependencies(app, job):
            pipeline_processing.finish(app, project, job, "failed", reason="missing_dependency_failure")
            continue
        pipeline = PIPELINE.select(app, {"id": job["pipeline_id"]})[0]
        pipeline = pipeline_processing.process(app, pipeline, project)
        return _payload(app, project, pipeline, job, runner)
    return None


def _is_protected(app: Application, project: Record, job: Record) -> bool:
    """Of the default branch: the lab's GitLab protects no other, and no tag."""
    pipeline = PIPELINE.select(app, {"id": job["pipeline_id"]})[0]
    return not pipeline["tag"] and pipeline["ref"] == project["default_branch"]


def _claimed(
    app: Application, project: Record, job: Record, *, runner: Record, manager: Record, features: Mapping[str, Any]
) -> Record | None:
    """Two that ask at once must not both have it."""
    with app.database.transaction():
        current = BUILD.find(app, id=job["id"])
        if current is None or current["status"] != "pending":
            return None
        limits = [job["timeout"] or project["build_timeout"], runner["maximum_timeout"]]
        return BUILD.update(
            app,
            current,
            status="running",
            started_at=now(),
            runner_id=runner["id"],
            runner_manager_id=manager["id"],
            timeout=min(limit for limit in limits if limit),
            runner_features=dict(features),
        )


def dependencies(app: Application, job: Record) -> list[Record]:
    """Jobs whose artifacts the job gets: those of earlier stages, unless `needs` or `dependencies` name others."""
    pipeline = PIPELINE.select(app, {"id": job["pipeline_id"]})[0]
    jobs = ci_records.jobs_of(app, pipeline)
    if job["needs"] is not None:
        wanted = {need["job"] for need in job["needs"] if need["artifacts"]}
        found = [other for other in jobs if other["name"] in wanted]
    else:
        found = [other for other in jobs if other["stage_idx"] < job["stage_idx"]]
    named = job["options"].get("dependencies")
    return [other for other in found if named is None or other["name"] in named]


def _lost_dependencies(app: Application, job: Record) -> bool:
    """Whether artifacts that `dependencies` names are over."""
    if not job["options"].get("dependencies"):
        return False
    return any(_expired(archive(app, other)) for other in dependencies(app, job))


def archive(app: Application, job: Record) -> Record | None:
    return JOB_ARTIFACT.find(app, job_id=job["id"], file_type="archive")


def _expired(artifact: Record | None) -> bool:
    return artifact is not None and artifact["expire_at"] is not None and artifact["expire_at"] < now()


def _payload(app: Application, project: Record, pipeline: Record, job: Record, runner: Record) -> dict[str, Any]:
    token = BUILD.token(app, job) or ""
    user = users.USER.select(app, {"id": job["user_id"]})[0]
    before = dependencies(app, job)
    inherited = [
        {"key": key, "value": value, "public": False, "masked": False}
        for other in before
        for key, value in (other["output_variables"] or {}).items()
    ]
    variables = job_variables.for_job(
        app, project, pipeline, job, user=user, runner=runner, token=token, inherited=inherited
    )
    depth = _git_depth(project, variables)
    options = job["options"]
    steps = [_step("script", options["script"], job["timeout"], "on_success", allow_failure=False)]
    if options["after_script"]:
        steps.append(_step("after_script", options["after_script"], job["timeout"], "always", allow_failure=True))
    return {
        "id": job["id"],
        "token": token,
        "allow_git_fetch": True,
        "job_info": {
            "id": job["id"],
            "name": job["name"],
            "stage": job["stage"],
            "project_id": project["id"],
            "project_name": project["name"],
            "time_in_queue_seconds": round(seconds_between(job["queued_at"], job["started_at"]) or 0.0),
            "project_jobs_running_on_instance_runners_count": str(_running(app, project, job)),
        },
        "git_info": {
            "repo_url": job_variables.repository_url(app, project, token),
            "repo_object_format": "sha1",
            "ref": pipeline["ref"],
            "sha": pipeline["sha"],
            "before_sha": pipeline["before_sha"],
            "ref_type": "tag" if pipeline["tag"] else "branch",
            "refspecs": _refspecs(pipeline, depth),
            "depth": depth,
        },
        "runner_info": {"timeout": job["timeout"], "runner_session_url": None},
        "variables": variables,
        "steps": steps,
        "hooks": [],
        "image": _image(options["image"]),
        "services": [_image(service) for service in options["services"]],
        "artifacts": _artifacts(options["artifacts"]),
        "cache": [
            {
                "key": cache.get("key", "default"),
                "untracked": cache.get("untracked", False),
                "policy": cache.get("policy", "pull-push"),
                "paths": cache.get("paths", []),
                "when": cache.get("when", "on_success"),
                "fallback_keys": cache.get("fallback_keys", []),
            }
            for cache in options["cache"]
        ],
        "credentials": _credentials(app, token),
        "dependencies": [
            {"id": other["id"], "name": other["name"], "token": token, **_file(found)}
            for other in before
            if (found := archive(app, other)) and not _expired(found)
        ],
        "features": {
            "trace_sections": True,
            "token_mask_prefixes": list(MASKED_PREFIXES),
            "failure_reasons": list(FAILURE_REASONS),
        },
    }


def _step(name: str, script: list[str], timeout: int, when: str, *, allow_failure: bool) -> dict[str, Any]:
    return {"name": name, "script": script, "timeout": timeout, "when": when, "allow_failure": allow_failure}


def _running(app: Application, project: Record, job: Record) -> int:
    return len(
        [
            other
            for other in BUILD.select(app, {"project_id": project["id"], "status": "running"})
            if other["id"] != job["id"]
        ]
    )


def _git_depth(project: Record, variables: list[dict[str, Any]]) -> int:
    """Commits to fetch, 0 for all: what the job says in GIT_DEPTH, else the project's."""
    named = {variable["key"]: variable["value"] for variable in variables}
    number = re.match(r"\d+", str(named.get("GIT_DEPTH", project["ci_default_git_depth"])))
    return int(number[0]) if number else 0


def _refspecs(pipeline: Record, depth: int) -> list[str]:
    kept = pipeline_processing.reference(pipeline)
    if not depth:
        return [f"+{kept}:{kept}", "+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*"]
    if pipeline["tag"]:
        return [f"+{kept}:{kept}", f"+refs/tags/{pipeline['ref']}:refs/tags/{pipeline['ref']}"]
    return [f"+{kept}:{kept}", f"+refs/heads/{pipeline['ref']}:refs/remotes/origin/{pipeline['ref']}"]


def _image(image: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if image is None:
        return None
    policy = image.get("pull_policy")
    user = (image.get("docker") or {}).get("user")
    return {
        "name": image["name"],
        "alias": image.get("alias"),
        "command": image.get("command"),
        "entrypoint": image.get("entrypoint"),
        "ports": [],
        "executor_opts": {"docker": {"user": user}} if user else {},
        "pull_policy": [policy] if isinstance(policy, str) else policy,
        "variables": [{"key": name, "value": str(value)} for name, value in (image.get("variables") or {}).items()],
    }


def _artifacts(artifacts: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """An archive of the paths, and each report as a file of its own."""
    if not artifacts:
        return []
    when, expire_in = artifacts.get("when", "on_success"), artifacts.get("expire_in")
    found = []
    if artifacts.get("paths") or artifacts.get("untracked"):
        found.append(
            {
                "name": artifacts.get("name"),
                "untracked": artifacts.get("untracked"),
                "paths": artifacts.get("paths") or [],
                "exclude": artifacts.get("exclude"),
                "when": when,
                "expire_in": expire_in,
                "artifact_type": "archive",
                "artifact_format": "zip",
            }
        )
    for kind, report in (artifacts.get("reports") or {}).items():
        found.append(
            {
                "name": REPORTS[kind],
                "paths": report,
                "when": when if kind == "dotenv" else "always",
                "expire_in": expire_in,
                "artifact_type": kind,
                "artifact_format": "gzip",
            }
        )
    return found


def _credentials(app: Application, token: str) -> list[dict[str, str]]:
    if not app.registry["enabled"]:
        return []
    host = projects.registry_host(app)
    return [{"type": "registry", "url": host, "username": job_variables.JOB_USER, "password": token}]


def _file(artifact: Record) -> dict[str, Any]:
    return {"artifacts_file": {"filename": artifact["filename"], "size": artifact["size"]}}
