"""Facts about the registry's machine. They are not checks, but explain failures that look the same from outside."""

import base64
import contextlib
import hashlib
import os
import re
from typing import Any, Dict, List

from . import clients

REGISTRY_FOLDER = "/etc/docker/registry"
REGISTRY_DATA = "/srv/registry"


def registry_facts() -> Dict[str, Any]:
    """The registry's trust settings (issuer, service, key IDs), and the used space of its data volume in percent."""
    facts: Dict[str, Any] = {"issuer": None, "service": None, "keys": [], "used_percent": None}
    with contextlib.suppress(OSError):
        with open(os.path.join(REGISTRY_FOLDER, "config.yml")) as file:
            settings = dict(re.findall(r"^ +(\w+): +(\S+)$", file.read(), re.MULTILINE))
        facts.update(issuer=settings.get("issuer"), service=settings.get("service"))
    with contextlib.suppress(OSError), open(os.path.join(REGISTRY_FOLDER, "gitlab-registry.crt")) as file:
        facts["keys"] = trusted_keys(file.read())
    with contextlib.suppress(OSError):
        disk = os.statvfs(REGISTRY_DATA)
        facts["used_percent"] = round(100 - 100 * disk.f_bavail / disk.f_blocks)
    return facts


def trusted_keys(bundle: str) -> List[str]:
    """IDs of the public keys in a certificate bundle."""
    keys = []
    for certificate in re.findall("-----BEGIN CERT.*?-----END CERT[^\n]*", bundle, re.DOTALL):
        status, public_key = clients.run("openssl", "x509", "-pubkey", "-noout", stdin=certificate + "\n")
        keys += [key_id(public_key)] if status == 0 else []
    return keys


def key_id(public_key: str) -> str:
    """The ID of a PEM public key, as computed by GitLab and the registry (GitLab's lib/json_web_token/rsa_token.rb)."""
    der = base64.b64decode("".join(line for line in public_key.splitlines() if not line.startswith("-----")))
    text = base64.b32encode(hashlib.sha256(der).digest()[:30]).decode()
    return ":".join(text[i : i + 4] for i in range(0, len(text), 4))
