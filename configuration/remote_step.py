"""How a step travels to a machine: a short command line, with the script and its secrets on standard input.

The command line alone is what the engine prints when a step fails, so it names the step and holds neither the script
nor a secret.
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
    """The text of one file of remote/."""
    return (REMOTE / name).read_text()


def program(name: str) -> str:
    """The text of one file of programs/, which a step installs on a machine."""
    return (PROGRAMS / name).read_text()


def host_key_command() -> str:
    """Prints the machine's SSH host key, its type and itself; all that a machine is told before its key is known."""
    return shlex.join(["cut", "-d", " ", "-f", "1,2", "/etc/ssh/ssh_host_ed25519_key.pub"])


def prepare_command(ports: Sequence[int]) -> str:
    """Runs prepare_host.sh, given on standard input; it installs run-step, which all later steps need."""
    return shlex.join(["sudo", "bash", "-s", "--", *map(str, ports)])


def prepare_input() -> str:
    """prepare_host.sh, then run-step as a base64 line, which the script's last command reads.

    Bash takes its script from a pipe byte by byte, and so leaves what follows a command to that command (POSIX, sh,
    "STDIN").
    """
    return script("prepare_host.sh") + payload_line(program("run-step"))


def step_command(step: str, limit: int, arguments: Sequence[str], *, ended_at_limit: bool = False) -> str:
    """Runs one step and waits for it for `limit` seconds; then it runs on, unless it is `ended_at_limit`."""
    options = ["--end"] if ended_at_limit else []
    return shlex.join(["sudo", RUN_STEP, *options, str(limit), step, *arguments])


def read_only_command(step: str, limit: int, arguments: Sequence[str]) -> str:
    """Runs one step that changes nothing, unless a step that may change something runs."""
    return shlex.join(["sudo", "bash", "-c", script("run_read_only.sh"), step, str(limit), *arguments])


def step_input(step_script: str, payload: Sequence[str | bytes]) -> str:
    """What run-step reads: the script's size in bytes, the script, then each part of the payload as a base64 line."""
    return f"{len(step_script.encode())}\n{step_script}{''.join(map(payload_line, payload))}"


def payload_line(part: str | bytes) -> str:
    """One part of a payload as a step reads it; text is sent as UTF-8."""
    content = part if isinstance(part, bytes) else part.encode()
    return base64.b64encode(content).decode() + "\n"
