"""Runs Python programs as forks of one process that has imported their modules.

A stand-in's program does little, but Python takes a tenth of a second to import what it uses. Each run is still a
process of its own that executes the program's file.
"""

import contextlib
import json
import os
import runpy
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path

LARGEST_REQUEST = 1 << 20


class Forks:
    """The process that forks, in `environment`; it has imported `modules` of `folder`."""

    def __init__(self, folder: Path, modules: Sequence[str], environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, __file__, str(theirs.fileno()), str(folder), *modules]
            self._process = subprocess.Popen(command, env=environment, pass_fds=[theirs.fileno()])

    def run(
        self, program: Path, *arguments: str, stdin: str = "", environment: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a program to its end, like subprocess.run, in the environment of all or in another one."""
        command = [str(program), *arguments]
        ours, theirs = socket.socketpair()
        with ours, tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            given.write(stdin.encode())
            given.seek(0)
            with theirs:
                descriptors = [file.fileno() for file in (given, out, err, theirs)]
                request = json.dumps({"command": command, "environment": dict(environment or self._environment)})
                socket.send_fds(self._requests, [request.encode()], descriptors)
            code = ours.recv(8)
            assert code, f"killed: {command}"
            for file in (out, err):
                file.seek(0)
            return subprocess.CompletedProcess(command, int(code), out.read().decode(), err.read().decode())

    def close(self) -> None:
        self._requests.close()
        self._process.wait(20)


def _serve(requests: socket.socket) -> None:
    """Fork for every request, until the other end is closed."""
    while True:
        request, descriptors, _, _ = socket.recv_fds(requests, LARGEST_REQUEST, 4, socket.MSG_CMSG_CLOEXEC)
        with contextlib.suppress(ChildProcessError):  # these have sent their exit codes
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if not request:
            return
        if os.fork() == 0:
            requests.close()
            _execute(**json.loads(request), descriptors=descriptors)
        for descriptor in descriptors:
            os.close(descriptor)


def _execute(command: list[str], environment: dict[str, str], descriptors: list[int]) -> None:
    """Execute a program in this process, send its exit code, and end."""
    for number, descriptor in enumerate(descriptors[:3]):
        os.dup2(descriptor, number)
    sys.argv[:] = command
    os.environ.clear()
    os.environ.update(environment)
    code = 0
    try:
        runpy.run_path(command[0], run_name="__main__")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:  # noqa: BLE001 - as the interpreter does
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os.write(descriptors[3], str(code & 0xFF).encode())
    os._exit(0)


if __name__ == "__main__":
    sys.path[0] = sys.argv[2]  # instead of the tests' folder
    for module in sys.argv[3:]:
        import_module(module)
    _serve(socket.socket(fileno=int(sys.argv[1])))
