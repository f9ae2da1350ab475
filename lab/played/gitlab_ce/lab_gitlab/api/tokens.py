"""The caller's own token and account, project access tokens, and the server's version.

Source: gitlab-org/gitlab lib/api/personal_access_tokens/self_information.rb, personal_access_tokens.rb,
resource_access_tokens.rb, metadata.rb, users.rb.
"""

from lab_gitlab import members, project_access_tokens, projects, users
from lab_gitlab.api.common import (
    FORBIDDEN,
    bad_request,
    for_user,
    needed,
    number,
    page,
    project_of,
    record_not_found,
    require,
)
from lab_gitlab.application import Application
from lab_gitlab.authentication import Caller
from lab_gitlab.http_server import Request, Response, Routes, json_response
from lab_gitlab.records import Record, RecordInvalidError, full_messages
from lab_gitlab.version import revision, version

ROUTES = Routes()


@ROUTES.add("GET", "/api/v4/version")
@for_user("read_user", "ai_features")
def show_version(app: Application, _request: Request, _caller: Caller) -> Response:
    return json_response(200, _metadata(app))


@ROUTES.add("GET", "/api/v4/metadata")
@for_user("read_user", "ai_features")
def show_metadata(app: Application, _request: Request, _caller: Caller) -> Response:
    return json_response(200, _metadata(app))


def _metadata(_app: Application) -> dict[str, object]:
    kas = {"enabled": False, "externalUrl": None, "externalK8sProxyUrl": None, "version": None}
    return {"version": version(), "revision": revision(), "kas": kas, "enterprise": False}


@ROUTES.add("GET", "/api/v4/user")
@for_user("read_user")
def show_user(_app: Application, _request: Request, caller: Caller) -> Response:
    return json_response(200, users.present(caller.user))


@ROUTES.add("GET", "/api/v4/personal_access_tokens/self")
@for_user(*users.PAT_SCOPES)
def show_own_token(_app: Application, _request: Request, caller: Caller) -> Response:
    assert caller.token
    return json_response(200, users.present_token(caller.token))


@ROUTES.add("DELETE", "/api/v4/personal_access_tokens/self")
@for_user(*users.PAT_SCOPES)
def revoke_own_token(app: Application, _request: Request, caller: Caller) -> Response:
    assert caller.token
    users.PERSONAL_ACCESS_TOKEN.update(app, caller.token, revoked=True)
    return Response(204)


@ROUTES.add("GET", "/api/v4/personal_access_tokens")
@for_user()
def list_tokens(app: Application, request: Request, caller: Caller) -> Response:
    owner = {} if caller.user["admin"] else {"user_id": caller.user["id"]}
    return page(request, users.PERSONAL_ACCESS_TOKEN.select(app, owner, order=[("id", "asc")]), users.present_token)


@ROUTES.add("DELETE", "/api/v4/personal_access_tokens/:token")
@for_user()
def revoke_token(app: Application, _request: Request, caller: Caller, token: str) -> Response:
    found = users.PERSONAL_ACCESS_TOKEN.find(app, id=number(token, "id"))
    if found is None or not (caller.user["admin"] or found["user_id"] == caller.user["id"]):
        raise record_not_found()
    users.PERSONAL_ACCESS_TOKEN.update(app, found, revoked=True)
    return Response(204)


@ROUTES.add("GET", "/api/v4/projects/:project/access_tokens")
@for_user()
def list_project_tokens(app: Application, request: Request, caller: Caller, project: str) -> Response:
    found = project_of(app, caller, project)
    require(projects.may_administer(app, found, caller.user))
    return page(request, project_access_tokens.of(app, found), lambda token: _shown(app, found, token))


@ROUTES.add("POST", "/api/v4/projects/:project/access_tokens")
@for_user()
def create_project_token(app: Application, request: Request, caller: Caller, project: str) -> Response:
    """A token of its own cannot make another one: it belongs to a bot."""
    found = project_of(app, caller, project)
    require(projects.may_administer(app, found, caller.user) and caller.user["user_type"] == "human")
    name, scopes, _ = needed(request.fields, "name", "scopes", "expires_at")
    given = {"name": name, "scopes": scopes, "expires_at": request.fields["expires_at"]}
    level = int(request.fields.get("access_level") or members.MAINTAINER)
    try:
        token = project_access_tokens.create(app, caller.user, found, {**given, "access_level": level})
    except PermissionError as error:
        raise bad_request(f"400 Bad request - {error}") from None
    except RecordInvalidError as error:
        raise bad_request(f"400 Bad request - {' and '.join(full_messages(error.errors))}") from None
    return json_response(201, {**_shown(app, found, token), "token": token["token"]})


@ROUTES.add("DELETE", "/api/v4/projects/:project/access_tokens/:token")
@for_user()
def revoke_project_token(app: Application, _request: Request, caller: Caller, project: str, token: str) -> Response:
    found = project_of(app, caller, project)
    if not projects.may_administer(app, found, caller.user):
        return FORBIDDEN
    listed = [one for one in project_access_tokens.of(app, found) if one["id"] == number(token, "id")]
    if not listed:
        raise record_not_found()
    project_access_tokens.revoke(app, listed[0])
    return Response(204)


def _shown(app: Application, project: Record, token: Record) -> dict[str, object]:
    level = members.MEMBER.find(app, source_type="Project", source_id=project["id"], user_id=token["user_id"])
    return {**users.present_token(token), "access_level": level and level["access_level"], "resource_type": "project"}
