"""Image repositories of a project and their tags, which are asked of the registry with a token of GitLab's own.

Source: gitlab-org/gitlab lib/api/project_container_repositories.rb, lib/api/entities/container_registry.rb.
"""

import re
from typing import Any

from lab_gitlab import projects, registry_client
from lab_gitlab.api.common import (
    boolean,
    for_user,
    forbidden,
    invalid,
    message,
    needed,
    not_found,
    number,
    page,
    project_of,
    require,
)
from lab_gitlab.application import Application
from lab_gitlab.authentication import Caller
from lab_gitlab.http_server import Request, Response, Routes, json_response
from lab_gitlab.records import Record, shown
from lab_gitlab.registry_client import RegistryError

ROUTES = Routes()
REPOSITORIES = "/api/v4/projects/:project/registry/repositories"


@ROUTES.add("GET", REPOSITORIES)
@for_user(job=True)
def list_images(app: Application, request: Request, caller: Caller, project: str) -> Response:
    """Repositories are GitLab's own records; tags are asked of the registry."""
    found = _project(app, caller, project)
    listed = projects.CONTAINER_REPOSITORY.select(app, {"project_id": found["id"]}, order=[("id", "asc")])
    try:
        return page(request, listed, lambda image: _shown(app, request, found, image))
    except RegistryError as error:
        return message(503, f"503 Service Unavailable - {error}")


@ROUTES.add("DELETE", f"{REPOSITORIES}/:image")
@for_user()
def delete_image(app: Application, _request: Request, caller: Caller, project: str, image: str) -> Response:
    """With all its tags; the real one does it a moment later, in the background."""
    found = _project(app, caller, project)
    require(projects.may_administer(app, found, caller.user))
    one = _image(app, found, image)
    try:
        registry_client.delete_tags(app, projects.repository_path(found, one))
    except RegistryError as error:
        return message(503, f"503 Service Unavailable - {error}")
    projects.CONTAINER_REPOSITORY.destroy(app, one)
    return json_response(202, 202)


@ROUTES.add("GET", f"{REPOSITORIES}/:image/tags")
@for_user(job=True)
def list_tags(app: Application, request: Request, caller: Caller, project: str, image: str) -> Response:
    found = _project(app, caller, project)
    path = projects.repository_path(found, _image(app, found, image))
    try:
        tags = registry_client.tags(app, path)
    except RegistryError as error:
        return message(503, f"503 Service Unavailable - {error}")
    return page(request, tags, lambda tag: _tag(app, path, tag))


@ROUTES.add("DELETE", f"{REPOSITORIES}/:image/tags")
@for_user()
def delete_tags(app: Application, request: Request, caller: Caller, project: str, image: str) -> Response:
    """By a pattern of their names, the newest `keep_n` excepted; `latest` always stays."""
    found = _project(app, caller, project)
    require(projects.may_administer(app, found, caller.user))
    (pattern,) = needed({"name_regex_delete": request.fields.get("name_regex_delete") or ""}, "name_regex_delete")
    path = projects.repository_path(found, _image(app, found, image))
    try:
        wanted, kept = re.compile(pattern), re.compile(request.fields.get("name_regex_keep") or r"(?!)")
    except re.error:
        raise invalid("name_regex_delete is an invalid regexp") from None
    try:
        tags = [tag for tag in registry_client.tags(app, path) if tag != "latest" and wanted.fullmatch(tag)]
        tags = [tag for tag in tags if not kept.fullmatch(tag)]
        about = {tag: registry_client.details(app, path, tag) for tag in tags}
        tags.sort(key=lambda tag: (about[tag] or {}).get("created_at") or "", reverse=True)
        for tag in tags[int(request.fields.get("keep_n") or 0) :]:
            registry_client.delete_tag(app, path, tag)
    except RegistryError as error:
        return message(503, f"503 Service Unavailable - {error}")
    return json_response(202, 202)


@ROUTES.add("GET", f"{REPOSITORIES}/:image/tags/:tag")
@for_user(job=True)
def show_tag(app: Application, _request: Request, caller: Caller, *, project: str, image: str, tag: str) -> Response:
    found = _project(app, caller, project)
    path = projects.repository_path(found, _image(app, found, image))
    try:
        about = registry_client.details(app, path, tag)
    except RegistryError as error:
        return message(503, f"503 Service Unavailable - {error}")
    if about is None:
        raise not_found("Tag")
    return json_response(200, {**_tag(app, path, tag), **about})


@ROUTES.add("DELETE", f"{REPOSITORIES}/:image/tags/:tag")
@for_user(job=True)
def delete_tag(app: Application, _request: Request, caller: Caller, *, project: str, image: str, tag: str) -> Response:
    found = _project(app, caller, project)
    require(projects.may_write(app, found, caller.user))
    path = projects.repository_path(found, _image(app, found, image))
    try:
        if not registry_client.delete_tag(app, path, tag):
            raise not_found("Tag")
    except RegistryError as error:
        return message(503, f"503 Service Unavailable - {error}")
    return json_response(200, None)


@ROUTES.add("GET", "/api/v4/registry/repositories/:image")
@for_user(job=True)
def show_image(app: Application, request: Request, caller: Caller, image: str) -> Response:
    one = projects.CONTAINER_REPOSITORY.find(app, id=number(image, "id"))
    if one is None:
        raise not_found("Container Repository")
    found = _project(app, caller, str(one["project_id"]))
    try:
        return json_response(200, _shown(app, request, found, one))
    except RegistryError as error:
        return message(503, f"503 Service Unavailable - {error}")


def _project(app: Application, caller: Caller, name: str) -> Record:
    found = project_of(app, caller, name)
    if not app.registry["enabled"]:
        raise not_found()
    if not (found["container_registry_enabled"] and projects.may_read_code(app, found, caller.user)):
        raise forbidden()
    return found


def _image(app: Application, project: Record, image: str) -> Record:
    found = projects.CONTAINER_REPOSITORY.find(app, id=number(image, "repository_id"), project_id=project["id"])
    if found is None:
        raise not_found("Container Repository")
    return found


def _shown(app: Application, request: Request, project: Record, image: Record) -> dict[str, Any]:
    path = projects.repository_path(project, image)
    entry: dict[str, Any] = {
        "id": image["id"],
        "name": image["name"],
        "path": path,
        "project_id": project["id"],
        "location": f"{projects.registry_host(app)}/{path}",
        "created_at": shown(image["created_at"]),
        "cleanup_policy_started_at": None,
        "status": None,
    }
    with_tags = boolean(request.parameter("tags"))
    if with_tags or boolean(request.parameter("tags_count")):
        tags = registry_client.tags(app, path)
        entry["tags_count"] = len(tags)
        if with_tags:
            entry["tags"] = [_tag(app, path, tag) for tag in tags]
    return entry


def _tag(app: Application, path: str, tag: str) -> dict[str, str]:
    return {"name": tag, "path": f"{path}:{tag}", "location": f"{projects.registry_host(app)}/{path}:{tag}"}
