"""Authentication: HTTP basic authentication of git and Docker clients, and API tokens.

Source: gitlab-org/gitlab lib/gitlab/auth.rb, app/controllers/jwt_controller.rb.
"""

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass

from lab_gitlab import ci_records, instance_settings, users
from lab_gitlab.application import Application
from lab_gitlab.http_server import Request
from lab_gitlab.job_variables import JOB_USER
from lab_gitlab.records import Record

PULL, PUSH = "read_container_image", "create_container_image"
DOWNLOAD, UPLOAD = "download_code", "push_code"
ALL = frozenset({PULL, PUSH, DOWNLOAD, UPLOAD})
ABILITIES_OF_SCOPE = {
    "api": ALL,
    "read_api": frozenset({PULL, DOWNLOAD}),
    "read_registry": frozenset({PULL}),
    "write_registry": frozenset({PUSH}),
    "read_repository": frozenset({DOWNLOAD}),
    "write_repository": frozenset({DOWNLOAD, UPLOAD}),
}
ABILITIES_OF_JOB = frozenset({PULL, PUSH, DOWNLOAD})
"""In the job's own project. Pushing code is a project setting that is disabled by default."""

ACCESS_DENIED = (
    "HTTP Basic: Access denied. If a password was provided for Git authentication, the password was incorrect or "
    "you're required to use a token instead of a password. If a token was provided, it was either incorrect, expired, "
    "or improperly scoped."
)


@dataclass(frozen=True)
class Actor:
    """An authenticated user or job with its abilities for images and code, before project permissions."""

    kind: str
    abilities: frozenset[str]
    user: Record | None = None
    job: Record | None = None


ANONYMOUS = Actor("none", frozenset())


@dataclass(frozen=True)
class Caller:
    """The user of an API request with the access token used."""

    user: Record
    scopes: Sequence[str]
    token: Record


class AccessDeniedError(Exception):
    """The credentials are wrong or expired."""


class IpBlockedError(Exception):
    """The client's address is banned after too many failed logins."""


def git_client(app: Application, request: Request) -> Actor:
    """Authenticate a Docker or git client; without an Authorization header it is anonymous.

    Raises AccessDeniedError, or IpBlockedError for a banned address. Logins as gitlab-ci-token are not rate limited.
    """
    credentials = _basic(request)
    if credentials is None:
        return ANONYMOUS
    login, password = credentials
    limited = login != JOB_USER
    if limited and app.rate_limiter.banned(request.client):
        raise IpBlockedError
    actor = _with_job_token(app, login, password) or _with_access_token(app, password)
    actor = actor or _with_password(app, login, password)
    if actor is None:
        if limited:
            app.rate_limiter.register_failure(request.client)
        raise AccessDeniedError
    if limited:
        app.rate_limiter.reset(request.client)
    return actor


def api_caller(app: Application, request: Request) -> Caller | None:
    """Authenticate an API request by its token; return None without one. Raises AccessDeniedError."""
    token = request.headers.get("private-token")
    if not token:
        return None
    found = users.access_token(app, token)
    if found is None:
        raise AccessDeniedError
    scopes = found[0]["scopes"]
    user = instance_settings.as_seen(app, found[1], in_admin_mode="admin_mode" in scopes)
    return Caller(user, scopes, found[0])


def _basic(request: Request) -> tuple[str, str] | None:
    kind, _, value = request.headers.get("authorization", "").partition(" ")
    if kind.lower() != "basic":
        return None
    try:
        login, _, password = base64.b64decode(value, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        raise AccessDeniedError from None
    return login, password


def _with_job_token(app: Application, login: str, password: str) -> Actor | None:
    job = ci_records.job_with_token(app, password) if login == JOB_USER else None
    user = users.USER.find(app, id=job["user_id"]) if job else None
    if user is None or user["state"] != "active" or users.password_expired(user):
        return None
    user = instance_settings.as_seen(app, user, in_admin_mode=False)
    return Actor("build", ABILITIES_OF_JOB, user=user, job=job)


def _with_access_token(app: Application, password: str) -> Actor | None:
    found = users.access_token(app, password) if password else None
    if found is None or users.password_expired(found[1]):
        return None
    return Actor("personal_access_token", _abilities(found[0]["scopes"]), user=found[1])


def _with_password(app: Application, login: str, password: str) -> Actor | None:
    if not instance_settings.current(app)["password_authentication_enabled_for_git"]:
        return None
    user = users.user_with_password(app, login, password)
    if user is None or users.password_expired(user):
        return None
    return Actor("gitlab_or_ldap", ALL, user=user)


def _abilities(scopes: list[str]) -> frozenset[str]:
    return frozenset().union(*(ABILITIES_OF_SCOPE.get(scope, frozenset()) for scope in scopes))
