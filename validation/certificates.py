"""Validates the domain's own certificate, its key and the authority that issued it.

A client's handshake with the load balancer runs in memory, before anything is created: OpenSSL judges name, dates and
chain by the rules of the machines and of users' clients.
"""

import base64
import contextlib
import itertools
import os
import re
import ssl
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from validation.private_keys import INTEGER, OBJECT, OCTET_STRING, RSA_OBJECT, SEQUENCE, der

LARGEST_CERTIFICATE, LARGEST_KEY = 32_768, 5_120
"""Bytes that ACM imports (ACM API Reference, ImportCertificate). The first is its limit for the domain's certificate,
and here that of a whole setting: enough for twenty certificates.
"""

SOON = timedelta(days=30)
"""Before the end of a certificate: ACM does not renew imported ones (ACM User Guide, "Managed certificate renewal")."""

KEY_TYPES = ("RSA 2048", "RSA 3072", "ECDSA P-256", "ECDSA P-384", "ECDSA P-521")
"""Of Network Load Balancers: their guide, "Server certificates" (the last four: "Document history", January 2024). It
also lists RSA 1024, which clients reject. ACM also imports RSA 4096, but then the listener answers no connection: a
notice of AWS, github.com/mattclay/aws-terminator, issue 309.
"""

BLOCK = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----(.*?)-----END \1-----", re.DOTALL)
"""A block of PEM (RFC 7468)."""

ELLIPTIC_OBJECT = bytes.fromhex("2a8648ce3d0201")
"""DER value of id-ecPublicKey, 1.2.840.10045.2.1 (RFC 5480)."""
CURVES = {
    bytes.fromhex("2a8648ce3d030107"): "P-256",
    bytes.fromhex("2b81040022"): "P-384",
    bytes.fromhex("2b81040023"): "P-521",
}
"""Names by DER values (RFC 5480, section 2.1.1.1)."""

BOOLEAN, BIT_STRING, UTC_TIME, EXPLICIT_VERSION, EXPLICIT_EXTENSIONS = 0x01, 0x03, 0x17, 0xA0, 0xA3

KEY_USAGE, EXTENDED_KEY_USAGE = bytes.fromhex("551d0f"), bytes.fromhex("551d25")
"""DER values of 2.5.29.15 and 2.5.29.37."""
KEY_ENCIPHERMENT, CLIENT_AUTHENTICATION = "usage 2", "purpose 2b06010505070302"

NOT_YET_VALID, EXPIRED, WRONG_NAME, UNKNOWN_ISSUER = 9, 10, 62, (2, 18, 19, 20, 21)
"""Results of a verification, X509_V_ERR_* (openssl/x509_vfy.h)."""

OTHER_KEY = ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED")
"""Reasons of OpenSSL for a key that is not the certificate's; the last one if it is of another type."""

CORRUPT = "is corrupt: OpenSSL cannot read it as a certificate"
KEY_FROM_FILE = "Set it from the file: pulumi config set --secret certificateKeyPem < KEY"
SET_BOTH = "set certificatePem and certificateKeyPem"


@dataclass(frozen=True)
class Certificate:
    """Parts of a certificate (RFC 5280, section 4.1). Names are in DER; `key` is one of KEY_TYPES, or a description;
    `usages` are those of its key that ACM compares when it imports another certificate to the same ARN.
    """

    pem: str
    issuer: bytes
    subject: bytes
    key: str
    usages: tuple[str, ...]
    valid_from: datetime
    valid_until: datetime


def certificate(value: str) -> str:
    """The domain's certificate, and those of its issuers, in canonical PEM. Raises ValueError for anything else."""
    return _certificates(value, "certificatePem")


def authority(value: str) -> str:
    """The certificates of an authority in canonical PEM. Raises ValueError for anything else."""
    return _certificates(value, "certificateAuthority")


def private_key(value: str) -> str:
    """An unencrypted private key in canonical PEM. Raises ValueError for anything else; `check` finds out whether
    OpenSSL can read it.
    """
    blocks = [block for block in _blocks(value, KEY_FROM_FILE) if block[0] != "EC PARAMETERS"]
    if any("ENCRYPTED" in text for block in blocks for text in block):  # the label, or a header (RFC 1421)
        raise ValueError("is protected by a passphrase; ACM accepts none. Remove it: openssl pkey -in KEY -out NEW_KEY")
    if "CERTIFICATE" in dict(blocks):
        raise ValueError(f"contains a certificate, which belongs into certificatePem. {KEY_FROM_FILE}")
    if len(blocks) != 1:
        raise ValueError(f"does not contain exactly one private key. {KEY_FROM_FILE}")
    [(label, body)] = blocks
    if label not in ("PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY"):
        raise ValueError(f"is not the private key of a certificate. {KEY_FROM_FILE}")
    return _at_most(LARGEST_KEY, _pem(label, _decoded(body, KEY_FROM_FILE)))


def parse(pem: str) -> list[Certificate]:
    """The certificates in a PEM text. Raises ValueError if there is none, or one is corrupt."""
    return [_parsed(base64.b64decode(body)) for _, body in BLOCK.findall(pem)]


def chain(certificate_pem: str, trusted: str | None) -> str | None:
    """The issuers of the domain's certificate in order, for ACM: those in `certificate_pem`, or else in the authority
    `trusted`. None if the certificate is self-signed.
    """
    own, *issuers = parse(certificate_pem)
    known = {} if issuers else {each.subject: each for each in parse(trusted or "") if each.subject != own.subject}
    wanted = own.issuer
    while wanted in known:
        issuers.append(known.pop(wanted))
        wanted = issuers[-1].issuer
    return "".join(each.pem for each in issuers) or None


def check(certificate_pem: str, key_pem: str, trusted: str | None, domain: str) -> None:
    """Raise ValueError with the key, problem and remedy if a client of the domain would object to the certificate.

    The client trusts the authority `trusted`; without one, the public authorities that this machine trusts, because the
    stack's machines do not exist yet.
    """
    own, *issuers = parse(certificate_pem)
    if any(one.issuer != issuer.subject for one, issuer in itertools.pairwise((own, *issuers))):
        raise ValueError(
            "certificatePem: one of its certificates did not issue the one before it. Put the domain's certificate "
            "first, then the one that issued it, and so on."
        )
    if own.key not in KEY_TYPES:
        raise ValueError(
            f"certificatePem: its key is {own.key}, and a Network Load Balancer supports only {', '.join(KEY_TYPES)}. "
            "Create another key, and have a certificate issued for it."
        )
    server, client = _server(certificate_pem, key_pem), _client(trusted)
    try:
        _handshake(server, client, domain)
    except ssl.SSLCertVerificationError as error:
        if error.verify_code != WRONG_NAME:
            raise ValueError(_objection(error, own, trusted)) from None
        client.check_hostname = False
        names = [name for _, name in _handshake(server, client, domain).get("subjectAltName", ())]
        raise ValueError(
            f"certificatePem: is not for domain {domain!r}, but for {', '.join(names[:5]) or 'no name'}. Use a "
            "certificate with the domain among its subject alternative names, or set domain to a name of this one."
        ) from None
    except ssl.SSLError as error:
        raise ValueError(f"certificatePem: is unusable for TLS ({error.reason}). Use another certificate.") from None


def warnings(certificate_pem: str, trusted: str | None) -> list[str]:
    """Warnings if the certificate, or one of its issuers, expires soon, or if ACM may not import it."""
    own, *issuers = parse(certificate_pem)
    end = min(each.valid_until for each in (own, *issuers))
    left = end - datetime.now(UTC)
    found = []
    if left < SOON:
        found.append(f"certificatePem: expires on {end:%Y-%m-%d}, in {left.days} days. Renew it, and {SET_BOTH}.")
    issuer = parse(chain(certificate_pem, trusted) or certificate_pem)[0]
    if own.key.split()[0] != issuer.key.split()[0]:
        found.append(
            f"certificatePem: its key is {own.key}, but that of its authority {issuer.key}, and ACM imports only a "
            "certificate with the algorithm of its authority (ACM API Reference, ImportCertificate). If it refuses it, "
            "have a certificate issued for a key of the other algorithm."
        )
    return found


def _objection(error: ssl.SSLCertVerificationError, own: Certificate, trusted: str | None) -> str:
    """Why a client rejects the certificate, and the remedy."""
    now = datetime.now(UTC)
    if error.verify_code in UNKNOWN_ISSUER and trusted:
        return (
            "certificateAuthority: did not issue the certificate in certificatePem. Set the authority's root, and "
            "append intermediate certificates to certificatePem."
        )
    if error.verify_code in UNKNOWN_ISSUER:
        return (
            "certificatePem: is not issued by a public authority that this machine trusts. Append the intermediate "
            "certificates to it; or, if your own authority issued it or it is self-signed, set certificateAuthority to "
            "the root certificate."
        )
    if error.verify_code == EXPIRED and own.valid_until < now:
        return f"certificatePem: expired on {own.valid_until:%Y-%m-%d}. Renew it, and {SET_BOTH}."
    if error.verify_code == NOT_YET_VALID and own.valid_from > now:
        return (
            f"certificatePem: is valid only from {own.valid_from:%Y-%m-%d %H:%M} UTC. Wait until then, or correct this "
            "machine's clock."
        )
    if error.verify_code in (EXPIRED, NOT_YET_VALID):
        return (
            f"{'certificateAuthority' if trusted else 'certificatePem'}: a certificate that issued the domain's has "
            "expired or is not valid yet. Have the domain's certificate issued again."
        )
    return f"certificatePem: is rejected by clients: {error.verify_message}. Have another certificate issued."


def _server(certificate_pem: str, key_pem: str) -> ssl.SSLContext:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.set_ciphers("DEFAULT:@SECLEVEL=0")  # the client judges what is too weak
    try:
        with _in_memory(certificate_pem) as certificates, _in_memory(key_pem) as key:
            server.load_cert_chain(certificates, key)
    except OSError as error:  # an SSLError, except after reading from a pipe: then the reason is lost
        if getattr(error, "reason", None) in OTHER_KEY:
            problem = "is not the key of the first certificate in certificatePem. Set both from the same pair."
        else:
            problem = f"is corrupt: OpenSSL cannot use it with certificatePem. {KEY_FROM_FILE}."
        raise ValueError(f"certificateKeyPem: {problem}") from None
    return server


def _client(trusted: str | None) -> ssl.SSLContext:
    """A client as strict as the machines' curl, git and runner. Not of `create_default_context`, which has rules of its
    own from Python 3.13 on.
    """
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.set_ciphers("DEFAULT:@SECLEVEL=2")  # RHEL 8's policy DEFAULT (crypto-policies(7))
    client.hostname_checks_common_name = False  # neither do browsers (RFC 9525, section 2) and Go programs
    if trusted:
        client.load_verify_locations(cadata=trusted)
    else:
        client.load_default_certs()
    return client


def _handshake(server: ssl.SSLContext, client: ssl.SSLContext, domain: str) -> dict[str, Any]:
    """The server's certificate as the client sees it. Raises SSLError if there is no connection."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    seen = client.wrap_bio(to_client, to_server, server_hostname=domain)
    shown = server.wrap_bio(to_server, to_client, server_side=True)
    for end in (seen, shown) * 2:
        with contextlib.suppress(ssl.SSLWantReadError):
            end.do_handshake()
    return seen.getpeercert() or {}


@contextlib.contextmanager
def _in_memory(text: str) -> Iterator[str]:
    """A path to read the text from: the ssl module reads keys from paths only, and none may be written to a disk."""
    if sys.platform == "linux":
        reader = os.memfd_create("certificate")
        os.write(reader, text.encode())
    else:  # macOS; a pipe has room for more than LARGEST_CERTIFICATE
        reader, writer = os.pipe()
        os.write(writer, text.encode())
        os.close(writer)
    try:
        yield f"/dev/fd/{reader}"
    finally:
        os.close(reader)


def _certificates(value: str, key: str) -> str:
    from_file = f"Set it from the file: pulumi config set {key} < FILE"
    labels, bodies = zip(*_blocks(value, from_file), strict=True)
    if any(label.endswith("CERTIFICATE REQUEST") for label in labels):
        raise ValueError("contains a request for a certificate. Set the certificate that was issued for it")
    if set(labels) != {"CERTIFICATE"}:
        raise ValueError(f"contains something else than certificates. {from_file}")
    text = "".join(_pem("CERTIFICATE", _decoded(body, from_file)) for body in bodies)
    try:
        parse(text)
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=text)
    except (ValueError, ssl.SSLError):
        raise ValueError(f"{CORRUPT}. {from_file}") from None
    return _at_most(LARGEST_CERTIFICATE, text)


def _blocks(value: str, from_file: str) -> list[tuple[str, str]]:
    """Label and body of each block; text between blocks is ignored."""
    blocks = BLOCK.findall(value)
    if value.count("-----BEGIN ") != len(blocks):
        raise ValueError(f"is incomplete: a BEGIN line has no END line that matches it. {from_file}")
    if not blocks:
        raise ValueError(f"is not in PEM format (-----BEGIN ...). {from_file}")
    return blocks


def _decoded(body: str, from_file: str) -> bytes:
    try:
        return base64.b64decode("".join(body.split()), validate=True)
    except ValueError:  # binascii.Error, or not ASCII
        raise ValueError(f"is corrupt: its body is not base64. {from_file}") from None


def _pem(label: str, blob: bytes) -> str:
    body = "\n".join(textwrap.wrap(base64.b64encode(blob).decode(), 64))
    return f"-----BEGIN {label}-----\n{body}\n-----END {label}-----\n"


def _at_most(limit: int, text: str) -> str:
    if len(text) > limit:
        raise ValueError(f"has {len(text)} bytes, and ACM imports {limit} at most. Remove what is not needed")
    return text


def _parsed(blob: bytes) -> Certificate:
    try:
        whole, rest = der(blob, SEQUENCE)
        body, _ = der(whole, SEQUENCE)
        if body[0] == EXPLICIT_VERSION:
            _, body = der(body, EXPLICIT_VERSION)
        _, body = der(body, INTEGER)  # serial number
        _, body = der(body, SEQUENCE)  # algorithm of the signature
        issuer, body = der(body, SEQUENCE)
        validity, body = der(body, SEQUENCE)
        subject, body = der(body, SEQUENCE)
        key, body = der(body, SEQUENCE)
        valid_from, validity = _time(validity)
        valid_until, _ = _time(validity)
        type_ = _key_type(key)
        parsed = Certificate(
            _pem("CERTIFICATE", blob), issuer, subject, type_, _usages(body, type_), valid_from, valid_until
        )
    except (ValueError, IndexError):
        raise ValueError(CORRUPT) from None
    if rest:
        raise ValueError(CORRUPT)
    return parsed


def _usages(fields: bytes, key: str) -> tuple[str, ...]:
    """The usages in the extensions (RFC 5280, sections 4.2.1.3 and 4.2.1.12) among the fields after the key, sorted:
    bits of KeyUsage, and objects of ExtKeyUsage. Without those that ACM does not insist on (AWS Certificate Manager,
    "Reimport a certificate").
    """
    extensions = b""
    while fields:
        tag = fields[0]
        content, fields = der(fields, tag)
        if tag == EXPLICIT_EXTENSIONS:
            extensions, _ = der(content, SEQUENCE)
    usages = set()
    while extensions:
        extension, extensions = der(extensions, SEQUENCE)
        object_id, value = der(extension, OBJECT)
        if value[0] == BOOLEAN:
            _, value = der(value, BOOLEAN)
        value, _ = der(value, OCTET_STRING)
        if object_id == KEY_USAGE:
            bits = "".join(f"{octet:08b}" for octet in der(value, BIT_STRING)[0][1:])
            usages |= {f"usage {number}" for number, bit in enumerate(bits) if bit == "1"}
        elif object_id == EXTENDED_KEY_USAGE:
            purposes, _ = der(value, SEQUENCE)
            while purposes:
                purpose, purposes = der(purposes, OBJECT)
                usages.add(f"purpose {purpose.hex()}")
    optional = {CLIENT_AUTHENTICATION, *([KEY_ENCIPHERMENT] if key.startswith("ECDSA") else [])}
    return tuple(sorted(usages - optional))


def _time(data: bytes) -> tuple[datetime, bytes]:
    text, rest = der(data, data[0])
    form = "%y%m%d%H%M%SZ" if data[0] == UTC_TIME else "%Y%m%d%H%M%SZ"
    return datetime.strptime(text.decode("ascii"), form).replace(tzinfo=UTC), rest


def _key_type(info: bytes) -> str:
    """The type of a public key (RFC 5280, SubjectPublicKeyInfo)."""
    algorithm, rest = der(info, SEQUENCE)
    object_id, parameters = der(algorithm, OBJECT)
    if object_id == RSA_OBJECT:
        bits, _ = der(rest, BIT_STRING)
        numbers, _ = der(bits[1:], SEQUENCE)
        modulus, _ = der(numbers, INTEGER)
        return f"RSA {int.from_bytes(modulus).bit_length()}"
    if object_id == ELLIPTIC_OBJECT and parameters[:1] == bytes([OBJECT]):
        curve, _ = der(parameters, OBJECT)
        return f"ECDSA {CURVES.get(curve, 'with another curve')}"
    return "neither RSA nor ECDSA"
