"""Pipelines, their jobs and what jobs leave behind, as they are stored.

Source: gitlab-org/gitlab app/models/ci/pipeline.rb, app/models/ci/build.rb, app/models/ci/job_artifact.rb.
"""

from pathlib import Path

from lab_gitlab import crypto, paths
from lab_gitlab.application import Application
from lab_gitlab.records import Column, Errors, Model, Record, now

TOKEN_PREFIX = "glcbt-64_"  # of a job's token; 64 is the partition, 100 in hexadecimal
COMPLETED = ("success", "failed", "canceled", "skipped")
CANCELABLE = ("created", "waiting_for_resource", "preparing", "pending", "running", "scheduled", "manual")
HOLDS_A_RUNNER = ("running", "canceling")


class Pipeline(Model):
    """One run of a project's .gitlab-ci.yml. `iid` counts within the project; durations are in seconds."""

    name = "Ci::Pipeline"
    table = "ci_pipelines"
    columns = {
        "iid": Column("integer"),
        "project_id": Column("integer"),
        "user_id": Column("integer"),
        "ref": Column(),
        "tag": Column("boolean", False),
        "sha": Column(),
        "before_sha": Column(),
        "source": Column(),
        "status": Column("text", "created"),
        "yaml_errors": Column(),
        "failure_reason": Column(),
        "variables": Column("json"),
        "name": Column(),
        "created_at": Column("time"),
        "updated_at": Column("time"),
        "started_at": Column("time"),
        "finished_at": Column("time"),
        "committed_at": Column("time"),
        "duration": Column("integer"),
    }

    def before_save(self, _app: Application, record: Record) -> None:
        record["updated_at"] = now()

    def before_destroy(self, app: Application, record: Record) -> None:
        for build in BUILD.select(app, {"pipeline_id": record["id"]}):
            BUILD.destroy(app, build)


class Build(Model):
    """A job. `options` is what .gitlab-ci.yml says of it, `needs` is None where the stages give the order."""

    name = "Ci::Build"
    table = "ci_builds"
    columns = {
        "project_id": Column("integer"),
        "pipeline_id": Column("integer"),
        "user_id": Column("integer"),
        "runner_id": Column("integer"),
        "runner_manager_id": Column("integer"),
        "name": Column(),
        "stage": Column(),
        "stage_idx": Column("integer"),
        "job_order": Column("integer"),
        "status": Column("text", "created"),
        "job_when": Column("text", "on_success"),
        "allow_failure": Column("boolean", False),
        "failure_reason": Column(),
        "exit_code": Column("integer"),
        "retried": Column("boolean", False),
        "options": Column("json"),
        "needs": Column("json"),
        "tag_list": Column("list", []),
        "timeout": Column("integer"),
        "runner_features": Column("json"),
        "output_variables": Column("json"),
        "token_encrypted": Column(),
        "created_at": Column("time"),
        "updated_at": Column("time"),
        "queued_at": Column("time"),
        "started_at": Column("time"),
        "finished_at": Column("time"),
        "erased_at": Column("time"),
    }
    scopes = {"latest": "retried = 0"}

    def before_save(self, app: Application, record: Record) -> None:
        record["updated_at"] = now()
        if not record["token_encrypted"]:
            record["token_encrypted"] = app.cipher.encrypt(TOKEN_PREFIX + crypto.friendly_token())

    def before_destroy(self, app: Application, record: Record) -> None:
        for artifact in JOB_ARTIFACT.select(app, {"job_id": record["id"]}):
            JOB_ARTIFACT.destroy(app, artifact)
        log_file(record).unlink(missing_ok=True)


class JobArtifact(Model):
    """A file that a job left."""

    name = "Ci::JobArtifact"
    table = "ci_job_artifacts"
    columns = {
        "job_id": Column("integer"),
        "project_id": Column("integer"),
        "file_type": Column(),
        "file_format": Column(),
        "filename": Column(),
        "size": Column("integer"),
        "expire_at": Column("time"),
        "created_at": Column("time"),
    }

    def validate(self, app: Application, record: Record) -> Errors:
        others = self.select(app, {"job_id": record["job_id"], "file_type": record["file_type"]})
        return [("file_type", "has already been taken")] if record["id"] is None and others else []

    def before_destroy(self, _app: Application, record: Record) -> None:
        artifact_file(record).unlink(missing_ok=True)


PIPELINE = Pipeline()
BUILD = Build()
JOB_ARTIFACT = JobArtifact()


def log_file(job: Record) -> Path:
    return paths.BUILDS / f"{job['id']}.log"


def artifact_file(artifact: Record) -> Path:
    return paths.ARTIFACTS / str(artifact["id"])


def jobs_of(app: Application, pipeline: Record, *, retried: bool = False) -> list[Record]:
    """In the order of the file; those that were run again only when asked for."""
    scopes = [] if retried else ["latest"]
    return BUILD.select(
        app, {"pipeline_id": pipeline["id"]}, scopes=scopes, order=[("job_order", "asc"), ("id", "asc")]
    )


def job_with_token(app: Application, token: str) -> Record | None:
    """The job whose token it is, while it runs: afterwards the token opens nothing."""
    found = BUILD.find(app, token_encrypted=app.cipher.encrypt(token)) if token.startswith("glcbt-") else None
    return found if found and found["status"] in HOLDS_A_RUNNER else None
