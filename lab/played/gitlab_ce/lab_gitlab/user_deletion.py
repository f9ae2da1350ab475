"""Deletion of users by Sidekiq: what is a user's own goes with the user, and pipelines become the ghost user's.

Source: gitlab-org/gitlab app/workers/delete_user_worker.rb, app/services/users/destroy_service.rb and
migrate_records_to_ghost_user_service.rb, app/models/user.rb. The real worker removes only the memberships itself; a
second worker, which runs every few minutes, does the rest.
"""

import secrets

from lab_gitlab import activity, ci_records, members, projects, users
from lab_gitlab.application import Application
from lab_gitlab.records import Record


def delete(app: Application, user_id: int) -> None:
    """Executed by Sidekiq. A user that no longer exists is not an error."""
    user = users.USER.find(app, id=user_id)
    if user is None:
        return
    with app.database.transaction():
        ghost = _ghost(app)
        for kept in (ci_records.PIPELINE, ci_records.BUILD):
            kept.update_all(app, kept.select(app, {"user_id": user_id}), {"user_id": ghost["id"]})
        for model, of_the_user in (
            (members.MEMBER, {"user_id": user_id}),
            (users.PERSONAL_ACCESS_TOKEN, {"user_id": user_id}),
            (activity.EVENT, {"author_id": user_id}),
            (projects.NAMESPACE, {"type": "User", "path": user["username"]}),
        ):
            for record in model.select(app, of_the_user):
                model.destroy(app, record)
        users.USER.destroy(app, user)


def _ghost(app: Application) -> Record:
    """Return the ghost user, who is created when first needed (lib/users/internal.rb)."""
    return users.USER.find(app, user_type="ghost") or users.USER.create(
        app,
        username="ghost",
        name="Ghost User",
        email="ghost@example.com",
        user_type="ghost",
        password=secrets.token_urlsafe(32),
    )
