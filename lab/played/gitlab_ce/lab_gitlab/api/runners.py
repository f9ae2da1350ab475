"""Runners as people manage them. Source: gitlab-org/gitlab lib/api/ci/runners.rb, lib/api/user_runners.rb."""

from typing import Any

from lab_gitlab import projects, runners
from lab_gitlab.api import jobs
from lab_gitlab.api.common import boolean, for_user, forbidden, invalid, message, not_found, number, page
from lab_gitlab.application import Application
from lab_gitlab.authentication import Caller
from lab_gitlab.ci_records import BUILD
from lab_gitlab.http_server import Request, Response, Routes, json_response
from lab_gitlab.records import Record, RecordInvalidError, UnknownAttributeError, full_messages

ROUTES = Routes()
STATUSES = ("online", "offline", "stale", "never_contacted", "active", "paused")
CHANGEABLE = ("description", "active", "tag_list", "run_untagged", "locked", "access_level", "maximum_timeout")
SWITCHES = ("active", "paused", "locked", "run_untagged")


@ROUTES.add("POST", "/api/v4/user/runners")
@for_user("create_runner")
def create_runner(app: Application, request: Request, caller: Caller) -> Response:
    fields = request.fields
    if not fields.get("runner_type"):
        raise invalid("runner_type is missing")
    if fields["runner_type"] != "instance_type":
        raise invalid(f"runner_type {fields['runner_type']} is not played")
    params = {
        name: boolean(value) if name in SWITCHES else value for name, value in fields.items() if name != "private_token"
    }
    try:
        runner = runners.create_runner(app, caller.user, params)
    except PermissionError as error:
        return message(403, f"403 Forbidden - {error}")
    except RecordInvalidError as error:
        return message(400, f"400 Bad request - {', '.join(full_messages(error.errors))}")
    except UnknownAttributeError as error:
        raise invalid(str(error)) from None
    return json_response(201, runners.credentials(app, runner))


@ROUTES.add("GET", "/api/v4/runners/all")
@for_user("manage_runner", admin=True)
def list_runners(app: Application, request: Request, _caller: Caller) -> Response:
    found = runners.RUNNER.select(app, order=[("id", "desc")])
    if (paused := request.parameter("paused")) is not None:
        found = [runner for runner in found if runner["active"] != boolean(paused)]
    if (status := request.parameter("status")) is not None:
        if status not in STATUSES:
            raise invalid("status does not have a valid value")
        found = [runner for runner in found if status in (runners.status(runner), _activity(runner))]
    if (kind := request.parameter("type")) is not None:
        found = [runner for runner in found if runner["runner_type"] == kind]
    if tags := request.parameter("tag_list"):
        found = [runner for runner in found if set(tags.split(",")) <= set(runner["tag_list"])]
    return page(request, found, lambda runner: runners.present(app, runner))


@ROUTES.add("GET", "/api/v4/runners/:runner")
@for_user("manage_runner")
def show_runner(app: Application, _request: Request, caller: Caller, runner: str) -> Response:
    return json_response(200, runners.present_details(app, _runner(app, caller, runner)))


@ROUTES.add("PUT", "/api/v4/runners/:runner")
@for_user("manage_runner")
def update_runner(app: Application, request: Request, caller: Caller, runner: str) -> Response:
    found = _runner(app, caller, runner)
    given: dict[str, Any] = {
        name: boolean(value) if name in SWITCHES else value for name, value in request.fields.items()
    }
    if "paused" in given:
        given["active"] = not given["paused"]
    changes = {name: value for name, value in given.items() if name in CHANGEABLE}
    if not changes:
        raise invalid(f"{', '.join(('paused', *CHANGEABLE))} are missing, at least one parameter must be provided")
    return json_response(200, runners.present_details(app, runners.RUNNER.update(app, found, **changes)))


@ROUTES.add("DELETE", "/api/v4/runners/:runner")
@for_user("manage_runner")
def delete_runner(app: Application, _request: Request, caller: Caller, runner: str) -> Response:
    runners.RUNNER.destroy(app, _runner(app, caller, runner))
    return Response(204)


@ROUTES.add("GET", "/api/v4/runners/:runner/managers")
@for_user("manage_runner")
def list_managers(app: Application, request: Request, caller: Caller, runner: str) -> Response:
    found = _runner(app, caller, runner)
    listed = runners.RUNNER_MANAGER.select(app, {"runner_id": found["id"]}, order=[("id", "desc")])
    return page(request, listed, runners.present_manager)


@ROUTES.add("GET", "/api/v4/runners/:runner/jobs")
@for_user("manage_runner")
def list_jobs(app: Application, request: Request, caller: Caller, runner: str) -> Response:
    found = _runner(app, caller, runner)
    status = request.parameter("status")
    where = {"runner_id": found["id"], **({"status": status} if status else {})}
    listed = BUILD.select(app, where, order=[("id", "desc")])

    def shown(job: Record) -> dict[str, Any]:
        project = projects.PROJECT.select(app, {"id": job["project_id"]})[0]
        return jobs.present(app, project, job)

    return page(request, listed, shown)


def _runner(app: Application, caller: Caller, runner: str) -> Record:
    """Instance runners are the administrators' alone. Raises RefusedError."""
    found = runners.RUNNER.find(app, id=number(runner, "id"))
    if found is None:
        raise not_found("Runner")
    if not caller.user["admin"]:
        raise forbidden("No access granted")
    return found


def _activity(runner: Record) -> str:
    return "active" if runner["active"] else "paused"
