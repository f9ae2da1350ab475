"""How the doctor reaches the machines of a stack: with OpenSSH, by the SSH agent or with a key that is in no file."""

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
NO_RESULT = 2  # exit status of a step that was ended here

Process = subprocess.Popen[str]


class CheckError(Exception):
    """The checks could not be made; the text says why."""


@dataclass(frozen=True)
class StepResult:
    """What one step has brought: JSON lines of programs/acceptance_checks, exit status, and standard error."""

    lines: list[dict[str, Any]]
    status: int
    stderr: str

    @property
    def found(self) -> dict[str, dict[str, Any]]:
        """The last line about each check that was decided."""
        return {line["check"]: line for line in self.lines if "check" in line and line["state"] != "deferred"}

    @property
    def deferred(self) -> dict[str, str]:
        """Checks that a later one decides, and why."""
        return {line["check"]: line["detail"] for line in self.lines if line.get("state") == "deferred"}

    @property
    def facts(self) -> dict[str, Any]:
        """What the registry's machine reports beside checks."""
        return {key: value for line in self.lines for key, value in line.get("facts", {}).items()}

    @property
    def error(self) -> str:
        """Why there is no result of a check."""
        errors = [line["error"] for line in self.lines if "error" in line]
        return (errors or self.stderr.splitlines()[-1:] or ["no answer in time"])[-1]


class Machines:
    """The stack's machines over SSH, each held to the host key of its first contact."""

    def __init__(self, inspection: Mapping[str, Any], deadline: float) -> None:
        self._machines = inspection["machines"]
        self._user = inspection["user"]
        self._deadline = deadline
        self._processes: list[Process] = []
        self._files: list[str] = []
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._end)
        self._key = self._file(
            inspection["privateKey"] if "privateKey" in inspection else _held(inspection["publicKey"])
        )
        hosts = [f"{machine['address']} {machine['hostKey']}" for machine in self._machines.values()]
        self._known_hosts = self._file("\n".join(hosts))

    def address(self, place: Place) -> str:
        """Where the machine answers."""
        return str(self._machines[place]["address"])

    def time_left(self) -> float:
        """Seconds."""
        return self._deadline - time.monotonic()

    def run(self, place: Place, step: str, arguments: Sequence[str], payload: Sequence[str | bytes] = ()) -> StepResult:
        """Run a step that changes nothing, to its end."""
        return self.finish(self.start(place, step, arguments, payload))

    def start(self, place: Place, step: str, arguments: Sequence[str], payload: Sequence[str | bytes]) -> Process:
        """Start such a step; more can be sent to it."""
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
        """Wait for a step's end, or until there is no time left."""
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
        """The path of a text for ssh: of a file in this process's memory, which is gone with the process however that
        ends. Where there is none (macOS), of a file that every end but SIGKILL removes.

        ssh closes what it inherits (closefrom in its main), so the path leads to this process's descriptor, not to its.
        """
        if sys.platform == "linux":
            descriptor = os.memfd_create("doctor")
            path = f"/proc/{os.getpid()}/fd/{descriptor}"
        else:
            descriptor, path = tempfile.mkstemp()
            self._files.append(path)
            atexit.register(Path(path).unlink, missing_ok=True)
        os.fchmod(descriptor, 0o600)  # ssh takes no key that others may read
        os.write(descriptor, (text.rstrip("\n") + "\n").encode())
        return path

    def _end(self, number: int, _frame: FrameType | None) -> None:
        """Ends this process as the signal does, with all that it has started."""
        for process in self._processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
        for path in self._files:
            Path(path).unlink(missing_ok=True)
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)


def _held(public_key: str) -> str:
    """The public key of a pair of which the SSH agent has the private key; with it, ssh asks the agent for no other.
    Raises CheckError when it has not.
    """
    if problem := ssh_agent.problem(public_key):
        raise CheckError(problem)
    return public_key


def send(process: Process, text: str) -> None:
    """Send more to a step's standard input, unless it has ended."""
    assert process.stdin
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(text)
        process.stdin.flush()
