"""/etc/gitlab/gitlab-secrets.json: read, completed and written back by each reconfigure (secrets_helper.rb).

A missing file is made anew without a word, as the real package does it: what was encrypted with the lost keys stays
unreadable. gitlab.rb beats the file.
"""

import datetime
import json
import secrets
from collections.abc import Callable

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from lab_gitlab import files, paths
from lab_gitlab.configuration import Configuration

_GENERATED: dict[str, dict[str, Callable[[], object]]] = {
    "gitlab_workhorse": {"secret_token": lambda: secrets.token_urlsafe(32)},
    "gitlab_shell": {"secret_token": lambda: secrets.token_hex(64)},
    "gitlab_rails": {
        "secret_key_base": lambda: secrets.token_hex(64),
        "db_key_base": lambda: secrets.token_hex(64),
        "otp_key_base": lambda: secrets.token_hex(64),
        "encrypted_settings_key_base": lambda: secrets.token_hex(64),
        "active_record_encryption_primary_key": lambda: [secrets.token_urlsafe(24)],
        "active_record_encryption_deterministic_key": lambda: [secrets.token_urlsafe(24)],
        "active_record_encryption_key_derivation_salt": lambda: secrets.token_urlsafe(24),
    },
    "registry": {"http_secret": lambda: secrets.token_hex(64)},
}
_CARRIED = {"registry": ("internal_certificate", "internal_key")}


def complete(configuration: Configuration) -> None:
    """Fill the configuration with the kept secrets, generate what is missing, and write the file."""
    kept = json.loads(paths.SECRETS.read_text()) if paths.SECRETS.exists() else {}
    for section, values in kept.items():
        settings = configuration.section(section)
        for key, value in values.items():
            if value is not None and not settings.get(key):
                settings[key] = value
    for section, generators in _GENERATED.items():
        settings = configuration.section(section)
        for key, generate in generators.items():
            if not settings.get(key):
                settings[key] = generate()
    _complete_token_key(configuration)
    paths.SECRETS.parent.mkdir(parents=True, exist_ok=True)
    files.write(paths.SECRETS, json.dumps(_gather(configuration), indent=2) + "\n", mode=0o600)


def _gather(configuration: Configuration) -> dict[str, dict[str, object]]:
    sections: dict[str, dict[str, object]] = {}
    for section in (*_GENERATED, *_CARRIED):
        names = (*_GENERATED.get(section, ()), *_CARRIED.get(section, ()))
        sections[section] = {name: configuration.section(section).get(name) for name in names}
    return sections


def _complete_token_key(configuration: Configuration) -> None:
    """The key that signs the registry's tokens always has a value, so a file laid at its path is overwritten.

    Key and certificate are replaced one by one (registry.rb): given only one of them, they do not match.
    """
    registry = configuration.section("registry")
    if registry.get("internal_key") and registry.get("internal_certificate"):
        return
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Registry")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=3650))
        .sign(key, hashes.SHA256())
    )
    encoding, private = serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL
    made_key = key.private_bytes(encoding, private, serialization.NoEncryption())
    registry["internal_key"] = registry.get("internal_key") or made_key.decode()
    registry["internal_certificate"] = (
        registry.get("internal_certificate") or certificate.public_bytes(encoding).decode()
    )
