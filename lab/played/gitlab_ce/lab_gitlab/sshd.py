"""Stand-in for gitlab-sshd: an SSH server that rejects every public key and supports the PROXY protocol.

Source: omnibus-gitlab gitlab_sshd_helper.rb; gitlab-shell internal/sshd. Of the PROXY protocol it supports version 2,
which AWS load balancers send, with go-proxyproto's policy `use`: the header is optional.
"""

import asyncio
import contextlib
import json
import os
import socket
import struct
import sys
from typing import Any

import asyncssh

from lab_gitlab import paths
from lab_gitlab.records import now

CONFIGURATION = paths.VAR / "gitlab-shell/config.yml"
SERVER_VERSION = "GitLab-SSHD"
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
HEADER_TIMEOUT = 0.5  # seconds; proxy_header_timeout of gitlab_sshd
ADDRESS_LENGTHS = {0x11: 4, 0x21: 16}  # TCP over IPv4 and IPv6


class ProxyHeaderError(Exception):
    """The connection ended within its PROXY header."""


async def read_proxy_header(connection: socket.socket) -> str | None:
    """Read a PROXY header, if there is one, and return its client address; None without header or address.

    Raises ProxyHeaderError.
    """
    if await _peek(connection, len(SIGNATURE)) != SIGNATURE:
        return None
    head = await _take(connection, 16)
    command, family, length = head[12], head[13], struct.unpack("!H", head[14:16])[0]
    rest = await _take(connection, length)
    # LOCAL: the load balancer's own health check, without a client address.
    if command & 0xF == 0 or family not in ADDRESS_LENGTHS:
        return None
    size = ADDRESS_LENGTHS[family]
    return socket.inet_ntop(socket.AF_INET if size == 4 else socket.AF_INET6, rest[:size])


async def _peek(connection: socket.socket, size: int) -> bytes:
    """Return the first bytes without consuming them, as soon as they are complete or differ from the signature."""
    deadline = asyncio.get_running_loop().time() + HEADER_TIMEOUT
    seen = b""
    while asyncio.get_running_loop().time() < deadline:
        with contextlib.suppress(BlockingIOError):
            seen = connection.recv(size, socket.MSG_PEEK)
            if len(seen) in (0, size) or not SIGNATURE.startswith(seen):
                break
        await asyncio.sleep(0.005)
    return seen


async def _take(connection: socket.socket, size: int) -> bytes:
    loop = asyncio.get_running_loop()
    taken = b""
    while len(taken) < size:
        block = await asyncio.wait_for(loop.sock_recv(connection, size - len(taken)), 5)
        if not block:
            raise ProxyHeaderError("the connection ended within the PROXY header")
        taken += block
    return taken


class Authentication(asyncssh.SSHServer):  # type: ignore[misc]
    """Supports public key authentication only, and rejects every key."""

    def public_key_auth_supported(self) -> bool:
        return True


async def serve(configuration: dict[str, Any]) -> None:
    """Accept connections at the configured address, forever."""
    options = asyncssh.SSHServerConnectionOptions(
        server_factory=Authentication,
        server_version=SERVER_VERSION,
        server_host_keys=configuration["host_key_files"],
        login_timeout=60,
    )
    host, _, port = str(configuration["listen"]).rpartition(":")
    listener = _listener(host.strip("[]"), int(port))
    print(f"listening on {configuration['listen']}", flush=True)
    loop = asyncio.get_running_loop()
    running = set()
    while True:
        connection, peer = await loop.sock_accept(listener)
        # Go formats IPv4 addresses as IPv4 even on an IPv6 socket.
        task = asyncio.create_task(_handle(connection, peer[0].removeprefix("::ffff:"), configuration, options))
        running.add(task)
        task.add_done_callback(running.discard)


async def _handle(
    connection: socket.socket, peer: str, configuration: dict[str, Any], options: asyncssh.SSHServerConnectionOptions
) -> None:
    client = peer
    try:
        if configuration["proxy_protocol"]:
            client = await read_proxy_header(connection) or peer
        loop = asyncio.get_running_loop()
        await loop.connect_accepted_socket(lambda: asyncssh.SSHServerConnection(loop, options), connection)
        _log("server: handleConn: start", client)
    except (ProxyHeaderError, OSError, TimeoutError) as error:
        connection.close()
        _log(f"failed to accept connection: {error}", client)


def _listener(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    if family == socket.AF_INET6 and not socket.has_dualstack_ipv6():
        family, host = socket.AF_INET, ""
    dual = family == socket.AF_INET6 and host == "::"
    listener = socket.create_server((host, port), family=family, backlog=128, dualstack_ipv6=dual)
    listener.setblocking(False)
    return listener


def _log(message: str, client: str) -> None:
    print(json.dumps({"time": now(), "msg": message, "remote_addr": client}), flush=True)


def main() -> None:
    configuration = json.loads(CONFIGURATION.read_text())["sshd"]
    files = configuration["host_key_files"]
    if not files or not all(os.access(file, os.R_OK) for file in files):
        sys.exit("Failed to get server config: no host keys could be loaded, aborting")
    asyncio.run(serve(configuration))


if __name__ == "__main__":
    main()
