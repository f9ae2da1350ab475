"""The clone's ignored folder `.lab`, long commands with a log, and daemons that outlive the command line.

Everything the lab writes outside the kernel lies below `.lab`: after `down` the folder can be deleted.
"""

import contextlib
import hashlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STATE = ROOT / ".lab"
BIN = STATE / "bin"
RUN = STATE / "run"
LOGS = STATE / "logs"
VOLUMES = STATE / "volumes"
CACHE = STATE / "cache"

PROGRESS_INTERVAL = 10.0  # seconds between two lines about a command that is still running
START_CHECK = 0.3  # seconds a daemon must survive to count as started
TAIL_LINES = 20


class LabError(Exception):
    """What went wrong and what to do about it, in words for the person at the terminal."""


def say(text: str) -> None:
    """Print one line at once, also into a pipe."""
    print(text, flush=True)


def tail(path: Path, lines: int = TAIL_LINES) -> str:
    """The last `lines` non-empty lines of a log, read from its end; empty when there is no such file."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 64 * 1024))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        return ""
    # A progress bar rewrites its line with carriage returns: only what stood there last counts.
    shown = [line.rstrip().rsplit("\r", 1)[-1] for line in text.split("\n")]
    return "\n".join([line for line in shown if line.strip()][-lines:])


def run(
    title: str,
    command: Sequence[str],
    *,
    log: str,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: str | None = None,
) -> None:
    """Run a long command, its output appended to `LOGS/<log>.log`, and say on the terminal how it gets on.

    `env` is added to the environment. Raises LabError with the log's last lines when the command fails or
    does not exist.
    """
    LOGS.mkdir(parents=True, exist_ok=True)
    log_file = LOGS / f"{log}.log"
    say(f"{title} …")
    started = time.monotonic()
    with log_file.open("ab") as output:
        try:
            process = subprocess.Popen(
                command,
                cwd=cwd,
                env={**os.environ, **(env or {})},
                stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
            )
        except FileNotFoundError as error:
            raise LabError(f"{title}: {error.filename} is not there") from error
        try:
            _wait(process, stdin, log_file, started)
        except BaseException:
            process.terminate()
            process.wait()
            raise
    if process.returncode:
        raise LabError(
            f"{title}: {command[0]} ended with status {process.returncode}\n{tail(log_file)}\n(whole log: {log_file})"
        )
    say(f"{title}  {time.monotonic() - started:.0f} s")


def _wait(process: subprocess.Popen[str], stdin: str | None, log_file: Path, started: float) -> None:
    while True:
        try:
            process.communicate(stdin, timeout=PROGRESS_INTERVAL)
            return
        except subprocess.TimeoutExpired:
            stdin = None  # communicate() keeps what it has not yet written
            say(f"  {time.monotonic() - started:.0f} s  {tail(log_file, 1)[:100]}")


class Daemon:
    """A process that runs on after the command that started it.

    The pid file holds pid and the kernel's start time, so that a number used again by another process is not
    taken for the daemon.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        netns: str | None = None,
    ) -> None:
        self.name = name
        self.command = list(command) if netns is None else ["ip", "netns", "exec", netns, *command]
        self.env = {**os.environ, **(env or {})}
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def pid_file(self) -> Path:
        return RUN / f"{self.name}.pid"

    @property
    def log_file(self) -> Path:
        return LOGS / f"{self.name}.log"

    @property
    def pid(self) -> int | None:
        """The daemon's process id while it runs."""
        recorded = self._recorded()
        if recorded is None:
            return None
        if self._child is not None:
            self._child.poll()
        pid, start_time = recorded
        return pid if _start_time(pid) == start_time else None

    def running(self) -> bool:
        return self.pid is not None

    def start(self) -> None:
        """Start it unless it runs already. Raises LabError with its last words when it ends at once."""
        if self.running():
            return
        RUN.mkdir(parents=True, exist_ok=True)
        LOGS.mkdir(parents=True, exist_ok=True)
        with self.log_file.open("ab") as output:
            try:
                child = subprocess.Popen(
                    self.command,
                    env=self.env,
                    cwd=ROOT,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            except FileNotFoundError as error:
                raise LabError(f"{self.name}: {error.filename} is not there") from error
        self._child = child
        self.pid_file.write_text(f"{child.pid} {_start_time(child.pid)}\n")
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(START_CHECK)
            self.pid_file.unlink(missing_ok=True)
            raise LabError(
                f"{self.name} ended with status {child.returncode} as soon as it was started\n"
                f"{tail(self.log_file)}\n(whole log: {self.log_file})"
            )

    def stop(self, timeout: float = 10.0) -> None:
        """SIGTERM, after `timeout` seconds SIGKILL, then whatever it left in its session. Idempotent."""
        recorded = self._recorded()
        if recorded is None:
            return
        leader = recorded[0]
        if self.running():
            os.kill(leader, signal.SIGTERM)
            deadline = time.monotonic() + timeout
            while self.running() and time.monotonic() < deadline:
                time.sleep(0.05)
            if self.running():
                os.kill(leader, signal.SIGKILL)
                while self.running():
                    time.sleep(0.05)
        # The kernel gives no new process a number that still names a process group: a group without its
        # leader is what the daemon left behind, never somebody else's.
        if _start_time(leader) is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(leader, signal.SIGKILL)
        self.pid_file.unlink(missing_ok=True)

    def _recorded(self) -> tuple[int, int] | None:
        try:
            pid, start_time = self.pid_file.read_text().split()
            return int(pid), int(start_time)
        except (FileNotFoundError, ValueError):
            return None


def _start_time(pid: int) -> int | None:
    """Clock ticks from boot to the start of the process (field 22 of proc(5) stat); None when it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    state, *fields = stat.rpartition(")")[2].split()  # the name before it may hold blanks and parentheses
    return None if state in "ZX" else int(fields[18])


def inputs_hash(*paths: Path, extra: str = "") -> str:
    """16 hexadecimal digits that change when a file below `paths`, its name or its x bit does, or `extra`."""
    digest = hashlib.sha256(extra.encode())
    for path in paths:
        files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
        if not files and not path.exists():
            raise FileNotFoundError(path)
        for file in files:
            if "__pycache__" in file.parts:
                continue
            content = file.read_bytes()
            mode = "x" if os.access(file, os.X_OK) else "-"
            digest.update(f"{file.relative_to(path.parent)}\0{mode}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:16]
