"""SSH connections like those of the command plugin: its defaults, retries and error messages.

Source: pulumi/pulumi-command v1.2.1 `provider/pkg/provider/remote/connection.go`.
"""

import asyncio
import contextlib
import errno
import ipaddress
import os
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import asyncssh
import asyncssh.channel
import asyncssh.connection
from asyncssh.packet import SSHPacket

from lab.engine.operation import CommandError, Operation
from lab.engine.properties import Properties

DEFAULTS = {"user": "root", "port": 22, "dialErrorLimit": 10, "perDialTimeout": 15}
SECRET_KEYS = ("password", "privateKey", "privateKeyPassword")

OPTIONAL_VARIABLES = ("PULUMI_COMMAND_STDOUT", "PULUMI_COMMAND_STDERR")

RETRY_DELAY, RETRY_BACKOFF, RETRY_MAX_DELAY = 0.1, 1.5, 5.0  # seconds, factor, seconds


@dataclass(frozen=True)
class Connection:
    """The parameters of a connection; `check` fills in the plugin's defaults."""

    host: str
    user: str
    port: int
    dial_error_limit: int
    per_dial_timeout: float
    password: str | None = None
    private_key: str | None = None
    private_key_password: str | None = None
    agent_socket_path: str | None = None
    host_key: str | None = None

    @classmethod
    def of(cls, properties: Properties) -> "Connection":
        given = {**DEFAULTS, **properties}
        return cls(
            host=given["host"],
            user=given["user"],
            port=int(given["port"]),
            dial_error_limit=int(given["dialErrorLimit"]),
            per_dial_timeout=given["perDialTimeout"],
            password=given.get("password"),
            private_key=given.get("privateKey"),
            private_key_password=given.get("privateKeyPassword"),
            agent_socket_path=given.get("agentSocketPath") or os.environ.get("SSH_AUTH_SOCK") or None,
            host_key=given.get("hostKey"),
        )

    @property
    def endpoint(self) -> str:
        with contextlib.suppress(ValueError):
            if ipaddress.ip_address(self.host).version == 6:
                return f"[{self.host}]:{self.port}"
        return f"{self.host}:{self.port}"

    @contextlib.asynccontextmanager
    async def open(self, operation: Operation) -> AsyncIterator[asyncssh.SSHClientConnection]:
        """Connect, with up to `dialErrorLimit` retries, and close the connection at the end.

        The end of the operation stops dialling between two attempts, but does not close a connection. Raises
        CommandError.
        """
        client = await self.connect(operation)
        try:
            yield client
        finally:
            client.close()
            await client.wait_closed()

    async def connect(self, operation: Operation) -> asyncssh.SSHClientConnection:
        """Connect like `open`; the caller closes the connection."""
        async with contextlib.AsyncExitStack() as stack:
            return await self._dial_with_retry(await self._options(stack), operation)

    async def _options(self, stack: contextlib.AsyncExitStack) -> dict[str, Any]:
        options: dict[str, Any] = {
            "username": self.user,
            "password": self.password,
            "client_keys": None,  # with an empty list, the keys of the engine's user would be used
            "known_hosts": None,
            "agent_path": None,
            "gss_host": None,
            "config": None,
            "login_timeout": 0,  # no limit for a server that accepts the connection and then sends nothing
            "preferred_auth": ("publickey", "password", "keyboard-interactive"),
        }
        if self.host_key is not None:
            key = _authorized_key(self.host_key)
            options["known_hosts"] = ([key], [], [])
            options["server_host_key_algs"] = [key.get_algorithm()]
        if self.agent_socket_path is not None:
            try:
                agent = await asyncssh.connect_agent(self.agent_socket_path)
            except OSError as error:
                raise CommandError(f"dial unix {self.agent_socket_path}: connect: {reason(error)}") from error
            stack.callback(agent.close)
            options["client_keys"] = list(await agent.get_keys()) or None
        if self.private_key is not None:
            # Go offers only one list of keys: with a private key, those of the agent are never tried.
            try:
                options["client_keys"] = [asyncssh.import_private_key(self.private_key, self.private_key_password)]
            except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError) as error:
                raise CommandError(self._private_key_error(error)) from None
        return options

    async def _dial_with_retry(self, options: dict[str, Any], operation: Operation) -> asyncssh.SSHClientConnection:
        delay = RETRY_DELAY
        failed = 0
        while True:
            try:
                return await self._dial(options)
            except CommandError as error:
                failed += 1
                if 0 <= self.dial_error_limit < failed:
                    raise CommandError(f"after {failed - 1} failed attempts: {error}") from error
            limit = "inf" if self.dial_error_limit == -1 else str(self.dial_error_limit)
            await operation.status(f"Dial {failed}/{limit} failed: retrying")
            async with operation.bounded():
                await asyncio.sleep(delay)
            delay = min(delay * RETRY_BACKOFF, RETRY_MAX_DELAY)

    def _private_key_error(self, error: Exception) -> str:
        if "-----BEGIN" not in (self.private_key or ""):
            return "ssh: no key found"
        if "assphrase" in str(error):
            wrong = self.private_key_password is not None
            return "x509: decryption password incorrect" if wrong else "ssh: this private key is passphrase protected"
        return "ssh: invalid openssh private key format"

    def _methods(self, options: dict[str, Any]) -> list[str]:
        """Return the attempted authentication methods, with Go's names."""
        keys = ["publickey"] if options["client_keys"] else []
        passwords = ["password", "keyboard-interactive"] if self.password is not None else []
        return ["none", *keys, *passwords]

    async def _dial(self, options: dict[str, Any]) -> asyncssh.SSHClientConnection:
        sock: socket.socket | None = None
        try:
            async with asyncio.timeout(self.per_dial_timeout or None):  # does not include the handshake
                sock = await _connect(self.host, self.port)
            return await asyncssh.connect(self.host, self.port, sock=sock, **options)
        except socket.gaierror:
            raise CommandError(f"dial tcp: lookup {self.host}: no such host") from None
        except TimeoutError:
            raise CommandError(f"dial tcp {self.endpoint}: i/o timeout") from None
        except asyncssh.HostKeyNotVerifiable:
            raise CommandError("ssh: handshake failed: ssh: host key mismatch") from None
        except asyncssh.PermissionDenied:
            raise CommandError(
                "ssh: handshake failed: ssh: unable to authenticate, "
                f"attempted methods [{' '.join(self._methods(options))}], no supported methods remain"
            ) from None
        except asyncssh.KeyExchangeFailed as error:
            offered = options.get("server_host_key_algs")
            message = f"no common algorithm for host key; we offered: [{offered[0]}]" if offered else str(error)
            raise CommandError(f"ssh: handshake failed: ssh: {message}") from error
        except asyncssh.ConnectionLost:
            raise CommandError("ssh: handshake failed: EOF") from None
        except asyncssh.Error as error:
            raise CommandError(f"ssh: handshake failed: {error.reason or 'EOF'}") from error
        except OSError as error:
            where = f"dial tcp {self.endpoint}: connect" if sock is None else "ssh: handshake failed: read tcp: read"
            raise CommandError(f"{where}: {reason(error)}") from error


def _authorized_key(text: str) -> asyncssh.SSHKey:
    """Parse the first key, which may follow options as in authorized_keys. Raises CommandError."""
    for line in text.splitlines():
        for candidate in (line, line.strip().partition(" ")[2]):
            with contextlib.suppress(asyncssh.KeyImportError):
                return asyncssh.import_public_key(candidate)
    raise CommandError("failed to parse host key: ssh: no key found")


async def _connect(host: str, port: int) -> socket.socket:
    loop = asyncio.get_running_loop()
    addresses = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    failure: OSError = OSError(errno.EHOSTUNREACH, "no address")
    for family, kind, protocol, _, address in addresses:
        sock = socket.socket(family, kind, protocol)
        sock.setblocking(False)
        try:
            await loop.sock_connect(sock, address)
            return sock
        except OSError as error:
            sock.close()
            failure = error
        except BaseException:
            sock.close()
            raise
    raise failure


def reason(error: OSError) -> str:
    """Return Go's message for the error: the C library's in lower case."""
    return os.strerror(error.errno).lower() if error.errno else str(error)


class VariableRefusedError(Exception):
    """The server does not accept the environment variable with this name (AcceptEnv)."""


class Channel(asyncssh.channel.SSHClientChannel[bytes]):  # type: ignore[misc]
    """A session that waits for the server's reply to each environment variable before it starts the command.

    asyncssh sends the variables without requesting a reply. Go's client requests it, and the command plugin fails if
    a variable is refused, except for `OPTIONAL_VARIABLES`, which are added to `refused_variables`.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._variables: list[tuple[bytes, ...]] = []
        self.refused_variables: list[str] = []

    def _send_request(self, request: bytes, *args: bytes, want_reply: bool = False) -> None:
        if request == b"env" and not want_reply:
            self._variables.append(args)
        else:
            super()._send_request(request, *args, want_reply=want_reply)

    async def _make_request(self, request: bytes, *args: bytes) -> object:
        while self._variables:
            variable = self._variables.pop(0)
            if not await super()._make_request(b"env", *variable):
                name = SSHPacket(variable[0]).get_string().decode()
                if name not in OPTIONAL_VARIABLES:
                    raise VariableRefusedError(name)
                self.refused_variables.append(name)
        return await super()._make_request(request, *args)


asyncssh.connection.SSHClientChannel = Channel
