"""Forged tokens against a real registry server with the program's own configuration, which is the only check of them.

The servers are GitLab's registry, if it is available (lab/parts.py), and Docker Distribution, its ancestor. Each
forgery is a token that the registry accepts, with one error.
"""

import base64
import datetime
import hashlib
import hmac
import http.client
import json
import os
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from configuration.gitlab_rb import TOKEN_ISSUER
from configuration.registry_config import TOKEN_SERVICE
from lab.tests.gitlab_server import REGISTRIES, registry

OWN = "group/own"
OTHER = "group/other"
UPLOADS = f"/v2/{OWN}/blobs/uploads/"
BLOB = b"a layer"
DIGEST = "sha256:" + hashlib.sha256(BLOB).hexdigest()
LEEWAY = 60  # seconds of clock skew that the registry tolerates (registry/auth/token of Distribution)

Claims = dict[str, Any]


def _base64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


@dataclass(frozen=True)
class Signer:
    """A key with a self-signed certificate."""

    key: rsa.RSAPrivateKey
    certificate: x509.Certificate

    @classmethod
    def make(cls) -> "Signer":
        key = rsa.generate_private_key(65537, 2048)
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "gitlab")])
        now = datetime.datetime.now(datetime.UTC)
        builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        builder = builder.not_valid_before(now - datetime.timedelta(1)).not_valid_after(now + datetime.timedelta(1))
        return cls(key, builder.sign(key, hashes.SHA256()))

    @property
    def kid(self) -> str:
        """The fingerprint by which the registry identifies the certificate."""
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        public = self.key.public_key().public_bytes(serialization.Encoding.DER, form)
        text = base64.b32encode(hashlib.sha256(public).digest()[:30]).decode()
        return ":".join(text[start : start + 4] for start in range(0, len(text), 4))

    @property
    def x5c(self) -> list[str]:
        return [base64.b64encode(self.certificate.public_bytes(serialization.Encoding.DER)).decode()]

    @property
    def jwk(self) -> dict[str, str]:
        numbers = self.key.public_key().public_numbers()
        return {"kty": "RSA", "kid": self.kid, "n": _base64(numbers.n.to_bytes(256)), "e": _base64(b"\1\0\1")}

    def sign(self, text: bytes) -> bytes:
        return self.key.sign(text, padding.PKCS1v15(), hashes.SHA256())


GITLAB, FOREIGNER = Signer.make(), Signer.make()


def access(name: str, *actions: str) -> Claims:
    return {"type": "repository", "name": name, "actions": list(actions)}


def token(*granted: Claims, header: Claims | None = None, signature: Any = GITLAB.sign, **claims: Any) -> str:
    """Return a token like GitLab's with these changes; a claim that is None is omitted."""
    now = int(time.time())
    usual = {"iss": TOKEN_ISSUER, "aud": TOKEN_SERVICE, "sub": "somebody", "jti": str(uuid.uuid4()), "access": granted}
    payload = usual | {"iat": now, "nbf": now - 5, "exp": now + 300} | claims
    payload = {name: value for name, value in payload.items() if value is not None}
    head = {"typ": "JWT", "alg": "RS256", "kid": GITLAB.kid} if header is None else {"typ": "JWT", **header}
    signed = f"{_base64(json.dumps(head).encode())}.{_base64(json.dumps(payload).encode())}"
    return f"{signed}.{_base64(signature(signed.encode()))}"


def by_certificate(text: bytes) -> bytes:
    """Sign with the public certificate, which anyone can do."""
    return hmac.digest(GITLAB.certificate.public_bytes(serialization.Encoding.PEM), text, "sha256")


PUSH = access(OWN, "pull", "push")
FORGED = {
    "no signature, alg none": lambda: token(PUSH, header={"alg": "none"}, signature=lambda text: b""),
    "no signature, alg none and the right kid": lambda: token(
        PUSH, header={"alg": "none", "kid": GITLAB.kid}, signature=lambda text: b""
    ),
    "HS256 with the certificate as the key": lambda: token(
        PUSH, header={"alg": "HS256", "kid": GITLAB.kid}, signature=by_certificate
    ),
    "a foreign key by the right kid": lambda: token(PUSH, signature=FOREIGNER.sign),
    "a foreign key by its own kid": lambda: token(
        PUSH, header={"alg": "RS256", "kid": FOREIGNER.kid}, signature=FOREIGNER.sign
    ),
    "a foreign key that brings its certificate": lambda: token(
        PUSH, header={"alg": "RS256", "x5c": FOREIGNER.x5c}, signature=FOREIGNER.sign
    ),
    "a foreign key that brings itself": lambda: token(
        PUSH, header={"alg": "RS256", "jwk": FOREIGNER.jwk}, signature=FOREIGNER.sign
    ),
    "another issuer": lambda: token(PUSH, iss="gitlab-issuer"),
    "another audience": lambda: token(PUSH, aud="another_registry"),
    "no end": lambda: token(PUSH, exp=None),
    "over": lambda: token(PUSH, exp=int(time.time()) - LEEWAY - 30),
    "not yet": lambda: token(PUSH, nbf=int(time.time()) + LEEWAY + 30),
    "for another repository": lambda: token(access(OTHER, "pull", "push")),
    "for a repository whose name begins the same": lambda: token(access(OWN[:-1], "pull", "push")),
    "to pull alone": lambda: token(access(OWN, "pull")),
}


class Client:
    def __init__(self, address: str) -> None:
        self.address = address

    def ask(self, method: str, path: str, bearer: str, body: bytes | None = None) -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection(self.address, timeout=10)
        connection.request(method, path, body, {"Authorization": f"Bearer {bearer}"})
        return connection.getresponse()

    def status(self, method: str, path: str, bearer: str) -> int:
        return self.ask(method, path, bearer).status

    def push(self, repository: str) -> None:
        bearer = token(access(repository, "pull", "push"))
        begun = self.ask("POST", f"/v2/{repository}/blobs/uploads/", bearer).getheader("Location")
        assert begun
        assert self.ask("PUT", f"{begun}&digest={DIGEST}", bearer, BLOB).status == 201


@pytest.fixture(scope="module", params=REGISTRIES, ids=os.path.basename)
def client(request, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    folder: Path = tmp_path_factory.mktemp("registry")
    with registry(request.param, GITLAB.certificate, folder) as address:
        yield Client(address)


@pytest.mark.parametrize("forgery", FORGED)
def test_a_forged_token_is_refused(client, forgery):
    assert client.status("POST", UPLOADS, token(PUSH)) == 202
    assert client.status("POST", UPLOADS, FORGED[forgery]()) == 401


def test_a_layer_of_another_repository_is_mounted_only_by_who_may_pull_it(client):
    client.push(OTHER)
    mount = f"{UPLOADS}?mount={DIGEST}&from={OTHER}"
    assert client.status("POST", mount, token(PUSH)) == 401
    assert client.status("POST", mount, token(PUSH, access(OTHER, "pull"))) == 201


def test_a_layer_is_deleted_only_by_who_may_delete(client):
    client.push(OWN)
    blob = f"/v2/{OWN}/blobs/{DIGEST}"
    assert client.status("DELETE", blob, token(PUSH)) == 401
    assert client.status("DELETE", blob, token(access(OWN, "delete"))) == 202


def test_the_list_of_all_repositories_is_for_who_may_read_it(client):
    assert client.status("GET", "/v2/_catalog", token(PUSH)) == 401
    catalog = {"type": "registry", "name": "catalog", "actions": ["*"]}
    assert client.status("GET", "/v2/_catalog", token(catalog)) == 200
