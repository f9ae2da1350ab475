"""A target behind a real load balancer, in a thread of the test."""

import contextlib
import queue
import socket
import struct
import threading
import time

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
LOCAL, PROXY = 0x20, 0x21  # of the PROXY protocol, version 2: a check of the proxy's own, and a client's connection


class PlayedTarget:
    """A server that requires a PROXY header. It records the header's command and client by requested path, and responds
    to health checks with its health, once that is set."""

    def __init__(self, check_path="/-/readiness"):
        self.check_path = check_path
        self.health: queue.Queue[int] = queue.Queue()
        self.seen: dict[str, set[tuple[int, str | None]]] = {}
        self.clients = 0  # connections that are not health checks
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.port = self.listening.getsockname()[1]
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        with contextlib.suppress(OSError):  # the fixture has closed it
            while True:
                threading.Thread(target=self.answer, args=self.listening.accept()[:1], daemon=True).start()

    def answer(self, connection):
        with connection, connection.makefile("rb") as stream:
            if stream.read(len(SIGNATURE)) != SIGNATURE:
                return
            command, _, length = struct.unpack("!BBH", stream.read(4))
            addresses = stream.read(length)
            client = None
            if command == PROXY:
                self.clients += 1
                client = f"{socket.inet_ntoa(addresses[:4])}:{int.from_bytes(addresses[8:10], 'big')}"
            path = stream.readline().split()[1].decode()
            self.seen.setdefault(path, set()).add((command, client))
            status = 200
            if path == self.check_path:
                status = self.health.get()
                self.health.put(status)
            connection.sendall(f"HTTP/1.1 {status} played\r\nContent-Length: 0\r\n\r\n".encode())

    def becomes(self, status):
        """Set the health, as the status of the response to health checks."""
        with contextlib.suppress(queue.Empty):
            self.health.get_nowait()
        self.health.put(status)


def wait_for(condition):
    """Return the first result of `condition` that is true."""
    deadline = time.monotonic() + 10
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found
