"""Runs commands of the machine."""

import os
import subprocess
from typing import Optional

from .errors import BackupError


def run(*command: str, timeout: Optional[float] = None, **environment: str) -> str:
    """The output of a command, without standard error. Raises BackupError if it fails or exceeds the time limit."""
    try:
        done = subprocess.run(  # noqa: UP022, Python 3.6 has no capture_output
            command,
            env=dict(os.environ, **environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise BackupError(f"{' '.join(command[:2])} did not finish within {timeout:g} s") from None
    except OSError as error:
        raise BackupError(f"{command[0]}: {error.strerror}") from None
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip() or f"exit status {done.returncode}"
        raise BackupError(f"{' '.join(command[:2])} failed: {said}")
    return done.stdout.decode(errors="replace").strip()
