"""Which actions of AWS the program's provider has called, and with which parameters.

The actions are what a policy for it has to allow, the parameters are what the table of constraints.py has to know.
`/_lab/actions` of the API: GET tells them, by action as policies name it (`ec2:RunInstances`), sorted; DELETE forgets
them. Calls of other clients, of the lab's own tests above all, do not count.
"""

import json
import logging
import threading
import urllib.request
from collections.abc import Iterable
from typing import Any

from lab.cloud import API, calls
from lab.cloud.faults import Application, StartResponse

log = logging.getLogger(__name__)

ROUTE = "/_lab/actions"
PROVIDER = "terraform-provider-aws"
"""What HashiCorp's provider, and so pulumi-aws, has in its User-Agent."""


class Actions:
    """What the provider has called since the last DELETE. Safe for several threads."""

    def __init__(self) -> None:
        self._seen: dict[str, set[str]] = {}
        self._lock = threading.Lock()

    def before(self, aws: Application) -> Application:
        """`aws` with its calls noted."""

        def serve(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
            if PROVIDER in environ.get("HTTP_USER_AGENT", "") and (call := calls.read(environ)):
                with self._lock:
                    if call.permission not in self._seen:
                        log.info("the provider calls %s", call.permission)
                    seen = self._seen.setdefault(call.permission, set())
                    seen |= {parameter.name for parameter in call.parameters}
            return aws(environ, start_response)

        return serve

    def route(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """Answers `/_lab/actions`."""
        with self._lock:
            if environ["REQUEST_METHOD"] == "DELETE":
                self._seen.clear()
            body = json.dumps({action: sorted(self._seen[action]) for action in sorted(self._seen)}).encode()
        start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
        return [body]


def called(*, api: str = API) -> dict[str, list[str]]:
    """The actions that the provider has called in the running lab since `forget`, and the parameters it has sent."""
    answer: dict[str, list[str]] = _ask("GET", api)
    return answer


def forget(*, api: str = API) -> None:
    """Begin anew."""
    _ask("DELETE", api)


def _ask(method: str, api: str) -> Any:
    # No proxy between this machine and itself.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(urllib.request.Request(api + ROUTE, method=method), timeout=10) as answer:
        return json.load(answer)
