"""Runs the Pulumi CLI on one stack of this project, with its output shown to the user.

Commands run in sessions of their own, so that Ctrl-C at the terminal does not reach them directly: a first SIGINT makes
the engine finish its current operations, a second one makes it drop them (pulumi 3.259, pkg/backend/apply.go).
"""

import contextlib
import ctypes
import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from recovery import stack_file
from recovery.errors import RecoveryError
from recovery.stack_file import ROOT

INTERRUPTED = 130
"""The exit status of an interrupted command, as of a program that Ctrl-C ends."""

SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)

PR_SET_PDEATHSIG = 1  # prctl(2)


class Interrupted(BaseException):
    """The user or CI ends the command."""


class Pulumi:
    """The CLI on the stack `stack`, whose file is in `folder`. `lock` is a descriptor that its processes inherit."""

    def __init__(self, stack: str, *, lock: int | None = None, folder: Path = ROOT) -> None:
        self.stack = stack
        self.folder = folder
        self.file = folder / stack_file.name(stack)
        self._lock = lock

    def resources(self) -> list[dict[str, Any]] | None:
        """The resources in the stack's state that AWS or a machine has, without components; None if there is no such
        stack.
        """
        listed = json.loads(self._run("stack", "ls", "--output", "json", captured=True))
        if stack_file.short(self.stack) not in {stack_file.short(each["name"]) for each in listed}:
            return None
        state = json.loads(self._run("stack", "export", "--stack", self.stack, captured=True))
        found = (state["deployment"] or {}).get("resources") or []
        return [each for each in found if each.get("custom") and not each["type"].startswith("pulumi:providers:")]

    def init(self, secrets_provider: str | None) -> None:
        """Create the stack. If its file has keys for decryption, they are kept."""
        chosen = ["--secrets-provider", secrets_provider] if secrets_provider else []
        self._run("stack", "init", "--no-select", "--stack", self.stack, *chosen)

    def copy_setting(self, key: str, source: str) -> None:
        """Copy a setting of another stack, encrypted for this one."""
        self._run("config", "cp", key, "--stack", source, "--dest", self.stack)

    def set_secret(self, key: str, value: str) -> None:
        """Store an encrypted setting."""
        self._run("config", "set", "--secret", "--stack", self.stack, key, text=value)

    def up(self) -> None:
        """Create or update the resources."""
        self._run("up", "--yes", "--skip-preview", "--suppress-outputs", "--suppress-progress", "--stack", self.stack)

    def output(self, name: str) -> Any:  # noqa: ANN401, it has the type that the program gave it
        """An output of the stack, in plain text."""
        command = ("stack", "output", name, "--json", "--show-secrets", "--stack", self.stack)
        return json.loads(self._run(*command, captured=True))

    def cancel(self) -> None:
        """Release the lock that a killed engine left, if there is one. The caller must know that no engine is running.

        Pulumi Cloud calls it an error if there is none (pulumi/pulumi#5364).
        """
        try:
            self._run("cancel", "--yes", "--stack", self.stack, captured=True)
        except RecoveryError as error:
            print(f"{error}; continuing, since there may be nothing to cancel", flush=True)

    def destroy(self, *, settings: Path | None = None, keep_protected: bool = False) -> None:
        """Delete all resources, or those that are not protected. `settings` is the stack's file if it is another."""
        chosen = ["--config-file", str(settings)] if settings else []
        chosen += ["--exclude-protected"] if keep_protected else []
        self._run("destroy", "--yes", "--skip-preview", "--suppress-progress", "--stack", self.stack, *chosen)

    def remove(self) -> None:
        """Delete the empty stack and its file."""
        self._run("stack", "rm", "--yes", "--stack", self.stack)

    def _run(self, *command: str, text: str | None = None, captured: bool = False) -> str:
        """Run a command that asks nothing, and return its output if it is `captured`. Raises RecoveryError."""
        sys.stdout.flush()  # what was printed comes before the command's output
        early: list[int] = []
        try:
            # An exception in Popen would lose the process that it has started.
            with _handled_by(lambda number, _frame: early.append(number)):
                process = subprocess.Popen(
                    ["pulumi", "--non-interactive", *command],
                    cwd=self.folder,
                    stdin=subprocess.DEVNULL if text is None else subprocess.PIPE,
                    stdout=subprocess.PIPE if captured else None,
                    text=True,
                    start_new_session=True,
                    pass_fds=() if self._lock is None else (self._lock,),
                    preexec_fn=_end_with_the_caller(),  # noqa: PLW1509, there is only one thread
                )
        except FileNotFoundError:
            raise RecoveryError("pulumi is not installed, or not in PATH") from None
        interruption: Interrupted | None = None
        while True:
            try:
                while early:
                    signal.raise_signal(early.pop())
                out, _ = process.communicate(text)
                break
            except Interrupted as interrupt:
                if interruption is None:
                    process.send_signal(signal.SIGINT)
                interruption = interrupt
        if interruption is not None:
            raise interruption
        if process.returncode:
            raise RecoveryError(f"pulumi {' '.join(command[:2])} failed (status {process.returncode}): see above")
        return out or ""


def _end_with_the_caller() -> Callable[[], None] | None:
    """Makes the kernel interrupt a command when this process is killed, so that no engine stays behind."""
    if sys.platform != "linux":
        return None
    library = ctypes.CDLL(None)
    return lambda: library.prctl(PR_SET_PDEATHSIG, signal.SIGINT)


@contextlib.contextmanager
def exclusive(folder: Path = ROOT) -> Iterator[int]:
    """Wait until no other command of this clone and no engine that it started is running; yields the lock for Pulumi.

    The lock is released when the last process that inherited it has ended, also if a command was killed.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("waiting for another recovery command, or the engine that it started, to end", flush=True)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Signals raise Interrupted while this lasts."""

    def interrupt(number: int, _frame: FrameType | None) -> None:
        raise Interrupted(signal.Signals(number).name)

    with _handled_by(interrupt):
        yield


@contextlib.contextmanager
def uninterruptible() -> Iterator[None]:
    """Signals are answered, but change nothing while this lasts."""

    def refuse(number: int, _frame: FrameType | None) -> None:
        print(f"{signal.Signals(number).name}: removing what was created first; please wait", flush=True)

    with _handled_by(refuse):
        yield


@contextlib.contextmanager
def _handled_by(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    former = {number: signal.signal(number, handler) for number in SIGNALS}
    try:
        yield
    finally:
        for number, each in former.items():
            signal.signal(number, each)
