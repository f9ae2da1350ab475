"""Fault injection: what a real cloud does occasionally, at the moment a test needs it.

The API has a route for faults, `/_lab/faults` (controls.py): POST arms one, GET lists the armed faults and how often
each was served, DELETE disarms all. `inject`, `served` and `clear` are the client of that route.

A fault applies to an action of the query protocol (EC2, load balancing, IAM, STS), which is named in the posted form.
Other services, such as Route 53 and ACM, use other protocols; faults do not affect their calls.
"""

import io
import json
import socket
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any
from uuid import uuid4
from xml.sax.saxutils import escape

from lab.cloud import API, controls

ROUTE = "/_lab/faults"
KINDS = ("throttle", "error", "lost", "slow")

StartResponse = Callable[..., Any]
Application = Callable[[dict[str, Any], StartResponse], Iterable[bytes]]


@dataclass
class Fault:
    """What happens to the next `times` calls of an action; `served` counts the calls affected so far.

    - `throttle`: nothing is done; EC2 responds with 503 RequestLimitExceeded, other services with 400 Throttling
    - `error`: nothing is done; EC2 responds with 500 InternalError, other services with 500 InternalFailure
    - `lost`: the call is carried out, then the connection is closed without a response. An AWS SDK sees a failed
      connection and retries; the call must not be carried out twice.
    - `slow`: the call is carried out after `seconds`
    """

    action: str  # AWS's name, for example RunInstances; "*" is every action
    kind: str
    times: int = 1
    seconds: float = 0.0
    served: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"a fault is one of {', '.join(KINDS)}, not {self.kind!r}")
        if self.times < 1 or self.seconds < 0:
            raise ValueError("times must be at least 1, and seconds at least 0")


class Faults:
    """The armed faults, in the order in which they were armed. Thread-safe."""

    def __init__(self) -> None:
        self._armed: list[Fault] = []
        self._lock = threading.Lock()

    def add(self, **fields: Any) -> None:
        fault = Fault(**fields)
        with self._lock:
            self._armed.append(fault)

    def clear(self) -> None:
        with self._lock:
            self._armed.clear()

    def status(self) -> list[dict[str, Any]]:
        with self._lock:
            return [asdict(fault) for fault in self._armed]

    def take(self, action: str | None) -> Fault | None:
        """Return the fault that applies to a call of `action`, and count it as served."""
        with self._lock:
            for fault in self._armed:
                if action and fault.action in ("*", action) and fault.served < fault.times:
                    fault.served += 1
                    return fault
        return None

    def before(self, aws: Application) -> Application:
        """Return `aws` with the armed faults in front of it."""

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
                    # Otherwise the server would keep the connection open for the next request.
                    environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
                    raise ConnectionResetError("response dropped by an injected fault")
            time.sleep(fault.seconds)
            return aws(environ, start_response)

        return serve


_INTERNAL = "500 Internal Server Error"
_LIMIT = "Request limit exceeded."
_UNKNOWN = "The request processing has failed because of an unknown error, exception or failure."


def form(environ: dict[str, Any]) -> dict[str, str]:
    """Return the fields of a posted form, which stays readable; none for any other request."""
    if not environ.get("CONTENT_TYPE", "").startswith("application/x-www-form-urlencoded"):
        return {}
    return dict(urllib.parse.parse_qsl(body(environ).decode(), keep_blank_values=True))


def body(environ: dict[str, Any]) -> bytes:
    """Return the body of a request, which stays readable."""
    content: bytes = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    environ["wsgi.input"] = io.BytesIO(content)
    return content


def refuse_ec2(start_response: StartResponse, status: str, code: str, message: str) -> Iterable[bytes]:
    """Respond with an error in EC2's own format."""
    text = (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f"<Response><Errors><Error><Code>{code}</Code><Message>{escape(message)}</Message></Error></Errors>"
        f"<RequestID>{uuid4()}</RequestID></Response>"
    )
    return controls.send(start_response, status, "text/xml;charset=UTF-8", text)


def refuse(start_response: StartResponse, status: str, fault_of: str, code: str, message: str) -> Iterable[bytes]:
    """Respond with an error in the format of the query protocol and Route 53; `fault_of` is Sender or Receiver."""
    text = (
        f"<ErrorResponse><Error><Type>{fault_of}</Type><Code>{code}</Code><Message>{escape(message)}</Message></Error>"
        f"<RequestId>{uuid4()}</RequestId></ErrorResponse>"
    )
    return controls.send(start_response, status, "text/xml", text)


def refuse_json(start_response: StartResponse, status: str, code: str, message: str) -> Iterable[bytes]:
    """Respond with an error in the format of the JSON protocol, which ACM uses."""
    text = json.dumps({"__type": code, "message": message})
    return controls.send(start_response, status, "application/x-amz-json-1.1", text)


# --- the client ------------------------------------------------------------------------------------------


def inject(action: str, kind: str, *, times: int = 1, seconds: float = 0.0, api: str = API) -> None:
    """Arm a fault in the running lab. Raises ValueError for an unknown kind, OSError without a running lab."""
    controls.ask("POST", ROUTE, asdict(Fault(action, kind, times, seconds)), api)


def served(*, api: str = API) -> dict[tuple[str, str], int]:
    """Return how many calls the faults have affected since they were armed, by action and kind as injected."""
    counts: dict[tuple[str, str], int] = {}
    for fault in (Fault(**fields) for fields in controls.ask("GET", ROUTE, None, api)):
        key = fault.action, fault.kind
        counts[key] = counts.get(key, 0) + fault.served
    return counts


def clear(*, api: str = API) -> None:
    """Disarm all faults."""
    controls.ask("DELETE", ROUTE, None, api)
