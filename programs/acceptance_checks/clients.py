"""Clients of the checks: HTTP, GitLab's Workhorse socket, and commands of the machine."""

import http.client
import os
import socket
import ssl
import subprocess
import urllib.error
import urllib.request
from email.message import Message
from typing import Dict, Optional, Tuple

from .outcomes import FailedCheckError

TIMEOUT = 10  # seconds for one question
WORKHORSE = "/var/opt/gitlab/gitlab-workhorse/sockets/socket"

Answer = Tuple[int, Message, bytes]
"""Status, headers and body."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        return None


def fetch(url: str, headers: Optional[Dict[str, str]] = None) -> Answer:
    """Send a GET without a proxy. Raises FailedCheckError if there is no response."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirect)
    try:
        with opener.open(urllib.request.Request(url, headers=headers or {}), timeout=TIMEOUT) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()
    # In Python 3.6, CertificateError is not an OSError.
    except (OSError, ssl.CertificateError, http.client.HTTPException) as error:
        raise FailedCheckError(f"{url}: {error_text(error)}") from None


def expect(url: str, status: int) -> Answer:
    """The response to a GET. Raises FailedCheckError unless it has this status."""
    answer = fetch(url)
    if answer[0] != status:
        raise FailedCheckError(f"{url} returned {answer[0]} instead of {status}.")
    return answer


def error_text(error: BaseException) -> str:
    """The cause of an error, to be used at the end of a sentence."""
    reason = getattr(error, "reason", error)
    if isinstance(reason, socket.timeout):
        return f"no response within {TIMEOUT} s."
    return f"{getattr(reason, 'strerror', None) or str(reason) or type(reason).__name__}."


def run(*command: str, stdin: str = "", **environment: str) -> Tuple[int, str]:
    """Exit status and output of a command. Raises FailedCheckError if it is not installed or times out."""
    try:
        done = subprocess.run(
            command,
            input=stdin.encode(),
            env=dict(os.environ, **environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=2 * TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise FailedCheckError(f"{' '.join(command[:2])} did not finish within {2 * TIMEOUT} s.") from None
    except FileNotFoundError:
        raise FailedCheckError(f"{command[0]} is not installed.") from None
    return done.returncode, done.stdout.decode(errors="replace").strip()


def last_line(text: str) -> str:
    """The last line of a string; empty if it has no lines."""
    return (text.splitlines() or [""])[-1]


class UnixConnection(http.client.HTTPConnection):
    """HTTP over the Workhorse socket, because port 80 only accepts the load balancer's PROXY connections."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=TIMEOUT)
        self.path = path

    def connect(self) -> None:
        """Connect to the socket."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def ask_gitlab(method: str, path: str, headers: Optional[Dict[str, str]] = None, body: Optional[str] = None) -> Answer:
    """Send a request to the Workhorse socket. Raises FailedCheckError if there is no response."""
    connection = UnixConnection(WORKHORSE)
    try:
        connection.request(method, path, body=body, headers=headers or {})
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    except (OSError, http.client.HTTPException) as error:
        raise FailedCheckError(f"{WORKHORSE}: {error_text(error)}") from None
    finally:
        connection.close()
