"""Projects with the commits and files of their repositories.

Source: gitlab-org/gitlab lib/api/projects.rb, commits.rb, files.rb, repositories.rb.
"""

from collections.abc import Mapping
from typing import Any

from lab_gitlab import projects, protected_branches, pushes, repositories, uploads
from lab_gitlab.api.common import bad_request, boolean, for_user, invalid, needed, not_found, page, project_of, require
from lab_gitlab.application import Application
from lab_gitlab.authentication import Caller
from lab_gitlab.http_server import Request, Response, Routes, json_response
from lab_gitlab.records import Record
from lab_gitlab.repositories import Action, RepositoryError

ROUTES = Routes()
PROJECT = "/api/v4/projects/:project"


@ROUTES.add("GET", PROJECT)
@for_user()
def show_project(app: Application, _request: Request, caller: Caller, project: str) -> Response:
    return json_response(200, projects.present(app, project_of(app, caller, project)))


@ROUTES.add("POST", f"{PROJECT}/repository/commits")
@for_user()
def create_commit(app: Application, request: Request, caller: Caller, project: str) -> Response:
    """Create a commit of one or more files; with a .gitlab-ci.yml this starts a pipeline."""
    found = project_of(app, caller, project)
    require(projects.may_write(app, found, caller.user))
    branch, message, listed = needed(request.fields, "branch", "commit_message", "actions")
    actions = [_action(given) for given in listed]
    parent = _parent(app, found, caller, request.fields, branch)
    before = repositories.references(found, "refs/heads/", "refs/tags/")
    who = (caller.user["name"], caller.user["email"] or "")
    try:
        sha = repositories.write(found, branch=branch, parent=parent, message=message, author=who, actions=actions)
    except RepositoryError as error:
        raise bad_request(str(error)) from None
    after = repositories.references(found, "refs/heads/", "refs/tags/")
    pushes.received(app, found, caller.user, before, after)
    return json_response(201, repositories.present(repositories.commit(found, sha), projects.web_url(app, found)))


def _parent(app: Application, project: Record, caller: Caller, fields: Mapping[str, Any], branch: str) -> str | None:
    """Return the parent of a new commit. Raises RefusedError."""
    known = repositories.branches(project)
    protected = protected_branches.is_protected(app, project["id"], branch)
    if protected and known and not projects.may_administer(app, project, caller.user):
        raise bad_request("You are not allowed to push into this branch")
    start = fields.get("start_branch")
    if start and branch in known and not boolean(fields.get("force")):
        raise bad_request(f"A branch called '{branch}' already exists. Switch to that branch in order to make changes")
    if known and (start or branch) not in known:
        raise bad_request("You can only create or edit files when you are on a branch")
    return known.get(start or branch)


def _action(given: Mapping[str, Any]) -> Action:
    if given.get("action") not in repositories.ACTIONS:
        raise invalid("actions[0][action] does not have a valid value")
    if not given.get("file_path"):
        raise invalid("actions[0][file_path] is missing")
    return Action(given["action"], given["file_path"], (given.get("content") or "").encode())


@ROUTES.add("GET", f"{PROJECT}/repository/tree")
@for_user()
def list_tree(app: Application, request: Request, caller: Caller, project: str) -> Response:
    """List the top-level folder of the default branch."""
    found = project_of(app, caller, project)
    require(projects.may_read_code(app, found, caller.user))
    sha = repositories.resolve(found, found["default_branch"])
    if sha is None:
        raise not_found("Tree")
    return page(request, repositories.tree(found, sha), lambda entry: {"path": entry.path, "type": entry.kind})


@ROUTES.add("GET", f"{PROJECT}/repository/files/:file/raw")
@for_user()
def raw_file(app: Application, request: Request, caller: Caller, project: str, file: str) -> Response:
    found = project_of(app, caller, project)
    require(projects.may_read_code(app, found, caller.user))
    sha = repositories.resolve(found, request.parameter("ref") or found["default_branch"])
    if sha is None:
        raise not_found("Commit")
    content = repositories.read(found, sha, file)
    if content is None:
        raise not_found("File")
    return Response(200, content)


@ROUTES.add("POST", f"{PROJECT}/uploads")
@for_user()
def upload(app: Application, request: Request, caller: Caller, project: str) -> Response:
    """Store a file for use in an issue or comment."""
    found = project_of(app, caller, project)
    require(projects.may_write(app, found, caller.user))
    files = [part for part in request.parts if part.name == "file" and part.filename]
    if not files:
        raise invalid("file is missing")
    return json_response(201, uploads.keep(app, found, files[0].filename or "", files[0].content))


@ROUTES.add("GET", f"{PROJECT}/uploads/:secret/:name")
@for_user()
def raw_upload(app: Application, _request: Request, caller: Caller, project: str, secret: str, name: str) -> Response:
    found = project_of(app, caller, project)
    for kept in uploads.UPLOAD.select(app, {"model_id": found["id"], "secret": secret}):
        file = uploads.file(kept)
        if file.name == name and file.exists():
            return Response(200, file.read_bytes(), "application/octet-stream")
    raise not_found("Upload")
