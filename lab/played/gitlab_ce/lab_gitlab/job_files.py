"""What jobs leave on the data volume: their logs and their artifacts.

Source: gitlab-org/gitlab app/services/ci/append_build_trace_service.rb, job_artifacts/create_service.rb,
parse_dotenv_artifact_service.rb.
"""

import datetime
import gzip
import re
from typing import Any

from lab_gitlab import ci_configuration, paths
from lab_gitlab.application import Application
from lab_gitlab.ci_records import BUILD, JOB_ARTIFACT, artifact_file, log_file
from lab_gitlab.records import Record

DEFAULT_EXPIRY = "30 days"
DOTENV_NAME = re.compile(r"\w+")
DOTENV_MAXIMUM, DOTENV_VARIABLES = 5 * 1024, 20


class InvalidArtifactError(Exception):
    """What was sent is not what it is said to be."""


def trace(job: Record) -> bytes:
    file = log_file(job)
    return file.read_bytes() if file.exists() else b""


def trace_entry(job: Record) -> list[dict[str, Any]]:
    """The log as one of the job's files, once the job is over."""
    content = trace(job) if job["finished_at"] else b""
    if not content:
        return []
    return [{"file_type": "trace", "size": len(content), "filename": "job.log", "file_format": None}]


def append(job: Record, start: int, content: bytes) -> int | None:
    """Put a piece at the log's end and return its new size; None when the piece does not begin there."""
    paths.BUILDS.mkdir(parents=True, exist_ok=True)
    with log_file(job).open("ab") as file:
        if file.tell() != start:
            return None
        file.write(content)
        return file.tell()


def remove_trace(job: Record) -> None:
    log_file(job).unlink(missing_ok=True)


def content(artifact: Record) -> bytes:
    return artifact_file(artifact).read_bytes()


def keep(
    app: Application, job: Record, *, kind: str, form: str, filename: str, sent: bytes, expire_in: str | None
) -> Record:
    """Store an artifact; a dotenv file's variables go to the jobs that depend on this one.

    Raises InvalidArtifactError, RecordInvalidError.
    """
    if kind == "dotenv":
        BUILD.update(app, job, output_variables=_dotenv(sent))
    seconds = None if expire_in == "never" else ci_configuration.duration(expire_in or DEFAULT_EXPIRY)
    ends = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=seconds) if seconds else None
    artifact = JOB_ARTIFACT.create(
        app,
        job_id=job["id"],
        project_id=job["project_id"],
        file_type=kind,
        file_format=form,
        filename=filename,
        size=len(sent),
        expire_at=ends and ends.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
    )
    paths.ARTIFACTS.mkdir(parents=True, exist_ok=True)
    artifact_file(artifact).write_bytes(sent)
    return artifact


def _dotenv(sent: bytes) -> dict[str, str]:
    try:
        text = gzip.decompress(sent).decode()
    except (OSError, EOFError, UnicodeDecodeError):
        raise InvalidArtifactError("Invalid Format") from None
    if len(text) > DOTENV_MAXIMUM:
        raise InvalidArtifactError(f"Dotenv Artifact Too Big. Maximum Allowable Size: {DOTENV_MAXIMUM}")
    variables = {}
    for line in text.splitlines():
        if not line.strip():
            continue
        name, equals, value = line.partition("=")
        if not equals or not DOTENV_NAME.fullmatch(name.strip()):
            raise InvalidArtifactError("Invalid Format")
        variables[name.strip()] = value.strip()
    if len(variables) > DOTENV_VARIABLES:
        raise InvalidArtifactError(f"Dotenv files cannot have more than {DOTENV_VARIABLES} variables")
    return variables
