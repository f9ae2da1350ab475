"""The runner's client for GitLab's API (network/gitlab.go)."""

import json
import re
import secrets
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.client import HTTPException, HTTPMessage
from typing import Any
from urllib.parse import urlencode

from lab_gitlab_runner import VERSION, log
from lab_gitlab_runner.configuration import Runner

TIMEOUT = 30.0  # seconds
FEATURES = (
    *("variables", "image", "artifacts", "upload_multiple_artifacts", "upload_raw_artifacts", "refspecs", "masking"),
    *("raw_variables", "multi_build_steps", "trace_checksum", "trace_size", "cancelable", "return_exit_code"),
    *("image_executor_opts", "cancel_gracefully"),
)


@dataclass(frozen=True)
class Answer:
    """A response. `status` is None if GitLab did not respond; `text` is then the error."""

    status: int | None
    text: str
    headers: HTTPMessage = field(default_factory=HTTPMessage)
    content: bytes = b""

    @property
    def job_status(self) -> str:
        return str(self.headers.get("Job-Status", ""))


def short(token: str) -> str:
    """Return the part of a token that may be shown."""
    return token.removeprefix("glrt-")[:9]


def verify(runner: Runner, system_id: str) -> bool:
    """Return False only if GitLab rejects the token: without a response from GitLab it counts as valid."""
    answer = _request(runner, "POST", "runners/verify", {"token": runner["token"], "system_id": system_id})
    fields = {"runner": short(runner["token"])}
    if answer.status == 200:
        log.info("Verifying runner... is valid", **fields)
    elif answer.status == 403:
        log.info("Verifying runner... is not valid", **fields)
    else:
        log.error("Verifying runner... failed", status=answer.text, **fields)
    return answer.status != 403


def request_job(runner: Runner, system_id: str) -> Answer:
    """Request a job: 201 with a job, 204 without one, 403 for an invalid token."""
    asked = {"token": runner["token"], "system_id": system_id, "info": _info(runner)}
    answer = _request(runner, "POST", "jobs/request", asked)
    fields = {"runner": short(runner["token"]), "status": answer.text}
    if answer.status == 201:
        job = json.loads(answer.content)
        url = re.sub(r"//[^/@]*@", "//", job["git_info"]["repo_url"])
        log.info("Checking for jobs... received", job=job["id"], repo_url=url, runner=fields["runner"])
    elif answer.status == 403:
        log.error("Checking for jobs... forbidden", **fields)
    elif answer.status != 204:
        log.warning("Checking for jobs... failed", **fields)
    return answer


def patch_trace(runner: Runner, job: Mapping[str, Any], piece: bytes, start: int) -> Answer:
    """Send the next part of a job's log, which begins at byte `start`."""
    place = f"{start}-{start + len(piece) - 1}"
    headers = {"JOB-TOKEN": job["token"], "Content-Range": place, "Content-Type": "text/plain"}
    answer = _send(runner, "PATCH", f"jobs/{job['id']}/trace?debug_trace=false", piece, headers)
    if answer.status != 202:
        fields = {"job": job["id"], "job-status": answer.job_status, "sent-log": place, "status": answer.text}
        log.warning("Appending trace to coordinator... failed", **fields)
    return answer


def update_job(runner: Runner, job: Mapping[str, Any], state: str, **more: object) -> Answer:
    """Report the state of a job."""
    body = {"token": job["token"], "state": state, "info": _info(runner), **more}
    answer = _request(runner, "PUT", f"jobs/{job['id']}", body)
    if answer.status != 200:
        fields = {"job": job["id"], "job-status": answer.job_status, "status": answer.text}
        log.warning("Submitting job to coordinator... failed", **fields)
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


def _info(runner: Runner) -> dict[str, Any]:
    return {
        "name": "gitlab-runner",
        "version": VERSION,
        "platform": "linux",
        "architecture": "amd64",
        "executor": runner["executor"],
        "shell": "bash",
        "features": dict.fromkeys(FEATURES, True),
    }


def _request(runner: Runner, method: str, path: str, body: Mapping[str, Any]) -> Answer:
    return _send(runner, method, path, json.dumps(body).encode(), {"Content-Type": "application/json"})


def _send(runner: Runner, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> Answer:
    address = f"{runner['url'].rstrip('/')}/api/v4/{path}"
    agent = {"User-Agent": f"gitlab-runner {VERSION} (HEAD; linux/amd64)"}
    asked = urllib.request.Request(address, body, {**agent, **headers}, method=method)
    try:
        try:
            response = urllib.request.urlopen(asked, timeout=TIMEOUT)
        except urllib.error.HTTPError as refused:
            response = refused
        with response:
            return Answer(response.status, f"{response.status} {response.reason}", response.headers, response.read())
    except (OSError, HTTPException) as error:
        return Answer(None, f"couldn't execute {method} against {address}: {error}")
