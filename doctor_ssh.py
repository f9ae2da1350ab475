"""Connects the doctor to the machines of a stack: with OpenSSH, through the SSH agent or with a key kept in memory."""

import atexit
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from configuration import report
from configuration.flows import Place
from configuration.remote_step import read_only_command, script, step_input
from programs.acceptance_checks.outcomes import printable
from validation import ssh_agent

CONNECT_TIMEOUT = 8  # seconds
NO_CONNECTION = 255  # exit status of ssh
LOCKED = 75  # exit status of read_only_command while a step of an up is running
NO_RESULT = 2  # exit status of a step that was killed here

Process = subprocess.Popen[str]


class CheckError(Exception):
    """The checks could not run; the message is the reason."""


@dataclass(frozen=True)
class StepResult:
    """The result of one step: JSON lines of programs/acceptance_checks, exit status and standard error."""

    lines: list[dict[str, Any]]
    status: int
    stderr: str

    @property
    def found(self) -> dict[str, dict[str, Any]]:
        """The last line of each check that has a result."""
        return {line["check"]: line for line in self.lines if "check" in line and line["state"] != "deferred"}

    @property
    def deferred(self) -> dict[str, str]:
        """Checks that depend on a later one, and the reason."""
        return {line["check"]: line["detail"] for line in self.lines if line.get("state") == "deferred"}

    @property
    def facts(self) -> dict[str, Any]:
        """What the registry's machine reports in addition to checks."""
        return {key: value for line in self.lines for key, value in line.get("facts", {}).items()}

    @property
    def error(self) -> str:
        """The reason why a check has no result."""
        errors = [line["error"] for line in self.lines if "error" in line]
        return (errors or self.stderr.splitlines()[-1:] or ["no answer in time"])[-1]


class Machines:
    """The stack's machines over SSH, each verified by the host key of its first contact.

    A signal ends this process and its steps at once, unless `handle_signals` is false: then the caller has to `close`.
    """

    def __init__(self, inspection: Mapping[str, Any], deadline: float, *, handle_signals: bool = True) -> None:
        self._machines = inspection["machines"]
        self._user = inspection["user"]
        self._deadline = deadline
        self._processes: list[Process] = []
        self._files: list[str] = []
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM) if handle_signals else ():
            signal.signal(number, self._end)
        self._key = self._file(
            inspection["privateKey"] if "privateKey" in inspection else _held(inspection["publicKey"])
        )
        hosts = [f"{machine['address']} {machine['hostKey']}" for machine in self._machines.values()]
        self._known_hosts = self._file("\n".join(hosts))

    def address(self, place: Place) -> str:
        """The machine's public address."""
        return str(self._machines[place]["address"])

    def time_left(self) -> float:
        """Seconds until the deadline."""
        return self._deadline - time.monotonic()

    def run(self, place: Place, step: str, arguments: Sequence[str], payload: Sequence[str | bytes] = ()) -> StepResult:
        """Run a step that changes nothing, and wait for it."""
        return self.finish(self.start(place, step, arguments, payload))

    def start(self, place: Place, step: str, arguments: Sequence[str], payload: Sequence[str | bytes]) -> Process:
        """Start a step that changes nothing; `send` can pass more input to it."""
        options = {
            "BatchMode": "yes",
            "ConnectTimeout": CONNECT_TIMEOUT,
            "GlobalKnownHostsFile": "/dev/null",
            "IdentitiesOnly": "yes",
            "LogLevel": "ERROR",
            "ServerAliveCountMax": 2,
            "ServerAliveInterval": 5,
            "StrictHostKeyChecking": "yes",
            "UserKnownHostsFile": self._known_hosts,
        }
        command = ["ssh", "-F", "none", "-i", self._key]
        command += [word for option, value in options.items() for word in ("-o", f"{option}={value}")]
        remote = read_only_command(step, max(1, int(self.time_left())), arguments)
        command += [f"{self._user}@{self.address(place)}", remote]
        pipe = subprocess.PIPE
        process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, start_new_session=True)
        self._processes.append(process)
        send(process, step_input(script(f"{step}.sh"), payload))
        return process

    def finish(self, process: Process) -> StepResult:
        """Wait for a step, or until the deadline."""
        try:
            out, stderr = process.communicate(timeout=max(0.1, self.time_left()))
            status = process.returncode
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            out, _ = process.communicate()
            status, stderr = NO_RESULT, "no answer in time"
        lines = [report.parsed(line) for line in out.splitlines() if line.startswith("{")]
        return StepResult(lines, status, "\n".join(map(printable, stderr.strip().splitlines())))

    def _file(self, text: str) -> str:
        """The path of a file with this text, for ssh. The file is in this process's memory, so it disappears with the
        process, however that ends. On systems without such files (macOS), it is on disk and removed on exit, except
        after SIGKILL.

        ssh closes inherited descriptors (closefrom in its main), so the path refers to this process's descriptor.
        """
        if sys.platform == "linux":
            descriptor = os.memfd_create("doctor")
            path = f"/proc/{os.getpid()}/fd/{descriptor}"
        else:
            descriptor, path = tempfile.mkstemp()
            self._files.append(path)
            atexit.register(Path(path).unlink, missing_ok=True)
        os.fchmod(descriptor, 0o600)  # ssh rejects keys that others may read
        os.write(descriptor, (text.rstrip("\n") + "\n").encode())
        return path

    def close(self) -> None:
        """Kill all child processes, and remove the files."""
        for process in self._processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
        for path in self._files:
            Path(path).unlink(missing_ok=True)

    def _end(self, number: int, _frame: FrameType | None) -> None:
        """Kill all child processes, then this process with the same signal."""
        self.close()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)


def _held(public_key: str) -> str:
    """The public key, if the SSH agent holds its private key; ssh then requests no other key from the agent. Raises
    CheckError if the agent does not hold it.
    """
    if problem := ssh_agent.problem(public_key):
        raise CheckError(problem)
    return public_key


def send(process: Process, text: str) -> None:
    """Send more input to a step, unless it has ended."""
    assert process.stdin
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(text)
        process.stdin.flush()
