"""Stored pipelines, jobs, logs and reports.

Source: gitlab-org/gitlab app/models/ci/pipeline.rb, app/models/ci/build.rb, app/models/ci/job_artifact.rb,
app/uploaders/job_artifact_uploader.rb, app/models/concerns/enums/ci/job_artifact.rb.
"""

import hashlib
from pathlib import Path

from lab_gitlab import crypto, paths
from lab_gitlab.application import Application
from lab_gitlab.records import Column, Model, Record

TOKEN_PREFIX = "glcbt-64_"  # of job tokens; 64 is partition 100 in hexadecimal
COMPLETED = ("success", "failed", "canceled", "skipped")
HOLDS_A_RUNNER = ("running", "canceling")
TRACE, DOTENV = 3, 16
"""Types of job artifacts; a trace is a job's log."""


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
        "status": Column("text", "created"),
        "variables": Column("json"),
        "created_at": Column("time"),
        "finished_at": Column("time"),
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
        "protected": Column("boolean", False),
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

    def before_destroy(self, app: Application, record: Record) -> None:
        log_file(record).unlink(missing_ok=True)
        for artifact in JOB_ARTIFACT.select(app, {"job_id": record["id"]}):
            JOB_ARTIFACT.destroy(app, artifact)


class CommitStatus(Build):
    """The base class of jobs; in the lab, every one is a Build."""

    name = "CommitStatus"


class JobArtifact(Model):
    """A file of a finished job; `file_type` is TRACE or DOTENV."""

    name = "Ci::JobArtifact"
    table = "ci_job_artifacts"
    columns = {
        "project_id": Column("integer"),
        "job_id": Column("integer"),
        "file_type": Column("integer"),
        "file": Column(),
        "file_sha256": Column(),
        "file_store": Column("integer", 1),
        "size": Column("integer"),
        "created_at": Column("time"),
    }

    def before_destroy(self, _app: Application, record: Record) -> None:
        artifact_file(record).unlink(missing_ok=True)


class PendingBuild(Model):
    """The real GitLab's queue of jobs. It is always empty: the stand-in assigns jobs from the table of jobs."""

    name = "Ci::PendingBuild"
    table = "ci_pending_builds"
    columns = {"build_id": Column("integer")}


class RunningBuild(PendingBuild):
    name = "Ci::RunningBuild"
    table = "ci_running_builds"


PIPELINE = Pipeline()
BUILD = Build()
COMMIT_STATUS = CommitStatus()
JOB_ARTIFACT = JobArtifact()
PENDING_BUILD = PendingBuild()
RUNNING_BUILD = RunningBuild()


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


def artifact_file(artifact: Record) -> Path:
    """Return the path in the hashed layout of the real GitLab."""
    digest = hashlib.sha256(str(artifact["project_id"]).encode()).hexdigest()
    folder = paths.ARTIFACTS / digest[:2] / digest[2:4] / digest / str(artifact["created_at"])[:10].replace("-", "_")
    return folder / str(artifact["job_id"]) / str(artifact["id"]) / str(artifact["file"])


def log(app: Application, job: Record) -> bytes:
    artifact = JOB_ARTIFACT.find(app, job_id=job["id"], file_type=TRACE)
    file = artifact_file(artifact) if artifact else log_file(job)
    return file.read_bytes() if file.exists() else b""


def append_to_log(job: Record, start: int, piece: bytes) -> bool:
    """Append the piece if `start` is the current end of the log; return whether it was appended."""
    paths.BUILDS.mkdir(parents=True, exist_ok=True)
    with log_file(job).open("ab") as file:
        begins_there = file.tell() == start
        if begins_there:
            file.write(piece)
    return begins_there


def archive_log(app: Application, job: Record) -> None:
    """Turn the log of a finished job into an artifact."""
    file = log_file(job)
    if file.exists():
        keep_artifact(app, job, TRACE, "job.log", file.read_bytes())
        file.unlink()


def keep_artifact(app: Application, job: Record, kind: int, name: str, content: bytes) -> None:
    about = {"project_id": job["project_id"], "job_id": job["id"], "file_type": kind, "file": name}
    sha256 = hashlib.sha256(content).hexdigest()
    place = artifact_file(JOB_ARTIFACT.create(app, **about, file_sha256=sha256, size=len(content)))
    place.parent.mkdir(parents=True)
    place.write_bytes(content)
