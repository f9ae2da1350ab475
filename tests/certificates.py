"""Certificates for tests: authorities, and certificates for names that they sign."""

import datetime
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

DOMAIN = "git.example.com"
SERVER, CLIENT = ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH


@dataclass(frozen=True)
class Signed:
    """A certificate with its private key."""

    certificate: x509.Certificate
    key: Any

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(Encoding.PEM).decode()

    @property
    def key_pem(self) -> str:
        return self.key_as(PrivateFormat.PKCS8)

    def key_as(self, form: PrivateFormat, passphrase: bytes | None = None) -> str:
        cipher = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
        return self.key.private_bytes(Encoding.PEM, form, cipher).decode()

    def write(self, file: Path) -> Path:
        """Write the certificate and its key to one file, as ssl.SSLContext.load_cert_chain reads them."""
        file.write_text(self.pem + self.key_pem)
        return file

    def settings(self, *issuers: "Signed", authority: "Signed | None" = None, **more: Any) -> dict[str, Any]:
        """The settings of a stack with this certificate."""
        return {
            "domain": DOMAIN,
            "certificatePem": self.pem + "".join(issuer.pem for issuer in issuers),
            "certificateKeyPem": self.key_pem,
            **({"certificateAuthority": authority.pem} if authority else {}),
            **more,
        }


def authority(name: str) -> Signed:
    """A self-signed authority."""
    return issue(name, days=(-400, 3650), is_authority=True)


def certificate(issuer: Signed, *names: str, days: float = 90, since: float = -400) -> Signed:
    """A server certificate for these names and addresses, valid until `days` from now, also a negative number."""
    return issue("server", issuer, names=names, days=(since, days))


def issue(
    name: str = DOMAIN,
    issuer: Signed | None = None,
    *,
    key: Any = None,
    names: Sequence[str] = (DOMAIN,),
    days: tuple[float, float] = (-1, 90),
    is_authority: bool = False,
    usage: ObjectIdentifier = SERVER,
    more: Sequence[x509.ExtensionType] = (),
) -> Signed:
    """A certificate with the common name `name`, valid between two days from now; self-signed without an issuer. `more`
    extensions are critical.
    """
    key = key or ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    signer = issuer.key if issuer else key
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + datetime.timedelta(days=days[0]))
        .not_valid_after(now + datetime.timedelta(days=days[1]))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )
    if is_authority:
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    else:
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        if names:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([_name(each) for each in names]), critical=False
            )
    for extension in more:
        builder = builder.add_extension(extension, critical=True)
    return Signed(builder.sign(signer, hashes.SHA256()), key)


def _name(name: str) -> x509.GeneralName:
    return x509.IPAddress(ipaddress.ip_address(name)) if name[0].isdigit() else x509.DNSName(name)
