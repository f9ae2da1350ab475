"""The routes with which a test changes the lab while it runs: POST adds one thing, GET lists them, DELETE removes all.

faults.py, dns.py and shown_certificates.py each have such a route, and the functions that are its client.
"""

import json
import urllib.request
from collections.abc import Callable, Iterable
from typing import Any, Protocol

StartResponse = Callable[..., Any]


class Control(Protocol):
    """What a route controls, in the process of the cloud.

    `add` takes the fields that were posted, and raises TypeError or ValueError if they are wrong.
    """

    @property
    def add(self) -> Callable[..., None]: ...

    def clear(self) -> None: ...

    def status(self) -> list[dict[str, Any]]: ...


def route(control: Control, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
    """Serve the control's route."""
    match environ["REQUEST_METHOD"]:
        case "POST":
            try:
                control.add(**json.loads(environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))))
            except (TypeError, ValueError) as error:
                return send(start_response, "400 Bad Request", "text/plain", str(error))
        case "DELETE":
            control.clear()
        case "GET":
            pass
        case _:
            return send(start_response, "405 Method Not Allowed", "text/plain", "GET, POST or DELETE")
    return send(start_response, "200 OK", "application/json", json.dumps(control.status()))


def send(start_response: StartResponse, status: str, kind: str, text: str) -> Iterable[bytes]:
    """Respond with a text."""
    content = text.encode()
    start_response(status, [("Content-Type", kind), ("Content-Length", str(len(content)))])
    return [content]


def ask(method: str, path: str, fields: dict[str, Any] | None, api: str) -> Any:
    """Call a route of the running lab and return its response. Raises OSError, also for a response other than 200."""
    sent = None if fields is None else json.dumps(fields).encode()
    headers = {} if sent is None else {"Content-Type": "application/json"}
    # Ignore proxy settings: the API is on this machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(urllib.request.Request(api + path, sent, headers=headers, method=method), timeout=10) as answer:
        return json.load(answer)
