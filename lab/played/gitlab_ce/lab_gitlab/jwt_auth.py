"""GET /jwt/auth: issues tokens to the registry's clients.

Source: gitlab-org/gitlab app/controllers/jwt_controller.rb, container_registry_authentication_service.rb. The token
omits scopes that are not allowed, without an error; the registry then denies access.
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
    """Issue a token. There is no POST route: Docker falls back to GET."""
    try:
        actor = authentication.git_client(app, request)
    except AccessDeniedError:
        return _errors(401, "UNAUTHORIZED", authentication.ACCESS_DENIED)
    if request.parameter("service") != registry_tokens.AUDIENCE:
        return Response(404)
    if not app.registry["enabled"]:
        return _errors(404, "UNAVAILABLE", "registry not enabled")
    if not actor.abilities:
        return _errors(403, "DENIED", "access forbidden")
    wanted = [scope for value in request.query.get("scope", ()) for scope in value.split()]
    access = [granted for scope in wanted if (granted := _grant(app, actor, scope))]
    subject = actor.user["username"] if actor.user else None
    return json_response(200, {"token": registry_tokens.token(app, access, subject=subject, auth_type=actor.kind)})


def _grant(app: Application, actor: Actor, scope: str) -> registry_tokens.Access | None:
    kind, _, rest = scope.partition(":")
    name, _, listed = rest.rpartition(":")
    actions = listed.split(",")
    if kind != "repository" or not IMAGE.fullmatch(name):
        return None
    project = projects.project_of_image(app, name)
    if project is None:
        return None
    allowed = [action for action in actions if _may(app, actor, action, project)]
    if not allowed:
        return None
    if "push" in allowed:
        projects.remember_image(app, project, name)
    return {"type": kind, "name": name, "actions": allowed}


def _may(app: Application, actor: Actor, action: str, project: Record) -> bool:
    if actor.job and actor.job["project_id"] != project["id"]:
        return False  # regardless of its user's permissions
    if {"pull": authentication.PULL, "push": authentication.PUSH}.get(action) not in actor.abilities:
        return False
    may = projects.may_read_code if action == "pull" else projects.may_write
    return may(app, project, actor.user)


def _errors(status: int, code: str, message: str) -> Response:
    return json_response(status, {"errors": [{"code": code, "message": message}]})
