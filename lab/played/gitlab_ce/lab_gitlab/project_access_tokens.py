"""Project access tokens. Each belongs to a bot user that is created for it and is a member of that project only.

From GitLab 17.9 on, the bot stays when its token is revoked; GitLab deletes it after 30 days, the stand-in never.

Source: gitlab-org/gitlab app/services/resource_access_tokens/create_service.rb, revoke_service.rb.
"""

import secrets
from collections.abc import Mapping
from typing import Any

from lab_gitlab import activity, members, projects, users
from lab_gitlab.application import Application
from lab_gitlab.records import Record


def create(app: Application, user: Record, project: Record, params: Mapping[str, Any]) -> Record:
    """Create a token and return its record, which only here includes the token itself.

    Raises PermissionError with GitLab's message if the user may not create it, or RecordInvalidError.
    """
    if not projects.may_administer(app, project, user):
        raise PermissionError("User does not have permission to create project access token")
    level = params.get("access_level") or members.MAINTAINER
    if level > members.level(app, project, user):
        raise PermissionError(
            "Access level of the token can't be greater the access level of the user who created the token"
        )
    if level not in members.LEVELS:
        raise PermissionError(
            "Could not provision maintainer access to the access token. ERROR: Access level is not included in the list"
        )
    name = f"project_{project['id']}_bot_{secrets.token_hex(16)}"
    token = {
        "name": params.get("name"),
        "scopes": params.get("scopes"),
        "expires_at": params.get("expires_at"),
    }
    with app.database.transaction():
        bot = users.USER.create(
            app,
            username=name,
            name=token["name"],
            email=f"{name}@noreply.{app.settings['gitlab']['host']}",
            user_type="project_bot",
            password=secrets.token_urlsafe(32),
        )
        projects.NAMESPACE.create(app, path=name, name=token["name"], organization_id=project["organization_id"])
        members.add(app, "Project", project, bot, level=level)
        activity.record(app, project["id"], bot["id"], activity.JOINED)
        return users.PERSONAL_ACCESS_TOKEN.create(app, user_id=bot["id"], **token)


def revoke(app: Application, token: Record) -> None:
    users.PERSONAL_ACCESS_TOKEN.update(app, token, revoked=True)


def bots(app: Application, project: Record) -> list[Record]:
    """Return the bot users of the project's tokens."""
    found = members.MEMBER.select(app, {"source_type": "Project", "source_id": project["id"]})
    return users.USER.select(app, {"id": [member["user_id"] for member in found], "user_type": "project_bot"})
