"""How tests wait for other processes without losing time."""

import shlex
import shutil
import time
from collections.abc import Callable
from pathlib import Path


def wait_until(condition: Callable[[], bool], seconds: float = 5) -> None:
    """Return as soon as the condition is true. Raise AssertionError if it is still false after some seconds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


def until(file: Path) -> str:
    """A shell command that ends when the file exists, or after about 20 s, if the test has failed before."""
    return f"for _ in {{1..2000}}; do [ ! -e {shlex.quote(str(file))} ] || break; sleep 0.01; done"


def put_quick_tail(tools: Path) -> None:
    """Put a `tail` into `tools` that checks every 0.01 s whether a process (--pid) has ended; the default of tail(1) is
    every second. A --sleep-interval of the caller takes precedence.
    """
    file = tools / "tail"
    file.write_text(f'#!/bin/bash\nexec {shutil.which("tail")} --sleep-interval=0.01 "$@"\n')
    file.chmod(0o755)
