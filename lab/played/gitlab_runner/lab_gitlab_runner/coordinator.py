"""What the runner says to GitLab, and how it takes the answer (network/gitlab.go)."""

import http.client
import json
import re
import secrets
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, urlencode, urlsplit

from lab_gitlab_runner import log
from lab_gitlab_runner.version import architecture, revision, version

TIMEOUT = 30.0  # seconds
TOKEN_PREFIX, JOB_TOKEN_PREFIX = "glrt-", "glcbt-"
NO_ANSWER = -1
LAST_UPDATE = "X-GitLab-Last-Update"
STATUS = "Job-Status"
INTERVAL = "X-GitLab-Trace-Update-Interval"
FEATURES = (
    *("variables", "image", "artifacts", "upload_multiple_artifacts", "upload_raw_artifacts", "refspecs", "masking"),
    *("raw_variables", "multi_build_steps", "trace_checksum", "trace_size", "cancelable", "return_exit_code"),
    *("image_executor_opts", "cancel_gracefully"),
)

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
    job_status: str = ""
    interval: int = 0
    range_end: int | None = None
    content: bytes = b""


def is_created_token(token: str) -> bool:
    """Whether the runner was made on the server, so that the server alone decides about it."""
    return token.startswith(TOKEN_PREFIX)


def short(token: str) -> str:
    """What of a token may be seen."""
    for prefix in (TOKEN_PREFIX, JOB_TOKEN_PREFIX):
        if token.startswith(prefix):
            return token[len(prefix) : len(prefix) + 9]
    return token[:8]


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
        url = re.sub(r"//[^/@]*@", "//", answer.body["git_info"]["repo_url"])
        log.info("Checking for jobs... received", job=answer.body["id"], repo_url=url, runner=fields["runner"])
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


def patch_trace(runner: Runner, job: Mapping[str, Any], piece: bytes, start: int) -> Answer:
    """The next piece of a job's log, which begins at `start`."""
    end = start + len(piece)
    headers = {"JOB-TOKEN": job["token"], "Content-Range": f"{start}-{end - 1}", "Content-Type": "text/plain"}
    answer = _send(runner, "PATCH", f"jobs/{job['id']}/trace?debug_trace=false", piece, headers)
    fields = {
        "job": job["id"],
        "code": answer.status,
        "job-status": answer.job_status,
        "sent-log": f"{start}-{end - 1}",
    }
    fields |= {"status": answer.text, "update-interval": f"{answer.interval}s", "runner": short(runner["token"])}
    if answer.job_status in ("canceled", "failed") or answer.status == 403:
        log.warning("Appending trace to coordinator... job failed", **fields)
    elif answer.status == 202:
        log.info("Appending trace to coordinator...ok", **fields)
    else:
        log.warning("Appending trace to coordinator... failed", **fields)
    return answer


def update_job(
    runner: Runner,
    job: Mapping[str, Any],
    state: str,
    *,
    reason: str | None = None,
    exit_code: int = 0,
    output: Mapping[str, Any] | None = None,
) -> Answer:
    """How a job is going, or how it has ended."""
    body: dict[str, Any] = {"token": job["token"], "state": state, "info": _info(runner)}
    if reason:
        body["failure_reason"] = reason
    if exit_code:
        body["exit_code"] = exit_code
    if output:
        body |= {"output": dict(output), "checksum": output["checksum"]}
    log.info("Updating job...", job=job["id"], runner=short(runner["token"]))
    answer = _request(runner, "PUT", f"jobs/{job['id']}", body)
    fields = {
        "job": job["id"],
        "code": answer.status,
        "job-status": answer.job_status,
        "runner": short(runner["token"]),
    }
    if answer.status == 200:
        log.info("Submitting job to coordinator...ok", **fields)
    else:
        log.warning("Submitting job to coordinator... failed", status=answer.text, **fields)
    return answer


def upload_artifact(
    runner: Runner, job: Mapping[str, Any], filename: str, content: bytes, query: Mapping[str, str]
) -> Answer:
    boundary = secrets.token_hex(30)
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{filename}"\r\n'
    head += "Content-Type: application/octet-stream\r\n\r\n"
    body = head.encode() + content + f"\r\n--{boundary}--\r\n".encode()
    headers = {"JOB-TOKEN": job["token"], "Content-Type": f"multipart/form-data; boundary={boundary}"}
    return _send(runner, "POST", f"jobs/{job['id']}/artifacts?{urlencode(query)}", body, headers)


def download_artifact(runner: Runner, dependency: Mapping[str, Any]) -> Answer:
    return _send(runner, "GET", f"jobs/{dependency['id']}/artifacts", b"", {"JOB-TOKEN": dependency["token"]})


def _info(runner: Runner) -> dict[str, Any]:
    return {
        "name": "gitlab-runner",
        "version": version(),
        "revision": revision(),
        "platform": "linux",
        "architecture": architecture(),
        "executor": runner.get("executor", ""),
        "shell": "bash",
        "features": dict.fromkeys(FEATURES, True),
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
        last_update=response.getheader(LAST_UPDATE) or "",
        job_status=response.getheader(STATUS) or "",
        interval=int(response.getheader(INTERVAL) or 0),
        range_end=_range_end(response.getheader("Range")),
        content=content,
    )


def _range_end(header: str | None) -> int | None:
    found = re.fullmatch(r"0-(\d+)", header or "")
    return int(found[1]) if found else None


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
