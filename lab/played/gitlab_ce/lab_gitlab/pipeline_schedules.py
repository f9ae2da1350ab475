"""Pipelines that start at certain times.

Source: gitlab-org/gitlab app/models/ci/pipeline_schedule.rb, app/workers/pipeline_schedule_worker.rb. The real worker
runs every ten minutes by default, this one all the time. Times are UTC.
"""

import datetime

from lab_gitlab import pipeline_creation, projects, users
from lab_gitlab.application import Application
from lab_gitlab.records import FORMAT, Column, Errors, Model, Record, RecordInvalidError, now

RANGES = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 6))
HORIZON = 366 * 24 * 60  # minutes
INVALID = ("cron", "syntax is invalid")


class PipelineSchedule(Model):
    """A schedule; `cron` has five fields, each `*`, `*/n`, or numbers separated by commas."""

    name = "Ci::PipelineSchedule"
    table = "ci_pipeline_schedules"
    columns = {
        "project_id": Column("integer"),
        "owner_id": Column("integer"),
        "description": Column(),
        "ref": Column(),
        "cron": Column(),
        "cron_timezone": Column("text", "UTC"),
        "active": Column("boolean", True),
        "next_run_at": Column("time"),
        "created_at": Column("time"),
    }

    def validate(self, _app: Application, record: Record) -> Errors:
        try:
            record["next_run_at"] = record["next_run_at"] or next_run(record["cron"])
        except ValueError:
            return [INVALID]
        return []


PIPELINE_SCHEDULE = PipelineSchedule()


def next_run(cron: str) -> str:
    """Return the first minute after this one that matches, in the stored format. Raises ValueError."""
    fields = [_numbers(text, *limits) for text, limits in zip(cron.split(), RANGES, strict=True)]
    moment = datetime.datetime.now(datetime.UTC).replace(second=0, microsecond=0)
    for _ in range(HORIZON):
        moment += datetime.timedelta(minutes=1)
        values = (moment.minute, moment.hour, moment.day, moment.month, moment.isoweekday() % 7)
        if all(value in field for value, field in zip(values, fields, strict=True)):
            return moment.strftime(FORMAT)
    raise ValueError(cron)


def _numbers(text: str, lowest: int, highest: int) -> set[int]:
    base, _, step = text.partition("/")
    allowed = set(range(lowest, highest + 1))
    chosen = allowed if base == "*" else {int(part) for part in base.split(",")}
    if not chosen <= allowed:
        raise ValueError(text)
    return {value for value in chosen if (value - lowest) % int(step or 1) == 0}


def run_due(app: Application) -> None:
    """Create the pipelines of schedules that are due. A schedule whose pipeline cannot be created stays active."""
    for schedule in PIPELINE_SCHEDULE.select(app, {"active": True}):
        if schedule["next_run_at"] > now():
            continue
        PIPELINE_SCHEDULE.update(app, schedule, next_run_at=next_run(schedule["cron"]))
        project = projects.PROJECT.select(app, {"id": schedule["project_id"]})[0]
        owner = users.USER.select(app, {"id": schedule["owner_id"]})[0]
        try:
            pipeline_creation.create(app, project, owner, schedule["ref"], source="schedule")
        except RecordInvalidError as error:
            print(f"{schedule['id']}: Failed to create a scheduled pipeline: {error}", flush=True)


def present(schedule: Record) -> dict[str, object]:
    shown = ("id", "description", "ref", "cron", "cron_timezone", "next_run_at", "active", "created_at")
    return {name: schedule[name] for name in shown}
