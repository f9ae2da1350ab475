"""Batched background migrations, which Sidekiq runs after an upgrade and the next upgrade requires to be finished.

Source: gitlabhq doc/update/background_migrations.md and background_migrations_troubleshooting.md.
The stand-in never queues one; a test inserts the row.
"""

from lab_gitlab.application import Application
from lab_gitlab.database import DatabaseError
from lab_gitlab.records import Column, Model

STATES = {0: "paused", 1: "active", 3: "finished", 4: "failed", 5: "finalizing", 6: "finalized"}
DONE = ("finished", "finalized")


class BatchedMigration(Model):
    """A batched background migration. `status` is a key of STATES."""

    name = "Gitlab::Database::BackgroundMigration::BatchedMigration"
    table = "batched_background_migrations"
    columns = {
        "job_class_name": Column(),
        "table_name": Column(),
        "column_name": Column(),
        "status": Column("integer", 0),
    }


BATCHED_MIGRATION = BatchedMigration()


def ensure_finished(app: Application) -> None:
    """Run before the migrations of a new release. Raises DatabaseError with GitLab's message if one is unfinished.

    A real release requires some of them, the stand-in requires all.
    """
    for migration in BATCHED_MIGRATION.select(app):
        state = STATES.get(migration["status"], "unknown")
        if state not in DONE:
            raise DatabaseError(
                "StandardError: An error has occurred, all later migrations canceled:\n\n"
                "Expected batched background migration for the given configuration to be marked as 'finished', "
                f"but it is '{state}':\t{{:job_class_name=>\"{migration['job_class_name']}\", "
                f":table_name=>:{migration['table_name']}, :column_name=>:{migration['column_name']}}}"
            )
