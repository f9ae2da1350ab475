"""Certificates of ACM: when they are issued, what can be imported, which can be deleted."""

import hashlib
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, timedelta
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID
from moto.acm.exceptions import AWSValidationException, CertificateNotFound
from moto.acm.models import AWSCertificateManagerBackend, CertBundle
from moto.acm.responses import AWSCertificateManagerResponse
from moto.core.exceptions import AWSError
from moto.core.responses import ActionResult
from moto.core.utils import utcnow
from moto.elbv2.models import elbv2_backends

from lab.cloud import certificates, dns
from lab.cloud.patches import state
from lab.cloud.patches.correction import correction

VALIDATION_TIMEOUT = timedelta(hours=72)
NOT_ISSUED = {"PENDING_VALIDATION": "PENDING_VALIDATION", "VALIDATION_TIMED_OUT": "FAILED"}
"""The status of a certificate that has not been issued, and of each of its names then."""

LARGEST_KEY = 5120  # bytes
LISTED_BY_DEFAULT = ("RSA_1024", "RSA_2048")
IMPORTABLE = ("RSA_1024", "RSA_2048", "RSA_3072", "RSA_4096", "EC_prime256v1", "EC_secp384r1", "EC_secp521r1")


def validation_record(account_id: str, name: str) -> dict[str, str]:
    """Return the CNAME by which ACM recognizes the owner of a domain. The same account and domain
    always get the same one (AWS Certificate Manager User Guide, DNS validation).
    """
    domain = name.removeprefix("*.")
    first, second = (hashlib.md5(f"{account_id} {domain} {of}".encode()).hexdigest() for of in ("name", "value"))
    return {"Name": f"_{first}.{domain}.", "Type": "CNAME", "Value": f"_{second}.{first[:10]}.acm-validations.aws."}


@correction
def certificates_are_issued_once_their_record_is_in_dns() -> None:
    """ACM issues a requested certificate when the CNAME of each of its names is in public DNS, and gives up after 72
    hours. Until then it has no serial number and no dates, and GetCertificate fails. Each domain has a CNAME of its
    own. (moto issues after a minute, and has one record for all domains.)"""
    original_describe, original_get = CertBundle.describe, AWSCertificateManagerResponse.get_certificate

    def generate_cert(cls: Any, /, domain_name: str, account_id: str, region: str, sans: Any, **_: Any) -> Any:
        names = [domain_name, *(name for name in sans or [] if name != domain_name)]
        certificate, key, chain = (text.encode() for text in certificates.issue(names))
        made = cls(account_id, certificate, key, chain, region, None, "AMAZON_ISSUED", "PENDING_VALIDATION")
        made.account_id, made.found_at, made.issued_at = account_id, None, None
        return made

    def describe(self: Any) -> dict[str, Any]:
        described: dict[str, Any] = original_describe(self)
        if self.type == "AMAZON_ISSUED":
            _correct(described["Certificate"], self)
        return described

    def get_certificate(self: Any) -> Any:
        arn = self._get_param("CertificateArn")
        if self.acm_backend.get_certificate(arn).status in NOT_ISSUED:
            raise AWSError(f"Certificate {arn} is not issued yet.", exception_type="RequestInProgressException")
        return original_get(self)

    CertBundle.generate_cert = classmethod(generate_cert)
    CertBundle.check = _judge
    CertBundle.describe = describe
    AWSCertificateManagerResponse.get_certificate = get_certificate


def _judge(certificate: Any) -> None:
    """Bring a certificate's status in line with DNS and with the time."""
    now = utcnow()
    if certificate.status == "ISSUED" and certificate._not_valid_after(certificate._cert) <= now:
        certificate.status = "EXPIRED"
    if certificate.status != "PENDING_VALIDATION":
        return
    if not all(map(_in_dns, (validation_record(certificate.account_id, name) for name in certificate.sans))):
        certificate.found_at = None
        if now - certificate.created_at > VALIDATION_TIMEOUT:
            certificate.status = "VALIDATION_TIMED_OUT"
        return
    certificate.found_at = certificate.found_at or now
    if now - certificate.found_at >= state.validation_delay:
        certificate.status, certificate.issued_at = "ISSUED", now


def _in_dns(record: dict[str, str]) -> bool:
    return record["Value"].rstrip(".") in dns.lookup(record["Name"], record["Type"])


def _correct(described: dict[str, Any], certificate: Any) -> None:
    """Correct moto's description of a requested certificate."""
    options = described["DomainValidationOptions"]
    for option in options:
        option["ResourceRecord"] = validation_record(certificate.account_id, option["DomainName"])
        option["ValidationStatus"] = NOT_ISSUED.get(certificate.status, "SUCCESS")
    options.sort(key=lambda option: certificate.sans.index(option["DomainName"]))
    if certificate.status in NOT_ISSUED:
        for key in ("Issuer", "IssuedAt", "NotAfter", "NotBefore", "Serial"):
            described.pop(key, None)
    else:
        described["IssuedAt"] = certificate.issued_at.replace(tzinfo=UTC).timestamp()
        if users(certificate.arn):
            described["RenewalEligibility"] = "ELIGIBLE"


@correction
def what_is_imported_fits_together() -> None:
    """An imported certificate is one certificate with its own key, and unless it has signed itself, with the chain of
    its authority, in order. (moto verifies none of that.)"""
    original = AWSCertificateManagerBackend.import_certificate

    def import_certificate(self: Any, certificate: bytes, private_key: bytes, *, chain: Any, **more: Any) -> Any:
        if certificate.count(b"-----BEGIN CERTIFICATE-----") > 1:
            raise AWSValidationException(
                "The certificate field contains more than one certificate. "
                "You can specify only one certificate in this field."
            )
        if len(private_key) > LARGEST_KEY:
            raise AWSValidationException(f"The private key must be no larger than 5 KB ({LARGEST_KEY} bytes).")
        made = CertBundle(self.account_id, certificate, private_key, chain=chain, region=self.region_name)
        _check_key(made)
        _check_chain(made._cert, chain)
        return original(self, certificate, private_key, chain=chain, **more)

    AWSCertificateManagerBackend.import_certificate = import_certificate


def _check_key(made: Any) -> None:
    """Raise the errors for a private key. AWS's own texts are not known; these are of its API Reference."""
    if (algorithm := certificates.algorithm(made._key)) not in IMPORTABLE:
        raise AWSValidationException(f"The private key is not supported: {algorithm}.")
    public = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    if made._key.public_key().public_bytes(*public) != made._cert.public_key().public_bytes(*public):
        raise AWSValidationException("The private key does not match the certificate.")


def _check_chain(certificate: x509.Certificate, chain: bytes | None) -> None:
    if not chain:
        if not _signed(certificate, by=certificate):
            raise AWSValidationException(
                "Provided certificate is not a valid self signed. "
                "Please provide either a valid self-signed certificate or certificate chain."
            )
        return
    try:
        issuers = x509.load_pem_x509_certificates(chain)
    except ValueError:
        raise AWSValidationException("The certificate chain is not PEM-encoded or is not valid.") from None
    if not _signed(certificate, by=issuers[0]):
        raise AWSValidationException("Could not validate the certificate with the certificate chain.")
    kind, kind_of_issuer = (certificates.algorithm(each.public_key())[:2] for each in (certificate, issuers[0]))
    if kind != kind_of_issuer:
        raise AWSValidationException(
            "The cryptographic algorithm of an imported certificate must match the algorithm of the signing CA."
        )
    for index in range(1, len(issuers)):
        if not _signed(issuers[index - 1], by=issuers[index]):
            raise AWSValidationException(
                "Unable to validate certificate chain. The certificate chain must start with the immediate signing "
                "certificate, followed by any intermediaries in order. "
                f"The index within the chain of the invalid certificate is: {index}"
            )


def _signed(certificate: x509.Certificate, *, by: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(by)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _check_usages(before: x509.Certificate, after: x509.Certificate) -> None:
    """Raise the error if the new certificate lacks usages of its key, or has some and the former has no such extension
    (AWS Certificate Manager User Guide, "Reimport a certificate" and "Prerequisites for importing ACM certificates").
    """
    for kind, find, optional in (
        (
            "Key",
            _key_usages,
            {"key_encipherment"} if isinstance(before.public_key(), ec.EllipticCurvePublicKey) else (),
        ),
        ("Extended Key", _extended_key_usages, {ExtendedKeyUsageOID.CLIENT_AUTH}),
    ):
        former, latter = find(before), find(after)
        if former - latter - set(optional) or (latter and not former):
            raise AWSValidationException(
                f"New certificate is missing one or more {kind} Usages supported by the currently imported certificate."
            )


def _key_usages(certificate: x509.Certificate) -> set[str]:
    try:
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return set()
    bits = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
    return {bit for bit in bits if getattr(usage, bit)}


def _extended_key_usages(certificate: x509.Certificate) -> set[x509.ObjectIdentifier]:
    try:
        return set(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    except x509.ExtensionNotFound:
        return set()


@correction
def imports_replace_imports_alone() -> None:
    """An import to an ARN replaces an imported certificate by one with the same type and size of key and the usages of
    the former, and keeps its tags, which it cannot change. (moto replaces any certificate, and forgets the tags.)"""
    original = AWSCertificateManagerBackend.import_certificate

    def import_certificate(self: Any, certificate: bytes, private_key: bytes, *, arn: str | None, **more: Any) -> Any:
        if arn is None:
            return original(self, certificate, private_key, arn=arn, **more)
        before = self._certificates.get(arn)
        if before is None:
            raise CertificateNotFound(arn=arn, account_id=self.account_id)
        if before.type != "IMPORTED":
            raise AWSValidationException(f"Certificate {arn} was not imported and cannot be replaced by an import.")
        if more["tags"]:
            raise AWSValidationException("Tagging is not permitted on re-import.")
        try:
            original(self, certificate, private_key, arn=arn, **more)
            made = self._certificates[arn]
            if certificates.algorithm(made._key) != certificates.algorithm(before._key):
                raise AWSValidationException("The key type and size cannot be changed.")
            _check_usages(before._cert, made._cert)
        except AWSError:
            self._certificates[arn] = before
            raise
        made.tags = before.tags
        return arn

    AWSCertificateManagerBackend.import_certificate = import_certificate


def users(arn: str) -> list[str]:
    """Return the ARNs of the load balancers with a listener that shows this certificate."""
    return [
        balancer.arn
        for _, _, backend in list(elbv2_backends.iter_backends())
        for balancer in list(backend.load_balancers.values())
        if any(arn in listener.certificates for listener in list(balancer.listeners.values()))
    ]


@correction
def certificate_in_use_stays() -> None:
    """A certificate that a load balancer shows cannot be deleted, and is described as in use by that load balancer,
    as long as it shows it. (moto deletes it, and names the listener, for ever.) Related upstream: getmoto/moto#8054
    (merged)."""
    original = AWSCertificateManagerBackend.delete_certificate

    def delete_certificate(self: Any, arn: str) -> None:
        if arn in self._certificates and users(arn):
            message = f"Certificate {arn} in account {self.account_id} is in use."
            raise AWSError(message, exception_type="ResourceInUseException")
        original(self, arn)

    AWSCertificateManagerBackend.delete_certificate = delete_certificate
    CertBundle.in_use_by = property(lambda self: users(self.arn), lambda _self, _value: None)
    AWSCertificateManagerBackend.set_certificate_in_use_by = lambda *_: None


@correction
def other_keys_are_listed_on_request() -> None:
    """ListCertificates returns certificates with RSA keys of 1024 and 2048 bits unless asked for other types. moto
    returns all."""
    original = AWSCertificateManagerResponse.list_certificates

    def list_certificates(self: Any) -> ActionResult:
        answer = original(self)
        if "keyTypes" not in (self._get_param("Includes") or {}):
            listed: Iterable[dict[str, Any]] = answer.result["CertificateSummaryList"]
            answer.result["CertificateSummaryList"] = [
                each for each in listed if re.sub("-", "_", each["KeyAlgorithm"]) in LISTED_BY_DEFAULT
            ]
        return answer

    AWSCertificateManagerResponse.list_certificates = list_certificates


def put(backend: Any, arn: str, names: Sequence[str]) -> None:
    """Put an issued certificate for these names with this ARN into a backend of moto's."""
    certificate, key, chain = (text.encode() for text in certificates.issue(names))
    made: Any = CertBundle(backend.account_id, certificate, key, chain, backend.region_name, arn, "AMAZON_ISSUED")
    made.account_id, made.issued_at = backend.account_id, utcnow()
    backend._certificates[arn] = made
