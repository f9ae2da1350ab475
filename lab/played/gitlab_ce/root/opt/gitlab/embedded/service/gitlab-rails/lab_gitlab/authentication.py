"""Who asks: HTTP basic authentication of git and Docker clients, and the API's tokens.

Source: gitlab-org/gitlab lib/gitlab/auth.rb, app/controllers/jwt_controller.rb.
"""

import base64
import binascii
from dataclasses import dataclass

from lab_gitlab import instance_settings, projects, users
from lab_gitlab.application import Application
from lab_gitlab.http_server import Request
from lab_gitlab.records import Record

PULL, PUSH, ADMIN = "read_container_image", "create_container_image", "admin_container_image"
ALL = frozenset({PULL, PUSH, ADMIN})
ABILITIES_OF_SCOPE = {
    "api": ALL,
    "read_api": frozenset({PULL}),
    "read_registry": frozenset({PULL}),
    "write_registry": frozenset({PUSH}),
}


@dataclass(frozen=True)
class Actor:
    """A person or a deploy token, with what it may do to images at all."""

    kind: str
    abilities: frozenset[str]
    user: Record | None = None
    deploy_token: Record | None = None


ANONYMOUS = Actor("none", frozenset({PULL}))


class AccessDeniedError(Exception):
    """Wrong or ended credentials, or a password where the second factor is on."""


def git_client(app: Application, request: Request) -> Actor:
    """Who a Docker or git client is. Nobody without an Authorization header. Raises AccessDeniedError."""
    credentials = _basic(request)
    if credentials is None:
        return ANONYMOUS
    login, password = credentials
    actor = _with_access_token(app, password) or _with_deploy_token(app, login, password)
    actor = actor or _with_password(app, login, password)
    if actor is None:
        raise AccessDeniedError
    return actor


def api_user(app: Application, request: Request) -> tuple[Record, list[str]] | None:
    """User and scopes of the personal access token that came with an API request. Raises AccessDeniedError."""
    token = request.headers.get("private-token") or request.parameter("private_token")
    kind, _, value = request.headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer":
        token = token or value
    if not token:
        return None
    found = users.access_token(app, token)
    if found is None:
        raise AccessDeniedError
    return found[1], found[0]["scopes"]


def _basic(request: Request) -> tuple[str, str] | None:
    kind, _, value = request.headers.get("authorization", "").partition(" ")
    if kind.lower() != "basic":
        return None
    try:
        login, _, password = base64.b64decode(value, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        raise AccessDeniedError from None
    return login, password


def _with_access_token(app: Application, password: str) -> Actor | None:
    found = users.access_token(app, password) if password else None
    if found is None:
        return None
    return Actor("personal_access_token", _abilities(found[0]["scopes"]), user=found[1])


def _with_deploy_token(app: Application, login: str, password: str) -> Actor | None:
    found = projects.deploy_token(app, login, password) if password else None
    if found is None:
        return None
    scopes = [scope for scope in projects.DEPLOY_TOKEN.abilities if found[scope]]
    return Actor("deploy_token", _abilities(scopes), deploy_token=found)


def _with_password(app: Application, login: str, password: str) -> Actor | None:
    if not instance_settings.current(app)["password_authentication_enabled_for_git"]:
        return None
    user = users.user_with_password(app, login, password)
    if user is None or user["otp_required_for_login"]:
        return None
    return Actor("gitlab_or_ldap", ALL, user=user)


def _abilities(scopes: list[str]) -> frozenset[str]:
    return frozenset().union(*(ABILITIES_OF_SCOPE.get(scope, frozenset()) for scope in scopes))
