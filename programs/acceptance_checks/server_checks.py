"""Checks that run on the server without a token."""

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
READ_OF_LOG = 1 << 20  # bytes read from the end of the log
REQUEST = re.compile(r'\[(?P<time>[^\]]+)\] "[^"]*" (?P<status>\d{3}) ')
"""A line in the default format of GitLab's package (omnibus-gitlab, nginx['log_format'])."""
AFTER_STATUS = re.compile(r'" \d{3} (?P<rest>.*)')
QUOTED = re.compile(r'"[^"]*"')
CHECKER = "ELB-HealthChecker/"
HEALTH_CHECK_MAX_AGE = 12  # seconds; the load balancer checks every ten


def target_healthy(endpoints: Mapping[str, Any]) -> Result:
    """The load balancer's health checks arrive and pass, according to nginx's access log: machines cannot call AWS."""
    try:
        nginx_answers(endpoints)
    except FailedCheckError:
        return _until_ready("nginx fails its own check, so no health check can be observed")
    lines = _end_of_access_log()
    if lines and not names_agents(lines):
        # A custom log format. The checks through the load balancer show whether it forwards requests.
        return Measured(0.0, f"not checked: {ACCESS_LOG} has a custom format, set in gitlabRb")
    latest = last_health_check(lines, time.time())
    if latest is None:
        raise FailedCheckError(f"{ACCESS_LOG} contains no health check of the load balancer.")
    age, status = latest
    if age > HEALTH_CHECK_MAX_AGE:
        raise FailedCheckError(f"The load balancer's last health check arrived {int(age)} s ago.")
    if status >= 500:
        return _until_ready(f"the load balancer's health checks arrive, but GitLab returns {status}")
    if status != 200:
        raise FailedCheckError(f"The load balancer's health checks arrive, but GitLab returns {status}.")
    return None


def nginx_answers(_: Mapping[str, Any]) -> Result:
    """Nginx responds on its own machine, and accepts requests as the load balancer sends them."""
    answer = through_nginx()
    status = re.match(r"HTTP/1\.\d (\d{3})", answer)
    if not status:
        raise FailedCheckError("127.0.0.1:80 accepts the connection, but sends no HTTP response.")
    # GitLab itself never answers 400 here: nginx expects TLS, or no PROXY protocol.
    if status.group(1) == "400":
        title = re.search(r"<title>(.*?)</title>", answer)
        what = title.group(1) if title else "400"
        raise FailedCheckError(f"127.0.0.1:80 rejects the load balancer's requests: {what}.", cause="rejected")
    return None


def gitlab_ready(_: Mapping[str, Any]) -> Result:
    """GitLab and the services it depends on are ready."""
    status, _headers, body = clients.ask_gitlab("GET", "/-/readiness?all=1")
    if status != 200:
        raise FailedCheckError(f"GitLab's readiness endpoint returned {status}{failed_parts(body)}.")
    return None


def through_nginx() -> str:
    """Nginx's response to a PROXY connection, as the load balancer makes them; empty if there is none."""
    try:
        with socket.create_connection(("127.0.0.1", 80), timeout=clients.TIMEOUT) as connection:
            connection.sendall(b"PROXY TCP4 127.0.0.1 127.0.0.1 65535 80\r\nGET /-/health HTTP/1.0\r\n\r\n")
            return b"".join(iter(lambda: connection.recv(4096), b"")).decode(errors="replace")
    except OSError as error:
        raise FailedCheckError(f"127.0.0.1:80: {clients.error_text(error)}") from None


def last_health_check(lines: List[str], now: float) -> Optional[Tuple[float, int]]:
    """Age in seconds and status of the load balancer's latest health check in an access log; None without one."""
    for line in reversed(lines):
        read = request(line) if CHECKER in line else None
        if read:
            return now - read[0], read[1]
    return None


def request(line: str) -> Optional[Tuple[float, int]]:
    """Time of a logged request, in seconds since 1970, and its status; None if the line has a different format."""
    match = REQUEST.search(line)
    if not match:
        return None
    for form in ("%d/%b/%Y:%H:%M:%S %z", "%Y-%m-%dT%H:%M:%S%z"):  # nginx: $time_local, $time_iso8601
        with contextlib.suppress(ValueError, OverflowError):
            # Python 3.6 does not accept a colon in the offset.
            text = re.sub(r"([+-]\d\d):(\d\d)$", r"\1\2", match.group("time"))
            at = datetime.datetime.strptime(text, form)  # noqa: DTZ007, both forms have the offset
            return at.timestamp(), int(match.group("status"))
    return None


def names_agents(lines: List[str]) -> bool:
    """Whether the newest line has a known format with the client's agent, which is the second quoted string after the
    status, after the referrer. With fewer, it has one if the load balancer's appears in a line of that format.
    """
    quoted = _quoted_after_status(lines[-1])
    if request(lines[-1]) is None:
        return False
    return quoted >= 2 or any(CHECKER in line and _quoted_after_status(line) == quoted for line in lines)


def _quoted_after_status(line: str) -> int:
    match = AFTER_STATUS.search(line)
    return len(QUOTED.findall(match.group("rest"))) if match else 0


def failed_parts(body: bytes) -> str:
    """The failed parts that a readiness response lists, in parentheses; empty if it lists none."""
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
