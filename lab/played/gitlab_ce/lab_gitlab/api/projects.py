"""Projects. Source: gitlab-org/gitlab lib/api/projects.rb."""

from typing import Any

from lab_gitlab import projects
from lab_gitlab.api.common import boolean, for_user, invalid, page, project_of, require
from lab_gitlab.application import Application
from lab_gitlab.authentication import Caller
from lab_gitlab.http_server import Request, Response, Routes, json_response
from lab_gitlab.registry_client import RegistryError

ROUTES = Routes()
VISIBILITY = {name: level for level, name in projects.VISIBILITY.items()}
SETTINGS = (
    *("name", "path", "description", "default_branch", "build_timeout", "ci_config_path", "ci_default_git_depth"),
    *("shared_runners_enabled", "container_registry_enabled", "initialize_with_readme", "namespace_id"),
)
SWITCHES = ("shared_runners_enabled", "container_registry_enabled", "initialize_with_readme")


@ROUTES.add("GET", "/api/v4/projects")
@for_user()
def list_projects(app: Application, request: Request, caller: Caller) -> Response:
    found = projects.PROJECT.select(app, order=[("id", "desc")])
    search = (request.parameter("search") or "").lower()
    seen = [one for one in found if projects.may_read(app, one, caller.user) and search in one["full_path"].lower()]
    return page(request, seen, lambda one: projects.present(app, one))


@ROUTES.add("POST", "/api/v4/projects")
@for_user()
def create_project(app: Application, request: Request, caller: Caller) -> Response:
    given = _settings(request)
    if not given.get("name") and not given.get("path"):
        raise invalid("name, path are missing, at least one parameter must be provided")
    made = projects.create_project(app, caller.user, given)
    return json_response(201, projects.present(app, made))


@ROUTES.add("GET", "/api/v4/projects/:project")
@for_user()
def show_project(app: Application, _request: Request, caller: Caller, project: str) -> Response:
    return json_response(200, projects.present(app, project_of(app, caller, project)))


@ROUTES.add("PUT", "/api/v4/projects/:project")
@for_user()
def update_project(app: Application, request: Request, caller: Caller, project: str) -> Response:
    found = project_of(app, caller, project)
    require(projects.may_administer(app, found, caller.user))
    given = _settings(request)
    if not given:
        raise invalid(f"{', '.join(SETTINGS)} are missing, at least one parameter must be provided")
    projects.require_visibility(app, caller.user, given)
    return json_response(200, projects.present(app, projects.PROJECT.update(app, found, **given)))


@ROUTES.add("DELETE", "/api/v4/projects/:project")
@for_user()
def delete_project(app: Application, _request: Request, caller: Caller, project: str) -> Response:
    """At once and in the same breath; the real one does it a moment later, in the background."""
    found = project_of(app, caller, project)
    require(projects.may_own(app, found, caller.user))
    try:
        projects.PROJECT.destroy(app, found)
    except RegistryError as error:
        return json_response(400, {"message": str(error)})
    return json_response(202, {"message": "202 Accepted"})


def _settings(request: Request) -> dict[str, Any]:
    given = {
        name: boolean(value) if name in SWITCHES else value
        for name, value in request.fields.items()
        if name in SETTINGS
    }
    if (visibility := request.fields.get("visibility")) is not None:
        if visibility not in VISIBILITY:
            raise invalid("visibility does not have a valid value")
        given["visibility_level"] = VISIBILITY[visibility]
    if access := request.fields.get("builds_access_level"):
        given["builds_enabled"] = access != "disabled"
    return given
