"""Stored pipelines, jobs, logs and reports.

Source: gitlab-org/gitlab app/models/ci/pipeline.rb, app/models/ci/build.rb.
"""

from pathlib import Path

from lab_gitlab import crypto, paths
from lab_gitlab.application import Application
from lab_gitlab.records import Column, Model, Record

TOKEN_PREFIX = "glcbt-64_"  # of job tokens; 64 is partition 100 in hexadecimal
COMPLETED = ("success", "failed", "canceled", "skipped")
HOLDS_A_RUNNER = ("running", "canceling")


class Pipeline(Model):
    """One run of a project's .gitlab-ci.yml. `variables` is a list of keys and values."""

    name = "Ci::Pipeline"
    table = "ci_pipelines"
    columns = {
        "project_id": Column("integer"),
        "user_id": Column("integer"),
        "ref": Column(),
        "sha": Column(),
        "source": Column(),
        "variables": Column("json"),
    }

    def before_destroy(self, app: Application, record: Record) -> None:
        for build in jobs_of(app, record["id"]):
            BUILD.destroy(app, build)


class Build(Model):
    """A job. `options` are its settings from .gitlab-ci.yml, `timeout` is in seconds, `output_variables` are those of
    its dotenv report.
    """

    name = "Ci::Build"
    table = "ci_builds"
    columns = {
        "project_id": Column("integer"),
        "pipeline_id": Column("integer"),
        "user_id": Column("integer"),
        "name": Column(),
        "stage": Column(),
        "stage_idx": Column("integer"),
        "status": Column("text", "created"),
        "failure_reason": Column(),
        "options": Column("json"),
        "tag_list": Column("list", []),
        "timeout": Column("integer"),
        "output_variables": Column("json"),
        "token_encrypted": Column(),
        "queued_at": Column("time"),
        "started_at": Column("time"),
        "finished_at": Column("time"),
    }

    def before_save(self, app: Application, record: Record) -> None:
        if not record["token_encrypted"]:
            record["token_encrypted"] = app.cipher.encrypt(TOKEN_PREFIX + crypto.friendly_token())

    def before_destroy(self, _app: Application, record: Record) -> None:
        for file in (log_file(record), report_file(record)):
            file.unlink(missing_ok=True)


PIPELINE = Pipeline()
BUILD = Build()


def jobs_of(app: Application, pipeline_id: int) -> list[Record]:
    """Return the pipeline's jobs, ordered by stage."""
    return BUILD.select(app, {"pipeline_id": pipeline_id}, order=[("stage_idx", "asc"), ("id", "asc")])


def job_with_token(app: Application, token: str) -> Record | None:
    """Return the job with this token if it is running: a job's token is valid only while it runs."""
    found = BUILD.find(app, token_encrypted=app.cipher.encrypt(token)) if token.startswith("glcbt-") else None
    return found if found and found["status"] in HOLDS_A_RUNNER else None


# Files of jobs on the data volume


def log_file(job: Record) -> Path:
    return paths.BUILDS / f"{job['id']}.log"


def report_file(job: Record) -> Path:
    return paths.ARTIFACTS / f"{job['id']}.env.gz"


def log(job: Record) -> bytes:
    file = log_file(job)
    return file.read_bytes() if file.exists() else b""


def append_to_log(job: Record, start: int, piece: bytes) -> bool:
    """Append the piece if `start` is the current end of the log; return whether it was appended."""
    paths.BUILDS.mkdir(parents=True, exist_ok=True)
    with log_file(job).open("ab") as file:
        begins_there = file.tell() == start
        if begins_there:
            file.write(piece)
    return begins_there


def keep_report(job: Record, content: bytes) -> None:
    paths.ARTIFACTS.mkdir(parents=True, exist_ok=True)
    report_file(job).write_bytes(content)
