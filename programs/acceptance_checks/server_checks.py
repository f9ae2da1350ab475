"""What the server can check without a token."""

import contextlib
import datetime
import json
import os
import re
import socket
import time
from typing import Any, List, Mapping, Optional, Tuple

from . import clients
from .outcomes import Deferred, FailedCheckError, Measured, Result

ACCESS_LOG = "/var/log/gitlab/nginx/gitlab_access.log"
READ_OF_LOG = 1 << 20  # bytes of its end
REQUEST = re.compile(r'\[(?P<time>[^\]]+)\] "[^"]*" (?P<status>\d{3}) ')
"""A line as GitLab's package has nginx write it (omnibus-gitlab, nginx['log_format'])."""
CHECKER = "ELB-HealthChecker/"
HEALTH_CHECK_MAX_AGE = 12  # seconds; the load balancer checks every ten


def target_healthy(endpoints: Mapping[str, Any]) -> Result:
    """The load balancer's health checks arrive and pass, by the log of what arrives: no machine can ask AWS."""
    try:
        nginx_answers(endpoints)
    except FailedCheckError:
        return _until_ready("nginx does not answer, so no health check can be seen")
    lines = _end_of_access_log()
    if lines and request(lines[-1]) is None:
        # An owner's own format. The checks through the load balancer tell whether it sends requests.
        return Measured(0.0, f"not checked: {ACCESS_LOG} is in a form of gitlabRb's, and does not say")
    latest = last_health_check(lines, time.time())
    if latest is None:
        raise FailedCheckError(f"No health check of the load balancer is in {ACCESS_LOG}.")
    age, status = latest
    if age > HEALTH_CHECK_MAX_AGE:
        raise FailedCheckError(f"The load balancer's last health check arrived {int(age)} s ago.")
    if status >= 500:
        return _until_ready(f"the load balancer's health checks arrive and are answered with {status}")
    if status != 200:
        raise FailedCheckError(f"The load balancer's health checks arrive and are answered with {status}.")
    return None


def nginx_answers(_: Mapping[str, Any]) -> Result:
    """Nginx answers on its own machine."""
    if not through_nginx().startswith("HTTP/1."):
        raise FailedCheckError("127.0.0.1:80 takes the connection and says nothing.")
    return None


def gitlab_ready(_: Mapping[str, Any]) -> Result:
    """GitLab is ready, and so is all it needs."""
    status, _headers, body = clients.ask_gitlab("GET", "/-/readiness?all=1")
    if status != 200:
        raise FailedCheckError(f"GitLab's readiness is {status}{failed_parts(body)}.")
    return None


def through_nginx() -> str:
    """Nginx's answer to a connection that comes as from the load balancer; empty when there is none."""
    try:
        with socket.create_connection(("127.0.0.1", 80), timeout=clients.TIMEOUT) as connection:
            connection.sendall(b"PROXY TCP4 127.0.0.1 127.0.0.1 65535 80\r\nGET /-/health HTTP/1.0\r\n\r\n")
            return connection.recv(64).decode(errors="replace")
    except OSError as error:
        raise FailedCheckError(f"127.0.0.1:80: {clients.error_text(error)}") from None


def last_health_check(lines: List[str], now: float) -> Optional[Tuple[float, int]]:
    """Age in seconds and status of the load balancer's latest health check in an access log."""
    for line in reversed(lines):
        read = request(line) if CHECKER in line else None
        if read:
            return now - read[0], read[1]
    return None


def request(line: str) -> Optional[Tuple[float, int]]:
    """When a request was answered, in seconds since 1970, and its status; None when the line is in another form."""
    match = REQUEST.search(line)
    if not match:
        return None
    for form in ("%d/%b/%Y:%H:%M:%S %z", "%Y-%m-%dT%H:%M:%S%z"):  # nginx: $time_local, $time_iso8601
        with contextlib.suppress(ValueError, OverflowError):
            # Python 3.6 takes no colon in the offset.
            text = re.sub(r"([+-]\d\d):(\d\d)$", r"\1\2", match.group("time"))
            at = datetime.datetime.strptime(text, form)  # noqa: DTZ007, both forms have the offset
            return at.timestamp(), int(match.group("status"))
    return None


def failed_parts(body: bytes) -> str:
    """What a readiness answer names as failed, in parentheses; empty when it names nothing."""
    with contextlib.suppress(ValueError, AttributeError):
        failed = [
            f"{name.replace('_check', '')}: {result.get('message') or result['status']}"
            for name, results in sorted(json.loads(body.decode()).items())
            if isinstance(results, list)
            for result in results
            if result.get("status") != "ok"
        ]
        return f" ({'; '.join(failed)})" if failed else ""
    return ""


def _until_ready(reason: str) -> Deferred:
    return Deferred(reason, until="GitLab is ready")


def _end_of_access_log() -> List[str]:
    try:
        with open(ACCESS_LOG, "rb") as log:
            log.seek(max(0, os.fstat(log.fileno()).st_size - READ_OF_LOG))
            return log.read().decode(errors="replace").splitlines()
    except OSError as error:
        raise FailedCheckError(f"{ACCESS_LOG}: {clients.error_text(error)}") from None
