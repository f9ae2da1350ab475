"""A real nginx on loopback with the configuration that the package has written, in front of an echo application.

Debian's nginx lacks features of GitLab's build (`hide_server_tokens`, the module `vhost_traffic_status`). Their lines
and the statistics server are removed. Besides that, only address, folders and account are changed.
"""

import http.server
import os
import re
import shutil
import socket
import socketserver
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

CONFIGURATION = Path("var/opt/gitlab/nginx/conf")
STATISTICS = "nginx-status.conf"
SOCKET = Path("var/opt/gitlab/gitlab-workhorse/sockets/socket")
TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
DEADLINE = 20  # seconds

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
"""Signature of version 2 (HAProxy, doc/proxy-protocol.txt, 2.2)."""

LOCAL, PROXY = 0x20, 0x21
UNSPECIFIED, TCP4 = 0x00, 0x11


def version_1(client: str) -> bytes:
    return f"PROXY TCP4 {client} 10.42.0.10 40000 80\r\n".encode()


def version_2(client: str = "", command: int = PROXY, more: bytes = b"") -> bytes:
    """Return a version 2 header for a client; without `client` it has no addresses."""
    addresses = b""
    if client:
        addresses = socket.inet_aton(client) + socket.inet_aton("10.42.0.10") + struct.pack("!HH", 40000, 80)
    family = TCP4 if client else UNSPECIFIED
    return SIGNATURE + bytes([command, family]) + struct.pack("!H", len(addresses + more)) + addresses + more


@dataclass(frozen=True)
class Nginx:
    folder: Path
    port: int

    def answer(self, header: bytes, *lines: str, path: str = "/") -> str:
        """Return the response to a GET after a PROXY header: the application's echo, or "" on a closed connection."""
        request = "\r\n".join([f"GET {path} HTTP/1.1", "Host: git", "Connection: close", *lines, "", ""])
        with socket.create_connection(("127.0.0.1", self.port), timeout=DEADLINE) as connection:
            connection.sendall(header + request.encode())
            try:
                return b"".join(iter(lambda: connection.recv(65536), b"")).decode()
            except ConnectionResetError:
                return ""

    def log(self) -> list[str]:
        return (self.folder / "var/log/gitlab/nginx/gitlab_access.log").read_text().splitlines()


class Echo(http.server.BaseHTTPRequestHandler):
    """Responds with the request headers that the application received."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(str(self.headers).encode())

    def address_string(self) -> str:
        return "nginx"

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def running(made: Path, folder: Path) -> Iterator[Nginx]:
    """Run nginx with the configuration in `made`; `folder` needs a short name because it contains a socket."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    shutil.copytree(made / CONFIGURATION, folder / CONFIGURATION)
    for file in (folder / CONFIGURATION).rglob("*.*"):
        file.write_text("" if file.name == STATISTICS else _here(file.read_text(), folder, port))
    for needed in (SOCKET.parent, Path("var/log/gitlab/nginx"), Path("opt/gitlab/embedded/conf")):
        (folder / needed).mkdir(parents=True)
    (folder / "opt/gitlab/embedded/conf/mime.types").write_text("types { text/html html; }\n")
    prefix = folder / CONFIGURATION.parent
    with socketserver.ThreadingUnixStreamServer(str(folder / SOCKET), Echo) as application:
        (folder / SOCKET).chmod(0o777)
        threading.Thread(target=application.serve_forever, daemon=True).start()
        command = ["nginx", "-p", f"{prefix}", "-c", f"{folder / CONFIGURATION}/nginx.conf", "-e", "stderr"]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
            try:
                _wait(server, port)
                yield Nginx(folder, port)
            finally:
                server.terminate()
                application.shutdown()


def _here(text: str, folder: Path, port: int) -> str:
    for there in ("/var/opt/gitlab/", "/var/log/gitlab/", "/opt/gitlab/"):
        text = text.replace(f" {there}", f" {folder}{there}").replace(f"unix:{there}", f"unix:{folder}{there}")
    kept = [line for line in text.splitlines() if not line.strip().startswith(("hide_server_tokens", "vhost_traffic_"))]
    text = re.sub(r"^\s*listen [^ ;]+", f"listen 127.0.0.1:{port}", "\n".join(kept), flags=re.MULTILINE)
    text = text.replace("user gitlab-www gitlab-www;", "user root;" if os.geteuid() == 0 else "")
    paths = " ".join(f"{name}_temp_path {folder}/{name};" for name in TEMPORARY)
    return text.replace("http {", f"http {{\n{paths}")


def _wait(server: subprocess.Popen[str], port: int) -> None:
    until = time.monotonic() + DEADLINE
    while server.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=DEADLINE).close()
        except ConnectionRefusedError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)
        else:
            return
    assert server.stderr is not None
    raise AssertionError(server.stderr.read())
