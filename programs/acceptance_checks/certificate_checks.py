"""The certificates that the load balancer shows to clients, as the runner's machine trusts them."""

import socket
import ssl
import time
from typing import Any, Mapping, NamedTuple, Tuple

from . import clients
from .outcomes import Deferred, FailedCheckError, Measured, NotApplicable, Result

LEAST_DAYS = 14
"""AWS renews at least 45 days before a certificate expires (ACM User Guide, Managed renewal)."""
DAY = 24 * 60 * 60  # seconds
MOST_NAMES = 5  # shown; a certificate may have a hundred

PARTIAL_CHAIN, NO_CHECK_TIME = 0x80000, 0x200000
"""X509_V_FLAG_PARTIAL_CHAIN and X509_V_FLAG_NO_CHECK_TIME (openssl/x509_vfy.h), which Python 3.6 does not name."""

Endpoints = Mapping[str, Any]


class Certificate(NamedTuple):
    """A shown certificate; times are in seconds since 1970."""

    names: Tuple[str, ...]
    issuer: str
    not_before: float
    not_after: float


def certificate_valid(endpoints: Endpoints) -> Result:
    """Each port with TLS shows a certificate for GitLab's name that this machine trusts and that has not expired."""
    if not serves_tls(endpoints):
        return PLAIN
    try:
        for port in ports(endpoints):
            valid_certificate(endpoints, port)
    except NoAnswerError as error:
        # Also if only its target is missing; the checks of the login page and the registry have the remedies.
        return Deferred(str(error).rstrip("."), until="every port answers")
    return None


def certificate_renewed(endpoints: Endpoints) -> Result:
    """The certificate that expires first has enough days left."""
    if not serves_tls(endpoints):
        return PLAIN
    soonest = min((valid_certificate(endpoints, port) for port in ports(endpoints)), key=lambda seen: seen.not_after)
    days = int((soonest.not_after - time.time()) // DAY)
    left = f"{days} day{'' if days == 1 else 's'} left, until {date(soonest.not_after)}, issued by {soonest.issuer}"
    if days < LEAST_DAYS:
        raise FailedCheckError(f"It has {left}.", final=True)
    return Measured(0.0, left)


class NoAnswerError(FailedCheckError):
    """A port of the load balancer answers neither with TLS nor with plain HTTP."""


PLAIN = NotApplicable("external_url is http, so there is no certificate")


def serves_tls(endpoints: Endpoints) -> bool:
    """Whether the load balancer terminates TLS."""
    return str(endpoints["external_url"]).startswith("https://")


def ports(endpoints: Endpoints) -> Tuple[int, int]:
    """The ports with TLS. Each has its own listener, so each can show a different certificate."""
    return endpoints["web_port"], endpoints["registry_port"]


def valid_certificate(endpoints: Endpoints, port: int) -> Certificate:
    """The certificate of a port. Raises FailedCheckError with the cause if a client of this machine would reject it."""
    host = endpoints["host"]
    seen, distrust = shown_certificate(endpoints, port)
    names = ", ".join(seen.names[:MOST_NAMES]) or "no name"
    more = f" and {len(seen.names) - MOST_NAMES} more" if len(seen.names) > MOST_NAMES else ""
    valid = f"valid from {date(seen.not_before)} to {date(seen.not_after)}"
    shown = f"{host}:{port} shows a certificate for {names}{more}, issued by {seen.issuer}, {valid}"
    if seen.not_after < time.time():
        raise FailedCheckError(f"{shown}: it has expired.", cause="expired")
    if not any(fits(name, host) for name in seen.names):
        raise FailedCheckError(f"{shown}: it is not for {host}.", cause="wrong-name")
    if distrust:
        raise FailedCheckError(f"{shown}: this machine does not trust it ({distrust}).", cause="untrusted")
    return seen


def shown_certificate(endpoints: Endpoints, port: int) -> Tuple[Certificate, str]:
    """The certificate of a port, and why this machine does not trust its chain; an empty string if it does."""
    trusting = ssl.create_default_context()
    trusting.check_hostname = False  # `fits` compares the names, so that they can be shown
    try:
        return decoded(handshake(trusting, endpoints, port)[0]), ""
    except OSError as error:
        distrust = reason(error)
    place = f"{endpoints['host']}:{port}"
    accepting = ssl.create_default_context()
    accepting.check_hostname = False
    accepting.verify_mode = ssl.CERT_NONE
    try:
        content = handshake(accepting, endpoints, port)[1]
    except OSError as error:
        if answers_plain_http(endpoints, port):
            raise FailedCheckError(f"{place} answers with plain HTTP, without TLS.", cause="plain-http") from None
        raise NoAnswerError(f"{place}: no TLS connection: {reason(error)}.") from None
    # Python decodes only certificates that it has verified, so this one is verified against itself.
    reading = ssl.create_default_context(cadata=content)
    reading.check_hostname = False
    reading.verify_flags |= ssl.VerifyFlags(PARTIAL_CHAIN | NO_CHECK_TIME)
    try:
        return decoded(handshake(reading, endpoints, port)[0]), distrust
    except OSError:
        observed = f"{place} shows a certificate that this machine does not trust ({distrust})."
        raise FailedCheckError(observed, cause="untrusted") from None


def handshake(context: ssl.SSLContext, endpoints: Endpoints, port: int) -> Tuple[Mapping[str, Any], bytes]:
    """Connect to a port of the load balancer; its certificate as Python decodes it, and in DER. Raises OSError."""
    address = (endpoints["balancer_address"], port)
    with socket.create_connection(address, timeout=clients.TIMEOUT / 3) as plain, context.wrap_socket(
        plain, server_hostname=endpoints["host"]
    ) as connection:
        return connection.getpeercert() or {}, connection.getpeercert(binary_form=True) or b""


def answers_plain_http(endpoints: Endpoints, port: int) -> bool:
    """Whether a port answers an unencrypted request. Servers with TLS may do so too, with an error."""
    try:
        with socket.create_connection((endpoints["balancer_address"], port), timeout=clients.TIMEOUT / 3) as connection:
            connection.sendall(f"GET / HTTP/1.0\r\nHost: {endpoints['host']}\r\n\r\n".encode())
            return connection.recv(5) == b"HTTP/"
    except OSError:
        return False


def decoded(certificate: Mapping[str, Any]) -> Certificate:
    """A certificate in the format of SSLSocket.getpeercert."""
    issuer = dict(pair for part in certificate.get("issuer", ()) for pair in part)
    return Certificate(
        # Clients of today ignore the common name (RFC 6125, 6.4.4).
        names=tuple(name for kind, name in certificate.get("subjectAltName", ()) if kind == "DNS"),
        issuer=issuer.get("commonName") or issuer.get("organizationName") or "an unnamed authority",
        not_before=ssl.cert_time_to_seconds(certificate["notBefore"]),
        not_after=ssl.cert_time_to_seconds(certificate["notAfter"]),
    )


def fits(name: str, host: str) -> bool:
    """Whether a name of a certificate is that of a host; a leading `*` replaces exactly one label (RFC 6125, 6.4.3)."""
    name, host = name.lower(), host.lower()
    return name == host or (name.startswith("*.") and name[1:] == host[host.find(".") :])


def reason(error: OSError) -> str:
    """The cause of a failed connection; Python 3.7 and later also say why a certificate is not trusted."""
    text = getattr(error, "verify_message", "") or clients.error_text(error).rstrip(".")
    return str(text)


def date(seconds: float) -> str:
    """The day of a time, for example 2026-01-31."""
    return time.strftime("%Y-%m-%d", time.gmtime(seconds))
