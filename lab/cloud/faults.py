"""Faults that the lab's AWS can be asked for: what a real cloud does now and then, at the moment a test wants it.

The API's process has a route for them, `/_lab/faults`: POST arms one, GET tells which are armed and how often each
was served, DELETE disarms all. `inject`, `served` and `clear` are the client of that route.

A fault belongs to an action of the query protocol (EC2, load balancing, IAM, STS), whose name is in the form that is
posted. Route 53 speaks another protocol: its calls never meet a fault.
"""

import io
import json
import socket
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any
from uuid import uuid4
from xml.sax.saxutils import escape

from lab.cloud import API

ROUTE = "/_lab/faults"
KINDS = ("throttle", "error", "lost", "slow")

StartResponse = Callable[..., Any]
Application = Callable[[dict[str, Any], StartResponse], Iterable[bytes]]


@dataclass
class Fault:
    """What happens to the next `times` calls of an action; `served` counts those it has happened to.

    - `throttle`: nothing is done; EC2 answers 503 RequestLimitExceeded, the others 400 Throttling
    - `error`: nothing is done; EC2 answers 500 InternalError, the others 500 InternalFailure
    - `lost`: the call is carried out, then the connection is closed without an answer. To an AWS SDK that is a failed
      connection, which it tries again: what was done must not be done twice.
    - `slow`: the call is carried out after `seconds`
    """

    action: str  # as AWS writes it, RunInstances; "*" is every action
    kind: str
    times: int = 1
    seconds: float = 0.0
    served: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"a fault is one of {', '.join(KINDS)}, not {self.kind!r}")
        if self.times < 1 or self.seconds < 0:
            raise ValueError("a fault happens at least once, and not in the past")


class Faults:
    """The faults that are armed, in the order in which they were. Safe for several threads."""

    def __init__(self) -> None:
        self._armed: list[Fault] = []
        self._lock = threading.Lock()

    def arm(self, fault: Fault) -> None:
        with self._lock:
            self._armed.append(fault)

    def clear(self) -> None:
        with self._lock:
            self._armed.clear()

    def status(self) -> list[dict[str, Any]]:
        with self._lock:
            return [asdict(fault) for fault in self._armed]

    def take(self, action: str | None) -> Fault | None:
        """The fault that this call meets, counted as served."""
        with self._lock:
            for fault in self._armed:
                if action and fault.action in ("*", action) and fault.served < fault.times:
                    fault.served += 1
                    return fault
        return None

    def route(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """Answers `/_lab/faults`."""
        match environ["REQUEST_METHOD"]:
            case "POST":
                try:
                    self.arm(Fault(**json.loads(body(environ))))
                except (TypeError, ValueError) as error:
                    return _send(start_response, "400 Bad Request", "text/plain", str(error))
            case "DELETE":
                self.clear()
            case "GET":
                pass
            case _:
                return _send(start_response, "405 Method Not Allowed", "text/plain", "GET, POST or DELETE")
        return _send(start_response, "200 OK", "application/json", json.dumps(self.status()))

    def before(self, aws: Application) -> Application:
        """`aws` with the armed faults before it."""

        def serve(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
            fields = form(environ)
            fault = self.take(fields.get("Action"))
            if fault is None:
                return aws(environ, start_response)
            is_ec2 = "/ec2/aws4_request" in environ.get("HTTP_AUTHORIZATION", "")
            match fault.kind:
                case "throttle" if is_ec2:
                    return refuse_ec2(start_response, "503 Service Unavailable", "RequestLimitExceeded", _LIMIT)
                case "throttle":
                    return refuse(start_response, "400 Bad Request", "Sender", "Throttling", "Rate exceeded")
                case "error" if is_ec2:
                    return refuse_ec2(start_response, _INTERNAL, "InternalError", "An internal error has occurred")
                case "error":
                    return refuse(start_response, _INTERNAL, "Receiver", "InternalFailure", _UNKNOWN)
                case "lost":
                    for _ in aws(environ, lambda *_: None):
                        pass
                    # The server alone would wait on this connection for the next request.
                    environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
                    raise ConnectionResetError("the answer is lost, as asked for")
            time.sleep(fault.seconds)
            return aws(environ, start_response)

        return serve


_INTERNAL = "500 Internal Server Error"
_LIMIT = "Request limit exceeded."
_UNKNOWN = "The request processing has failed because of an unknown error, exception or failure."


def form(environ: dict[str, Any]) -> dict[str, str]:
    """The fields of a posted form, which stays readable; none for any other request."""
    if not environ.get("CONTENT_TYPE", "").startswith("application/x-www-form-urlencoded"):
        return {}
    return dict(urllib.parse.parse_qsl(body(environ).decode(), keep_blank_values=True))


def body(environ: dict[str, Any]) -> bytes:
    """The body of a request, which stays readable."""
    content: bytes = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    environ["wsgi.input"] = io.BytesIO(content)
    return content


def refuse_ec2(start_response: StartResponse, status: str, code: str, message: str) -> Iterable[bytes]:
    """An error as EC2 alone writes it."""
    text = (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f"<Response><Errors><Error><Code>{code}</Code><Message>{escape(message)}</Message></Error></Errors>"
        f"<RequestID>{uuid4()}</RequestID></Response>"
    )
    return _send(start_response, status, "text/xml;charset=UTF-8", text)


def refuse(start_response: StartResponse, status: str, fault_of: str, code: str, message: str) -> Iterable[bytes]:
    """An error as the query protocol and Route 53 have it; `fault_of` is Sender or Receiver."""
    text = (
        f"<ErrorResponse><Error><Type>{fault_of}</Type><Code>{code}</Code><Message>{escape(message)}</Message></Error>"
        f"<RequestId>{uuid4()}</RequestId></ErrorResponse>"
    )
    return _send(start_response, status, "text/xml", text)


def _send(start_response: StartResponse, status: str, kind: str, text: str) -> Iterable[bytes]:
    body = text.encode()
    start_response(status, [("Content-Type", kind), ("Content-Length", str(len(body)))])
    return [body]


# --- the client ------------------------------------------------------------------------------------------


def inject(action: str, kind: str, *, times: int = 1, seconds: float = 0.0, api: str = API) -> None:
    """Arm a fault in the running lab. Raises ValueError when there is none of that kind, OSError without a lab."""
    _ask("POST", asdict(Fault(action, kind, times, seconds)), api)


def served(*, api: str = API) -> dict[tuple[str, str], int]:
    """How many calls met the faults since they were armed, by action and kind as they were injected."""
    counts: dict[tuple[str, str], int] = {}
    for fault in (Fault(**fields) for fields in _ask("GET", None, api)):
        key = fault.action, fault.kind
        counts[key] = counts.get(key, 0) + fault.served
    return counts


def clear(*, api: str = API) -> None:
    """Disarm everything."""
    _ask("DELETE", None, api)


def _ask(method: str, fields: dict[str, Any] | None, api: str) -> Any:
    body = None if fields is None else json.dumps(fields).encode()
    request = urllib.request.Request(
        api + ROUTE, body, headers={"Content-Type": "application/json"} if body else {}, method=method
    )
    # No proxy between this machine and itself.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=10) as answer:
        return json.load(answer)
