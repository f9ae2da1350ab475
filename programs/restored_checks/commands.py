"""Runs commands of the machine."""

import os
import re
import signal
import subprocess
from typing import NamedTuple

from .outcomes import FailedCheckError

COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class Done(NamedTuple):
    """A command that has ended: exit status, standard output and standard error without colours."""

    status: int
    out: str
    errors: str

    @property
    def reason(self) -> str:
        """The end of what it wrote to standard error, in one line."""
        return " / ".join(line.strip() for line in self.errors.splitlines()[-3:] if line.strip()) or "no message"


def run(*command: str, limit: float) -> Done:
    """Run a command. Raises FailedCheckError if it is not installed, or if it exceeds `limit` seconds and is killed."""
    try:
        # A session of its own, so that the processes it started can be killed with it.
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as error:
        raise FailedCheckError(f"{command[0]}: {error.strerror}") from None
    try:
        out, errors = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        raise FailedCheckError(f"{command[0]} did not finish within {limit:g} s") from None
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return Done(process.returncode, _text(out), _text(errors))


def output(*command: str, limit: float) -> str:
    """The standard output of a command. Raises FailedCheckError if it fails."""
    done = run(*command, limit=limit)
    if done.status != 0:
        raise FailedCheckError(f"{command[0]} failed with exit status {done.status}: {done.reason}")
    return done.out


def _text(raw: bytes) -> str:
    return COLOUR.sub("", raw.decode(errors="replace"))
