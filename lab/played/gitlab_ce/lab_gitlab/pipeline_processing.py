"""What becomes of a pipeline while its jobs go on: which job may start, and which is skipped.

Source: gitlab-org/gitlab app/services/ci/pipeline_processing/atomic_processing_service.rb.
"""

from collections.abc import Sequence

from lab_gitlab import ci_records
from lab_gitlab.application import Application
from lab_gitlab.ci_records import BUILD, COMPLETED
from lab_gitlab.records import Record, now


def reference(pipeline: Record) -> str:
    """What runners fetch: it stays where the branch has moved on or is gone."""
    return f"refs/pipelines/{pipeline['id']}"


def earlier(job: Record, others: Sequence[Record]) -> list[Record]:
    """Those of the others that the job waits for, and whose variables it gets."""
    return [other for other in others if other["stage_idx"] < job["stage_idx"]]


def process(app: Application, pipeline_id: int) -> None:
    """Start or skip the jobs for which nothing is left to wait for."""
    jobs = ci_records.jobs_of(app, pipeline_id)
    for job in jobs:
        before = {other["status"] for other in earlier(job, jobs)}
        if job["status"] == "created" and before <= {"success"}:
            job.update(BUILD.update(app, job, status="pending", queued_at=now()))
        elif job["status"] == "created" and before <= set(COMPLETED):
            job.update(BUILD.update(app, job, status="skipped"))


def finish(app: Application, job: Record, ended: str, *, reason: str | None = None) -> None:
    """A job has come to its end."""
    if job["status"] == "canceling":
        ended, reason = "canceled", None
    BUILD.update(app, job, status=ended, finished_at=now(), failure_reason=reason)
    process(app, job["pipeline_id"])


def cancel(app: Application, jobs: Sequence[Record]) -> None:
    """At once where no runner has the job; a runner first ends what it does."""
    for job in jobs:
        if job["status"] == "running":
            BUILD.update(app, job, status="canceling")
        elif job["status"] in ("created", "pending"):
            BUILD.update(app, job, status="canceled", finished_at=now())
            process(app, job["pipeline_id"])
