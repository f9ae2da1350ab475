"""The part of the REST API, /api/v4, that runners and programs of this project use.

Source: gitlab-org/gitlab lib/api/ci/runner.rb, runners.rb, user_runners.rb, projects.rb,
project_container_repositories.rb.
"""

import secrets
from collections.abc import Callable
from functools import wraps
from typing import Any

from lab_gitlab import authentication, projects, registry_client, runners, users
from lab_gitlab.application import Application
from lab_gitlab.http_server import Request, Response, Routes, json_response
from lab_gitlab.records import Record, RecordInvalidError, UnknownAttributeError, full_messages
from lab_gitlab.version import revision, version

ROUTES = Routes()
LAST_UPDATE = "X-GitLab-Last-Update"

UserHandler = Callable[..., Response]


def _message(status: int, text: str) -> Response:
    return json_response(status, {"message": text})


FORBIDDEN = _message(403, "403 Forbidden")


def for_user(*scopes: str, admin: bool = False) -> Callable[[UserHandler], Callable[..., Response]]:
    """Only with a personal access token of one of these scopes (`api` always does); its user is handed over."""

    def decorate(handler: UserHandler) -> Callable[..., Response]:
        @wraps(handler)
        def checked(app: Application, request: Request, **path: str) -> Response:
            try:
                found = authentication.api_user(app, request)
            except authentication.AccessDeniedError:
                found = None
            if found is None:
                return _message(401, "401 Unauthorized")
            user, granted = found
            if not {"api", *scopes} & set(granted):
                return json_response(
                    403,
                    {
                        "error": "insufficient_scope",
                        "error_description": "The request requires higher privileges "
                        "than provided by the access token.",
                        "scope": " ".join(("api", *scopes)),
                    },
                )
            if admin and not user["admin"]:
                return FORBIDDEN
            return handler(app, request, user, **path)

        return checked

    return decorate


@ROUTES.add("GET", "/api/v4/version")
@for_user("read_api", "read_user", "ai_features")
def show_version(app: Application, request: Request, user: Record) -> Response:
    return json_response(200, {"version": version(), "revision": revision(), "enterprise": False})


@ROUTES.add("GET", "/api/v4/user")
@for_user("read_api", "read_user")
def show_user(app: Application, request: Request, user: Record) -> Response:
    return json_response(200, users.present(user))


# Runners, as people manage them


@ROUTES.add("POST", "/api/v4/user/runners")
@for_user("create_runner")
def create_runner(app: Application, request: Request, user: Record) -> Response:
    fields = request.fields
    if not fields.get("runner_type"):
        return json_response(400, {"error": "runner_type is missing"})
    if fields["runner_type"] != "instance_type":
        return json_response(400, {"error": f"runner_type {fields['runner_type']} is not played"})
    params = {
        name: _boolean(value) if name in ("paused", "locked", "run_untagged") else value
        for name, value in fields.items()
        if name != "private_token"
    }
    try:
        runner = runners.create_runner(app, user, params)
    except PermissionError as error:
        return _message(403, f"403 Forbidden - {error}")
    except RecordInvalidError as error:
        return _message(400, f"400 Bad request - {', '.join(full_messages(error.errors))}")
    except UnknownAttributeError as error:
        return json_response(400, {"error": str(error)})
    return json_response(201, _credentials(app, runner))


@ROUTES.add("GET", "/api/v4/runners/all")
@for_user("read_api", "manage_runner", admin=True)
def list_runners(app: Application, request: Request, user: Record) -> Response:
    found = runners.RUNNER.select(app, order=[("id", "desc")])
    return json_response(200, [runners.present(app, runner) for runner in found])


# Runners, as they speak for themselves


@ROUTES.add("POST", "/api/v4/runners")
def register(app: Application, request: Request) -> Response:
    """Registration tokens are switched off on a server of this version."""
    return json_response(
        410, {"message": "410 Gone - runner registration disallowed", "reason": "runner_registration_disallowed"}
    )


@ROUTES.add("POST", "/api/v4/runners/verify")
def verify(app: Application, request: Request) -> Response:
    runner = _runner(app, request)
    if runner is None:
        return FORBIDDEN
    runners.heartbeat(app, runner, request.fields, request.client)
    return json_response(200, _credentials(app, runner))


@ROUTES.add("DELETE", "/api/v4/runners")
def delete_runner(app: Application, request: Request) -> Response:
    runner = _runner(app, request)
    if runner is None:
        return FORBIDDEN
    runners.RUNNER.destroy(app, runner)
    return Response(204)


@ROUTES.add("DELETE", "/api/v4/runners/managers")
def delete_runner_manager(app: Application, request: Request) -> Response:
    runner = _runner(app, request)
    if runner is None:
        return FORBIDDEN
    system = request.fields.get("system_id")
    if not system:
        return json_response(400, {"error": "system_id is missing"})
    manager = runners.manager_of(app, runner, system)
    if manager is None:
        return _message(404, "404 Runner manager not found Not Found")
    runners.RUNNER_MANAGER.destroy(app, manager)
    return Response(204)


@ROUTES.add("POST", "/api/v4/jobs/request")
def request_job(app: Application, request: Request) -> Response:
    """A paused runner is told there is nothing to do, for ever; so is every other one, as no jobs are played yet."""
    runner = _runner(app, request)
    if runner is None:
        return FORBIDDEN
    runners.heartbeat(app, runner, request.fields, request.client)
    return Response(204, headers={LAST_UPDATE: request.fields.get("last_update") or secrets.token_hex(16)})


# Projects and their images


@ROUTES.add("GET", "/api/v4/projects/:project")
@for_user("read_api")
def show_project(app: Application, request: Request, user: Record, project: str) -> Response:
    found = _project(app, project, user)
    if found is None:
        return _message(404, "404 Project Not Found")
    namespace = projects.NAMESPACE.select(app, {"id": found["namespace_id"]})[0]
    return json_response(200, projects.present(found, namespace, image_prefix=_image_prefix(app, found)))


@ROUTES.add("GET", "/api/v4/projects/:project/registry/repositories")
@for_user("read_api")
def list_images(app: Application, request: Request, user: Record, project: str) -> Response:
    """Repositories are GitLab's own records; tags are asked of the registry, with a token of GitLab's own."""
    found = _project(app, project, user)
    if found is None or not app.registry["enabled"]:
        return _message(404, "404 Not Found" if found else "404 Project Not Found")
    shown = []
    for repository in projects.CONTAINER_REPOSITORY.select(app, {"project_id": found["id"]}, order=[("id", "asc")]):
        path = projects.repository_path(found, repository)
        location = f"{_registry_host(app)}/{path}"
        entry: dict[str, Any] = {
            "id": repository["id"],
            "name": repository["name"],
            "path": path,
            "project_id": found["id"],
            "location": location,
            "created_at": repository["created_at"],
        }
        if _boolean(request.parameter("tags")) or _boolean(request.parameter("tags_count")):
            try:
                tags = registry_client.tags(app, path)
            except registry_client.RegistryError as error:
                return _message(503, f"503 Service Unavailable - {error}")
            entry["tags_count"] = len(tags)
            if _boolean(request.parameter("tags")):
                entry["tags"] = [
                    {"name": tag, "path": f"{path}:{tag}", "location": f"{location}:{tag}"} for tag in tags
                ]
        shown.append(entry)
    return json_response(200, shown)


def answer_unknown() -> Response:
    return json_response(404, {"error": "404 Not Found"})


def _runner(app: Application, request: Request) -> Record | None:
    return runners.runner_with_token(app, str(request.fields.get("token") or ""))


def _credentials(app: Application, runner: Record) -> dict[str, Any]:
    return {"id": runner["id"], "token": runners.RUNNER.token(app, runner), "token_expires_at": None}


def _project(app: Application, name: str, user: Record) -> Record | None:
    found = (
        projects.PROJECT.select(app, {"id": int(name)})
        if name.isdecimal()
        else projects.at_full_path(app, projects.PROJECT, name)
    )
    return found[0] if found and projects.may_read(found[0], user) else None


def _registry_host(app: Application) -> str:
    return ":".join(str(part) for part in (app.registry["host"], app.registry["port"]) if part)


def _image_prefix(app: Application, project: Record) -> str | None:
    return f"{_registry_host(app)}/{project['full_path'].lower()}" if app.registry["enabled"] else None


def _boolean(value: Any) -> bool:
    return str(value).lower() in ("1", "true", "yes", "on", "t")
