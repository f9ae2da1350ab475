"""Short commands of the host: `ip`, `nft`, `losetup`."""

import subprocess

from lab.workspace import LabError


def call(*command: str, stdin: str | None = None, check: bool = True) -> str:
    """Run a command and return its output. Raises LabError with the command's message if it fails and `check` is set.

    Without `check`, the output of a command that is not installed is empty.
    """
    try:
        done = subprocess.run(command, input=stdin or "", capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        if not check:
            return ""
        raise LabError(f"{command[0]} is not installed") from error
    if check and done.returncode:
        raise LabError(f"{' '.join(command)}: {done.stderr.strip() or f'status {done.returncode}'}")
    return done.stdout
