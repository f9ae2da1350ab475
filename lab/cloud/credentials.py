"""Temporary credentials of the roles of instances: as the metadata service hands them out, and as requests show them.

A request is signed with them like any other; unlike moto, `problem` verifies the token, the expiration and the
signature. Source: IAM User Guide, "Use temporary credentials with AWS resources" and "Troubleshoot Signature Version 4
signing for AWS API requests".
"""

import hmac
import json
import re
import secrets
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import botocore.auth  # type: ignore[import-untyped]
from botocore.awsrequest import AWSRequest  # type: ignore[import-untyped]
from botocore.credentials import Credentials as Keys  # type: ignore[import-untyped]

from lab.cloud.faults import body

LIFE = timedelta(hours=6)
RENEWED = timedelta(minutes=15)  # before the expiration ("at least five minutes before", EC2 User Guide)
CLOCK_DIFFERENCE = timedelta(minutes=5)
PREFIX = "ASIA"
"""Of every temporary access key (IAM User Guide, "IAM identifiers"); longer-lived ones of users begin with AKIA."""
STAMP = "%Y%m%dT%H%M%SZ"


@dataclass(frozen=True)
class Credentials:
    """Credentials of a role, issued to an instance. `role` is the role's name."""

    role: str
    instance: str
    access_key: str
    secret: str
    token: str
    issued: datetime

    @property
    def expiration(self) -> datetime:
        return self.issued + LIFE

    def document(self) -> str:
        """Return them as the metadata service does (EC2 User Guide, "Retrieve security credentials")."""
        return json.dumps(
            {
                "Code": "Success",
                "LastUpdated": _text(self.issued),
                "Type": "AWS-HMAC",
                "AccessKeyId": self.access_key,
                "SecretAccessKey": self.secret,
                "Token": self.token,
                "Expiration": _text(self.expiration),
            },
            indent=2,
        )


Problem = tuple[str, str]
"""Code and message of EC2's error (Amazon EC2 API Reference, "Error codes")."""
INVALID: Problem = ("AuthFailure", "AWS was not able to validate the provided access credentials")
EXPIRED: Problem = ("RequestExpired", "Request has expired.")


class Issuer:
    """The credentials issued so far. Thread-safe."""

    def __init__(self, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._clock = clock
        self._issued: dict[str, Credentials] = {}
        self._lock = threading.Lock()

    def issue(self, instance: str, role: str) -> Credentials:
        """Return the credentials of the instance: the last ones, until they are about to expire."""
        now = self._clock()
        with self._lock:
            for each in self._issued.values():
                if (each.instance, each.role) == (instance, role) and now < each.expiration - RENEWED:
                    return each
            made = Credentials(
                role,
                instance,
                PREFIX + secrets.token_hex(8).upper(),
                secrets.token_urlsafe(30),
                secrets.token_urlsafe(200),
                now,
            )
            self._issued[made.access_key] = made
            return made

    def find(self, access_key: str) -> Credentials | None:
        """Return the credentials with that access key."""
        with self._lock:
            return self._issued.get(access_key)

    def problem(self, access_key: str, environ: Mapping[str, Any]) -> Problem | None:
        """Return why a request with a temporary access key is not accepted, or None if it is."""
        issued = self.find(access_key)
        if issued is None or environ.get("HTTP_X_AMZ_SECURITY_TOKEN") != issued.token:
            return INVALID
        now, sent = self._clock(), _sent(environ)
        if now >= issued.expiration or sent is None or abs(now - sent) > CLOCK_DIFFERENCE:
            return EXPIRED
        return None if _signed(issued, environ) else INVALID


issuer = Issuer()
"""The one of this process: the metadata service issues, the API verifies."""


def _text(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


def _sent(environ: Mapping[str, Any]) -> datetime | None:
    try:
        return datetime.strptime(environ.get("HTTP_X_AMZ_DATE", ""), STAMP).replace(tzinfo=UTC)
    except ValueError:
        return None


def _signed(issued: Credentials, environ: Mapping[str, Any]) -> bool:
    """Whether the signature is that of botocore for the same request."""
    authorization = environ.get("HTTP_AUTHORIZATION", "")
    found = re.fullmatch(
        r"AWS4-HMAC-SHA256 Credential=[^/]+/(\d{8})/([^/]+)/([^/]+)/aws4_request, *"
        r"SignedHeaders=([a-z0-9;-]+), *Signature=([0-9a-f]{64})",
        authorization,
    )
    if found is None:
        return False
    day, region, service, names, signature = found.groups()
    if "host" not in names.split(";") or not environ["HTTP_X_AMZ_DATE"].startswith(day):
        return False
    headers = {name: _header(environ, name) for name in names.split(";")}
    url = f"https://{environ.get('HTTP_HOST', '')}{environ['PATH_INFO']}"
    request = AWSRequest(environ["REQUEST_METHOD"], url, headers, body(environ))  # type: ignore[arg-type]
    request.context["timestamp"] = environ["HTTP_X_AMZ_DATE"]
    signer = botocore.auth.SigV4Auth(Keys(issued.access_key, issued.secret, issued.token), service, region)
    expected = signer.signature(signer.string_to_sign(request, signer.canonical_request(request)), request)
    return hmac.compare_digest(signature, str(expected))


def _header(environ: Mapping[str, Any], name: str) -> str:
    key = name.upper().replace("-", "_")
    return str(environ.get(key if name in ("content-type", "content-length") else f"HTTP_{key}", ""))
