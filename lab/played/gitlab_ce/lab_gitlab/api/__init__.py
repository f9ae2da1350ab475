"""The part of the REST API, /api/v4, that runners and programs of this project use; a module for each kind of thing."""

from lab_gitlab.api import commits, groups, jobs, pipelines, registry, runner_jobs, runners, tokens
from lab_gitlab.api import projects as project_routes
from lab_gitlab.http_server import Response, json_response

ROUTES = (
    tokens.ROUTES,
    groups.ROUTES,
    project_routes.ROUTES,
    commits.ROUTES,
    pipelines.ROUTES,
    jobs.ROUTES,
    registry.ROUTES,
    # DELETE /runners/managers is no runner of that number.
    runner_jobs.ROUTES,
    runners.ROUTES,
)


def answer_unknown() -> Response:
    return json_response(404, {"error": "404 Not Found"})
