"""Input and output of the program; configuration/report.py implements the other end."""

import base64
import contextlib
import json
import os
import sys
from typing import Any, Dict, List, Optional

from .outcomes import COULD_NOT_CHECK, printable

MAX_PROGRESS_LENGTH = 300  # characters; a line of more than 64 KiB would stop the engine's display (pulumi-command)


class Report:
    """Lines of JSON on standard output, printed at once or, with `at_end`, together once every check has passed.

    With `at_end` a failed step prints no JSON, which the engine would show to the user.
    """

    def __init__(self) -> None:
        self.at_end = False
        self._lines: List[str] = []

    def add(self, **line: object) -> None:
        """Add one line."""
        text = json.dumps(line, sort_keys=True)
        if self.at_end:
            self._lines.append(text)
        else:
            print(text, flush=True)

    def close(self) -> None:
        """Print the lines that were held back."""
        for text in self._lines:
            print(text)
        sys.stdout.flush()


def progress(text: str) -> None:
    """Write a line to file descriptor 4 if it is open; line breaks become spaces, control characters are removed."""
    with contextlib.suppress(OSError):
        os.write(4, (printable(text)[:MAX_PROGRESS_LENGTH] + "\n").encode())


def read_message() -> Optional[Dict[str, Any]]:
    """Decode the next line of standard input; None at its end."""
    line = sys.stdin.readline()
    return dict(json.loads(base64.b64decode(line).decode())) if line.strip() else None


def could_not_check(report: Report, why: str) -> int:
    """Report why the checks could not be run. Returns the exit status."""
    why = printable(why)
    with contextlib.suppress(OSError):  # the reader has closed its end
        report.add(error=why)
    print(f"Could not check: {why}", file=sys.stderr)
    return COULD_NOT_CHECK
