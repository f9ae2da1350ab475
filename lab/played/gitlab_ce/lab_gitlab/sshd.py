"""Plays gitlab-sshd: an SSH server that knows no public key yet, behind the PROXY protocol where configured.

Source: omnibus-gitlab gitlab_sshd_helper.rb; gitlab-shell internal/sshd (go-proxyproto's policies use, require,
ignore, reject).
"""

import asyncio
import contextlib
import json
import socket
import struct
import sys
from pathlib import Path
from typing import Any

import asyncssh

from lab_gitlab import paths
from lab_gitlab.records import now

CONFIGURATION = paths.VAR / "gitlab-shell/config.yml"
SERVER_VERSION = "GitLab-SSHD"
SIGNATURE_1 = b"PROXY "
SIGNATURE_2 = b"\r\n\r\n\0\r\nQUIT\n"
LONGEST_HEADER_1 = 107  # bytes, of a version 1 header
ADDRESS_LENGTHS = {0x11: 4, 0x21: 16}  # TCP over IPv4 and IPv6


class ProxyHeaderError(Exception):
    """The connection is refused for its PROXY header, or for having none."""


async def read_proxy_header(connection: socket.socket, policy: str, timeout: float) -> str | None:
    """Take a PROXY header off the connection and return the client's address; None where it carries none.

    `timeout` is how many seconds to wait for the first bytes. Raises ProxyHeaderError.
    """
    begin = await _peek(connection, len(SIGNATURE_2), timeout)
    version = 2 if begin == SIGNATURE_2 else 1 if begin.startswith(SIGNATURE_1) else None
    if version is None:
        if policy == "require":
            raise ProxyHeaderError("no PROXY header")
        return None
    if policy == "reject":
        raise ProxyHeaderError("upstream connection sent PROXY header but isn't allowed to send one")
    address = await (_read_version_2(connection) if version == 2 else _read_version_1(connection, timeout))
    return None if policy == "ignore" else address


async def _read_version_2(connection: socket.socket) -> str | None:
    head = await _take(connection, 16)
    command, family, length = head[12], head[13], struct.unpack("!H", head[14:16])[0]
    rest = await _take(connection, length)
    if command >> 4 != 2:
        raise ProxyHeaderError("unknown version in the PROXY header")
    # LOCAL: the balancer's own health check, without a client.
    if command & 0xF == 0 or family not in ADDRESS_LENGTHS:
        return None
    size = ADDRESS_LENGTHS[family]
    return socket.inet_ntop(socket.AF_INET if size == 4 else socket.AF_INET6, rest[:size])


async def _read_version_1(connection: socket.socket, timeout: float) -> str | None:
    seen = b""
    while b"\r\n" not in seen:
        longer = await _peek(connection, LONGEST_HEADER_1, timeout, known=len(seen))
        if len(longer) == len(seen):
            raise ProxyHeaderError("the PROXY header has no end")
        seen = longer
    line = await _take(connection, seen.index(b"\r\n") + 2)
    words = line.decode(errors="replace").split()
    return words[2] if len(words) == 6 else None


async def _peek(connection: socket.socket, size: int, timeout: float, *, known: int = 0) -> bytes:
    """The first bytes, left where they are: more than `known` of them, if they come within `timeout` seconds."""
    deadline = asyncio.get_running_loop().time() + timeout
    seen = b""
    while asyncio.get_running_loop().time() < deadline:
        with contextlib.suppress(BlockingIOError):
            seen = connection.recv(size, socket.MSG_PEEK)
            started = any(signature.startswith(seen) for signature in (SIGNATURE_1, SIGNATURE_2))
            if not seen or (len(seen) > known and not started) or len(seen) == size:
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
    """Keys only, and none is known."""

    def begin_auth(self, _username: str) -> bool:
        return True

    def public_key_auth_supported(self) -> bool:
        return True

    def validate_public_key(self, _username: str, _key: asyncssh.SSHKey) -> bool:
        return False


async def serve(configuration: dict[str, Any]) -> None:
    """Listen as configured, for ever."""
    options = asyncssh.SSHServerConnectionOptions(
        server_factory=Authentication,
        server_version=SERVER_VERSION,
        server_host_keys=configuration["host_key_files"],
        login_timeout=configuration.get("login_grace_time", 60),
    )
    host, _, port = str(configuration["listen"]).rpartition(":")
    listener = _listener(host.strip("[]"), int(port))
    print(f"listening on {configuration['listen']}", flush=True)
    loop = asyncio.get_running_loop()
    running = set()
    while True:
        connection, peer = await loop.sock_accept(listener)
        # Go writes an IPv4 address as such, also where it came to a socket of IPv6.
        task = asyncio.create_task(_handle(connection, peer[0].removeprefix("::ffff:"), configuration, options))
        running.add(task)
        task.add_done_callback(running.discard)


async def _handle(
    connection: socket.socket, peer: str, configuration: dict[str, Any], options: asyncssh.SSHServerConnectionOptions
) -> None:
    client = peer
    try:
        if configuration["proxy_protocol"]:
            timeout = _seconds(configuration["proxy_header_timeout"])
            client = await read_proxy_header(connection, configuration["proxy_policy"], timeout) or peer
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


def _seconds(duration: str) -> float:
    """Go's way to write a duration, one unit."""
    for unit, factor in (("ms", 0.001), ("s", 1.0), ("m", 60.0)):
        if duration.endswith(unit):
            return float(duration.removesuffix(unit)) * factor
    raise ValueError(f"proxy_header_timeout {duration}: not a duration")


def _log(message: str, client: str) -> None:
    print(json.dumps({"time": now(), "msg": message, "remote_addr": client}), flush=True)


def main() -> None:
    configuration = json.loads(CONFIGURATION.read_text())["sshd"]
    unreadable = [file for file in configuration["host_key_files"] if not _readable(Path(file))]
    if unreadable or not configuration["host_key_files"]:
        sys.exit(f"Failed to get server config: no host keys could be loaded, aborting: {' '.join(unreadable)}")
    asyncio.run(serve(configuration))


def _readable(file: Path) -> bool:
    try:
        file.open("rb").close()
    except OSError:
        return False
    return True


if __name__ == "__main__":
    main()
