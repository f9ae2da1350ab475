"""Git over HTTP: who may fetch and push, and git's own programs behind it.

Source: gitlab-org/gitlab app/controllers/repositories/git_http_controller.rb, lib/gitlab/git_access.rb (words of
refusals); gitprotocol-http(5).
"""

import subprocess

from lab_gitlab import authentication, paths, pipeline_creation, projects, repositories
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
NEVER_CACHED = {
    "Expires": "Fri, 01 Jan 1980 00:00:00 GMT",
    "Pragma": "no-cache",
    "Cache-Control": "no-cache, max-age=0, must-revalidate",
}


class RefusedError(Exception):
    """What git shows to the person in front of it."""

    def __init__(self, response: Response) -> None:
        self.response = response
        super().__init__(response.body.decode())


@ROUTES.add("GET", "/*path.git/info/refs")
def advertise(app: Application, request: Request, path: str) -> Response:
    """What there is to fetch, or to push over."""
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
    return Response(200, first + listed, f"application/x-{service}-advertisement", NEVER_CACHED)


@ROUTES.add("POST", "/*path.git/git-upload-pack")
def upload_pack(app: Application, request: Request, path: str) -> Response:
    try:
        project, _ = _allowed(app, request, path, "git-upload-pack")
    except RefusedError as error:
        return error.response
    sent = _git(request, "git-upload-pack", project, request.body)
    return Response(200, sent, "application/x-git-upload-pack-result", NEVER_CACHED)


@ROUTES.add("POST", "/*path.git/git-receive-pack")
def receive_pack(app: Application, request: Request, path: str) -> Response:
    """Takes what is pushed, and makes pipelines of what moved."""
    try:
        project, actor = _allowed(app, request, path, "git-receive-pack")
    except RefusedError as error:
        return error.response
    before = repositories.references(project, "refs/heads/", "refs/tags/")
    sent = _git(request, "git-receive-pack", project, request.body)
    after = repositories.references(project, "refs/heads/", "refs/tags/")
    if actor.user:
        skip = b"ci.skip" in request.body[:65536]
        pipeline_creation.after_push(app, project, actor.user, before, after, skip=skip)
    return Response(200, sent, "application/x-git-receive-pack-result", NEVER_CACHED)


def _allowed(app: Application, request: Request, path: str, service: str) -> tuple[Record, Actor]:
    """Raises RefusedError."""
    try:
        actor = authentication.git_client(app, request)
    except AccessDeniedError:
        raise RefusedError(_ask_again(app)) from None
    found = projects.at_full_path(app, projects.PROJECT, path.strip("/"))
    project = found[0] if found and _may_see(app, found[0], actor) else None
    ability = SERVICES[service]
    if actor is authentication.ANONYMOUS and (project is None or ability == authentication.UPLOAD):
        raise RefusedError(_ask_again(app))
    if project is None:
        raise RefusedError(_text(404, NOT_FOUND))
    pushing = ability == authentication.UPLOAD
    if ability not in actor.abilities:
        raise RefusedError(_text(403, NO_PUSH_BY_TOKEN if pushing else NO_DOWNLOAD_BY_TOKEN))
    if actor.deploy_token is None:
        may = projects.may_write if pushing else projects.may_read_code
        if not may(app, project, actor.user):
            raise RefusedError(_text(403, NO_PUSH if pushing else NO_DOWNLOAD))
    return project, actor


def _may_see(app: Application, project: Record, actor: Actor) -> bool:
    if actor.deploy_token:
        return bool(actor.deploy_token["project_id"] == project["id"])
    if actor.job and actor.job["project_id"] != project["id"]:
        return bool(project["visibility_level"] == projects.PUBLIC)
    return projects.may_read(app, project, actor.user)


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


def _ask_again(app: Application) -> Response:
    text = (
        "HTTP Basic: Access denied. If a password was provided for Git authentication, the password was incorrect or "
        "you're required to use a token instead of a password. If a token was provided, it was either incorrect, "
        f"expired, or improperly scoped. See {app.settings['gitlab']['url']}/help/topics/git/troubleshooting_git.md"
        "#error-on-git-fetch-http-basic-access-denied"
    )
    return Response(401, text.encode(), headers={"WWW-Authenticate": 'Basic realm="GitLab"'})


def _text(status: int, text: str) -> Response:
    return Response(status, text.encode())
