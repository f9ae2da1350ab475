"""Groups, projects and their image repositories.

Source: gitlab-org/gitlab app/models/project.rb, app/services/projects/, app/policies/project_policy.rb.
"""

import re
from collections.abc import Mapping
from typing import Any

from lab_gitlab import (
    activity,
    ci_records,
    instance_settings,
    members,
    outgoing,
    protected_branches,
    registry_client,
    repositories,
    uploads,
)
from lab_gitlab.application import Application
from lab_gitlab.records import Column, Errors, Model, Record

PRIVATE = 0
VISIBILITY = {PRIVATE: "private"}
NOT_PRIVATE = ("visibility_level", "must be private in the lab")


class Organization(Model):
    """An organization. The only one is created with the database."""

    name = "Organizations::Organization"
    table = "organizations"
    columns = {"name": Column(), "path": Column()}


class Namespace(Model):
    """The namespace of projects: a group, or a user's personal namespace."""

    name = "Namespace"
    table = "namespaces"
    columns = {
        "type": Column("text", "User"),
        "name": Column(),
        "path": Column(),
        "full_path": Column(),
        "organization_id": Column("integer"),
        "visibility_level": Column("integer", PRIVATE),
        "created_at": Column("time"),
    }

    def validate(self, app: Application, record: Record) -> Errors:
        record["name"] = record["name"] or record["path"]
        errors: Errors = [
            (name, "can't be blank")
            for name in ("organization", "name", "path")
            if not record["organization_id" if name == "organization" else name]
        ]
        if errors:
            return errors
        record["full_path"] = record["path"]
        if any(other["id"] != record["id"] for other in at_full_path(app, NAMESPACE, record["full_path"])):
            errors.append(("path", "has already been taken"))
        if record["visibility_level"] != PRIVATE:
            errors.append(NOT_PRIVATE)
        return errors


class Group(Namespace):
    """A namespace that several users share."""

    name = "Group"
    base = {"type": "Group"}

    def before_destroy(self, app: Application, record: Record) -> None:
        for project in PROJECT.select(app, {"namespace_id": record["id"]}):
            PROJECT.destroy(app, project)
        members.remove_all(app, "Namespace", record)


class Project(Model):
    """A project and its git repository."""

    name = "Project"
    table = "projects"
    columns = {
        "name": Column(),
        "path": Column(),
        "full_path": Column(),
        "description": Column(),
        "namespace_id": Column("integer"),
        "organization_id": Column("integer"),
        "creator_id": Column("integer"),
        "visibility_level": Column("integer", PRIVATE),
        "container_registry_enabled": Column("boolean", True),
        "container_registry_access_level": Column("text", "enabled"),
        "builds_access_level": Column("text", "enabled"),
        "ci_config_path": Column(),
        "shared_runners_enabled": Column("boolean"),
        "default_branch": Column("text", "main"),
        "created_at": Column("time"),
    }

    def validate(self, app: Application, record: Record) -> Errors:
        namespace = NAMESPACE.find(app, id=record["namespace_id"]) if record["namespace_id"] else None
        if namespace is None:
            return [("namespace", "is not valid")]
        record["path"] = record["path"] or re.sub(r"[^a-z0-9_.-]+", "-", (record["name"] or "").lower())
        record["name"] = record["name"] or record["path"]
        record["organization_id"] = record["organization_id"] or namespace["organization_id"]
        if not record["path"]:
            return [("name", "can't be blank"), ("path", "can't be blank")]
        record["full_path"] = f"{namespace['full_path']}/{record['path']}"
        errors: Errors = []
        if any(other["id"] != record["id"] for other in at_full_path(app, PROJECT, record["full_path"])):
            errors += [("name", "has already been taken"), ("path", "has already been taken")]
        if record["visibility_level"] != PRIVATE:
            errors.append(NOT_PRIVATE)
        return errors

    def before_save(self, app: Application, record: Record) -> None:
        if record["shared_runners_enabled"] is None:
            record["shared_runners_enabled"] = instance_settings.current(app)["shared_runners_enabled"]

    def save(self, app: Application, record_id: int | None, attributes: Mapping[str, Any]) -> Record:
        record = super().save(app, record_id, attributes)
        if record_id is None:
            repositories.ensure(record)
            activity.record(app, record["id"], record["creator_id"], activity.CREATED)
        return record

    def before_destroy(self, app: Application, record: Record) -> None:
        """Delete images first: without a reachable registry the project is kept, as in Projects::DestroyService."""
        for repository in CONTAINER_REPOSITORY.select(app, {"project_id": record["id"]}):
            registry_client.delete_tags(app, repository_path(record, repository))
            CONTAINER_REPOSITORY.destroy(app, repository)
        protected = protected_branches.PROTECTED_BRANCH
        for model in (ci_records.PIPELINE, outgoing.PROJECT_HOOK, outgoing.REMOTE_MIRROR, activity.EVENT, protected):
            for belonging in model.select(app, {"project_id": record["id"]}):
                model.destroy(app, belonging)
        for upload in uploads.UPLOAD.select(app, {"model_id": record["id"]}):
            uploads.UPLOAD.destroy(app, upload)
        members.remove_all(app, "Project", record)
        repositories.remove(record)


class ContainerRepository(Model):
    """An image repository of a project, created by the first allowed push."""

    name = "ContainerRepository"
    table = "container_repositories"
    columns = {"project_id": Column("integer"), "name": Column("text", ""), "created_at": Column("time")}


ORGANIZATION = Organization()
NAMESPACE = Namespace()
GROUP = Group()
PROJECT = Project()
CONTAINER_REPOSITORY = ContainerRepository()


def at_full_path(app: Application, model: Model, path: str) -> list[Record]:
    """Return the records with this path, compared case-insensitively."""
    wanted = path.lower()
    rows = app.database.query(f"SELECT id FROM {model.table} WHERE lower(full_path) = ?", wanted)
    return model.select(app, {"id": [row["id"] for row in rows]})


def project_of_image(app: Application, image: str) -> Record | None:
    """Return the project whose path is the longest prefix of the image's name."""
    parts = image.split("/")
    for length in range(len(parts), 1, -1):
        found = at_full_path(app, PROJECT, "/".join(parts[:length]))
        if found:
            return found[0]
    return None


def may_read(app: Application, project: Record, user: Record | None) -> bool:
    """Whether the user may see the project."""
    return members.level(app, project, user) >= members.GUEST


def may_read_code(app: Application, project: Record, user: Record | None) -> bool:
    """Whether the user may see files, pipelines, logs and images, which guests of a private project may not."""
    return members.level(app, project, user) >= members.REPORTER


def may_write(app: Application, project: Record, user: Record | None) -> bool:
    """Whether the user may push code and images and run pipelines."""
    return members.level(app, project, user) >= members.DEVELOPER


def may_administer(app: Application, project: Record, user: Record | None) -> bool:
    return members.level(app, project, user) >= members.MAINTAINER


def may_own(app: Application, project: Record, user: Record | None) -> bool:
    """Whether the user may delete the project, or a pipeline with its logs."""
    return members.level(app, project, user) >= members.OWNER


def web_url(app: Application, project: Record) -> str:
    return f"{app.settings['gitlab']['url']}/{project['full_path']}"


def registry_host(app: Application) -> str:
    return ":".join(str(part) for part in (app.registry["host"], app.registry["port"]) if part)


def image_prefix(app: Application, project: Record) -> str | None:
    """Return the prefix of the project's image names; None if the registry is disabled."""
    return f"{registry_host(app)}/{project['full_path'].lower()}" if app.registry["enabled"] else None


def repository_path(project: Record, repository: Record) -> str:
    """Return the name of an image repository in the registry."""
    return "/".join(part for part in (project["full_path"].lower(), repository["name"]) if part)


def remember_image(app: Application, project: Record, image: str) -> None:
    """Record the image repository of an allowed push (container_registry_authentication_service.rb)."""
    name = image[len(project["full_path"]) + 1 :]
    if CONTAINER_REPOSITORY.find(app, project_id=project["id"], name=name) is None:
        CONTAINER_REPOSITORY.create(app, project_id=project["id"], name=name)


def present(app: Application, project: Record) -> dict[str, Any]:
    """Return a project as the API shows it."""
    empty = not repositories.branches(project)
    return {
        "id": project["id"],
        "name": project["name"],
        "path": project["path"],
        "path_with_namespace": project["full_path"],
        "default_branch": None if empty else project["default_branch"],
        "empty_repo": empty,
        "visibility": VISIBILITY[project["visibility_level"]],
        "container_registry_image_prefix": image_prefix(app, project),
        "web_url": web_url(app, project),
    }


def seed(app: Application, root: Record) -> None:
    """Create the initial records: the default organization and root's personal namespace."""
    organization = ORGANIZATION.create(app, name="Default", path="default")
    NAMESPACE.create(app, path=root["username"], name=root["name"], organization_id=organization["id"])
