"""What the runner says to GitLab, and how it takes the answer (network/gitlab.go)."""

import http.client
import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, urlsplit

from lab_gitlab_runner import log
from lab_gitlab_runner.version import architecture, revision, version

TIMEOUT = 30.0  # seconds
TOKEN_PREFIX = "glrt-"
NO_ANSWER = -1
LAST_UPDATE = "X-GitLab-Last-Update"

Runner = Mapping[str, Any]


@dataclass(frozen=True)
class Answer:
    """`status` is None when the runner's settings allow no request, NO_ANSWER when GitLab did not answer one; then
    `text` says why.
    """

    status: int | None
    text: str
    body: dict[str, Any]
    last_update: str = ""


def is_created_token(token: str) -> bool:
    """Whether the runner was made on the server, so that the server alone decides about it."""
    return token.startswith(TOKEN_PREFIX)


def short(token: str) -> str:
    """What of a token may be seen."""
    return token[5:14] if is_created_token(token) else token[:8]


def verify(runner: Runner, system_id: str) -> dict[str, Any] | None:
    """None only when GitLab says that the token is not valid: a GitLab that does not answer counts as valid."""
    answer = _request(runner, "POST", "runners/verify", {"token": runner["token"], "system_id": system_id})
    created = is_created_token(runner["token"])
    fields = {"runner": short(runner["token"])}
    if answer.status == 200:
        log.info(f"Verifying runner... {'is valid' if created else 'is alive'}", **fields)
    elif answer.status == 403:
        if created:
            log.info("Verifying runner... is not valid", **fields)
        else:
            log.error("Verifying runner... is removed", status=answer.text, **fields)
        return None
    else:
        log.error(f"Verifying runner... {_trouble(answer)}", status=answer.text, **fields)
    return answer.body


def register(runner: Runner, token: str, description: str) -> dict[str, Any] | None:
    """With a registration token; a server of this version refuses them."""
    answer = _request(runner, "POST", "runners", {"token": token, "description": description, "info": _info(runner)})
    if answer.status == 201:
        log.info("Registering runner... succeeded", runner=short(token))
        return answer.body
    trouble = "forbidden (check registration token)" if answer.status == 403 else _trouble(answer)
    log.error(f"Registering runner... {trouble}", runner=short(token), status=answer.text)
    return None


def unregister(runner: Runner, system_id: str) -> bool:
    """Of a runner made on the server only this machine (its manager) is removed."""
    created = is_created_token(runner["token"])
    body = {"token": runner["token"], **({"system_id": system_id} if created else {})}
    answer = _request(runner, "DELETE", "runners/managers" if created else "runners", body)
    what = f"Unregistering runner{' manager' if created else ''} from GitLab"
    if answer.status == 204:
        log.info(f"{what} succeeded", runner=short(runner["token"]))
        return True
    trouble = "forbidden" if answer.status == 403 else _trouble(answer)
    log.error(f"{what} {trouble}", runner=short(runner["token"]), status=answer.text)
    return False


def request_job(runner: Runner, system_id: str, last_update: str) -> tuple[Answer, bool]:
    """Ask for a job. The second value is whether the runner counts as healthy after the answer."""
    answer = _request(
        runner,
        "POST",
        "jobs/request",
        {"token": runner["token"], "system_id": system_id, "last_update": last_update, "info": _info(runner)},
    )
    fields = {"runner": short(runner["token"]), "status": answer.text}
    if answer.status == 201:
        log.info("Checking for jobs... received", job=answer.body.get("id"), runner=fields["runner"])
        return answer, True
    if answer.status == 204:
        return answer, True
    if answer.status == 403:
        log.error("Checking for jobs... forbidden", **fields)
        return answer, False
    if answer.status is None:
        log.error("Checking for jobs... client error", **fields)
        return answer, False
    log.warning("Checking for jobs... failed", **fields)
    return answer, True


def fail_job(runner: Runner, job: Mapping[str, Any], reason: str) -> None:
    """Tell GitLab that the job failed, with the reason in its log."""
    trace = f"ERROR: {reason}\n".encode()
    token = {"JOB-TOKEN": job["token"], "Content-Range": f"0-{len(trace) - 1}", "Content-Type": "text/plain"}
    _send(runner, "PATCH", f"jobs/{job['id']}/trace", trace, token)
    body = {"token": job["token"], "state": "failed", "failure_reason": "runner_unsupported"}
    _request(runner, "PUT", f"jobs/{job['id']}", body)


def _info(runner: Runner) -> dict[str, Any]:
    return {
        "name": "gitlab-runner",
        "version": version(),
        "revision": revision(),
        "platform": "linux",
        "architecture": architecture(),
        "executor": runner.get("executor", ""),
    }


def _trouble(answer: Answer) -> str:
    return "client error" if answer.status is None else "failed"


def _request(runner: Runner, method: str, path: str, body: Mapping[str, Any]) -> Answer:
    return _send(runner, method, path, json.dumps(body).encode(), {"Content-Type": "application/json"})


def _send(runner: Runner, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> Answer:
    url = urlsplit(runner["url"])
    address = f"{url.scheme}://{url.netloc}{url.path.rstrip('/')}/api/v4/{path}"
    try:
        connection = _connect(runner)
    except OSError as error:
        return Answer(None, str(error), {})
    try:
        agent = f"gitlab-runner {version()} (HEAD; linux/{architecture()})"
        target = f"{url.path.rstrip('/')}/api/v4/{path}"
        connection.request(method, target, body, {"User-Agent": agent, **headers})
        response = connection.getresponse()
        content = response.read()
        connection.close()
    except (OSError, http.client.HTTPException) as error:
        trouble = f'{method.title()} "{address}": {_trouble_of(error, url)}'
        return Answer(NO_ANSWER, f"couldn't execute {method} against {address}: {trouble}", {})
    try:
        decoded = json.loads(content)
    except ValueError:
        decoded = {}
    return Answer(
        response.status,
        f"{response.status} {response.reason}",
        decoded if isinstance(decoded, dict) else {},
        response.getheader(LAST_UPDATE) or "",
    )


def _trouble_of(error: Exception, url: SplitResult) -> str:
    """In Go's words where they are known."""
    if not isinstance(error, ConnectionRefusedError):
        return str(error)
    port = url.port or (443 if url.scheme == "https" else 80)
    return f"dial tcp {url.hostname}:{port}: connect: connection refused"


def _connect(runner: Runner) -> http.client.HTTPConnection:
    url = urlsplit(runner["url"])
    if url.scheme != "https":
        return http.client.HTTPConnection(url.netloc, timeout=TIMEOUT)
    context = ssl.create_default_context(cafile=runner.get("tls-ca-file"))
    return http.client.HTTPSConnection(url.netloc, timeout=TIMEOUT, context=context)
