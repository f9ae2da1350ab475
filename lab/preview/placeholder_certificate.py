"""A certificate in the place of one whose private key cannot be read: the program verifies that both belong together.

It is the same in every run within a year, so that a comparison of two versions shows no change.
"""

import datetime
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from validation import values

ISSUER = "placeholder authority"


@dataclass(frozen=True)
class Placeholder:
    """In PEM format: the domain's certificate, followed by its issuer's if `given` has several; its key; the issuer."""

    certificate: str
    key: str
    authority: str


def placeholder(domain: str, given: str) -> Placeholder:
    """Return the certificate that replaces `given`, for the same domain. Another one replaces another `given`."""
    try:
        values.domain(domain)
    except ValueError:
        return placeholder("placeholder.example.com", given)  # the program reports the error in the domain
    issuer_key, key = _key(ISSUER), _key(f"{domain} {given}")
    authority = (
        _builder(ISSUER, ISSUER, issuer_key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(issuer_key, hashes.SHA256(), ecdsa_deterministic=True)
    )
    certificate = (
        _builder(domain[:64], ISSUER, key)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(domain)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(issuer_key, hashes.SHA256(), ecdsa_deterministic=True)
    )
    own, issuer = (each.public_bytes(serialization.Encoding.PEM).decode() for each in (certificate, authority))
    form = serialization.PrivateFormat.PKCS8
    text = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()).decode()
    return Placeholder(own + issuer if given.count("BEGIN CERTIFICATE") > 1 else own, text, issuer)


def trusting(folder: Path) -> Mapping[str, str]:
    """Return the environment in which a program trusts the placeholder's issuer instead of the public authorities."""
    file = folder / "placeholder-authority.crt"
    folder.mkdir(parents=True, exist_ok=True)
    file.write_text(placeholder("placeholder.example.com", "").authority)
    return {"SSL_CERT_FILE": str(file)}


def _key(seed: str) -> ec.EllipticCurvePrivateKey:
    # 248 bits: less than the order of the curve.
    return ec.derive_private_key(int.from_bytes(hashlib.sha256(seed.encode()).digest()[1:]) or 1, ec.SECP256R1())


def _builder(subject: str, issuer: str, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    year = datetime.datetime.now(datetime.UTC).year
    subject_name, issuer_name = (
        x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]) for name in (subject, issuer)
    )
    return x509.CertificateBuilder(
        issuer_name,
        subject_name,
        key.public_key(),
        1,
        datetime.datetime(year, 1, 1, tzinfo=datetime.UTC),
        datetime.datetime(year + 2, 1, 1, tzinfo=datetime.UTC),
    )
