"""Records which AWS actions the program's provider calls, and with which parameters.

A policy for the provider must allow the actions; the table in `constraints` must have the parameters. `/_lab/actions`
of the API: GET returns the parameters by action, named as in policies (`ec2:RunInstances`) and sorted; DELETE clears
the record. Calls of other clients, such as the lab's own tests, are not recorded.
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
"""Part of the User-Agent of HashiCorp's provider, and therefore of pulumi-aws."""


class Actions:
    """What the provider has called since the last DELETE. Thread-safe."""

    def __init__(self) -> None:
        self._seen: dict[str, set[str]] = {}
        self._lock = threading.Lock()

    def before(self, aws: Application) -> Application:
        """Return `aws` with its calls recorded."""

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
        """Serve `/_lab/actions`."""
        with self._lock:
            if environ["REQUEST_METHOD"] == "DELETE":
                self._seen.clear()
            body = json.dumps({action: sorted(self._seen[action]) for action in sorted(self._seen)}).encode()
        start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
        return [body]


def called(*, api: str = API) -> dict[str, list[str]]:
    """Return the actions that the provider has called in the running lab since `forget`, with their parameters."""
    answer: dict[str, list[str]] = _ask("GET", api)
    return answer


def forget(*, api: str = API) -> None:
    """Clear the record."""
    _ask("DELETE", api)


def _ask(method: str, api: str) -> Any:
    # Ignore proxy settings: the API is on this machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(urllib.request.Request(api + ROUTE, method=method), timeout=10) as answer:
        return json.load(answer)
