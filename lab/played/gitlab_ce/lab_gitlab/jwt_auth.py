"""GET /jwt/auth: what the registry's clients get their tokens from.

Source: gitlab-org/gitlab app/controllers/jwt_controller.rb, container_registry_authentication_service.rb. A scope that
is not allowed is left out of the token without a word; the registry then refuses.
"""

import re

from lab_gitlab import authentication, projects, registry_tokens
from lab_gitlab.application import Application
from lab_gitlab.authentication import AccessDeniedError, Actor
from lab_gitlab.http_server import Request, Response, Routes, json_response
from lab_gitlab.records import Record

ROUTES = Routes()
IMAGE = re.compile(r"[a-z0-9]+([._/-][a-z0-9._-]+)*")


@ROUTES.add("GET", "/jwt/auth")
def auth(app: Application, request: Request) -> Response:
    """POST is no route: Docker falls back to GET."""
    try:
        actor = authentication.git_client(app, request)
    except AccessDeniedError:
        return _errors(
            401,
            "UNAUTHORIZED",
            "HTTP Basic: Access denied. If a password was provided for Git authentication, the password was incorrect "
            "or you're required to use a token instead of a password. If a token was provided, it was either "
            "incorrect, expired, or improperly scoped. "
            f"See {app.settings['gitlab']['url']}/help/topics/git/troubleshooting_git.md",
        )
    if request.parameter("service") != registry_tokens.AUDIENCE:
        return Response(404)
    if not app.registry["enabled"]:
        return _errors(404, "UNAVAILABLE", "registry not enabled")
    if not actor.abilities:
        return _errors(403, "DENIED", "access forbidden")
    wanted = [scope for value in request.query.get("scope", ()) for scope in value.split()]
    access = [granted for scope in wanted if (granted := _grant(app, actor, scope))]
    if not access and actor is authentication.ANONYMOUS:
        return _errors(403, "DENIED", "access forbidden")
    token = registry_tokens.token(
        app,
        access,
        subject=actor.user["username"] if actor.user else None,
        auth_type=actor.kind,
    )
    return json_response(200, {"token": token})


def _grant(app: Application, actor: Actor, scope: str) -> registry_tokens.Access | None:
    kind, _, rest = scope.partition(":")
    name, _, listed = rest.rpartition(":")
    actions = listed.split(",")
    if kind == "registry":
        admin = actor.user is not None and actor.user["admin"]
        asked = admin and (name, actions) == ("catalog", ["*"])
        return {"type": kind, "name": name, "actions": actions} if asked else None
    if kind != "repository" or not IMAGE.fullmatch(name):
        return None
    project = projects.project_of_image(app, name)
    if project is None or not project["container_registry_enabled"]:
        return None
    allowed = [action for action in actions if _may(app, actor, action, project)]
    if not allowed:
        return None
    if "push" in allowed:
        projects.remember_image(app, project, name)
    return {
        "type": kind,
        "name": name,
        "actions": allowed,
        "meta": {"project_path": project["full_path"].lower(), "project_id": project["id"]},
    }


def _may(app: Application, actor: Actor, action: str, project: Record) -> bool:
    if actor.job:
        # Images of its own project, whatever its user may; a job does not get at those of others.
        own = actor.job["project_id"] == project["id"]
        return own and action in ("pull", "push", "delete") and projects.may_write(app, project, actor.user)
    ability = {
        "pull": authentication.PULL,
        "push": authentication.PUSH,
        "delete": authentication.ADMIN,
        "*": authentication.ADMIN,
    }.get(action)
    if ability not in actor.abilities:
        return False
    if actor.deploy_token:
        return bool(actor.deploy_token["project_id"] == project["id"])
    if action == "pull":
        return projects.may_read_code(app, project, actor.user)
    return projects.may_write(app, project, actor.user)


def _errors(status: int, code: str, message: str) -> Response:
    return json_response(status, {"errors": [{"code": code, "message": message}]})
