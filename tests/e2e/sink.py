"""A host of the lab's internet that offers services to no one: it records who connects, and what they say first.

Machines reach `ELSEWHERE` like any other host, through the egress rules of their security groups, and their mail and
webhooks can be directed there: `lab.cloud.dns.plant("mail.example.test", "A", ELSEWHERE)` gives it a name.

    with Sink(25, 443) as sink:
        ...
    assert sink.of(outputs["publicAddresses"]["server"]) == []
"""

import contextlib
import select
import socketserver
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType

from lab.cloud.network import ELSEWHERE

MAIL_PORTS = (25, 587)
PATIENCE = 5.0  # seconds until a silent client has said nothing
GREETING = b"220 sink ESMTP\r\n"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


@dataclass(frozen=True)
class Contact:
    """A connection from a machine's public address, with the client's first bytes: those of TLS if it speaks TLS."""

    sender: str
    port: int
    at: datetime
    said: bytes


class Sink:
    """Listens on these ports while it is used in a `with` block. Needs a running lab, which owns the address."""

    def __init__(self, *ports: int, address: str = ELSEWHERE) -> None:
        self._contacts: list[Contact] = []
        self._servers = [_Server((address, port), self._contacts) for port in ports]

    def __enter__(self) -> "Sink":
        for server in self._servers:
            threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for server in self._servers:
            server.shutdown()
            while select.select([server], [], [], 0)[0]:  # connections that have not been accepted yet
                server.handle_request()
            server.server_close()  # waits for connections that are open

    @property
    def contacts(self) -> list[Contact]:
        """All connections so far that have ended or said something."""
        return list(self._contacts)

    def of(self, *senders: str) -> list[Contact]:
        """The connections from these addresses, such as those of one stack's machines."""
        return [contact for contact in self.contacts if contact.sender in senders]


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True

    def __init__(self, address: tuple[str, int], contacts: list[Contact]) -> None:
        super().__init__(address, _Handler)
        self.contacts = contacts


class _Handler(socketserver.BaseRequestHandler):
    server: _Server

    def handle(self) -> None:
        at, port, said = datetime.now(UTC), self.server.server_address[1], b""
        self.request.settimeout(PATIENCE)
        with contextlib.suppress(OSError):
            if port in MAIL_PORTS:  # the server speaks first
                self.request.sendall(GREETING)
            said = self.request.recv(4096)
        self.server.contacts.append(Contact(self.client_address[0], port, at, said))
        with contextlib.suppress(OSError):
            self.request.sendall(ANSWER)
