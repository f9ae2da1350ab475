"""Which actions of AWS the program's provider has called: what a policy for it has to allow.

`/_lab/actions` of the API: GET tells them, sorted, as policies name them (`ec2:RunInstances`); DELETE forgets them.
Calls of other clients, of the lab's own tests above all, do not count.
"""

import json
import logging
import re
import threading
import urllib.request
from collections.abc import Iterable
from typing import Any

from lab.cloud import API
from lab.cloud.faults import Application, StartResponse, form

ROUTE = "/_lab/actions"
PROVIDER = "terraform-provider-aws"
"""What HashiCorp's provider, and so pulumi-aws, has in its User-Agent."""

SCOPE = re.compile(r"Credential=[^/]+/\d{8}/[^/]+/(?P<service>[^/]+)/aws4_request")
"""Where a signed request names its service (Signature Version 4); policies name it the same."""

ROUTE_53 = (
    ("POST", r"/2013-04-01/hostedzone/[^/]+/rrset/?", "ChangeResourceRecordSets"),
    ("GET", r"/2013-04-01/hostedzone/[^/]+/rrset/?", "ListResourceRecordSets"),
    ("GET", r"/2013-04-01/hostedzone/[^/]+/?", "GetHostedZone"),
    ("GET", r"/2013-04-01/change/[^/]+/?", "GetChange"),
)
"""Route 53 names its actions by method and path (Amazon Route 53 API Reference)."""


def action(environ: dict[str, Any]) -> str | None:
    """The action of a signed request as a policy names it; None for a request that no service is named in."""
    scope = SCOPE.search(environ.get("HTTP_AUTHORIZATION", ""))
    if scope is None:
        return None
    service = scope["service"]
    name = form(environ).get("Action") or _route_53_action(environ)
    return f"{service}:{name}"


def _route_53_action(environ: dict[str, Any]) -> str:
    method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
    for known_method, pattern, name in ROUTE_53:
        if method == known_method and re.fullmatch(pattern, path):
            return name
    return f"{method} {path}"  # no policy allows it, so whoever compares will see it


class Actions:
    """The actions the provider has called since the last DELETE. Safe for several threads."""

    def __init__(self) -> None:
        self._seen: set[str] = set()
        self._lock = threading.Lock()

    def before(self, aws: Application) -> Application:
        """`aws` with its calls noted."""

        def serve(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
            if PROVIDER in environ.get("HTTP_USER_AGENT", "") and (called := action(environ)):
                with self._lock:
                    new = called not in self._seen
                    self._seen.add(called)
                if new:
                    logging.info("the provider calls %s", called)
            return aws(environ, start_response)

        return serve

    def route(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """Answers `/_lab/actions`."""
        with self._lock:
            if environ["REQUEST_METHOD"] == "DELETE":
                self._seen.clear()
            body = json.dumps(sorted(self._seen)).encode()
        start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
        return [body]


def called(*, api: str = API) -> list[str]:
    """What the provider has called in the running lab since `forget`."""
    answer: list[str] = _ask("GET", api)
    return answer


def forget(*, api: str = API) -> None:
    """Begin anew."""
    _ask("DELETE", api)


def _ask(method: str, api: str) -> Any:
    # No proxy between this machine and itself.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(urllib.request.Request(api + ROUTE, method=method), timeout=10) as answer:
        return json.load(answer)
