"""Checks of shell text."""

import subprocess
import sys
from pathlib import Path

SHELLCHECK = Path(sys.executable).with_name("shellcheck")
"""The one the virtual environment brings, whatever the machine has."""


def check_shell(text: str) -> None:
    """Raises CalledProcessError when bash cannot parse the text or shellcheck finds something in it."""
    subprocess.run(["bash", "-n"], input=text, text=True, check=True)
    subprocess.run([SHELLCHECK, "-"], input=text, text=True, check=True)
