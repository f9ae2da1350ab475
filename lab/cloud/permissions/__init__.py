"""Enforces IAM policies: a call that they do not allow is denied with AWS's message, before moto sees it.

moto's own IAM evaluates every call on the resource `*`, without conditions. Callers are identified by the access key of
their requests. One with credentials of a machine's role may do what the role's policies in IAM allow; of the others, a
caller without policies may do everything. `/_lab/policies` of the API: POST sets a caller's policies,
DELETE removes those of all callers. `enforce` and `lift` are the client of that route.
"""

import json
import logging
import urllib.request
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from moto.core import DEFAULT_ACCOUNT_ID

from lab.cloud import API, calls, credentials, roles
from lab.cloud.calls import Call
from lab.cloud.faults import Application, StartResponse, body, refuse, refuse_ec2, refuse_json
from lab.cloud.permissions import requests
from lab.cloud.permissions.policies import Asked, allowed

log = logging.getLogger(__name__)

ROUTE = "/_lab/policies"


class Permissions:
    """The policies of each caller. Related upstream: getmoto/moto#2300 (merged)."""

    def __init__(self) -> None:
        self._policies: dict[str, Sequence[Mapping[str, Any]]] = {}

    def before(self, aws: Application) -> Application:
        """Return `aws`, which receives only calls that their caller may make."""

        def serve(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
            call = calls.read(environ)
            if call is None:
                return aws(environ, start_response)
            if call.access_key.startswith(credentials.PREFIX):
                issued = credentials.issuer.find(call.access_key)
                if problem := credentials.issuer.problem(call.access_key, environ):
                    return _refuse(call, start_response, *problem)
                assert issued
                sender = f"assumed-role/{issued.role}/{issued.instance}"
                granted: Sequence[roles.Policies] = roles.policies(issued.role)
            elif call.access_key in self._policies:
                sender, granted = f"user/{call.access_key}", [self._policies[call.access_key]]
            else:
                return aws(environ, start_response)
            denied = (each for each in requests.asked(call) if not all(allowed(some, each) for some in granted))
            if refused := next(denied, None):
                log.info("%s denied: %s on %s, %s", sender, refused.action, refused.resource, dict(refused.keys))
                return _refuse(call, start_response, *_denial(call, sender, refused))
            return aws(environ, start_response)

        return serve

    def route(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """Serve `/_lab/policies`."""
        if environ["REQUEST_METHOD"] == "POST":
            given = json.loads(body(environ))
            self._policies[given["accessKey"]] = given["policies"]
        else:
            self._policies.clear()
        start_response("204 No Content", [("Content-Length", "0")])
        return []


def _denial(call: Call, sender: str, refused: Asked) -> tuple[str, str]:
    service = "sts" if sender.startswith("assumed-role/") else "iam"
    complaint = (
        f"User: arn:aws:{service}::{DEFAULT_ACCOUNT_ID}:{sender} is not authorized to perform: "
        f"{refused.action} on resource: {refused.resource} because no identity-based policy allows the "
        f"{refused.action} action"
    )
    if call.service == requests.EC2:
        return "UnauthorizedOperation", f"You are not authorized to perform this operation. {complaint}"
    return ("AccessDeniedException" if call.service in requests.JSON else "AccessDenied"), complaint


def _refuse(call: Call, start_response: StartResponse, code: str, message: str) -> Iterable[bytes]:
    if call.service == requests.EC2:
        return refuse_ec2(start_response, "403 Forbidden", code, message)
    if call.service in requests.JSON:
        return refuse_json(start_response, "400 Bad Request", code, message)
    return refuse(start_response, "403 Forbidden", "Sender", code, message)


# --- the client ------------------------------------------------------------------------------------------


def enforce(access_key: str, policies: Sequence[Mapping[str, Any]], *, api: str = API) -> None:
    """Allow this caller only what the policies allow."""
    _ask("POST", json.dumps({"accessKey": access_key, "policies": policies}).encode(), api)


def lift(*, api: str = API) -> None:
    """Allow all callers everything."""
    _ask("DELETE", None, api)


def _ask(method: str, sent: bytes | None, api: str) -> None:
    # Ignore proxy settings: the API is on this machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(urllib.request.Request(api + ROUTE, sent, method=method), timeout=10):
        pass
