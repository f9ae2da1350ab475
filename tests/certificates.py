"""Certificates for tests: authorities, and certificates for names that they sign."""

import datetime
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID


@dataclass(frozen=True)
class Signed:
    """A certificate with its private key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(Encoding.PEM).decode()

    @property
    def key_pem(self) -> str:
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()

    def write(self, file: Path) -> Path:
        """Write the certificate and its key to one file, as ssl.SSLContext.load_cert_chain reads them."""
        file.write_text(self.pem + self.key_pem)
        return file


def authority(name: str) -> Signed:
    """A self-signed authority."""
    return _sign(name, None, days=3650, extensions=[(x509.BasicConstraints(ca=True, path_length=None), True)])


def certificate(issuer: Signed, *names: str, days: float = 90, since: float = -400) -> Signed:
    """A server certificate for these names and addresses, valid until `days` from now, also a negative number."""
    kinds = [x509.IPAddress(ipaddress.ip_address(name)) if name[0].isdigit() else x509.DNSName(name) for name in names]
    usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
    extensions: list[tuple[x509.ExtensionType, bool]] = [(usage, False)]
    if kinds:
        extensions.append((x509.SubjectAlternativeName(kinds), False))
    return _sign("server", issuer, days=days, since=since, extensions=extensions)


def _sign(
    name: str,
    issuer: Signed | None,
    *,
    days: float,
    since: float = -400,
    extensions: list[tuple[x509.ExtensionType, bool]],
) -> Signed:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    signer = issuer.key if issuer else key
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + datetime.timedelta(days=since))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical=critical)
    return Signed(builder.sign(signer, hashes.SHA256()), key)
