"""How the checks ask: over HTTP, over GitLab's own socket, and by the machine's commands."""

import http.client
import os
import socket
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
    """The answer to a GET, not by way of a proxy. Raises FailedCheckError when there is none."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirect)
    try:
        with opener.open(urllib.request.Request(url, headers=headers or {}), timeout=TIMEOUT) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()
    except (OSError, http.client.HTTPException) as error:
        raise FailedCheckError(f"{url}: {error_text(error)}") from None


def expect(url: str, status: int) -> None:
    """Raise FailedCheckError when a GET is answered with another status."""
    answered = fetch(url)[0]
    if answered != status:
        raise FailedCheckError(f"{url} answers {answered} instead of {status}.")


def error_text(error: BaseException) -> str:
    """What went wrong, as a sentence's end."""
    reason = getattr(error, "reason", error)
    if isinstance(reason, socket.timeout):
        return f"no answer within {TIMEOUT} s."
    return f"{getattr(reason, 'strerror', None) or str(reason) or type(reason).__name__}."


def run(*command: str, stdin: str = "", **environment: str) -> Tuple[int, str]:
    """Exit status of a command and all its output. Raises FailedCheckError when there is none, or not in time."""
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
        raise FailedCheckError(f"{' '.join(command[:2])}: no answer within {2 * TIMEOUT} s.") from None
    except FileNotFoundError:
        raise FailedCheckError(f"{command[0]} is not installed.") from None
    return done.returncode, done.stdout.decode(errors="replace").strip()


def last_line(text: str) -> str:
    """The last line of a text; empty when there is none."""
    return (text.splitlines() or [""])[-1]


class UnixConnection(http.client.HTTPConnection):
    """HTTP over GitLab's own socket: port 80 answers only what comes through the load balancer."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=TIMEOUT)
        self.path = path

    def connect(self) -> None:
        """Connect to the socket."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def ask_gitlab(method: str, path: str, headers: Optional[Dict[str, str]] = None, body: Optional[str] = None) -> Answer:
    """GitLab's answer on its own socket. Raises FailedCheckError when there is none."""
    connection = UnixConnection(WORKHORSE)
    try:
        connection.request(method, path, body=body, headers=headers or {})
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    except (OSError, http.client.HTTPException) as error:
        raise FailedCheckError(f"{WORKHORSE}: {error_text(error)}") from None
    finally:
        connection.close()
