"""The clone's ignored folder `.lab`, long commands with a log, and daemons that outlive the command line.

All files of the lab are in `.lab`: after `down` the folder can be deleted.
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

PROGRESS_INTERVAL = 10.0  # seconds between two progress lines of a running command
START_CHECK = 0.3  # seconds a daemon must survive to count as started
TAIL_LINES = 20


class LabError(Exception):
    """An error for the user: what went wrong and what to do."""


def say(text: str) -> None:
    """Print a line without buffering."""
    print(text, flush=True)


def tail(path: Path, lines: int = TAIL_LINES) -> str:
    """Return the last `lines` non-empty lines of a log, read from its end; empty if the file does not exist."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 64 * 1024))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        return ""
    # A progress bar rewrites its line with carriage returns: keep only the last version.
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
    """Run a long command, append its output to `LOGS/<log>.log` and print progress.

    `env` is added to the environment. Raises LabError with the log's last lines if the command fails or
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
            raise LabError(f"{title}: {error.filename} does not exist") from error
        try:
            _wait(process, stdin, log_file, started)
        except BaseException:
            process.terminate()
            process.wait()
            raise
    if process.returncode:
        raise LabError(
            f"{title}: {command[0]} exited with status {process.returncode}\n{tail(log_file)}\n(full log: {log_file})"
        )
    say(f"{title}  {time.monotonic() - started:.0f} s")


def _wait(process: subprocess.Popen[str], stdin: str | None, log_file: Path, started: float) -> None:
    while True:
        try:
            process.communicate(stdin, timeout=PROGRESS_INTERVAL)
            return
        except subprocess.TimeoutExpired:
            stdin = None  # communicate() has stored the rest of the input
            say(f"  {time.monotonic() - started:.0f} s  {tail(log_file, 1)[:100]}")


class Daemon:
    """A process that keeps running after the command that started it.

    The pid file contains the pid and the process's start time, so that another process with a reused pid is not
    mistaken for the daemon.
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
        """The daemon's process id; None if it is not running."""
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
        """Start the daemon unless it is running. Raises LabError with its last output if it exits immediately."""
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
                raise LabError(f"{self.name}: {error.filename} does not exist") from error
        self._child = child
        self.pid_file.write_text(f"{child.pid} {_start_time(child.pid)}\n")
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(START_CHECK)
            self.pid_file.unlink(missing_ok=True)
            raise LabError(
                f"{self.name} exited with status {child.returncode} immediately after its start\n"
                f"{tail(self.log_file)}\n(full log: {self.log_file})"
            )

    def stop(self, timeout: float = 10.0) -> None:
        """Send SIGTERM, after `timeout` seconds SIGKILL, then kill the rest of its process group. Idempotent."""
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
        # The kernel does not reuse a pid while a process group has that id: a group without its leader
        # belongs to the daemon.
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
    """Return the clock ticks from boot to the start of the process (proc(5) stat, field 22); None if it has ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    state, *fields = stat.rpartition(")")[2].split()  # the name before it may contain spaces and parentheses
    return None if state in "ZX" else int(fields[18])


def write_secret(file: Path, text: str) -> None:
    """Replace a file with one that only its owner can read; a reader sees the old or the new text."""
    unfinished = file.with_name(f"{file.name}.unfinished")
    unfinished.unlink(missing_ok=True)
    with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as output:
        output.write(text)
    unfinished.rename(file)


def inputs_hash(*paths: Path, extra: str = "") -> str:
    """Return 16 hexadecimal digits that change with the files in `paths`, their names and x bits, and `extra`."""
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
