"""Log lines as the runner's own format has them, on standard error, with colours whatever standard error is."""

import sys
from typing import NoReturn

WIDTH = 50  # characters for prefix and message
PREFIXES = {"info": "", "warning": "WARNING: ", "error": "ERROR: ", "fatal": "FATAL: ", "panic": "PANIC: "}
RED, RESET = "\033[31;1m", "\033[0;m"
COLOURS = {"info": "", "warning": "\033[0;33m", "error": RED, "fatal": RED, "panic": RED}


class ExitError(SystemExit):
    """The program ends with status 1; the reason is in the log."""


def write(level: str, message: str, **fields: object) -> None:
    print(formatted(level, message, **fields), file=sys.stderr, flush=True)


def formatted(level: str, message: str, **fields: object) -> str:
    """One line: message, then the fields by name."""
    prefix = PREFIXES[level]
    colour = COLOURS[level]
    line = f"{colour}{prefix}{message:<{WIDTH - len(prefix)}}{RESET} "
    return line + "".join(f" {colour}{name}{RESET}={value}" for name, value in sorted(fields.items()))


def info(message: str, **fields: object) -> None:
    write("info", message, **fields)


def warning(message: str, **fields: object) -> None:
    write("warning", message, **fields)


def error(message: str, **fields: object) -> None:
    write("error", message, **fields)


def fatal(message: str, **fields: object) -> NoReturn:
    """Say it and end the program."""
    write("fatal", message, **fields)
    raise ExitError(1)


def panic(message: str, **fields: object) -> NoReturn:
    """Like fatal; the real one names its stack as well."""
    write("panic", message, **fields)
    raise ExitError(1)
