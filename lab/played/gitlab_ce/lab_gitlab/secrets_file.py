"""/etc/gitlab/gitlab-secrets.json: read, completed and written back by each reconfigure (secrets_helper.rb).

As with the real package, a missing file is recreated without a warning: data that was encrypted with the lost keys is
then unreadable. gitlab.rb overrides the file.
"""

import datetime
import json
import secrets

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from lab_gitlab import files, paths
from lab_gitlab.configuration import Configuration

KEPT = {"gitlab_rails": ("db_key_base",), "registry": ("internal_certificate", "internal_key")}
"""The part of the real file that the stand-in uses."""


def complete(configuration: Configuration) -> None:
    """Add the stored secrets to the configuration, generate missing ones, and write the file."""
    kept = json.loads(paths.SECRETS.read_text()) if paths.SECRETS.exists() else {}
    for section, names in KEPT.items():
        settings = configuration.section(section)
        for name in names:
            settings[name] = settings.get(name) or kept.get(section, {}).get(name)
    rails = configuration.section("gitlab_rails")
    rails["db_key_base"] = rails["db_key_base"] or secrets.token_hex(64)
    _complete_token_key(configuration)
    content = {section: {name: configuration.section(section)[name] for name in KEPT[section]} for section in KEPT}
    paths.SECRETS.parent.mkdir(parents=True, exist_ok=True)
    files.write(paths.SECRETS, json.dumps(content, indent=2) + "\n", mode=0o600)


def _complete_token_key(configuration: Configuration) -> None:
    """Generate the key that signs the registry's tokens if it is missing, so that the file at its path is overwritten.

    Key and certificate are generated independently (registry.rb): if only one of them is configured, they do not match.
    """
    registry = configuration.section("registry")
    if registry["internal_key"] and registry["internal_certificate"]:
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
    registry["internal_key"] = registry["internal_key"] or made_key.decode()
    registry["internal_certificate"] = registry["internal_certificate"] or certificate.public_bytes(encoding).decode()
