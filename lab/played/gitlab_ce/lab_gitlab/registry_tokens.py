"""Tokens for the container registry: RS256, signed with the key at registry_key_path, which `kid` identifies.

Source: gitlab-org/gitlab lib/json_web_token/rsa_token.rb, container_registry_authentication_service.rb.
"""

import base64
import functools
import hashlib
import json
import time
import uuid
from collections.abc import Sequence
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from lab_gitlab import instance_settings, paths
from lab_gitlab.application import Application

AUDIENCE = "container_registry"
NOT_BEFORE = 5  # seconds before its creation from which a token is valid

Access = dict[str, Any]


def token(
    app: Application,
    access: Sequence[Access],
    *,
    audience: str = AUDIENCE,
    subject: str | None = None,
    **claims: Any,
) -> str:
    """Return a token that grants `access`. Raises OSError if the key file is missing."""
    moment = int(time.time()) + _clock_offset()
    life = 60 * int(instance_settings.current(app)["container_registry_token_expire_delay"])
    payload = {
        "access": list(access),
        "jti": str(uuid.uuid4()),
        "aud": audience,
        "sub": subject,
        "iss": app.registry["issuer"],
        "iat": moment,
        "nbf": moment - NOT_BEFORE,
        "exp": moment + life,
        **claims,
    }
    return _encode(_key(app), {name: value for name, value in payload.items() if value is not None})


def _clock_offset() -> int:
    """Return the clock error in seconds, a fault that tests inject because a container shares its host's clock."""
    return int(paths.CLOCK_OFFSET.read_text()) if paths.CLOCK_OFFSET.exists() else 0


def own_token(app: Application, repository: str, *actions: str) -> str:
    """Return a token for GitLab's own access to the registry, which ignores user permissions."""
    return token(app, [{"type": "repository", "name": repository, "actions": list(actions)}])


def key_id(key: rsa.RSAPublicKey) -> str:
    """Return the libtrust fingerprint with which the registry selects the certificate."""
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    text = base64.b32encode(hashlib.sha256(der).digest()[:30]).decode()
    return ":".join(text[start : start + 4] for start in range(0, len(text), 4))


def _key(app: Application) -> rsa.RSAPrivateKey:
    return _parsed(paths.at(app.registry["key"]).read_bytes())


@functools.lru_cache(maxsize=1)
def _parsed(pem: bytes) -> rsa.RSAPrivateKey:
    """Return the key of a PEM file. Raises ValueError. Cached because its validation takes longer than a request."""
    key = serialization.load_pem_private_key(pem, password=None)
    if not isinstance(key, rsa.RSAPrivateKey):
        raise ValueError("the key of the registry's tokens is not an RSA key")
    return key


def _encode(key: rsa.RSAPrivateKey, payload: Access) -> str:
    header = {"typ": "JWT", "alg": "RS256", "kid": key_id(key.public_key())}
    signed = f"{_base64(json.dumps(header).encode())}.{_base64(json.dumps(payload).encode())}"
    signature = key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
    return f"{signed}.{_base64(signature)}"


def _base64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
