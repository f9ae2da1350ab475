"""Stand-in for Sidekiq: the service that executes queued jobs and starts scheduled pipelines."""

import time
import traceback
from collections.abc import Callable, Mapping

from lab_gitlab import application, background_jobs, outgoing, pipeline_schedules, pushes, user_deletion
from lab_gitlab.application import Application
from lab_gitlab.database import DatabaseError

PAUSE = 0.2  # seconds

WORKERS: Mapping[str, Callable[..., None]] = {
    "ActionMailer::MailDeliveryJob": outgoing.deliver_mail,
    "DeleteUserWorker": user_deletion.delete,
    "PostReceive": pushes.protect_default_branch,
    "RepositoryUpdateRemoteMirrorWorker": outgoing.update_mirror,
    "WebHookWorker": outgoing.deliver_hook,
}


def work(app: Application) -> None:
    """Execute everything that is due. A job that fails is not repeated, unlike in the real Sidekiq."""
    pipeline_schedules.run_due(app)
    while job := background_jobs.first():
        try:
            WORKERS[job["class"]](app, **job["args"])
        except Exception:  # noqa: BLE001 - the next job must not depend on this one
            traceback.print_exc()
        background_jobs.remove_first()


def main() -> None:
    app, _lock = application.load(), background_jobs.lock()
    while True:
        try:
            work(app)
        except (DatabaseError, LookupError, OSError) as error:
            print(error, flush=True)
        time.sleep(PAUSE)


if __name__ == "__main__":
    main()
