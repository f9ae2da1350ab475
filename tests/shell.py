"""Checks of shell scripts, and runs with stubs for a machine's commands."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from configuration.remote_step import step_input

SHELLCHECK = Path(sys.executable).with_name("shellcheck")
"""The shellcheck of the virtual environment, even if another one is installed."""
RULES = Path(__file__).resolve().parent.parent / ".shellcheckrc"


def check_shell(text: str) -> None:
    """Raise CalledProcessError if bash cannot parse the text, or if shellcheck reports a problem."""
    subprocess.run(["bash", "-n"], input=text, text=True, check=True)
    command = [str(SHELLCHECK), "--severity", "style", "--rcfile", str(RULES), "-"]
    subprocess.run(command, input=text, text=True, check=True)


def run_with_tools(
    text: str, name: str, arguments: Sequence[str], payload: Sequence[str | bytes], *, tools: Path, result: str
) -> subprocess.CompletedProcess[str]:
    """Run a step's script as run-step does, with the commands in `tools` first in PATH. File descriptor 3 goes to
    `result`, and 4 to standard error.
    """
    return subprocess.run(
        ["bash", "-c", f"exec 3>{result} 4>&2\n{text}", name, *arguments],
        input=step_input("", payload).removeprefix("0\n"),
        text=True,
        capture_output=True,
        env={"PATH": f"{tools}:{os.environ['PATH']}"},
        check=False,
    )
