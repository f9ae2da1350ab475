"""The clients of the end-to-end tests reach a server by a name that this host cannot resolve, and verify it."""

import http.server
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from ssl import TLSVersion
from typing import Any

import pytest
import requests

from lab import authority
from tests.e2e import https

NAME = "git.lab.example.com"
LOCAL = "127.0.0.1"


class Echo(http.server.BaseHTTPRequestHandler):
    """Answers with the name that the client requested."""

    def do_GET(self) -> None:
        text = f"{self.headers['Host']}\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(autouse=True)
def _own_authorities(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(authority, "FOLDER", tmp_path / "ca")


Serve = Callable[..., int]


@pytest.fixture
def serve(tmp_path) -> Iterator[Serve]:
    """Starts a server with TLS; returns its port."""
    servers = []

    def start(issuer: authority.Authority = authority.LAB, name: str = NAME, days: float = 30) -> int:
        server = http.server.ThreadingHTTPServer((LOCAL, 0), Echo)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = TLSVersion.TLSv1_2
        pem = tmp_path / "server.pem"
        pem.write_text(issuer.issue([name], days=days).pem)
        context.load_cert_chain(pem)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        server.handle_error = lambda *_: None  # type: ignore[method-assign]
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        return int(server.server_address[1])

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def outputs(port: int) -> dict[str, Any]:
    return {
        "externalUrl": f"https://{NAME}",
        "registryHost": f"{NAME}:{port}",
        "publicAddresses": {"balancer": LOCAL},
    }


def test_a_session_requests_and_verifies_the_name_at_the_load_balancers_address(serve):
    port = serve()
    answer = https.session(outputs(port)).get(f"https://{NAME}:{port}/", timeout=5)
    assert answer.text == f"{NAME}\n"


UNKNOWN = authority.Authority("unknown", "An authority that nothing trusts")


@pytest.mark.parametrize("wrong", [{"issuer": UNKNOWN}, {"name": "other.example.com"}, {"days": -1}])
def test_a_session_refuses_a_certificate_that_a_client_would_refuse(serve, wrong):
    port = serve(**wrong)
    with pytest.raises(requests.exceptions.SSLError):
        https.session(outputs(port)).get(f"https://{NAME}:{port}/", timeout=5)


@pytest.mark.needs("curl")
def test_curl_reaches_the_registrys_port_by_name(serve):
    port = serve()
    command = ["curl", "-fsS", *https.curl_options(outputs(port)), f"https://{NAME}:{port}/"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout == f"{NAME}:{port}\n", done.stderr


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_a_scan_finds_the_versions_that_a_server_offers_and_that_it_refuses_the_others(serve):
    at = LOCAL, serve()
    assert https.handshake(at, NAME, TLSVersion.TLSv1_2) == "TLSv1.2"
    assert https.handshake(at, NAME, TLSVersion.TLSv1_3) == "TLSv1.3"
    with pytest.raises(ssl.SSLError, match="alert protocol version"):
        https.handshake(at, NAME, TLSVersion.TLSv1, TLSVersion.TLSv1_1)
    with pytest.raises(ssl.SSLError, match="certificate verify failed"):
        https.handshake(at, "other.example.com", TLSVersion.TLSv1_3)


def test_the_certificate_that_a_server_shows_is_identified_even_if_it_is_not_valid(serve):
    first, second = (LOCAL, serve(issuer=authority.OUTSIDER)), (LOCAL, serve())
    assert https.fingerprint(first, NAME) == https.fingerprint(first, NAME) != https.fingerprint(second, NAME)


def test_a_port_with_plain_http_is_distinguished_from_one_with_tls_and_from_a_closed_one(serve):
    port = serve()
    assert not https.in_clear(outputs(port), port).startswith((b"HTTP/", https.CLOSED))
    plain = http.server.ThreadingHTTPServer((LOCAL, 0), Echo)
    threading.Thread(target=plain.serve_forever, args=(0.01,), daemon=True).start()
    answer = https.in_clear(outputs(port), plain.server_port)
    plain.shutdown()
    plain.server_close()
    assert answer.startswith(b"HTTP/1.0 200")
    assert https.in_clear(outputs(port), plain.server_port) == https.CLOSED
