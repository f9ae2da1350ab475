"""Progress of a pipeline: start or skip jobs when earlier ones finish.

Source: gitlab-org/gitlab app/services/ci/pipeline_processing/atomic_processing_service.rb.
"""

from collections.abc import Sequence

from lab_gitlab import ci_records, outgoing, projects, users
from lab_gitlab.application import Application
from lab_gitlab.ci_records import BUILD, COMPLETED, PIPELINE
from lab_gitlab.records import Record, now


def reference(pipeline: Record) -> str:
    """Return the git reference that runners fetch; it stays when the branch moves or is deleted."""
    return f"refs/pipelines/{pipeline['id']}"


def earlier(job: Record, others: Sequence[Record]) -> list[Record]:
    """Return the jobs of earlier stages, which the job waits for and whose variables it receives."""
    return [other for other in others if other["stage_idx"] < job["stage_idx"]]


def process(app: Application, pipeline_id: int) -> None:
    """Start or skip the jobs whose earlier jobs have all finished."""
    jobs = ci_records.jobs_of(app, pipeline_id)
    for job in jobs:
        before = {other["status"] for other in earlier(job, jobs)}
        if job["status"] == "created" and before <= {"success"}:
            job.update(BUILD.update(app, job, status="pending", queued_at=now()))
        elif job["status"] == "created" and before <= set(COMPLETED):
            job.update(BUILD.update(app, job, status="skipped"))
    _update_pipeline(app, pipeline_id, {job["status"] for job in jobs})


def _update_pipeline(app: Application, pipeline_id: int, jobs: set[str]) -> None:
    """Set the pipeline's status from those of its jobs. The user who started a pipeline gets a mail if it fails."""
    pipeline = PIPELINE.select(app, {"id": pipeline_id})[0]
    status = _combined(jobs)
    if status == pipeline["status"]:
        return
    PIPELINE.update(app, pipeline, status=status, finished_at=now() if status in COMPLETED else None)
    if status == "failed":
        project = projects.PROJECT.select(app, {"id": pipeline["project_id"]})[0]
        user = users.USER.select(app, {"id": pipeline["user_id"]})[0]
        subject = f"{project['name']} | Failed pipeline for {pipeline['ref']} | {pipeline['sha'][:8]}"
        address = f"{projects.web_url(app, project)}/-/pipelines/{pipeline_id}"
        if user["email"]:
            outgoing.queue_mail(app, user["email"], subject, f"Pipeline #{pipeline_id} has failed!\n\n{address}\n")


def _combined(jobs: set[str]) -> str:
    """Return a pipeline's status (lib/gitlab/ci/status/composite.rb)."""
    if not jobs <= set(COMPLETED):
        started = jobs & {"running", "canceling", *COMPLETED}
        return "running" if started else "pending" if "pending" in jobs else "created"
    for status in ("failed", "canceled", "success"):
        if status in jobs:
            return status
    return "skipped"


def finish(app: Application, job: Record, ended: str, *, reason: str | None = None) -> None:
    """Record the end of a job and process its pipeline."""
    if job["status"] == "canceling":
        ended, reason = "canceled", None
    BUILD.update(app, job, status=ended, finished_at=now(), failure_reason=reason)
    ci_records.archive_log(app, job)
    process(app, job["pipeline_id"])


def cancel(app: Application, jobs: Sequence[Record]) -> None:
    """Cancel jobs. A job that runs is only marked: its runner ends it."""
    for job in jobs:
        if job["status"] == "running":
            BUILD.update(app, job, status="canceling")
        elif job["status"] in ("created", "pending"):
            BUILD.update(app, job, status="canceled", finished_at=now())
            process(app, job["pipeline_id"])
