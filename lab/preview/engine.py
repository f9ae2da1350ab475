"""The engine on temporary stacks in `.lab/preview`, with their own state, passphrase and plugins, and an API only."""

import contextlib
import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from lab import stack, versions
from lab.engine import build
from lab.preview import agent
from lab.preview.made_up import ANSWERS_VARIABLE
from lab.preview.placeholder_certificate import trusting
from lab.preview.stack_file import PLACEHOLDER_PUBLIC_KEY, PUBLIC_KEY, StackFile
from lab.workspace import STATE, Daemon, LabError, tail

FOLDER = STATE / "preview"
PASSPHRASE = "preview"  # protects nothing: every secret of such a stack is a placeholder
START_TIMEOUT = 60.0  # seconds


def daemon(*options: str) -> Daemon:
    """Return the daemon with the API for previews; it needs options only to start."""
    return Daemon("preview-api", [sys.executable, "-m", "lab.cloud", "--api-only", *options])


@contextlib.contextmanager
def api(existing: Mapping[str, Any]) -> Iterator[str]:
    """Run the lab's API without machines, with the resources in `existing`; yields its address.

    Raises LabError if it does not respond or ends early.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    FOLDER.mkdir(parents=True, exist_ok=True)
    file = FOLDER / "existing.json"
    file.write_text(json.dumps(existing))
    process = daemon("--port", str(port), "--existing", str(file))
    process.stop()  # left by a preview that was killed
    address = f"http://127.0.0.1:{port}"
    try:
        process.start()
        deadline = time.monotonic() + START_TIMEOUT
        while not _answers(address):
            if not process.running() or time.monotonic() > deadline:
                raise LabError(f"the lab's API does not respond\n{tail(process.log_file)}\n(log: {process.log_file})")
            time.sleep(0.1)
        try:
            yield address
        except LabError:
            if _answers(address):
                raise
            # Replaces the engine's errors, one for each resource.
            raise LabError(f"the lab's API at {address} is no longer reachable (log: {process.log_file})") from None
    finally:
        process.stop()


def _answers(address: str) -> bool:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{address}/_lab/status", timeout=10):
            return True
    except (urllib.error.URLError, OSError):
        return False


class Throwaway:
    """A temporary stack. `name` is the stack's name for the program.

    Its remote steps are only simulated, as are AWS resources unless it `creates` them in the API. Operations do not
    refresh unless an option requests it: resources that are only in the state do not exist in the API.
    """

    def __init__(self, name: str, project: str, api: str, *, creates: bool = False) -> None:
        self.name = name
        self._simulating = ("command",) if creates else ("aws", "command")
        self._folder = FOLDER / "stack"
        self._api = api
        self._project = project
        self._answers: Mapping[str, str] | None = None
        self._public_key = PLACEHOLDER_PUBLIC_KEY
        self._trust: Mapping[str, str] = {}
        self._agent: Path | None = None
        shutil.rmtree(self._folder, ignore_errors=True)
        (self._folder / "state").mkdir(parents=True)
        (self._folder / "Pulumi.yaml").write_text(yaml.safe_dump({"name": project, "runtime": "python"}))
        self.ask("stack", "init", "--stack", name, "--secrets-provider", "passphrase")
        self._salt = yaml.safe_load(self._file.read_text())["encryptionsalt"]

    @property
    def _file(self) -> Path:
        return self._folder / f"Pulumi.{self.name}.yaml"

    def configure(self, given: StackFile) -> None:
        """Set the stack's configuration, with placeholders as secrets."""
        self._public_key = given.texts().get(f"{self._project}:{PUBLIC_KEY}", PLACEHOLDER_PUBLIC_KEY)
        self._trust = trusting(FOLDER) if given.has_placeholder_certificate else {}
        plain = {key: value for key, value in given.values.items() if key not in given.secrets}
        self._file.write_text(yaml.safe_dump({"encryptionsalt": self._salt, "config": plain}, sort_keys=True))
        texts = given.texts()
        secrets = [option for key in given.secrets for option in ("--secret", f"{key}={texts[key]}")]
        if secrets:
            self.ask("config", "set-all", "--stack", self.name, *secrets)

    def bring_up(self, program: Path, answers: Mapping[str, str]) -> None:
        """Add the program's resources to the state; `answers` has the output of its steps."""
        self.operate(["up", "--yes", "--skip-preview", "--suppress-outputs", "--refresh=false"], program, answers)

    def operate(self, operation: Sequence[str], program: Path, answers: Mapping[str, str]) -> None:
        """Run an operation of the engine with these options. Raises LabError with its error output."""
        self._answers = answers
        try:
            with agent.listing(self._public_key) as self._agent:
                self.ask(*operation, *self._options(), cwd=program)
        finally:
            self._answers = self._agent = None

    def preview(self, program: Path) -> dict[str, Any]:
        """Return the output of `pulumi preview --json` on the state, after removing protection, which would end it."""
        self.ask("state", "unprotect", "--all", "--yes", "--stack", self.name)
        options = ["--json", "--refresh=false", *self._options()]
        answer: dict[str, Any] = json.loads(self.ask("preview", *options, cwd=program))
        return answer

    def show_preview(self, program: Path) -> None:
        """Run `pulumi preview`, with its own display. Raises EngineError."""
        command = [str(build.ensure()), "preview", "--refresh=false", *self._options()]
        if subprocess.run(command, cwd=program, env=self._environment(), check=False).returncode:
            raise stack.EngineError("pulumi preview failed: see above")

    def resources(self) -> list[dict[str, Any]]:
        """Return the resources in the state."""
        deployment = json.loads(self.ask("stack", "export", "--stack", self.name))["deployment"]
        found: list[dict[str, Any]] = deployment.get("resources") or []
        return found

    def save(self, file: Path) -> None:
        """Write the state to a file."""
        self.ask("stack", "export", "--stack", self.name, "--file", str(file.resolve()))

    def take(self, file: Path) -> None:
        """Import the state from a file written by `save` or `pulumi stack export`."""
        if not file.is_file():
            raise LabError(f"{file} does not exist: --state needs a file written by `state` or pulumi stack export")
        self.ask("stack", "import", "--stack", self.name, "--file", str(file.resolve()))

    def _options(self) -> list[str]:
        return ["--stack", self.name, "--config-file", str(self._file)]

    def ask(self, *command: str, cwd: Path | None = None) -> str:
        """Run a command of the engine and return its standard output. Raises LabError with its error output."""
        arguments = [str(build.ensure()), "--non-interactive", "--color", "never", *command]
        done = subprocess.run(
            arguments, cwd=cwd or self._folder, env=self._environment(), capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise LabError(f"pulumi {command[0]} failed:\n{_error_output(done.stdout, done.stderr)}")
        return done.stdout

    def _environment(self) -> dict[str, str]:
        variables = stack.environment() | {
            "AWS_ENDPOINT_URL": self._api,
            "PULUMI_BACKEND_URL": f"file://{self._folder / 'state'}",
            "PULUMI_CONFIG_PASSPHRASE": PASSPHRASE,
            **self._trust,
        }
        del variables["PULUMI_CONFIG_PASSPHRASE_FILE"]
        variables["SSH_AUTH_SOCK"] = str(self._agent or "")
        if self._answers is not None:
            variables["PULUMI_HOME"] = str(_plugins(self._simulating))
            variables[ANSWERS_VARIABLE] = json.dumps(self._answers)
        return variables


def _plugins(simulating: Collection[str]) -> Path:
    """Return the home of an engine in which these plugins only simulate creation."""
    home = FOLDER / "-".join(["plugins", *simulating])
    for name, version in (("aws", versions.PULUMI_AWS), ("command", versions.PULUMI_COMMAND)):
        real = build.plugin(name, version)
        launcher = home / real.relative_to(build.PULUMI_HOME)
        if name in simulating:
            build.write_launcher(launcher, "lab.preview.made_up", str(real))
        elif not launcher.exists():
            launcher.parent.mkdir(parents=True, exist_ok=True)
            launcher.symlink_to(real)
    return home


def _error_output(output: str, errors: str) -> str:
    """Return the diagnostics in the output of a failed command, or the complete output if it has none."""
    try:
        diagnostics: Sequence[Mapping[str, str]] = json.loads(output).get("diagnostics", [])
        output = "".join(each["message"] for each in diagnostics if each.get("severity") == "error")
    except ValueError:
        pass
    _, found, rest = output.partition("Diagnostics:\n")
    text = rest if found else output
    return "\n".join(part.strip("\n") for part in (text, errors) if part.strip())
