"""gitlab:db:configure: creates and seeds the database, or migrates the tables of an older package.

Source: gitlab-org/gitlab lib/tasks/gitlab/db.rake, db/fixtures/production/003_admin.rb. As there, only the run that
creates the tables seeds them: if seeding fails, a second run succeeds but there is no administrator.
"""

from collections.abc import Mapping

from lab_gitlab import (
    activity,
    background_migrations,
    ci_records,
    instance_settings,
    members,
    outgoing,
    pipeline_schedules,
    projects,
    protected_branches,
    runners,
    uploads,
    users,
)
from lab_gitlab.application import Application
from lab_gitlab.records import Column, Model, RecordInvalidError, full_messages
from lab_gitlab.version import version

ROOT_EMAIL = "admin@example.com"

TYPES = {"integer": "INTEGER", "boolean": "INTEGER"}
MODELS: Mapping[str, Model] = {
    model.name: model
    for model in (
        instance_settings.APPLICATION_SETTING,
        background_migrations.BATCHED_MIGRATION,
        users.USER,
        users.PERSONAL_ACCESS_TOKEN,
        projects.ORGANIZATION,
        projects.NAMESPACE,
        projects.GROUP,
        projects.PROJECT,
        projects.CONTAINER_REPOSITORY,
        protected_branches.PROTECTED_BRANCH,
        members.MEMBER,
        ci_records.PIPELINE,
        ci_records.BUILD,
        ci_records.COMMIT_STATUS,
        ci_records.JOB_ARTIFACT,
        ci_records.PENDING_BUILD,
        ci_records.RUNNING_BUILD,
        pipeline_schedules.PIPELINE_SCHEDULE,
        runners.RUNNER,
        outgoing.PROJECT_HOOK,
        outgoing.REMOTE_MIRROR,
        uploads.UPLOAD,
        activity.EVENT,
        *activity.ALWAYS_EMPTY,
    )
}


class SeedError(Exception):
    """The tables were created, but not the administrator."""


def configure(app: Application, root_password: str) -> list[str]:
    """Run the task and return its output lines.

    Raises SeedError with the task's output if seeding fails, DatabaseError if the migration fails.
    """
    tables = {row["name"] for row in app.database.query("SELECT name FROM sqlite_master WHERE type = 'table'")}
    make = "schema_migrations" not in tables
    with app.database.transaction():
        _migrate(app)
        app.database.execute("CREATE TABLE IF NOT EXISTS schema_migrations (version TEXT PRIMARY KEY)")
        if not app.database.query("SELECT 1 FROM schema_migrations WHERE version = ?", version()):
            background_migrations.ensure_finished(app)
        app.database.execute("INSERT OR IGNORE INTO schema_migrations VALUES (?)", version())
    if not make:
        return ["Running db:migrate rake task"]
    return ["Running db:schema:load rake task", *_seed(app, root_password)]


def _migrate(app: Application) -> None:
    for model in MODELS.values():
        app.database.execute(f"CREATE TABLE IF NOT EXISTS {model.table} (id INTEGER PRIMARY KEY AUTOINCREMENT)")
        known = {row["name"] for row in app.database.query(f"PRAGMA table_info({model.table})")}
        for name, column in model.columns.items():
            if name not in known:
                app.database.execute(f"ALTER TABLE {model.table} ADD COLUMN {_definition(name, column)}")


def _definition(name: str, column: Column) -> str:
    kind, default = TYPES.get(column.kind, "TEXT"), column.default
    if default is None or column.kind in ("list", "json"):
        return f"{name} {kind}"
    return f"{name} {kind} DEFAULT {int(default) if kind == 'INTEGER' else repr(default)}"


def _seed(app: Application, root_password: str) -> list[str]:
    instance_settings.APPLICATION_SETTING.create(app)
    try:
        root = users.seed_administrator(app, password=root_password, email=ROOT_EMAIL)
    except RecordInvalidError as error:
        messages = "".join(f"--> {message}\n" for message in full_messages(error.errors))
        raise SeedError(f"Could not create the default administrator account:\n\n{messages}") from None
    projects.seed(app, root)
    return ["Administrator account created:", "", "login:    root", "password: ******"]
