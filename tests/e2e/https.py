"""How the tests on this host reach the stack over TLS: by its name, at the load balancer's address, with the lab's
authority.

This host's resolver does not know the stack's domain, and its trust store does not contain the lab's authority.
"""

import contextlib
import hashlib
import os
import socket
import ssl
from pathlib import Path
from typing import Any

import requests
from requests.adapters import HTTPAdapter

from lab import authority

Outputs = dict[str, Any]

TIMEOUT = 10.0  # seconds


def name(outputs: Outputs) -> str:
    """GitLab's name; without a domain, the load balancer's address."""
    return str(outputs["externalUrl"]).partition("://")[2]


def address(outputs: Outputs) -> str:
    """The load balancer's address."""
    return str(outputs["publicAddresses"]["balancer"])


def trusted() -> Path:
    """The certificate of the lab's authority."""
    return authority.LAB.certificate()


def authorities() -> Path:
    """The certificates of both of the lab's authorities: of the public one, and of a company's own."""
    file = authority.FOLDER / "authorities.crt"
    file.write_text("".join(each.certificate().read_text() for each in (authority.LAB, authority.OUTSIDER)))
    return file


def curl_options(outputs: Outputs) -> list[str]:
    """Options with which curl on this host reaches GitLab and the registry by name."""
    ports = (443, str(outputs["registryHost"]).rpartition(":")[2])
    resolved = [part for port in ports for part in ("--resolve", f"{name(outputs)}:{port}:{address(outputs)}")]
    return ["--noproxy", "*", "--cacert", str(trusted()), *resolved]


def git_options(outputs: Outputs) -> list[str]:
    """Options with which git on this host reaches GitLab by name."""
    return ["-c", f"http.curloptResolve={name(outputs)}:443:{address(outputs)}", "-c", "http.proxy="]


def git_environment(certificate: Path | None = None) -> dict[str, str]:
    """The environment in which git trusts one authority, by default the lab's. A variable, because one of this host's
    would take precedence over `http.sslCAInfo`.
    """
    return {**os.environ, "GIT_SSL_CAINFO": str(certificate or trusted())}


class _AtAddress(HTTPAdapter):
    """Connects to an address, and verifies and requests the name, as `curl --resolve` does."""

    def __init__(self, host: str, at: str) -> None:
        self._host, self._at = host, at
        super().__init__()

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        super().init_poolmanager(*arguments, server_hostname=self._host, **options)

    def send(self, request: requests.PreparedRequest, *arguments: Any, **options: Any) -> requests.Response:
        assert request.url
        request.headers["Host"] = self._host
        request.url = request.url.replace(f"https://{self._host}", f"https://{self._at}", 1)
        return super().send(request, *arguments, **options)


def session(outputs: Outputs) -> requests.Session:
    """A session that reaches GitLab by name, and trusts a company's own authority, too. python-gitlab also needs
    `ssl_verify`.
    """
    made = requests.Session()
    made.trust_env = False
    made.verify = str(authorities())
    made.mount(f"https://{name(outputs)}", _AtAddress(name(outputs), address(outputs)))
    return made


def handshake(at: tuple[str, int], host: str, *versions: ssl.TLSVersion) -> str:
    """The TLS version that a server agrees to, of the consecutive `versions`, with a certificate of the lab's authority
    for `host`. Raises ssl.SSLError if it agrees to none of them, or if it shows another certificate.
    """
    context = _context(verified=True)
    context.minimum_version, context.maximum_version = versions[0], versions[-1]
    # Otherwise this host itself, and not the server, would refuse TLS 1.0 and 1.1.
    context.set_ciphers("ALL:@SECLEVEL=0")
    with _connected(context, at, host) as connection:
        return connection.version() or ""


def fingerprint(at: tuple[str, int], host: str) -> str:
    """The SHA-256 fingerprint of the certificate that a server shows, valid or not."""
    with _connected(_context(verified=False), at, host) as connection:
        return hashlib.sha256(connection.getpeercert(binary_form=True) or b"").hexdigest()


def _context(*, verified: bool) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(trusted()))
    if not verified:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


@contextlib.contextmanager
def _connected(context: ssl.SSLContext, at: tuple[str, int], host: str) -> Any:
    with (
        socket.create_connection(at, timeout=TIMEOUT) as plain,
        context.wrap_socket(plain, server_hostname=host) as connection,
    ):
        yield connection


CLOSED = b"closed"


def in_clear(outputs: Outputs, port: int) -> bytes:
    """The first bytes of a port's answer to a request for the login page in plain HTTP, which may be none; `CLOSED` if
    it does not accept a connection.
    """
    request = f"GET /users/sign_in HTTP/1.0\r\nHost: {name(outputs)}\r\n\r\n"
    try:
        connection = socket.create_connection((address(outputs), port), timeout=2)
    except OSError:
        return CLOSED
    with connection, contextlib.suppress(OSError):
        connection.sendall(request.encode())
        return connection.recv(1024)
    return b""
