"""How a step is sent to a machine: a short command line, with the script and its secrets on standard input.

If a step fails, the engine prints its command line, so the command line contains the name of the step but neither the
script nor secrets.
"""

import base64
import shlex
from collections.abc import Sequence
from pathlib import Path

from configuration.paths import RUN_STEP

ROOT = Path(__file__).resolve().parent.parent
REMOTE = ROOT / "remote"
PROGRAMS = ROOT / "programs"


def script(name: str) -> str:
    """The content of a file in remote/."""
    return (REMOTE / name).read_text()


def program(name: str) -> str:
    """The content of a file in programs/, which a step installs on a machine."""
    return (PROGRAMS / name).read_text()


def host_key_command() -> str:
    """The command that prints the machine's SSH host key with its type; the only one sent before the key is known."""
    return shlex.join(["cut", "-d", " ", "-f", "1,2", "/etc/ssh/ssh_host_ed25519_key.pub"])


def prepare_command(ports: Sequence[int]) -> str:
    """The command that runs prepare_host.sh from standard input; it installs run-step, which all later steps need."""
    return shlex.join(["sudo", "bash", "-s", "--", *map(str, ports)])


def prepare_input() -> str:
    """prepare_host.sh, followed by run-step and finish-jobs as base64 lines, which the script's last command reads.

    Bash reads a script from a pipe byte by byte, so the input after a command is left for that command (POSIX, sh,
    "STDIN").
    """
    return script("prepare_host.sh") + payload_line(program("run-step")) + payload_line(program("finish-jobs"))


def step_command(step: str, limit: int, arguments: Sequence[str], *, ended_at_limit: bool = False) -> str:
    """The command that runs a step and waits `limit` seconds for it; then it continues, or ends if `ended_at_limit`."""
    options = ["--end"] if ended_at_limit else []
    return shlex.join(["sudo", RUN_STEP, *options, str(limit), step, *arguments])


def read_only_command(step: str, limit: int, arguments: Sequence[str]) -> str:
    """The command that runs a step that changes nothing, unless a step that may change something is running."""
    return shlex.join(["sudo", "bash", "-c", script("run_read_only.sh"), step, str(limit), *arguments])


def step_input(step_script: str, payload: Sequence[str | bytes]) -> str:
    """The input of run-step: the script's size in bytes, the script, then each part of the payload as a base64 line."""
    return f"{len(step_script.encode())}\n{step_script}{''.join(map(payload_line, payload))}"


def payload_line(part: str | bytes) -> str:
    """One part of a payload, encoded as a step reads it; strings are sent as UTF-8."""
    content = part if isinstance(part, bytes) else part.encode()
    return base64.b64encode(content).decode() + "\n"
