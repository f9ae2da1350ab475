"""Text output: sizes, counts, times, and the progress line."""

import datetime
import os
import time
from typing import Optional, TextIO

UNITS = ("", "kB", "MB", "GB", "TB", "PB")
PROGRESS_INTERVAL = 0.2  # seconds
CLEAR_LINE = "\r\033[K"


def size_text(size: int) -> str:
    """A size, rounded and exact: 1.2 MB (1,234,567 bytes)."""
    value = float(size)
    for unit in UNITS:
        if value < 999.95 or unit == UNITS[-1]:
            break
        value /= 1000
    exact = f"{size:,} bytes"
    return exact if not unit else f"{value:.1f} {unit} ({exact})"


def plural(count: int, one: str, many: str = "") -> str:
    """A count and its noun: 1 tag, 2 tags."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def and_more(count: int) -> str:
    """The end of a list that omits `count` names."""
    return f" and {count:,} more" if count > 0 else ""


def short_digest(digest: str) -> str:
    """The first twelve digits of a digest, as Docker shows them."""
    return digest[: len("sha256:") + 12]


def timestamp(seconds: float) -> str:
    """Seconds since 1970 as ISO 8601, in UTC."""
    moment = datetime.datetime.fromtimestamp(int(seconds), datetime.timezone.utc)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def printable(line: str) -> str:
    """Escape control characters: names in a damaged store could contain terminal control sequences."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in line)


class Progress:
    """A progress line on a terminal; shows nothing if the stream is not a terminal."""

    def __init__(self, stream: Optional[TextIO]) -> None:
        self._terminal = stream if stream and stream.isatty() else None
        self._shown = time.monotonic()
        self._process = os.getpid()

    def __call__(self, what: str, count: int) -> None:
        """Show the count, at most every PROGRESS_INTERVAL. Processes forked from this one show nothing."""
        if self._terminal and time.monotonic() - self._shown > PROGRESS_INTERVAL and os.getpid() == self._process:
            self._shown = time.monotonic()
            self._terminal.write(f"{CLEAR_LINE}{printable(what)}: {count:,}")
            self._terminal.flush()

    def clear(self) -> None:
        """Remove the line."""
        if self._terminal:
            self._terminal.write(CLEAR_LINE)
            self._terminal.flush()
