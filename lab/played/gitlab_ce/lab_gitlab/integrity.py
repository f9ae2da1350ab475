"""Rake tasks that check stored data. Their exit code is 0 regardless of what they find.

Source: gitlab-org/gitlab 17.10, lib/gitlab/doctor/secrets.rb, lib/tasks/gitlab/git.rake, lib/gitlab/verify/,
lib/system_check/; gitlab-org/gitaly internal/gitaly/service/repository/fsck.go.
"""

import datetime
import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from lab_gitlab import background_jobs, ci_records, health, paths, projects, repositories, schema, uploads, users
from lab_gitlab.application import Application
from lab_gitlab.background_migrations import BATCHED_MIGRATION, DONE, STATES
from lab_gitlab.crypto import DecryptionError
from lab_gitlab.records import Model, Record
from lab_gitlab.repositories import RepositoryError

BATCH = 200
FSCK = ("fsck", "--no-dangling", "--no-progress")


def check_secrets(app: Application) -> None:
    """gitlab:doctor:secrets: decrypt everything that is encrypted."""
    _log("INFO", "Checking encrypted values in the database")
    affected = 0
    for model in schema.MODELS.values():
        if "token_encrypted" not in model.columns:
            continue
        failed = [record["id"] for record in model.select(app) if not _decrypts(app, model, record)]
        _log("INFO", f"- {model.name} failures: {len(failed)}")
        for record_id in failed:
            _log("DEBUG", f"  - {model.name}[{record_id}]: token")
        affected += len(failed)
    _log("INFO", f"Total: {affected} row(s) affected")
    _log("INFO", "Done!")


def _decrypts(app: Application, model: Model, record: Record) -> bool:
    try:
        model.token(app, record)
    except (DecryptionError, ValueError):
        return False
    return True


def _log(level: str, text: str) -> None:
    """Print a line of Ruby's Logger; details only with VERBOSE."""
    if level == "INFO" or _verbose():
        moment = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")
        print(f"{level[0]}, [{moment} #{os.getpid()}] {level:>5} -- : {text}")


def _verbose() -> bool:
    return os.environ.get("VERBOSE", "") in ("1", "true", "yes", "on", "t")


def check_repositories(app: Application) -> None:
    """gitlab:git:fsck: check the repository of each project."""
    failures = []
    for project in projects.PROJECT.select(app):
        try:
            _fsck(repositories.folder(project))
        except RepositoryError as error:
            failures.append(f"{project['full_path']} on default: {error}")
        print(f"Performed integrity check for {project['full_path']}")
    print("The following repositories reported errors:" if failures else "Done")
    for failure in failures:
        print(f"- {failure}")


def _fsck(folder: Path) -> None:
    """Raises RepositoryError."""
    if not folder.exists():
        raise RepositoryError("5:repository not found")
    try:
        repositories.run(*FSCK, repository=folder)
    except RepositoryError as error:
        raise RepositoryError(f"Could not fsck repository: {error}") from None


def check_artifacts(app: Application) -> None:
    """gitlab:artifacts:check."""
    records = ci_records.JOB_ARTIFACT.select(app)
    _verify("Job artifacts", "Job artifact", records, "file_sha256", ci_records.artifact_file)


def check_uploads(app: Application) -> None:
    """gitlab:uploads:check."""
    _verify("Uploads", "Upload", uploads.UPLOAD.select(app), "checksum", uploads.file)


def _verify(name: str, kind: str, records: Sequence[Record], checksum: str, file: Callable[[Record], Path]) -> None:
    print(f"Checking integrity of {name}")
    for start in range(0, len(records), BATCH):
        batch = records[start : start + BATCH]
        found = [(record["id"], _problem(file(record), record[checksum])) for record in batch]
        failures = [(record_id, problem) for record_id, problem in found if problem]
        print(f"- {batch[0]['id']}..{batch[-1]['id']}: Failures: {len(failures)}")
        for record_id, problem in failures if _verbose() else ():
            print(f"  - {kind}: {record_id}: {problem}")
    print("Done!")


def _problem(file: Path, expected: str | None) -> str | None:
    """Return what is wrong with a file."""
    try:
        actual = hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError as error:
        name = "ENOENT" if isinstance(error, FileNotFoundError) else "EACCES"
        return f"#<Errno::{name}: {error.strerror} @ rb_sysopen - {file}>"
    if not expected:
        return "Checksum missing"
    return None if actual == expected else "Checksum mismatch"


def check_nothing(name: str) -> Callable[[Application], None]:
    """Return the task for records of which the lab has none."""

    def check(_app: Application) -> None:
        print(f"Checking integrity of {name}\nDone!")

    return check


def check_installation(app: Application) -> None:
    """gitlab:check: what the stand-in can observe, and the usual results of the rest."""
    services = {name: result[0]["status"] == "ok" for name, result in health.services(app).items()}
    gitaly = "OK" if services["gitaly_check"] else "FAIL: 14:connections to all backends failing"
    redis = "OK" if services["cache_check"] else "FAILED"
    sidekiq = background_jobs.sidekiq_runs()
    migrated = all(STATES.get(migration["status"]) in DONE for migration in BATCHED_MIGRATION.select(app))
    print("Checking GitLab subtasks ...\n")
    _section(
        "GitLab Shell",
        "GitLab Shell: ... GitLab Shell version >= 14.41.0 ? ... OK (14.41.0)",
        "Running /opt/gitlab/embedded/service/gitlab-shell/bin/gitlab-shell-check",
        "Internal API available: OK",
        f"Redis available via internal API: {redis}",
        "gitlab-shell self-check successful" if redis == "OK" else "gitlab-shell self-check failed",
    )
    _section("Gitaly", f"Gitaly: ... default ... {gitaly}")
    processes = "Number of Sidekiq processes (cluster/worker) ... 1/1"
    _section(
        "Sidekiq", *(("Sidekiq: ... Running? ... yes", processes) if sidekiq else ("Sidekiq: ... Running? ... no",))
    )
    _section("Incoming Email", "Incoming Email: ... Reply by email is disabled in config/gitlab.yml")
    _section("LDAP", "LDAP: ... LDAP is disabled in config/gitlab.yml")
    _section(
        "GitLab App",
        "Database config exists? ... yes",
        f"All migrations up? ... {_yes(migrated)}",
        "Database contains orphaned GroupMembers? ... no",
        "GitLab config exists? ... yes",
        "GitLab config up to date? ... yes",
        f"Log directory writable? ... {_yes(os.access(paths.LOGS / 'gitlab-rails', os.W_OK))}",
        f"Uploads directory exists? ... {_yes(paths.UPLOADS.is_dir())}",
        "Projects have namespace: ... ",
        *(f"{project['namespace_id']}/{project['id']} ... yes" for project in projects.PROJECT.select(app)),
        f"Active users: ... {len(users.USER.select(app, scopes=['active', 'human']))}",
        "All projects are in hashed storage? ... yes",
    )
    print("\nChecking GitLab subtasks ... Finished\n")


def _section(name: str, *lines: str) -> None:
    print(f"Checking {name} ...\n", *lines, f"\nChecking {name} ... Finished\n", sep="\n")


def _yes(passed: bool) -> str:
    return "yes" if passed else "no"


TASKS: dict[str, Callable[[Application], None]] = {
    "gitlab:artifacts:check": check_artifacts,
    "gitlab:check": check_installation,
    "gitlab:ci_secure_files:check": check_nothing("CI Secure Files"),
    "gitlab:doctor:secrets": check_secrets,
    "gitlab:git:fsck": check_repositories,
    "gitlab:lfs:check": check_nothing("LFS objects"),
    "gitlab:uploads:check": check_uploads,
}
