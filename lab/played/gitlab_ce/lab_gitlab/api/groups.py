"""Groups. Source: gitlab-org/gitlab lib/api/groups.rb."""

from lab_gitlab import projects
from lab_gitlab.api.common import bad_request, boolean, for_user, needed, not_found, page, require
from lab_gitlab.application import Application
from lab_gitlab.authentication import Caller
from lab_gitlab.http_server import Request, Response, Routes, json_response
from lab_gitlab.records import Record, RecordInvalidError, full_messages

ROUTES = Routes()
VISIBILITY = {name: level for level, name in projects.VISIBILITY.items()}


@ROUTES.add("GET", "/api/v4/groups")
@for_user()
def list_groups(app: Application, request: Request, caller: Caller) -> Response:
    found = projects.GROUP.select(app, order=[("name", "asc")])
    seen = [group for group in found if _may_see(group, caller)]
    return page(request, seen, lambda group: projects.present_group(app, group))


@ROUTES.add("POST", "/api/v4/groups")
@for_user()
def create_group(app: Application, request: Request, caller: Caller) -> Response:
    name, path = needed(request.fields, "name", "path")
    visibility = request.fields.get("visibility", "private")
    try:
        made = projects.create_group(
            app,
            caller.user,
            {
                "name": name,
                "path": path,
                "parent_id": request.fields.get("parent_id"),
                "organization_id": projects.ORGANIZATION.select(app)[0]["id"],
                "visibility_level": VISIBILITY.get(visibility, projects.PRIVATE),
            },
        )
    except RecordInvalidError as error:
        raise bad_request(f"Failed to save group {{{', '.join(full_messages(error.errors))}}}") from None
    return json_response(201, projects.present_group(app, made))


@ROUTES.add("GET", "/api/v4/groups/:group")
@for_user()
def show_group(app: Application, request: Request, caller: Caller, group: str) -> Response:
    found = _group(app, caller, group)
    shown = projects.present_group(app, found)
    if boolean(request.parameter("with_projects") or "true"):
        below = projects.PROJECT.select(app, {"namespace_id": found["id"]})
        shown["projects"] = [projects.present(app, one) for one in below]
    return json_response(200, shown)


@ROUTES.add("GET", "/api/v4/groups/:group/projects")
@for_user()
def list_projects(app: Application, request: Request, caller: Caller, group: str) -> Response:
    found = projects.PROJECT.select(app, {"namespace_id": _group(app, caller, group)["id"]}, order=[("id", "desc")])
    seen = [one for one in found if projects.may_read(app, one, caller.user)]
    return page(request, seen, lambda one: projects.present(app, one))


@ROUTES.add("DELETE", "/api/v4/groups/:group")
@for_user()
def delete_group(app: Application, _request: Request, caller: Caller, group: str) -> Response:
    found = _group(app, caller, group)
    require(caller.user["admin"] or found["owner_id"] == caller.user["id"])
    projects.GROUP.destroy(app, found)
    return json_response(202, {"message": "202 Accepted"})


def _group(app: Application, caller: Caller, name: str) -> Record:
    """Raises RefusedError."""
    found = (
        projects.GROUP.select(app, {"id": int(name)})
        if name.isdecimal()
        else projects.at_full_path(app, projects.GROUP, name)
    )
    if not found or not _may_see(found[0], caller):
        raise not_found("Group")
    return found[0]


def _may_see(group: Record, caller: Caller) -> bool:
    return bool(
        caller.user["admin"] or group["owner_id"] == caller.user["id"] or group["visibility_level"] != projects.PRIVATE
    )
