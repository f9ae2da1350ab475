"""The runner's client for GitLab's API (network/gitlab.go)."""

import functools
import json
import os
import re
import secrets
import ssl
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException, HTTPMessage, HTTPSConnection
from typing import Any
from urllib.parse import SplitResult, urlencode, urlsplit

from lab_gitlab_runner import VERSION, log
from lab_gitlab_runner.configuration import Runner

TIMEOUT = 30.0  # seconds
BUNDLE = "/etc/pki/tls/certs/ca-bundle.crt"
UNKNOWN_AUTHORITY = dict.fromkeys((18, 19, 20, 21), "certificate signed by unknown authority")
"""Go's message for each such code of OpenSSL (X509_STORE_CTX_get_error(3))."""
FEATURES = (
    *("variables", "image", "artifacts", "upload_multiple_artifacts", "upload_raw_artifacts", "refspecs", "masking"),
    *("raw_variables", "multi_build_steps", "trace_checksum", "trace_size", "cancelable", "return_exit_code"),
    *("image_executor_opts", "cancel_gracefully"),
)


@dataclass(frozen=True)
class Answer:
    """A response. `status` is None if GitLab did not respond; `text` is then the error. `ca_chain` contains the
    certificates by which GitLab was verified, in PEM format, from its own to the root; it is empty for plain HTTP.
    """

    status: int | None
    text: str
    headers: HTTPMessage = field(default_factory=HTTPMessage)
    content: bytes = b""
    ca_chain: str = ""

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
    place = urlsplit(address)
    sent = {"User-Agent": f"gitlab-runner {VERSION} (HEAD; linux/amd64)", "Connection": "close", **headers}
    try:
        with closing(_connection(place)) as connection:
            connection.request(method, place._replace(scheme="", netloc="").geturl(), body, sent)
            chain = _verified_chain(connection.sock)
            with connection.getresponse() as response:
                text = f"{response.status} {response.reason}"
                return Answer(response.status, text, response.headers, response.read(), chain)
    except ssl.SSLCertVerificationError as error:
        reason = UNKNOWN_AUTHORITY.get(error.verify_code, error.verify_message)
        return Answer(
            None, f"couldn't execute {method} against {address}: tls: failed to verify certificate: x509: {reason}"
        )
    except (OSError, HTTPException) as error:
        return Answer(None, f"couldn't execute {method} against {address}: {error}")


def _connection(place: SplitResult) -> HTTPConnection:
    if place.scheme == "https":
        return HTTPSConnection(place.netloc, timeout=TIMEOUT, context=_trust())
    return HTTPConnection(place.netloc, timeout=TIMEOUT)


@functools.cache
def _trust() -> ssl.SSLContext:
    """The machine's certificates, or those in SSL_CERT_FILE. A running process never reads them again (Go's
    crypto/x509, root.go: `systemRootsPool`).
    """
    return ssl.create_default_context(cafile=os.environ.get("SSL_CERT_FILE") or BUNDLE)


def _verified_chain(connection: object) -> str:
    """Like helpers/tls/ca_chain/builder.go. Python 3.13 is the first with a public method for it."""
    if not isinstance(connection, ssl.SSLSocket):
        return ""
    chain = connection._sslobj.get_verified_chain()  # type: ignore[attr-defined]
    return "".join(certificate.public_bytes() for certificate in chain).strip()
