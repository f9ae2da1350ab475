"""The application's side of `gitlab-rails runner`: answers the calls of the Ruby classes.

The real console loads the whole application; here Ruby calls the same models as the API, over a socket.
"""

import json
import os
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from typing import Any

from lab_gitlab import (
    application,
    background_jobs,
    ci_records,
    crypto,
    instance_settings,
    members,
    paths,
    project_access_tokens,
    projects,
    runners,
    schema,
)
from lab_gitlab.application import Application
from lab_gitlab.crypto import DecryptionError
from lab_gitlab.database import DatabaseError
from lab_gitlab.records import Record, RecordInvalidError, UnknownAttributeError, full_messages
from lab_gitlab.registry_client import RegistryError
from lab_gitlab.version import version

in_admin_mode: set[int] = set()
"""Users for whom the script has bypassed the session (Gitlab::Auth::CurrentUserMode)."""

ERRORS: Mapping[type[Exception], str] = {
    DatabaseError: "ActiveRecord::ConnectionNotEstablished",
    DecryptionError: "OpenSSL::Cipher::CipherError",
    RegistryError: "Projects::DestroyService::DestroyError",
    UnknownAttributeError: "ActiveModel::UnknownAttributeError",
}


def run(script: str, arguments: list[str]) -> int:
    """Run a script (code, a file name, or - for standard input) and return its exit code."""
    time.sleep(_delay())
    app = application.load()
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(
            [paths.RUBY, "--disable=gems", paths.RUBY_LIBRARY / "console.rb", str(theirs.fileno()), script, *arguments],
            env={**os.environ, "LANG": "C.UTF-8", "RUBYOPT": "-W:no-experimental"},
            pass_fds=[theirs.fileno()],
        )
    with ours, ours.makefile("rwb") as stream:
        for line in stream:
            stream.write(json.dumps(_answer(app, json.loads(line))).encode() + b"\n")
            stream.flush()
    return process.wait()


def _delay() -> float:
    """Return the delay in seconds that tests set: the real console first loads GitLab, which takes 25 s to 45 s."""
    return float(paths.CONSOLE_DELAY.read_text()) if paths.CONSOLE_DELAY.exists() else 0.0


def _answer(app: Application, question: dict[str, Any]) -> dict[str, Any]:
    try:
        return {"result": CALLS[question["call"]](app, **question["arguments"])}
    except tuple(ERRORS) as error:
        return {"error": ERRORS[type(error)], "message": str(error)}


def _record(app: Application, model: str, record_id: int) -> Record:
    return schema.MODELS[model].select(app, {"id": record_id})[0]


def hello(_app: Application) -> dict[str, Any]:
    columns = {
        name: {column: about.kind for column, about in model.columns.items()} for name, model in schema.MODELS.items()
    }
    return {"version": version(), "columns": columns}


def select(
    app: Application, model: str, where: dict[str, Any], unlike: dict[str, Any], scopes: list[str]
) -> list[Record]:
    return schema.MODELS[model].select(app, where, unlike=unlike, scopes=scopes)


def update_all(app: Application, changes: dict[str, Any], model: str, **query: Any) -> int:
    found = select(app, model, **query)
    schema.MODELS[model].update_all(app, found, changes)
    return len(found)


def delete_all(app: Application, model: str, **query: Any) -> int:
    """Delete without callbacks."""
    found = select(app, model, **query)
    for record in found:
        app.database.execute(f"DELETE FROM {schema.MODELS[model].table} WHERE id = ?", record["id"])
    return len(found)


def log(app: Application, job_id: int) -> str:
    return ci_records.log(app, _record(app, "Ci::Build", job_id)).decode(errors="replace")


def save(app: Application, model: str, record_id: int | None, attributes: dict[str, Any]) -> dict[str, Any]:
    return _saved(lambda: schema.MODELS[model].save(app, record_id, attributes))


def destroy(app: Application, model: str, record_id: int) -> None:
    schema.MODELS[model].destroy(app, _record(app, model, record_id))


def token(app: Application, model: str, record_id: int) -> str | None:
    return schema.MODELS[model].token(app, _record(app, model, record_id))


def find_by_full_path(app: Application, model: str, path: str) -> Record | None:
    found = projects.at_full_path(app, schema.MODELS[model], path)
    return found[0] if found else None


def bypass_session(_app: Application, user_id: int | None) -> None:
    """Put this user into admin mode; without a user, end admin mode."""
    in_admin_mode.clear()
    if user_id is not None:
        in_admin_mode.add(user_id)


def _actor(app: Application, user_id: int) -> Record:
    """Return the acting user, with an administrator's privileges only if admin mode allows them."""
    user = _record(app, "User", user_id)
    return instance_settings.as_seen(app, user, in_admin_mode=user_id in in_admin_mode)


def valid_password(app: Application, user_id: int, password: str) -> bool:
    return crypto.password_matches(password, _record(app, "User", user_id)["encrypted_password"])


def create_runner(app: Application, user_id: int, params: dict[str, Any]) -> dict[str, Any]:
    try:
        return {"record": runners.create_runner(app, _actor(app, user_id), params)}
    except PermissionError as error:
        return {"message": str(error)}
    except RecordInvalidError as error:
        return {"message": full_messages(error.errors)}


def create_group(app: Application, params: dict[str, Any]) -> dict[str, Any]:
    return _saved(lambda: projects.GROUP.create(app, **params))


def create_project(app: Application, user_id: int, params: dict[str, Any]) -> dict[str, Any]:
    return _saved(lambda: projects.PROJECT.create(app, creator_id=user_id, **params))


def create_project_token(app: Application, project_id: int, user_id: int, params: dict[str, Any]) -> dict[str, Any]:
    project, user = _record(app, "Project", project_id), _actor(app, user_id)
    try:
        return {"record": project_access_tokens.create(app, user, project, params)}
    except PermissionError as error:
        return {"message": str(error)}
    except RecordInvalidError as error:
        return {"message": " and ".join(full_messages(error.errors))}


def revoke_project_token(app: Application, project_id: int, user_id: int, token_id: int) -> str | None:
    """Revoke the token; return an error message, or None on success."""
    project, user = _record(app, "Project", project_id), _actor(app, user_id)
    token = _record(app, "PersonalAccessToken", token_id)
    if not projects.may_administer(app, project, user):
        return f"{user['name']} cannot delete {_record(app, 'User', token['user_id'])['name']}"
    if not members.MEMBER.select(app, {"source_type": "Project", "source_id": project_id, "user_id": token["user_id"]}):
        return "Failed to find bot user"
    project_access_tokens.revoke(app, token)
    return None


def bots(app: Application, project_id: int) -> list[Record]:
    return project_access_tokens.bots(app, _record(app, "Project", project_id))


def queue_user_deletion(_app: Application, user_id: int) -> None:
    background_jobs.enqueue("DeleteUserWorker", user_id=user_id)


def add_member(app: Application, kind: str, source_id: int, user_id: int, level: int) -> Record:
    source = _record(app, "Project" if kind == "Project" else "Namespace", source_id)
    return members.add(app, kind, source, _record(app, "User", user_id), level=level)


def _saved(work: Callable[[], Record]) -> dict[str, Any]:
    try:
        return {"record": work(), "errors": []}
    except RecordInvalidError as error:
        return {"errors": full_messages(error.errors)}


CALLS: Mapping[str, Callable[..., Any]] = {
    call.__name__: call
    for call in (
        *(
            hello,
            select,
            update_all,
            delete_all,
            log,
            save,
            destroy,
            token,
            find_by_full_path,
            valid_password,
            bypass_session,
            create_runner,
        ),
        *(create_group, create_project, create_project_token, revoke_project_token, bots, queue_user_deletion),
        add_member,
    )
}
