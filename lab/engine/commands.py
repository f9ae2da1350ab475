"""The command plugin's operations: run a command locally or on another machine, copy files to another machine."""

import asyncio
import contextlib
import os
import posixpath
import signal
from pathlib import Path
from typing import Any

import asyncssh

from lab.engine.operation import CommandError, Operation, OperationEndedError
from lab.engine.properties import ASSET, SIGNATURE, Properties
from lab.engine.ssh import OPTIONAL_VARIABLES, Connection, VariableRefusedError, reason

PREVIOUS_OUTPUT = dict(zip(OPTIONAL_VARIABLES, ("stdout", "stderr"), strict=True))
GO_ESCAPES = {c: f"\\{e}" for c, e in zip('"\\\a\b\f\n\r\t\v', '"\\abfnrtv', strict=True)}
LONGEST_LOGGED_LINE = 64 * 1024  # bytes; Go's bufio.Scanner stops at a longer one, and the rest is not read


class _Capture:
    """The output of a command: each stream, both combined for the error message, and the lines to log."""

    def __init__(self, logging: str | None, operation: Operation) -> None:
        self._operation = operation
        self._logged = {
            "stdout": logging in (None, "stdout", "stdoutAndStderr"),
            "stderr": logging in (None, "stderr", "stdoutAndStderr"),
        }
        self._streams = {"stdout": bytearray(), "stderr": bytearray()}
        self._together = bytearray()

    async def read(self, stream: str, reader: Any) -> None:
        line = bytearray()
        while data := await reader.read(32 * 1024):
            self._streams[stream] += data
            self._together += data
            if not self._logged[stream]:
                continue
            line += data
            *complete, rest = bytes(line).split(b"\n")
            line[:] = rest
            if any(len(text) >= LONGEST_LOGGED_LINE for text in [*complete, rest]):
                raise CommandError(
                    f"the command wrote a line of more than {LONGEST_LOGGED_LINE} bytes to {stream} while its "
                    "output is logged: the real plugin would hang here; set logging to none"
                )
            for text in complete:
                await self._operation.status(_text(text))
        if line:
            await self._operation.status(_text(bytes(line)))

    def outputs(self) -> Properties:
        """Return both streams. Raises CommandError for invalid UTF-8, which the real plugin cannot send either."""
        try:
            return {name: data.decode().removesuffix("\n") for name, data in self._streams.items()}
        except UnicodeDecodeError:
            raise CommandError("grpc: error while marshaling: string field contains invalid UTF-8") from None

    def failure(self, what: str, command: str) -> CommandError:
        return CommandError(f"{what}: running {quoted(command)}:\n{_text(bytes(self._together))}")


def quoted(text: str) -> str:
    """Quote a string like Go's %q."""

    def escaped(character: str) -> str:
        if character in GO_ESCAPES:
            return GO_ESCAPES[character]
        if character == " " or character.isprintable():
            return character
        code = ord(character)
        return f"\\x{code:02x}" if code < 0x80 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"

    return f'"{"".join(map(escaped, text))}"'


def _text(data: bytes) -> str:
    return data.decode(errors="replace")


def _environment(inputs: Properties, previous: Properties) -> dict[str, str]:
    environment: dict[str, str] = dict(inputs.get("environment") or {})
    if inputs.get("addPreviousOutputInEnv", True):
        environment |= {name: previous[output] for name, output in PREVIOUS_OUTPUT.items() if previous.get(output)}
    return environment


async def run_local(command: str, inputs: Properties, previous: Properties, operation: Operation) -> Properties:
    """Run a command on this machine and return stdout and stderr. The end of the operation kills it."""
    capture = _Capture(inputs.get("logging"), operation)
    program = [*(inputs.get("interpreter") or ["/bin/sh", "-c"]), command]
    stdin: str = inputs.get("stdin") or ""
    try:
        process = await asyncio.create_subprocess_exec(
            *program,
            cwd=inputs.get("dir"),
            env={**os.environ, **_environment(inputs, previous)},
            stdin=asyncio.subprocess.PIPE if stdin else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    except OSError as error:
        raise capture.failure(_start_error(error, program[0], inputs.get("dir")), command) from error

    async def feed() -> None:
        if process.stdin is not None:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                process.stdin.write(stdin.encode())
                await process.stdin.drain()
            process.stdin.close()

    try:
        with contextlib.suppress(OperationEndedError):
            async with operation.bounded():
                await asyncio.gather(
                    feed(),
                    capture.read("stdout", process.stdout),
                    capture.read("stderr", process.stderr),
                    process.wait(),
                )
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        status = await process.wait()
    if status < 0:
        known = -status < signal.SIGRTMIN and signal.strsignal(-status)
        raise capture.failure(f"signal: {known.lower() if known else f'signal {-status}'}", command)
    if status:
        raise capture.failure(f"exit status {status}", command)
    return capture.outputs()


def _start_error(error: OSError, program: str, folder: str | None) -> str:
    if isinstance(error, FileNotFoundError) and error.filename == folder:
        return f"chdir {folder}: {reason(error)}"
    if isinstance(error, FileNotFoundError) and "/" not in program:
        return f'exec: "{program}": executable file not found in $PATH'
    return f"fork/exec {program}: {reason(error)}"


async def run_remote(command: str, inputs: Properties, previous: Properties, operation: Operation) -> Properties:
    """Run a command on another machine and return stdout and stderr. A running command is not interrupted."""
    capture = _Capture(inputs.get("logging"), operation)
    environment = _environment(inputs, previous)
    stdin: str = inputs.get("stdin") or ""
    # Like the real plugin, never close the connection: the session stays open until the plugin ends.
    client = await Connection.of(inputs["connection"]).connect(operation)
    try:
        process = await client.create_process(command, env=environment, encoding=None)
    except VariableRefusedError as refusal:
        await operation.error(_setenv_hint(str(refusal)))
        raise CommandError(f'could not set environment variable "{refusal}": ssh: setenv failed') from None
    except asyncssh.Error as error:
        raise capture.failure(f"ssh: {error.reason}", command) from error
    for name in process.channel.refused_variables:
        await operation.warning(_setenv_hint(name))

    async def feed() -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            process.stdin.write(stdin.encode())
            await process.stdin.drain()
            process.stdin.write_eof()

    with contextlib.suppress(asyncssh.Error, OSError):  # a lost connection leaves no exit status
        await asyncio.gather(feed(), capture.read("stdout", process.stdout), capture.read("stderr", process.stderr))
        await process.wait_closed()
    if process.exit_signal is not None:
        name, _, message, _ = process.exit_signal
        ended = f"Process exited with status {128 + getattr(signal, f'SIG{name}', 0)} from signal {name}"
        raise capture.failure(f"{ended}. Reason was: {message}" if message else ended, command)
    if process.exit_status is None:
        raise capture.failure("wait: remote command exited without exit status or exit signal", command)
    if process.exit_status:
        raise capture.failure(f"Process exited with status {process.exit_status}", command)
    return capture.outputs()


def _setenv_hint(name: str) -> str:
    return (
        f"Unable to set '{name}'. This only works if your SSH server is configured to accept\n"
        "\tthese variables via AcceptEnv. Alternatively, if a Bash-like shell runs the command on the remote host, "
        "you could\n\tprefix the command itself with the variables in the form 'VAR=value command'"
    )


async def copy_to_remote(inputs: Properties, operation: Operation) -> None:
    """Copy a file, a string or a folder over SFTP, with the real plugin's rules for an existing destination."""
    source = inputs["source"]
    target: str = inputs["remotePath"]
    async with (
        Connection.of(inputs["connection"]).open(operation) as client,
        client.start_sftp_client() as sftp,
    ):
        try:
            if source.get(SIGNATURE) == ASSET and not source["path"]:
                await _copy_text(sftp, source["text"], target)
            elif Path(source["path"]).is_dir():
                await _copy_folder(sftp, source["path"], target)
            else:
                await _copy_file(sftp, Path(source["path"]), target)
        except OSError as error:
            raise CommandError(f"open {error.filename}: {reason(error)}") from error
        except asyncssh.SFTPError as error:
            raise CommandError(f"failed to write to remote path {target}: {error.reason}") from error


async def _copy_text(sftp: asyncssh.SFTPClient, text: str, target: str) -> None:
    if await sftp.isdir(target):
        raise CommandError(
            f"remote path {target} is a directory; when using a text asset, remotePath must be a file path"
        )
    await sftp.makedirs(posixpath.dirname(target) or ".", exist_ok=True)
    await _write(sftp, text.encode(), target)


async def _copy_file(sftp: asyncssh.SFTPClient, source: Path, target: str) -> None:
    content = source.read_bytes()
    if await sftp.isdir(target):
        target = posixpath.join(target, source.name)
    elif not await sftp.exists(target):
        await sftp.makedirs(posixpath.dirname(target) or ".", exist_ok=True)
    await _write(sftp, content, target)


async def _copy_folder(sftp: asyncssh.SFTPClient, source: str, target: str) -> None:
    if not await sftp.exists(target):
        await sftp.makedirs(target)
    if not source.endswith("/"):  # with the slash, the content is copied; without it, the folder
        target = posixpath.join(target, Path(source).name)
    for path in [Path(source), *sorted(Path(source).rglob("*"))]:
        remote = posixpath.normpath(posixpath.join(target, path.relative_to(source).as_posix()))
        if not path.is_dir():
            await _write(sftp, path.read_bytes(), remote)
        elif not await sftp.exists(remote):
            await sftp.mkdir(remote)
        elif not await sftp.isdir(remote):
            raise CommandError(f"remote path {remote} exists but is not a directory")


async def _write(sftp: asyncssh.SFTPClient, content: bytes, target: str) -> None:
    async with sftp.open(target, "wb") as file:
        await file.write(content)
