"""EC2's idempotent calls: a call repeated with the same ClientToken is not carried out again.

An SDK that got no response repeats the call. AWS then responds as it did the first time, or with
IdempotentParameterMismatch if the other parameters differ (Amazon EC2 Developer Guide, "Ensuring idempotency in Amazon
EC2 API requests"). moto accepts the token and carries the call out a second time.
"""

import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from lab.cloud.faults import Application, StartResponse, form, refuse_ec2


@dataclass
class _Call:
    """A call with a token, and its response once it has one."""

    fields: dict[str, str]
    answer: tuple[str, list[tuple[str, str]], bytes] | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)


def idempotent(aws: Application) -> Application:
    """Return `aws` with repeated EC2 calls answered by the first response. Rejected calls can be retried."""
    calls: dict[tuple[str, str], _Call] = {}

    def serve(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        fields = form(environ)
        token = fields.get("ClientToken")
        if not token:
            return aws(environ, start_response)
        call = calls.setdefault((fields["Action"], token), _Call(fields))
        with call.lock:
            if call.answer and call.fields != fields:
                message = "The request uses the same client token as a previous, but non-identical request."
                return refuse_ec2(start_response, "400 Bad Request", "IdempotentParameterMismatch", message)
            if not call.answer:
                call.fields = fields
                call.answer = _carry_out(aws, environ)
            status, headers, body = call.answer
            if not status.startswith("200"):
                call.answer = None
        start_response(status, headers)
        return [body]

    return serve


def _carry_out(aws: Application, environ: dict[str, Any]) -> tuple[str, list[tuple[str, str]], bytes]:
    started: list[tuple[str, list[tuple[str, str]]]] = []
    body = b"".join(aws(environ, lambda status, headers, *_: started.append((status, headers))))
    return *started[0], body
