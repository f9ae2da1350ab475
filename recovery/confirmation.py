"""Asks before something is lost."""

import argparse
import sys

from recovery.errors import RecoveryError


def add_argument(parser: argparse.ArgumentParser) -> None:
    """Add the argument `--yes`."""
    parser.add_argument("--yes", action="store_true", help="do not ask for a confirmation")


def confirm(name: str, *, yes: bool) -> None:
    """Ask for the stack's name, unless `yes`. Raises RecoveryError if it is not typed."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise RecoveryError("needs a confirmation: run it in a terminal, or add --yes (make: YES=1)")
    try:
        typed = input(f"Type the stack's name, {name}, to continue: ")
    except EOFError:
        typed = ""
    if typed.strip() != name:
        raise RecoveryError("not confirmed; nothing was changed")
