"""Commits, files, trees and branches of a project's repository.

Source: gitlab-org/gitlab lib/api/commits.rb, files.rb, repositories.rb, branches.rb.
"""

import base64
import binascii
import hashlib
from collections.abc import Mapping
from typing import Any

from lab_gitlab import pipeline_creation, projects, repositories
from lab_gitlab.api.common import bad_request, boolean, for_user, invalid, needed, not_found, page, project_of, require
from lab_gitlab.application import Application
from lab_gitlab.authentication import Caller
from lab_gitlab.http_server import Request, Response, Routes, json_response
from lab_gitlab.records import Record
from lab_gitlab.repositories import Action, RepositoryError

ROUTES = Routes()
ACTIONS = ("create", "update", "move", "delete", "chmod")
NO_BRANCH = "You can only create or edit files when you are on a branch"
REPOSITORY = "/api/v4/projects/:project/repository"


@ROUTES.add("POST", f"{REPOSITORY}/commits")
@for_user()
def create_commit(app: Application, request: Request, caller: Caller, project: str) -> Response:
    """Several files in one commit; a pipeline follows where there is a .gitlab-ci.yml."""
    found = _writable(app, caller, project)
    branch, message, actions = needed(request.fields, "branch", "commit_message", "actions")
    if not isinstance(actions, list) or not all(isinstance(action, dict) for action in actions):
        raise invalid("actions is invalid")
    changes = [_action(action) for action in actions]
    sha = _commit(app, found, caller, request.fields, branch=branch, message=message, actions=changes)
    made = repositories.commit(found, sha)
    stats = boolean(request.fields.get("stats", True))
    shown = repositories.present(made, projects.web_url(app, found))
    return json_response(201, {**shown, **({"stats": _stats(found, sha)} if stats else {}), "status": None})


@ROUTES.add("GET", f"{REPOSITORY}/commits")
@for_user()
def list_commits(app: Application, request: Request, caller: Caller, project: str) -> Response:
    found = _readable(app, caller, project)
    sha = repositories.resolve(found, request.parameter("ref_name") or found["default_branch"])
    listed = repositories.log(found, sha, path=request.parameter("path")) if sha else []
    return page(request, listed, lambda one: repositories.present(one, projects.web_url(app, found)))


@ROUTES.add("GET", f"{REPOSITORY}/commits/:sha")
@for_user()
def show_commit(app: Application, _request: Request, caller: Caller, project: str, sha: str) -> Response:
    found = _readable(app, caller, project)
    known = repositories.resolve(found, sha)
    if known is None:
        raise not_found("Commit")
    shown = repositories.present(repositories.commit(found, known), projects.web_url(app, found))
    return json_response(200, {**shown, "stats": _stats(found, known), "project_id": found["id"]})


@ROUTES.add("GET", f"{REPOSITORY}/tree")
@for_user()
def list_tree(app: Application, request: Request, caller: Caller, project: str) -> Response:
    found = _readable(app, caller, project)
    sha = repositories.resolve(found, request.parameter("ref") or found["default_branch"])
    path = request.parameter("path") or ""
    if sha is None:
        raise not_found("Tree")
    listed = repositories.tree(found, sha, path, recursive=boolean(request.parameter("recursive")))
    if path and not listed:
        raise not_found("invalid revision or path")
    listed.sort(key=lambda entry: (entry.kind != "tree", entry.path))
    return page(
        request,
        listed,
        lambda entry: {
            "id": entry.sha,
            "name": entry.path.rpartition("/")[2],
            "type": entry.kind,
            "path": entry.path,
            "mode": entry.mode,
        },
    )


# Single files


@ROUTES.add("GET", f"{REPOSITORY}/files/:file/raw")
@for_user()
def raw_file(app: Application, request: Request, caller: Caller, project: str, file: str) -> Response:
    found = _readable(app, caller, project)
    _, _, content = _file(found, request, file)
    return Response(200, content, "text/plain; charset=utf-8")


@ROUTES.add("GET", f"{REPOSITORY}/files/:file")
@for_user()
def show_file(app: Application, request: Request, caller: Caller, project: str, file: str) -> Response:
    found = _readable(app, caller, project)
    sha, entry, content = _file(found, request, file)
    return json_response(
        200,
        {
            "file_name": file.rpartition("/")[2],
            "file_path": file,
            "size": len(content),
            "encoding": "base64",
            "content": base64.b64encode(content).decode(),
            "content_sha256": hashlib.sha256(content).hexdigest(),
            "ref": request.parameter("ref"),
            "blob_id": entry.sha,
            "commit_id": sha,
            "last_commit_id": repositories.log(found, sha, path=file, limit=1)[0].sha,
            "execute_filemode": entry.mode == repositories.EXECUTABLE,
        },
    )


@ROUTES.add("POST", f"{REPOSITORY}/files/:file")
@for_user()
def create_file(app: Application, request: Request, caller: Caller, project: str, file: str) -> Response:
    return _write_file(app, request, caller, project, file, kind="create")


@ROUTES.add("PUT", f"{REPOSITORY}/files/:file")
@for_user()
def update_file(app: Application, request: Request, caller: Caller, project: str, file: str) -> Response:
    return _write_file(app, request, caller, project, file, kind="update")


@ROUTES.add("DELETE", f"{REPOSITORY}/files/:file")
@for_user()
def delete_file(app: Application, request: Request, caller: Caller, project: str, file: str) -> Response:
    return _write_file(app, request, caller, project, file, kind="delete")


def _write_file(app: Application, request: Request, caller: Caller, project: str, file: str, *, kind: str) -> Response:
    found = _writable(app, caller, project)
    branch, message = needed(request.fields, "branch", "commit_message")
    if kind != "delete" and "content" not in request.fields:
        raise invalid("content is missing")
    change = _action({**request.fields, "action": kind, "file_path": file})
    _commit(app, found, caller, request.fields, branch=branch, message=message, actions=[change])
    if kind == "delete":
        return Response(204)
    return json_response(201 if kind == "create" else 200, {"file_path": file, "branch": branch})


# Branches


@ROUTES.add("GET", f"{REPOSITORY}/branches")
@for_user()
def list_branches(app: Application, request: Request, caller: Caller, project: str) -> Response:
    found = _readable(app, caller, project)
    return page(request, sorted(repositories.branches(found)), lambda name: _branch(app, found, name))


@ROUTES.add("POST", f"{REPOSITORY}/branches")
@for_user()
def create_branch(app: Application, request: Request, caller: Caller, project: str) -> Response:
    found = _writable(app, caller, project)
    branch, ref = needed(request.fields, "branch", "ref")
    before = repositories.references(found, "refs/heads/", "refs/tags/")
    if branch in repositories.branches(found):
        raise bad_request("Branch already exists")
    sha = repositories.resolve(found, ref)
    if sha is None:
        raise bad_request(f"Failed to create branch '{branch}': invalid reference name '{ref}'")
    try:
        repositories.set_reference(found, f"refs/heads/{branch}", sha)
    except RepositoryError:
        raise bad_request("Branch name is invalid") from None
    after = repositories.references(found, "refs/heads/", "refs/tags/")
    pipeline_creation.after_push(app, found, caller.user, before, after)
    return json_response(201, _branch(app, found, branch))


@ROUTES.add("GET", f"{REPOSITORY}/branches/:branch")
@for_user()
def show_branch(app: Application, _request: Request, caller: Caller, project: str, branch: str) -> Response:
    found = _readable(app, caller, project)
    if branch not in repositories.branches(found):
        raise not_found("Branch")
    return json_response(200, _branch(app, found, branch))


@ROUTES.add("DELETE", f"{REPOSITORY}/branches/:branch")
@for_user()
def delete_branch(app: Application, _request: Request, caller: Caller, project: str, branch: str) -> Response:
    found = _writable(app, caller, project)
    if branch not in repositories.branches(found):
        raise not_found("Branch")
    if branch == found["default_branch"]:
        raise bad_request("Cannot remove HEAD branch")
    repositories.delete_reference(found, f"refs/heads/{branch}")
    return Response(204)


def _branch(app: Application, project: Record, name: str) -> dict[str, Any]:
    url = projects.web_url(app, project)
    default = name == project["default_branch"]
    return {
        "name": name,
        "commit": repositories.present(repositories.commit(project, repositories.branches(project)[name]), url),
        "merged": False,
        "protected": default,
        "developers_can_push": False,
        "developers_can_merge": False,
        "can_push": True,
        "default": default,
        "web_url": f"{url}/-/tree/{name}",
    }


def _readable(app: Application, caller: Caller, name: str) -> Record:
    found = project_of(app, caller, name)
    require(projects.may_read_code(app, found, caller.user))
    return found


def _writable(app: Application, caller: Caller, name: str) -> Record:
    """The default branch is protected from the start: only maintainers change it, which `_commit` sees to."""
    found = project_of(app, caller, name)
    require(projects.may_write(app, found, caller.user))
    return found


def _commit(
    app: Application,
    project: Record,
    caller: Caller,
    fields: Mapping[str, Any],
    *,
    branch: str,
    message: str,
    actions: list[Action],
) -> str:
    known = repositories.branches(project)
    if branch == project["default_branch"] and known and not projects.may_administer(app, project, caller.user):
        raise bad_request("You are not allowed to push into this branch")
    start = fields.get("start_branch") or fields.get("start_sha")
    parent = known.get(branch)
    if parent is None and known:
        parent = repositories.resolve(project, start) if start else None
        if parent is None:
            raise bad_request(NO_BRANCH if start is None else f"Cannot find {'start_branch'} '{start}'")
    elif parent is not None and start and not boolean(fields.get("force")):
        raise bad_request(f"A branch called '{branch}' already exists. Switch to that branch in order to make changes")
    who = (caller.user["name"], caller.user["email"] or "")
    before = repositories.references(project, "refs/heads/", "refs/tags/")
    try:
        sha = repositories.write(
            project,
            branch=branch,
            parent=parent,
            message=message,
            author=(fields.get("author_name") or who[0], fields.get("author_email") or who[1]),
            committer=who,
            actions=actions,
        )
    except RepositoryError as error:
        raise bad_request(str(error)) from None
    after = repositories.references(project, "refs/heads/", "refs/tags/")
    pipeline_creation.after_push(app, project, caller.user, before, after)
    return sha


def _action(given: Mapping[str, Any]) -> Action:
    kind = given.get("action")
    if kind not in ACTIONS:
        raise invalid("actions[0][action] does not have a valid value")
    if not given.get("file_path"):
        raise invalid("actions[0][file_path] is missing")
    if kind == "move" and not given.get("previous_path"):
        raise invalid("actions[0][previous_path] is missing")
    content = given.get("content")
    raw = None if content is None else _decoded(content, given.get("encoding") or "text")
    executable = given.get("execute_filemode")
    return Action(
        action=kind,
        path=given["file_path"],
        previous_path=given.get("previous_path"),
        content=raw,
        executable=None if executable is None else boolean(executable),
    )


def _decoded(content: str, encoding: str) -> bytes:
    if encoding not in ("text", "base64"):
        raise invalid("encoding does not have a valid value")
    if encoding == "text":
        return content.encode()
    try:
        return base64.b64decode(content)
    except binascii.Error:
        raise bad_request("invalid base64") from None


def _file(project: Record, request: Request, file: str) -> tuple[str, repositories.Entry, bytes]:
    (ref,) = needed({"ref": request.parameter("ref") or "HEAD"}, "ref")
    name = project["default_branch"] if ref == "HEAD" else ref
    sha = repositories.resolve(project, name)
    if sha is None:
        raise not_found("Commit")
    entry = repositories.find(project, sha, file)
    if entry is None:
        raise not_found("File")
    return sha, entry, repositories.content(project, entry)


def _stats(project: Record, sha: str) -> dict[str, int]:
    listed = repositories.run(
        *("show", "--numstat", "--format=", "--root", sha), repository=repositories.ensure(project)
    )
    counted = [line.split(b"\t")[:2] for line in listed.splitlines() if line]
    additions, deletions = (sum(int(pair[side]) for pair in counted if pair[side] != b"-") for side in (0, 1))
    return {"additions": additions, "deletions": deletions, "total": additions + deletions}
