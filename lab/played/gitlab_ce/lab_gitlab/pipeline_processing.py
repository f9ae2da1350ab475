"""What becomes of a pipeline while its jobs go on: which job may start, which is skipped, and how all of it stands.

Source: gitlab-org/gitlab app/services/ci/pipeline_processing/atomic_processing_service.rb,
lib/gitlab/ci/status/composite.rb, app/models/concerns/ci/has_status.rb, app/services/ci/retry_job_service.rb.
"""

import datetime
from collections.abc import Mapping, Sequence
from typing import Any

from lab_gitlab import ci_records, repositories
from lab_gitlab.application import Application
from lab_gitlab.ci_records import BUILD, CANCELABLE, COMPLETED, PIPELINE
from lab_gitlab.records import Record, now, seconds_between

PRECEDING: Mapping[str, tuple[str, ...]] = {
    "on_success": ("success", "skipped"),
    "on_failure": ("failed",),
    "always": ("success", "failed", "skipped"),
    "manual": ("success", "skipped"),
}
"""By a job's `when`: how what comes before it must have ended."""

STUCK_PENDING = datetime.timedelta(days=1)
STUCK_RUNNING = datetime.timedelta(hours=1)  # without a sign of the runner
NOT_RETRIED = ("archived_failure", "runner_unsupported", "data_integrity_failure", "ci_quota_exceeded", "user_blocked")


ONLY_OF: Sequence[tuple[str, tuple[str, ...]]] = (
    ("skipped", ("skipped", "ignored")),
    ("success", ("success", "skipped", "success_with_warnings", "ignored")),
    ("created", ("created", "success_with_warnings", "ignored")),
    ("canceled", ("canceled", "success", "skipped", "success_with_warnings", "ignored")),
    ("pending", ("pending", "created", "skipped", "success_with_warnings", "ignored")),
)
"""What several statuses are together when there are no others among them; the first that fits counts."""
ONE_OF: Sequence[tuple[str, tuple[str, ...]]] = (
    ("canceling", ("canceling",)),
    ("running", ("running", "pending")),
    ("manual", ("manual",)),
    ("running", ("created",)),
)
"""What they are together when one of these is among them."""


def composite(statuses: Sequence[tuple[str, bool]], *, directed: bool = False) -> str | None:
    """One status of several, each with whether its job may fail; `directed` where `needs` gives the order."""
    seen = {_seen(status, may_fail) for status, may_fail in statuses}
    if not seen:
        return None
    if directed and "skipped" in seen:
        return "skipped"
    only = (result for result, among in ONLY_OF if seen <= set(among))
    one = (result for result, among in ONE_OF if seen & set(among))
    return next(only, None) or next(one, "failed")


def _seen(status: str, may_fail: bool) -> str:
    if may_fail and status in ("failed", "canceled"):
        return "success_with_warnings" if status == "failed" else "ignored"
    return "ignored" if may_fail and status == "manual" else status


def process(app: Application, pipeline: Record, project: Record) -> Record:
    """Start, skip and count until nothing changes any more; returns the pipeline as it is then."""
    changed = True
    while changed:
        changed = False
        jobs = ci_records.jobs_of(app, pipeline)
        for job in jobs:
            if job["status"] != "created":
                continue
            before = _before(job, jobs)
            if before is not None and before not in COMPLETED:
                continue
            _advance(app, job, before or "success")
            changed = True
            break
    return _update(app, pipeline, project)


def _before(job: Record, jobs: Sequence[Record]) -> str | None:
    """How what the job waits for stands; None when it waits for nothing."""
    if job["needs"] is None:
        return composite(
            [(other["status"], other["allow_failure"]) for other in jobs if other["stage_idx"] < job["stage_idx"]]
        )
    names = {need["job"] for need in job["needs"]}
    return composite(
        [(other["status"], other["allow_failure"]) for other in jobs if other["name"] in names], directed=True
    )


def _advance(app: Application, job: Record, before: str) -> None:
    allowed = PRECEDING[job["job_when"]]
    if job["needs"] is not None and job["job_when"] == "on_success":
        allowed = ("success",)
    if before not in allowed:
        BUILD.update(app, job, status="skipped")
    elif job["job_when"] == "manual":
        BUILD.update(app, job, status="manual")
    else:
        BUILD.update(app, job, status="pending", queued_at=now())


def _update(app: Application, pipeline: Record, project: Record) -> Record:
    jobs = ci_records.jobs_of(app, pipeline)
    status = composite([(job["status"], job["allow_failure"]) for job in jobs]) or pipeline["status"]
    changes: dict[str, Any] = {"status": status}
    started = [job["started_at"] for job in jobs if job["started_at"]]
    if started and not pipeline["started_at"]:
        changes["started_at"] = min(started)
    if status in COMPLETED and pipeline["status"] not in COMPLETED:
        changes["finished_at"] = now()
        changes["duration"] = round(_busy([(job["started_at"], job["finished_at"]) for job in jobs]))
        repositories.delete_reference(project, reference(pipeline))
    elif status not in COMPLETED and pipeline["status"] in COMPLETED:
        changes |= {"finished_at": None, "duration": None}
        repositories.set_reference(project, reference(pipeline), pipeline["sha"])
    return PIPELINE.update(app, pipeline, **changes)


def reference(pipeline: Record) -> str:
    """What runners fetch: it stays where the branch has moved on or is gone."""
    return f"refs/pipelines/{pipeline['id']}"


def _busy(periods: Sequence[tuple[str | None, str | None]]) -> float:
    """Seconds in which at least one job ran."""
    total, reached = 0.0, ""
    for start, end in sorted((start, end) for start, end in periods if start and end):
        total += max(0.0, seconds_between(max(start, reached), end) or 0.0) if end > reached else 0.0
        reached = max(reached, end)
    return total


# What happens to single jobs


def finish(
    app: Application,
    project: Record,
    job: Record,
    status: str,
    *,
    reason: str | None = None,
    exit_code: int | None = None,
) -> None:
    """A job has come to its end; one that failed is run again where its `retry` says so."""
    if job["status"] == "canceling":
        status, reason = "canceled", None
    changes: dict[str, Any] = {"status": status, "finished_at": now(), "exit_code": exit_code}
    if status == "failed":
        changes["failure_reason"] = reason or "unknown_failure"
    job = BUILD.update(app, job, **changes)
    if status == "failed" and changes["failure_reason"] not in NOT_RETRIED:
        earlier = BUILD.select(app, {"pipeline_id": job["pipeline_id"], "name": job["name"], "retried": True})
        if len(earlier) < (job["options"].get("retry") or 0):
            again(app, job)
    _process_of(app, project, job)


def cancel(app: Application, project: Record, jobs: Sequence[Record]) -> None:
    """Jobs of one pipeline, at once where no runner has them; a runner that knows how ends its after_script first."""
    for job in jobs:
        graceful = job["status"] == "running" and (job["runner_features"] or {}).get("cancel_gracefully")
        if graceful:
            BUILD.update(app, job, status="canceling")
        elif job["status"] in CANCELABLE:
            BUILD.update(app, job, status="canceled", finished_at=now())
    if jobs:
        _process_of(app, project, jobs[0])


def again(app: Application, job: Record, *, user: Record | None = None) -> Record:
    """A new job in place of one that has ended, waiting for a runner."""
    copied = ("project_id", "pipeline_id", "name", "stage", "stage_idx", "job_order", "job_when", "allow_failure")
    given = {name: job[name] for name in (*copied, "options", "needs", "tag_list", "timeout")}
    made = BUILD.create(app, **given, user_id=user["id"] if user else job["user_id"], status="pending", queued_at=now())
    BUILD.update(app, job, retried=True)
    return made


def retry_job(app: Application, project: Record, job: Record, user: Record) -> Record:
    made = again(app, job, user=user)
    _reset_later(app, made)
    _process_of(app, project, made)
    return made


def retry_pipeline(app: Application, project: Record, pipeline: Record, user: Record) -> Record:
    """What failed or was cancelled is run again, what was skipped for it waits again."""
    for job in ci_records.jobs_of(app, pipeline):
        if job["status"] in ("failed", "canceled"):
            made = again(app, job, user=user)
            BUILD.update(app, made, status="created", queued_at=None)
        elif job["status"] == "skipped":
            BUILD.update(app, job, status="created")
    return process(app, pipeline, project)


def play(app: Application, project: Record, job: Record, user: Record) -> Record:
    """Start what waits for a person."""
    made = BUILD.update(app, job, status="pending", queued_at=now(), user_id=user["id"])
    _reset_later(app, made)
    _process_of(app, project, made)
    return made


def drop_stuck(app: Application) -> None:
    """Jobs that nobody took for a day, and those whose runner has not been heard of for an hour."""
    moment = datetime.datetime.now(datetime.UTC)
    for status, limit in (("pending", STUCK_PENDING), ("running", STUCK_RUNNING), ("canceling", STUCK_RUNNING)):
        for job in BUILD.select(app, {"status": status}):
            if moment - datetime.datetime.fromisoformat(job["updated_at"]) > limit:
                project = app.database.first("SELECT * FROM projects WHERE id = ?", job["project_id"])
                if project:
                    finish(app, project, job, "failed", reason="stuck_or_timeout_failure")


def _reset_later(app: Application, job: Record) -> None:
    """What was skipped because of the job waits again."""
    pipeline = PIPELINE.select(app, {"id": job["pipeline_id"]})[0]
    for other in ci_records.jobs_of(app, pipeline):
        later = other["stage_idx"] > job["stage_idx"] or job["name"] in {n["job"] for n in other["needs"] or ()}
        if other["status"] == "skipped" and later:
            BUILD.update(app, other, status="created")


def _process_of(app: Application, project: Record, job: Record) -> None:
    process(app, PIPELINE.select(app, {"id": job["pipeline_id"]})[0], project)
