"""Git over HTTP: access control in front of git's own programs.

Source: gitlab-org/gitlab app/controllers/repositories/git_http_controller.rb, lib/gitlab/git_access.rb (error
messages); gitprotocol-http(5).
"""

import subprocess

from lab_gitlab import authentication, paths, projects, pushes, repositories
from lab_gitlab.application import Application
from lab_gitlab.authentication import AccessDeniedError, Actor
from lab_gitlab.http_server import Request, Response, Routes
from lab_gitlab.records import Record

ROUTES = Routes()
SERVICES = {"git-upload-pack": authentication.DOWNLOAD, "git-receive-pack": authentication.UPLOAD}
NOT_FOUND = "The project you were looking for could not be found or you don't have permission to view it."
NO_DOWNLOAD = "You are not allowed to download code from this project."
NO_PUSH = "You are not allowed to push code to this project."
NO_DOWNLOAD_BY_TOKEN = "You are not allowed to download code."
NO_PUSH_BY_TOKEN = "You are not allowed to upload code."


class RefusedError(Exception):
    """The request is denied; git shows the response to the user."""

    def __init__(self, response: Response) -> None:
        self.response = response
        super().__init__(response.body.decode())


@ROUTES.add("GET", "/*path.git/info/refs")
def advertise(app: Application, request: Request, path: str) -> Response:
    """Advertise the references for a fetch or push."""
    service = request.parameter("service") or ""
    if service not in SERVICES:
        return Response(403, b"Unsupported service")
    try:
        project, _ = _allowed(app, request, path, service)
    except RefusedError as error:
        return error.response
    listed = _git(request, service, project, b"", "--advertise-refs")
    announcement = f"# service={service}\n".encode()
    first = b"%04x%s0000" % (len(announcement) + 4, announcement)
    return Response(200, first + listed, f"application/x-{service}-advertisement")


@ROUTES.add("POST", "/*path.git/:service")
def exchange(app: Application, request: Request, path: str, service: str) -> Response:
    """Serve a fetch, or receive a push and create pipelines for the branches that it moved."""
    if service not in SERVICES:
        return Response(403, b"Unsupported service")
    try:
        project, actor = _allowed(app, request, path, service)
    except RefusedError as error:
        return error.response
    before = repositories.references(project, "refs/heads/", "refs/tags/")
    sent = _git(request, service, project, request.body)
    if service == "git-receive-pack" and actor.user:
        after = repositories.references(project, "refs/heads/", "refs/tags/")
        pushes.received(app, project, actor.user, before, after)
    return Response(200, sent, f"application/x-{service}-result")


def _allowed(app: Application, request: Request, path: str, service: str) -> tuple[Record, Actor]:
    """Return the project and the client, if it may use the service. Raises RefusedError."""
    try:
        actor = authentication.git_client(app, request)
    except AccessDeniedError:
        raise RefusedError(_ask_again()) from None
    found = projects.at_full_path(app, projects.PROJECT, path.strip("/"))
    if actor is authentication.ANONYMOUS:
        raise RefusedError(_ask_again())
    if not found or not projects.may_read(app, found[0], actor.user) or _of_another(actor, found[0]):
        raise RefusedError(_text(404, NOT_FOUND))
    pushing = service == "git-receive-pack"
    if SERVICES[service] not in actor.abilities:
        raise RefusedError(_text(403, NO_PUSH_BY_TOKEN if pushing else NO_DOWNLOAD_BY_TOKEN))
    may = projects.may_write if pushing else projects.may_read_code
    if not may(app, found[0], actor.user):
        raise RefusedError(_text(403, NO_PUSH if pushing else NO_DOWNLOAD))
    return found[0], actor


def _of_another(actor: Actor, project: Record) -> bool:
    return actor.job is not None and actor.job["project_id"] != project["id"]


def _git(request: Request, service: str, project: Record, body: bytes, *options: str) -> bytes:
    folder = repositories.ensure(project)
    environment = {"PATH": "/usr/bin:/bin", "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": "/dev/null"}
    protocol = request.headers.get("git-protocol")
    if protocol and service == "git-upload-pack":
        environment["GIT_PROTOCOL"] = protocol
    command = [paths.GIT, "-c", "receive.advertisePushOptions=true", service.removeprefix("git-"), "--stateless-rpc"]
    done = subprocess.run(
        [*command, *options, str(folder)], input=body, capture_output=True, env=environment, check=False
    )
    return done.stdout


def _ask_again() -> Response:
    challenge = {"WWW-Authenticate": 'Basic realm="GitLab"'}
    return Response(401, authentication.ACCESS_DENIED.encode(), headers=challenge)


def _text(status: int, text: str) -> Response:
    return Response(status, text.encode())
