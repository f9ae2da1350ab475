"""The lab's certificate authorities, created once per clone in `.lab/ca`.

`LAB` is the public authority of the lab's internet: it signs the vendors' certificates and those of AWS Certificate
Manager, and the machines' image trusts it; the host does not. `OUTSIDER` is a company's own authority, which no machine
trusts unless a stack's settings make it so.
"""

import datetime
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from lab.workspace import STATE, write_secret

FOLDER = STATE / "ca"
DAYS = 3650
KEY_BITS = 2048
LONGEST_COMMON_NAME = 64
"""Characters (RFC 5280, ub-common-name). Clients compare host names with the subject alternative names alone."""


@dataclass(frozen=True)
class Issued:
    """A certificate with its private key and the certificate of its issuer, in PEM format."""

    certificate: str
    key: str
    chain: str

    @property
    def pem(self) -> str:
        """All three in one text, as `ssl crt` of haproxy reads them."""
        return self.certificate + self.chain + self.key


@dataclass(frozen=True)
class Authority:
    """A certificate authority in the folder `.lab/ca`. Its files are created at the first use."""

    file_name: str
    common_name: str

    def certificate(self) -> Path:
        """Return the file with the authority's certificate, which is public."""
        file = FOLDER / f"{self.file_name}.crt"
        if not file.exists():
            self._create(file)
        return file

    def issue(self, names: Sequence[str], *, days: float = DAYS) -> Issued:
        """Return a new certificate for the DNS names that expires in `days` days; with negative days it has expired."""
        issuer = x509.load_pem_x509_certificate(self.certificate().read_bytes())
        issuer_key = _loaded_key(self._key_file.read_bytes())
        key = _new_key()
        common_name = next((name for name in names if len(name) <= LONGEST_COMMON_NAME), None)
        builder = (
            _builder(_name(common_name), issuer.subject, key.public_key(), issuer_key.public_key(), days)
            # Critical where the subject is empty (RFC 5280, 4.2.1.6).
            .add_extension(x509.SubjectAlternativeName(list(map(x509.DNSName, names))), critical=common_name is None)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        )
        return Issued(_pem(builder.sign(issuer_key, hashes.SHA256())), _pem_of_key(key), _pem(issuer))

    @property
    def _key_file(self) -> Path:
        return FOLDER / f"{self.file_name}.key"

    def _create(self, file: Path) -> None:
        key, name = _new_key(), _name(self.common_name)
        certificate = (
            _builder(name, name, key.public_key(), key.public_key(), DAYS)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(_may_sign_certificates(), critical=True)
            .sign(key, hashes.SHA256())
        )
        FOLDER.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_secret(self._key_file, _pem_of_key(key))
        unfinished = file.with_suffix(".unfinished")
        unfinished.write_text(_pem(certificate))
        unfinished.rename(file)


LAB = Authority("authority", "GitLab lab certificate authority")
OUTSIDER = Authority("outsider", "Certificate authority that the lab's machines do not trust")


def server_certificate(names: Sequence[str]) -> Path:
    """Return a file with a certificate of `LAB` for these names and its key, for `ssl crt` of haproxy."""
    file = FOLDER / "server.pem"
    if not (file.exists() and dns_names(file.read_text()) == list(names)):
        write_secret(file, LAB.issue(names).pem)
    return file


def dns_names(pem: str) -> list[str]:
    """Return the DNS names of the first certificate in `pem`."""
    extensions = x509.load_pem_x509_certificate(pem.encode()).extensions
    names: list[str] = extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(
        x509.DNSName
    )
    return names


@functools.cache
def _loaded_key(pem: bytes) -> rsa.RSAPrivateKey:
    # OpenSSL checks that the numbers are primes, which takes half as long as to make a key.
    key = serialization.load_pem_private_key(pem, password=None)
    assert isinstance(key, rsa.RSAPrivateKey)
    return key


def _new_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=KEY_BITS)


def _name(common_name: str | None) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)] if common_name else [])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: rsa.RSAPublicKey, issuer_key: rsa.RSAPublicKey, days: float
) -> x509.CertificateBuilder:
    # Clocks of the lab's machines are set back by tests; a new certificate is valid on them, too.
    now = datetime.datetime.now(datetime.UTC)
    end = now + datetime.timedelta(days=days)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(min(now, end) - datetime.timedelta(days=1))
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key), critical=False)
    )


def _may_sign_certificates() -> x509.KeyUsage:
    others = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
    return x509.KeyUsage(
        **dict.fromkeys(others, False), key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False
    )


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _pem_of_key(key: rsa.RSAPrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
