"""Image repositories of a project and their tags, which GitLab requests from the registry with its own token.

Source: gitlab-org/gitlab lib/api/project_container_repositories.rb, lib/api/entities/container_registry.rb.
"""

from lab_gitlab import projects, registry_client
from lab_gitlab.api.common import for_user, forbidden, message, not_found, number, page, project_of, require
from lab_gitlab.application import Application
from lab_gitlab.authentication import Caller
from lab_gitlab.http_server import Request, Response, Routes, json_response
from lab_gitlab.records import Record
from lab_gitlab.registry_client import RegistryError

ROUTES = Routes()
REPOSITORIES = "/api/v4/projects/:project/registry/repositories"


@ROUTES.add("GET", REPOSITORIES)
@for_user()
def list_images(app: Application, request: Request, caller: Caller, project: str) -> Response:
    """List the image repositories, which are GitLab's own records."""
    found = _project(app, caller, project)
    listed = projects.CONTAINER_REPOSITORY.select(app, {"project_id": found["id"]})
    return page(
        request, listed, lambda image: {**_names(app, projects.repository_path(found, image)), "id": image["id"]}
    )


@ROUTES.add("GET", f"{REPOSITORIES}/:image/tags")
@for_user()
def list_tags(app: Application, request: Request, caller: Caller, project: str, image: str) -> Response:
    path = _path(app, _project(app, caller, project), image)
    try:
        tags = registry_client.tags(app, path)
    except RegistryError as error:
        return message(503, f"503 Service Unavailable - {error}")
    return page(request, tags, lambda tag: {**_names(app, f"{path}:{tag}"), "name": tag})


@ROUTES.add("DELETE", f"{REPOSITORIES}/:image/tags/:tag")
@for_user()
def delete_tag(app: Application, _request: Request, caller: Caller, *, project: str, image: str, tag: str) -> Response:
    found = _project(app, caller, project)
    require(projects.may_write(app, found, caller.user))
    try:
        if not registry_client.delete_tag(app, _path(app, found, image), tag):
            raise not_found("Tag")
    except RegistryError as error:
        return message(503, f"503 Service Unavailable - {error}")
    return json_response(200, None)


def _project(app: Application, caller: Caller, name: str) -> Record:
    found = project_of(app, caller, name)
    if not app.registry["enabled"]:
        raise not_found()
    if not projects.may_read_code(app, found, caller.user):
        raise forbidden()
    return found


def _path(app: Application, project: Record, image: str) -> str:
    found = projects.CONTAINER_REPOSITORY.find(app, id=number(image, "repository_id"), project_id=project["id"])
    if found is None:
        raise not_found("Container Repository")
    return projects.repository_path(project, found)


def _names(app: Application, path: str) -> dict[str, str]:
    return {"path": path, "location": f"{projects.registry_host(app)}/{path}"}
