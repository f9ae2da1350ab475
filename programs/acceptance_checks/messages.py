"""What the program reads and prints; configuration/report.py has the other end."""

import base64
import contextlib
import json
import os
import sys
from typing import Any, Dict, List, Optional

from .outcomes import COULD_NOT_CHECK, printable

MAX_PROGRESS_LENGTH = 300  # characters; a longer line could stop the engine's display (pulumi-command, 64 KiB)


class Report:
    """Lines of JSON on standard output: printed at once, or `at_end` all together, when every check has passed.

    The engine shows people what a failed step has printed, so they would read JSON there.
    """

    def __init__(self) -> None:
        self.at_end = False
        self._lines: List[str] = []

    def add(self, **line: object) -> None:
        """Report one line."""
        text = json.dumps(line, sort_keys=True)
        if self.at_end:
            self._lines.append(text)
        else:
            print(text, flush=True)

    def close(self) -> None:
        """Print what was held back."""
        for text in self._lines:
            print(text)
        sys.stdout.flush()


def progress(text: str) -> None:
    """Show a line to whoever watches, if anyone does; line breaks become spaces, other control characters go."""
    with contextlib.suppress(OSError):
        os.write(4, (printable(text)[:MAX_PROGRESS_LENGTH] + "\n").encode())


def read_message() -> Optional[Dict[str, Any]]:
    """The next line of standard input; None at its end."""
    line = sys.stdin.readline()
    return dict(json.loads(base64.b64decode(line).decode())) if line.strip() else None


def could_not_check(report: Report, why: str) -> int:
    """Report why. Returns the exit status."""
    why = printable(why)
    with contextlib.suppress(OSError):  # nobody reads any more
        report.add(error=why)
    print(f"Could not check: {why}", file=sys.stderr)
    return COULD_NOT_CHECK
