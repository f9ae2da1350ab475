"""Groups, projects, their deploy tokens and their image repositories.

Source: gitlab-org/gitlab app/models/project.rb, app/services/projects/, app/policies/project_policy.rb.
"""

import datetime
import re
from collections.abc import Mapping
from typing import Any

from lab_gitlab import ci_records, crypto, instance_settings, members, registry_client, repositories
from lab_gitlab.application import Application
from lab_gitlab.records import Column, Errors, Model, Record, RecordInvalidError, shown

PRIVATE, INTERNAL, PUBLIC = 0, 10, 20
VISIBILITY = {PRIVATE: "private", INTERNAL: "internal", PUBLIC: "public"}
PATH = re.compile(r"[a-zA-Z0-9_.][a-zA-Z0-9_\-.]*(?<![.])(?<!\.git)(?<!\.atom)")
FOREVER = "3000-01-01"
ISO_DATE = re.compile(r"\d{4}-\d{2}-\d{2}(T.*)?")
"""What Ruby's Date.iso8601 takes: a date, or date and time with a T between (iso8601_date_validator.rb)."""


class Organization(Model):
    """There is one, made with the database."""

    name = "Organizations::Organization"
    table = "organizations"
    columns = {"name": Column(), "path": Column()}


class Namespace(Model):
    """What a project lies in: a group, or a user's own."""

    name = "Namespace"
    table = "namespaces"
    columns = {
        "type": Column("text", "User"),
        "name": Column(),
        "path": Column(),
        "full_path": Column(),
        "parent_id": Column("integer"),
        "organization_id": Column("integer"),
        "visibility_level": Column("integer", PRIVATE),
        "owner_id": Column("integer"),
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
        parent = self.find(app, id=record["parent_id"]) if record["parent_id"] else None
        record["full_path"] = f"{parent['full_path']}/{record['path']}" if parent else record["path"]
        if not PATH.fullmatch(record["path"]):
            errors.append(("path", "can only include non-accented letters, digits, '_', '-' and '.'"))
        if any(other["id"] != record["id"] for other in at_full_path(app, NAMESPACE, record["full_path"])):
            errors.append(("path", "has already been taken"))
        return errors


class Group(Namespace):
    """A namespace of several people."""

    name = "Group"
    base = {"type": "Group"}

    def before_destroy(self, app: Application, record: Record) -> None:
        for project in PROJECT.select(app, {"namespace_id": record["id"]}):
            PROJECT.destroy(app, project)
        for group in GROUP.select(app, {"parent_id": record["id"]}):
            GROUP.destroy(app, group)
        members.remove_all(app, "Namespace", record)


class Project(Model):
    """A project; its git repository is made when it is first looked into. `build_timeout` is in seconds."""

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
        "shared_runners_enabled": Column("boolean", True),
        "builds_enabled": Column("boolean", True),
        "default_branch": Column("text", "main"),
        "build_timeout": Column("integer", 3600),
        "ci_config_path": Column(),
        "ci_default_git_depth": Column("integer", 20),
        "created_at": Column("time"),
    }
    virtual = ("initialize_with_readme",)

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
        if not PATH.fullmatch(record["path"]):
            errors.append(("path", "can contain only letters, digits, '_', '-' and '.'"))
        if any(other["id"] != record["id"] for other in at_full_path(app, PROJECT, record["full_path"])):
            errors += [("name", "has already been taken"), ("path", "has already been taken")]
        record["visibility_level"] = min(record["visibility_level"], namespace["visibility_level"])
        return errors

    def before_save(self, _app: Application, record: Record) -> None:
        for name in self.virtual:
            record.pop(name, None)

    def before_destroy(self, app: Application, record: Record) -> None:
        """Images first: a registry that cannot be asked keeps the project, as in Projects::DestroyService."""
        for repository in CONTAINER_REPOSITORY.select(app, {"project_id": record["id"]}):
            registry_client.delete_tags(app, repository_path(record, repository))
            CONTAINER_REPOSITORY.destroy(app, repository)
        for token in DEPLOY_TOKEN.select(app, {"project_id": record["id"]}):
            DEPLOY_TOKEN.destroy(app, token)
        for pipeline in ci_records.PIPELINE.select(app, {"project_id": record["id"]}):
            ci_records.PIPELINE.destroy(app, pipeline)
        members.remove_all(app, "Project", record)
        repositories.remove(record)


class DeployToken(Model):
    """A credential for one project that belongs to nobody."""

    name = "DeployToken"
    table = "deploy_tokens"
    columns = {
        "name": Column(),
        "username": Column(),
        "project_id": Column("integer"),
        "creator_id": Column("integer"),
        "expires_at": Column("time", FOREVER),
        "revoked": Column("boolean", False),
        "read_repository": Column("boolean", False),
        "read_registry": Column("boolean", False),
        "write_registry": Column("boolean", False),
        "read_package_registry": Column("boolean", False),
        "write_package_registry": Column("boolean", False),
        "deploy_token_type": Column("text", "project_type"),
        "token_encrypted": Column(),
        "created_at": Column("time"),
    }
    scopes = {"active": "revoked = 0 AND expires_at >= strftime('%Y-%m-%dT%H:%M:%fZ', 'now')"}
    abilities = (
        *("read_repository", "read_registry", "write_registry"),
        *("read_package_registry", "write_package_registry"),
    )

    def validate(self, _app: Application, record: Record) -> Errors:
        errors: Errors = []
        record["expires_at"] = record["expires_at"] or FOREVER
        if record["id"] is None and not ISO_DATE.fullmatch(str(record["expires_at"])):
            errors.append(("expires_at", "must be in ISO 8601 format"))
        if not any(record[ability] for ability in self.abilities):
            errors.append(("base", "Scopes can't be blank"))
        if record["username"] and not re.fullmatch(r"[a-zA-Z0-9.+_-]+", record["username"]):
            errors.append(("username", "can contain only letters, digits, '_', '-', '+', and '.'"))
        return errors

    def before_save(self, app: Application, record: Record) -> None:
        record["expires_at"] = _utc(record["expires_at"])
        if not record["token_encrypted"]:
            record["token_encrypted"] = app.cipher.encrypt("gldt-" + crypto.friendly_token())


class ContainerRepository(Model):
    """An image path of a project, known from the first push that was allowed."""

    name = "ContainerRepository"
    table = "container_repositories"
    columns = {"project_id": Column("integer"), "name": Column("text", ""), "created_at": Column("time")}


ORGANIZATION = Organization()
NAMESPACE = Namespace()
GROUP = Group()
PROJECT = Project()
DEPLOY_TOKEN = DeployToken()
CONTAINER_REPOSITORY = ContainerRepository()


def at_full_path(app: Application, model: Model, path: str) -> list[Record]:
    """Paths are compared without regard to case."""
    wanted = path.lower()
    rows = app.database.query(f"SELECT id FROM {model.table} WHERE lower(full_path) = ?", wanted)
    return model.select(app, {"id": [row["id"] for row in rows]})


def project_of_image(app: Application, image: str) -> Record | None:
    """The project whose path is the beginning of an image's name, the longest if several are."""
    parts = image.split("/")
    for length in range(len(parts), 1, -1):
        found = at_full_path(app, PROJECT, "/".join(parts[:length]))
        if found:
            return found[0]
    return None


def may_read(app: Application, project: Record, user: Record | None) -> bool:
    """See the project at all: members, everybody where it is public, every user where it is internal."""
    if project["visibility_level"] == PUBLIC:
        return True
    internal = user is not None and project["visibility_level"] == INTERNAL
    return internal or members.level(app, project, user) >= members.GUEST


def may_read_code(app: Application, project: Record, user: Record | None) -> bool:
    """See files, pipelines, logs and images, which a guest of a private project does not."""
    if project["visibility_level"] != PRIVATE:
        return may_read(app, project, user)
    return members.level(app, project, user) >= members.REPORTER


def may_write(app: Application, project: Record, user: Record | None) -> bool:
    """Push code and images, run pipelines."""
    return members.level(app, project, user) >= members.DEVELOPER


def may_administer(app: Application, project: Record, user: Record | None) -> bool:
    return members.level(app, project, user) >= members.MAINTAINER


def may_own(app: Application, project: Record, user: Record | None) -> bool:
    """Delete the project, or a pipeline with its logs."""
    return members.level(app, project, user) >= members.OWNER


def web_url(app: Application, project: Record) -> str:
    return f"{app.settings['gitlab']['url']}/{project['full_path']}"


def registry_host(app: Application) -> str:
    return ":".join(str(part) for part in (app.registry["host"], app.registry["port"]) if part)


def image_prefix(app: Application, project: Record) -> str | None:
    """What the names of the project's images begin with; None without a registry."""
    return f"{registry_host(app)}/{project['full_path'].lower()}" if app.registry["enabled"] else None


def repository_path(project: Record, repository: Record) -> str:
    """The name that the registry knows an image repository by."""
    return "/".join(part for part in (project["full_path"].lower(), repository["name"]) if part)


def remember_image(app: Application, project: Record, image: str) -> None:
    """An allowed push makes the image repository known (container_registry_authentication_service.rb)."""
    name = image[len(project["full_path"]) + 1 :]
    if CONTAINER_REPOSITORY.find(app, project_id=project["id"], name=name) is None:
        CONTAINER_REPOSITORY.create(app, project_id=project["id"], name=name)


# Services, as the console calls them


def require_visibility(app: Application, user: Record, params: Mapping[str, Any]) -> None:
    """Only administrators may use a level that is restricted. Raises RecordInvalidError."""
    level = params.get("visibility_level", PRIVATE)
    if level in instance_settings.current(app)["restricted_visibility_levels"] and not user["admin"]:
        name = VISIBILITY[level]
        raise RecordInvalidError([("visibility_level", f"{name} has been restricted by your GitLab administrator")])


def create_group(app: Application, user: Record, params: Mapping[str, Any]) -> Record:
    """Raises RecordInvalidError."""
    require_visibility(app, user, params)
    return GROUP.create(app, owner_id=user["id"], **params)


def create_project(app: Application, user: Record, params: Mapping[str, Any]) -> Record:
    """Without a namespace the project is the user's own. Raises RecordInvalidError."""
    require_visibility(app, user, params)
    own = NAMESPACE.find(app, type="User", owner_id=user["id"])
    given = {"namespace_id": own["id"] if own else None} | dict(params)
    project = PROJECT.create(app, creator_id=user["id"], **given)
    if params.get("initialize_with_readme"):
        author = (user["name"], user["email"])
        readme = repositories.Action("create", "README.md", content=f"# {project['name']}\n".encode())
        repositories.write(
            project,
            branch=project["default_branch"],
            parent=None,
            message="Initial commit",
            author=author,
            committer=author,
            actions=[readme],
        )
    return project


def create_deploy_token(app: Application, project: Record, user: Record, params: Mapping[str, Any]) -> Record:
    """Raises RecordInvalidError, UnknownAttributeError."""
    if not may_administer(app, project, user):
        raise RecordInvalidError([("base", "You are not allowed to create deploy tokens in this project")])
    token = DEPLOY_TOKEN.create(app, project_id=project["id"], creator_id=user["id"], **params)
    if not token["username"]:
        token = DEPLOY_TOKEN.update(app, token, username=f"gitlab+deploy-token-{token['id']}")
    return token


def deploy_token(app: Application, login: str, token: str) -> Record | None:
    """An active token of that user name."""
    found = DEPLOY_TOKEN.select(
        app, {"token_encrypted": app.cipher.encrypt(token), "username": login}, scopes=["active"], limit=1
    )
    return found[0] if found else None


def _utc(moment: str) -> str:
    """A date (its beginning) or an ISO moment as it is stored, so that texts compare like times."""
    parsed = datetime.datetime.fromisoformat(str(moment))
    if parsed.tzinfo is None:
        parsed = parsed.replace(tzinfo=datetime.UTC)
    return parsed.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def present(app: Application, project: Record) -> dict[str, Any]:
    """As the API shows a project."""
    namespace = NAMESPACE.select(app, {"id": project["namespace_id"]})[0]
    url = web_url(app, project)
    empty = not repositories.branches(project)
    return {
        "id": project["id"],
        "description": project["description"],
        "name": project["name"],
        "name_with_namespace": f"{namespace['name']} / {project['name']}",
        "path": project["path"],
        "path_with_namespace": project["full_path"],
        "created_at": shown(project["created_at"]),
        "default_branch": None if empty else project["default_branch"],
        "empty_repo": empty,
        "archived": False,
        "visibility": VISIBILITY[project["visibility_level"]],
        "http_url_to_repo": f"{url}.git",
        "web_url": url,
        "container_registry_enabled": project["container_registry_enabled"],
        "container_registry_access_level": "enabled" if project["container_registry_enabled"] else "disabled",
        "container_registry_image_prefix": image_prefix(app, project),
        "builds_access_level": "enabled" if project["builds_enabled"] else "disabled",
        "build_timeout": project["build_timeout"],
        "ci_config_path": project["ci_config_path"],
        "ci_default_git_depth": project["ci_default_git_depth"],
        "shared_runners_enabled": project["shared_runners_enabled"],
        "creator_id": project["creator_id"],
        "namespace": {
            "id": namespace["id"],
            "name": namespace["name"],
            "path": namespace["path"],
            "kind": namespace["type"].lower(),
            "full_path": namespace["full_path"],
            "parent_id": namespace["parent_id"],
        },
    }


def present_group(app: Application, group: Record) -> dict[str, Any]:
    return {
        "id": group["id"],
        "name": group["name"],
        "path": group["path"],
        "full_path": group["full_path"],
        "parent_id": group["parent_id"],
        "visibility": VISIBILITY[group["visibility_level"]],
        "organization_id": group["organization_id"],
        "web_url": f"{app.settings['gitlab']['url']}/groups/{group['full_path']}",
        "created_at": shown(group["created_at"]),
    }


def seed(app: Application, root: Record) -> None:
    """What the database holds from the start: the default organization and root's own namespace."""
    organization = ORGANIZATION.create(app, name="Default", path="default")
    NAMESPACE.create(
        app, path=root["username"], name=root["name"], organization_id=organization["id"], owner_id=root["id"]
    )
