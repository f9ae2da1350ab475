"""The part of the REST API /api/v4 that runners and this project's programs use, with a module per resource."""

from lab_gitlab.api import outgoing, pipelines, projects, registry, runner_jobs, tokens
from lab_gitlab.http_server import Response, json_response

ROUTES = (
    tokens.ROUTES,
    projects.ROUTES,
    pipelines.ROUTES,
    outgoing.ROUTES,
    registry.ROUTES,
    runner_jobs.ROUTES,
)


def answer_unknown() -> Response:
    return json_response(404, {"error": "404 Not Found"})
