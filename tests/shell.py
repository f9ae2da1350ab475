"""Checks of shell text, and its run with stand-ins for the tools of a machine."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from configuration.remote_step import step_input

SHELLCHECK = Path(sys.executable).with_name("shellcheck")
"""The one the virtual environment brings, whatever the machine has."""
RULES = Path(__file__).resolve().parent.parent / ".shellcheckrc"


def check_shell(text: str) -> None:
    """Raises CalledProcessError when bash cannot parse the text or shellcheck finds something in it."""
    subprocess.run(["bash", "-n"], input=text, text=True, check=True)
    command = [str(SHELLCHECK), "--severity", "style", "--rcfile", str(RULES), "-"]
    subprocess.run(command, input=text, text=True, check=True)


def run_with_tools(
    text: str, name: str, arguments: Sequence[str], payload: Sequence[str | bytes], *, tools: Path, result: str
) -> subprocess.CompletedProcess[str]:
    """Run a step's text as run-step does, with the commands in `tools` before all others; `result` is where its file
    descriptor 3 leads, and 4 to standard error.
    """
    return subprocess.run(
        ["bash", "-c", f"exec 3>{result} 4>&2\n{text}", name, *arguments],
        input=step_input("", payload).removeprefix("0\n"),
        text=True,
        capture_output=True,
        env={"PATH": f"{tools}:{os.environ['PATH']}"},
        check=False,
    )
