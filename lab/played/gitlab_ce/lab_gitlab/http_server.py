"""A small web server on a Unix socket with routing, as Puma and Rack provide it."""

import gzip
import http.server
import ipaddress
import json
import re
import socketserver
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote

LOOPBACK = "127.0.0.1"
PRIVATE = [
    ipaddress.ip_network(network)
    for network in (
        *("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "127.0.0.0/8"),
        *("fc00::/7", "fe80::/10", "::1/128"),
    )
]
"""Networks that workhorse does not consider public client addresses."""


@dataclass(frozen=True)
class Request:
    """One request. Names in `headers` are lower-case; `client` is the result of `client_address`."""

    method: str
    path: str
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]
    body: bytes
    client: str

    def parameter(self, name: str) -> str | None:
        """Return the parameter's last value in the query string."""
        return self.query[name][-1] if name in self.query else None

    @property
    def fields(self) -> dict[str, Any]:
        """All parameters: the query string, overridden by the form or JSON body."""
        fields: dict[str, Any] = {name: values[-1] for name, values in self.query.items()}
        kind = self.headers.get("content-type", "")
        if kind.startswith("multipart/form-data"):
            return fields | {
                part.name: part.content.decode(errors="replace") for part in self.parts if not part.filename
            }
        if kind.startswith("application/json"):
            sent = json.loads(self.body or b"{}")
            return fields | (sent if isinstance(sent, dict) else {})
        return fields | {name: values[-1] for name, values in parse_qs(self.body.decode(errors="replace")).items()}

    @property
    def base_url(self) -> str:
        """Scheme and host as Rails sees them (Rack::Request#scheme, ActionDispatch::Http::URL)."""
        forwarded = self.headers.get("x-forwarded-proto", "").split(",")[0].strip()
        https = self.headers.get("x-forwarded-ssl") == "on" or forwarded == "https"
        scheme, usual_port = ("https", ":443") if https else ("http", ":80")
        return f"{scheme}://{self.headers.get('host', '').removesuffix(usual_port)}"

    @property
    def cookies(self) -> Mapping[str, str]:
        """The cookies that the client sends."""
        pairs = (pair.partition("=") for pair in self.headers.get("cookie", "").split(";"))
        return {name.strip(): value.strip() for name, _, value in pairs}

    @property
    def parts(self) -> list["Part"]:
        """The parts of a multipart/form-data body (RFC 7578)."""
        boundary = re.search(r'boundary="?([^";]+)"?', self.headers.get("content-type", ""))
        if boundary is None:
            return []
        found = []
        for block in (b"\r\n" + self.body).split(b"\r\n--" + boundary[1].encode())[1:-1]:
            head, _, content = block.removeprefix(b"\r\n").partition(b"\r\n\r\n")
            names = dict(re.findall(r'(\w+)="([^"]*)"', head.decode(errors="replace")))
            found.append(Part(names.get("name", ""), names.get("filename"), content))
        return found


@dataclass(frozen=True)
class Part:
    """A form field; it is a file if `filename` is set."""

    name: str
    filename: str | None
    content: bytes


@dataclass(frozen=True)
class Response:
    """One response."""

    status: int
    body: bytes = b""
    content_type: str = "text/plain; charset=utf-8"
    headers: Mapping[str, str] = field(default_factory=dict)


def json_response(status: int, content: Any, **headers: str) -> Response:
    text = json.dumps(content, separators=(",", ":"))
    return Response(status, text.encode(), "application/json", headers)


Handler = Callable[..., Response]


class Routes:
    """Handlers by method and path.

    `:name` in a path matches one segment, `*name` any number; the decoded values are passed as keyword arguments.
    """

    def __init__(self) -> None:
        self._routes: list[tuple[str, re.Pattern[str], Handler]] = []

    def add(self, method: str, path: str) -> Callable[[Handler], Handler]:
        segments = re.sub(r":(\w+)", r"(?P<\1>[^/]+)", path.replace(".", r"\."))
        pattern = re.compile(re.sub(r"\*(\w+)", r"(?P<\1>.+)", segments))

        def remember(handler: Handler) -> Handler:
            self._routes.append((method, pattern, handler))
            return handler

        return remember

    def find(self, method: str, path: str) -> tuple[Handler, dict[str, str]] | None:
        for route_method, pattern, handler in self._routes:
            match = pattern.fullmatch(path)
            if match and route_method == ("GET" if method == "HEAD" else method):
                return handler, {name: unquote(value) for name, value in match.groupdict().items()}
        return None


def client_address(forwarded_for: str | None, trusted_proxies: Sequence[str]) -> str:
    """Return the client address that Rails sees for the X-Forwarded-For header from nginx.

    Workhorse appends the first public address of the header, or 127.0.0.1 if it has none. Rack then uses the last
    address that is not a trusted proxy (workhorse FixRemoteAddr; Rack::Request#ip with trusted_proxies).
    """
    given = [part.strip() for part in (forwarded_for or "").split(",") if _address(part)]
    public = [part for part in given if not address_in(part, PRIVATE)]
    forwarded = [*given, public[0] if public else LOOPBACK]
    trusted = [ipaddress.ip_network(network, strict=False) for network in (*trusted_proxies, LOOPBACK, "::1")]
    untrusted = [part for part in forwarded if not address_in(part, trusted)]
    return untrusted[-1] if untrusted else forwarded[0]


def address_in(address: str, networks: Sequence[ipaddress.IPv4Network | ipaddress.IPv6Network]) -> bool:
    return any(ipaddress.ip_address(address) in network for network in networks)


def _address(text: str) -> bool:
    try:
        ipaddress.ip_address(text.strip())
    except ValueError:
        return False
    return True


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """A server with one thread per connection. `answer` must not raise; `log` is called with one record per request."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(
        self,
        socket: Path,
        answer: Callable[[Request], Response],
        log: Callable[[dict[str, Any]], None],
        trusted_proxies: Sequence[str],
    ) -> None:
        self.answer, self.log, self.trusted_proxies = answer, log, trusted_proxies
        socket.unlink(missing_ok=True)
        super().__init__(str(socket), _Connection)
        socket.chmod(0o777)  # access is restricted by the folder's mode


class _Connection(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server
    timeout = 60

    def _serve(self) -> None:
        started = time.monotonic()
        path, _, query = self.path.partition("?")
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(
            method=self.command,
            path=path,
            query=parse_qs(query, keep_blank_values=True),
            headers=headers,
            body=self._body(headers),
            client=client_address(headers.get("x-forwarded-for"), self.server.trusted_proxies),
        )
        try:
            response = self.server.answer(request)
        except Exception:  # noqa: BLE001 - any error in a handler becomes a 500 response
            traceback.print_exc(file=sys.stderr)
            response = Response(500, b"500 Internal Server Error")
        self._send(response)
        self.server.log(
            {
                "method": request.method,
                "path": path,
                "status": response.status,
                "remote_ip": request.client,
                "ua": headers.get("user-agent", ""),
                "duration_s": round(time.monotonic() - started, 4),
            }
        )

    def _body(self, headers: Mapping[str, str]) -> bytes:
        if headers.get("transfer-encoding", "").lower() != "chunked":
            body = self.rfile.read(int(headers.get("content-length") or 0))
        else:
            chunks = []
            while size := int(self.rfile.readline().partition(b";")[0], 16):
                chunks.append(self.rfile.read(size))
                self.rfile.readline()
            while self.rfile.readline().strip():
                pass  # trailers
            body = b"".join(chunks)
        return gzip.decompress(body) if headers.get("content-encoding") == "gzip" else body

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = _serve

    def _send(self, response: Response) -> None:
        self.send_response(response.status, HTTPStatus(response.status).phrase)
        if response.status != HTTPStatus.NO_CONTENT:
            self.send_header("Content-Type", response.content_type)
            self.send_header("Content-Length", str(len(response.body)))
        for name, value in response.headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD" and response.status != HTTPStatus.NO_CONTENT:
            self.wfile.write(response.body)

    def log_message(self, *_: Any) -> None:
        """Do nothing: the server's `log` records requests."""

    def version_string(self) -> str:
        return "GitLab"

    def address_string(self) -> str:
        return LOOPBACK  # a Unix socket has no address
