"""Log lines in the runner's own format on standard error, with colours even if it is not a terminal."""

import sys
from functools import partial
from typing import NoReturn

WIDTH = 50  # characters for prefix and message
RED, YELLOW, RESET = "\033[31;1m", "\033[0;33m", "\033[0;m"
STYLES = {"info": ("", ""), "warning": (YELLOW, "WARNING: "), "error": (RED, "ERROR: "), "fatal": (RED, "FATAL: ")}


def write(level: str, message: str, **fields: object) -> None:
    """Write one line: the message, then the fields sorted by name."""
    colour, prefix = STYLES[level]
    line = f"{colour}{prefix}{message:<{WIDTH - len(prefix)}}{RESET} "
    line += "".join(f" {colour}{name}{RESET}={value}" for name, value in sorted(fields.items()))
    print(line, file=sys.stderr, flush=True)


info, warning, error = (partial(write, level) for level in ("info", "warning", "error"))


def fatal(message: str, **fields: object) -> NoReturn:
    """Log the message and exit with status 1."""
    write("fatal", message, **fields)
    sys.exit(1)
