"""The engine on throw-away stacks below `.lab/preview`: state, passphrase and plugins of their own, the API alone."""

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
from lab.preview.stack_file import PLACEHOLDER_PUBLIC_KEY, PUBLIC_KEY, StackFile
from lab.workspace import STATE, Daemon, LabError, tail

FOLDER = STATE / "preview"
PASSPHRASE = "preview"  # keeps nothing: every secret of such a stack is a placeholder
START_TIMEOUT = 60.0  # seconds


def daemon(*options: str) -> Daemon:
    """The API for previews; what stops it needs no options."""
    return Daemon("preview-api", [sys.executable, "-m", "lab.cloud", "--api-only", *options])


@contextlib.contextmanager
def api(existing: Mapping[str, Any]) -> Iterator[str]:
    """The lab's API alone, as long as it is needed; yields its address. What the settings name is there (`existing`).

    Raises LabError when it does not answer, or not any more.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    FOLDER.mkdir(parents=True, exist_ok=True)
    file = FOLDER / "existing.json"
    file.write_text(json.dumps(existing))
    process = daemon("--port", str(port), "--existing", str(file))
    process.stop()  # one that a killed preview left
    address = f"http://127.0.0.1:{port}"
    try:
        process.start()
        deadline = time.monotonic() + START_TIMEOUT
        while not _answers(address):
            if not process.running() or time.monotonic() > deadline:
                raise LabError(f"the lab's API does not answer\n{tail(process.log_file)}\n(log: {process.log_file})")
            time.sleep(0.1)
        try:
            yield address
        except LabError:
            if _answers(address):
                raise
            # The engine has said so of every resource.
            raise LabError(f"the lab's API at {address} is not reachable any more (log: {process.log_file})") from None
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
    """A stack that is forgotten afterwards. `name` is the stack's, as the program sees it.

    Its remote steps only pretend to run; so do creations of AWS's resources unless it `creates` them in the API.
    Nothing is refreshed unless an operation says so: what only the state holds must not be looked for in the API.
    """

    def __init__(self, name: str, project: str, api: str, *, creates: bool = False) -> None:
        self.name = name
        self._pretending = ("command",) if creates else ("aws", "command")
        self._folder = FOLDER / "stack"
        self._api = api
        self._project = project
        self._answers: Mapping[str, str] | None = None
        self._public_key = PLACEHOLDER_PUBLIC_KEY
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
        """Take this configuration, its placeholders as secrets."""
        self._public_key = given.texts().get(f"{self._project}:{PUBLIC_KEY}", PLACEHOLDER_PUBLIC_KEY)
        plain = {key: value for key, value in given.values.items() if key not in given.secrets}
        self._file.write_text(yaml.safe_dump({"encryptionsalt": self._salt, "config": plain}, sort_keys=True))
        texts = given.texts()
        secrets = [option for key in given.secrets for option in ("--secret", f"{key}={texts[key]}")]
        if secrets:
            self.ask("config", "set-all", "--stack", self.name, *secrets)

    def bring_up(self, program: Path, answers: Mapping[str, str]) -> None:
        """Bring the program's resources into the state; its steps answer by `answers`."""
        self.operate(["up", "--yes", "--skip-preview", "--suppress-outputs", "--refresh=false"], program, answers)

    def operate(self, operation: Sequence[str], program: Path, answers: Mapping[str, str]) -> None:
        """Run an operation of the engine with these options. Raises LabError with what it said."""
        self._answers = answers
        try:
            with agent.said_to_hold(self._public_key) as self._agent:
                self.ask(*operation, *self._options(), cwd=program)
        finally:
            self._answers = self._agent = None

    def preview(self, program: Path) -> dict[str, Any]:
        """What `pulumi preview --json` says of the program, the state being what is there, and nothing of it protected:
        what is, would end the preview.
        """
        self.ask("state", "unprotect", "--all", "--yes", "--stack", self.name)
        options = ["--json", "--refresh=false", *self._options()]
        answer: dict[str, Any] = json.loads(self.ask("preview", *options, cwd=program))
        return answer

    def show_preview(self, program: Path) -> None:
        """`pulumi preview`, its own display on the terminal. Raises EngineError."""
        command = [str(build.ensure()), "preview", "--refresh=false", *self._options()]
        if subprocess.run(command, cwd=program, env=self._environment(), check=False).returncode:
            raise stack.EngineError("pulumi preview has failed: see above")

    def resources(self) -> list[dict[str, Any]]:
        """The resources in the state."""
        deployment = json.loads(self.ask("stack", "export", "--stack", self.name))["deployment"]
        found: list[dict[str, Any]] = deployment.get("resources") or []
        return found

    def save(self, file: Path) -> None:
        """Write the state into a file."""
        self.ask("stack", "export", "--stack", self.name, "--file", str(file.resolve()))

    def take(self, file: Path) -> None:
        """Begin with the state in a file, as `save` or `pulumi stack export` wrote it."""
        if not file.is_file():
            raise LabError(f"{file}: there is no such state")
        self.ask("stack", "import", "--stack", self.name, "--file", str(file.resolve()))

    def _options(self) -> list[str]:
        return ["--stack", self.name, "--config-file", str(self._file)]

    def ask(self, *command: str, cwd: Path | None = None) -> str:
        """Run a command of the engine. Returns its standard output; raises LabError with what it said."""
        arguments = [str(build.ensure()), "--non-interactive", "--color", "never", *command]
        done = subprocess.run(
            arguments, cwd=cwd or self._folder, env=self._environment(), capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise LabError(f"pulumi {command[0]} has failed:\n{_said(done.stdout, done.stderr)}")
        return done.stdout

    def _environment(self) -> dict[str, str]:
        variables = stack.environment() | {
            "AWS_ENDPOINT_URL": self._api,
            "PULUMI_BACKEND_URL": f"file://{self._folder / 'state'}",
            "PULUMI_CONFIG_PASSPHRASE": PASSPHRASE,
        }
        del variables["PULUMI_CONFIG_PASSPHRASE_FILE"]
        variables["SSH_AUTH_SOCK"] = str(self._agent or "")
        if self._answers is not None:
            variables["PULUMI_HOME"] = str(_plugins(self._pretending))
            variables[ANSWERS_VARIABLE] = json.dumps(self._answers)
        return variables


def _plugins(pretending: Collection[str]) -> Path:
    """The home of an engine of whose plugins these create nothing."""
    home = FOLDER / "-".join(["plugins", *pretending])
    for name, version in (("aws", versions.PULUMI_AWS), ("command", versions.PULUMI_COMMAND)):
        real = build.plugin(name, version)
        launcher = home / real.relative_to(build.PULUMI_HOME)
        if name in pretending:
            build.write_launcher(launcher, "lab.preview.made_up", str(real))
        elif not launcher.exists():
            launcher.parent.mkdir(parents=True, exist_ok=True)
            launcher.symlink_to(real)
    return home


def _said(output: str, errors: str) -> str:
    """What a failed command has said: the diagnostics of its display, or else all of it."""
    try:
        diagnostics: Sequence[Mapping[str, str]] = json.loads(output).get("diagnostics", [])
        output = "".join(each["message"] for each in diagnostics if each.get("severity") == "error")
    except ValueError:
        pass
    _, found, rest = output.partition("Diagnostics:\n")
    text = rest if found else output
    return "\n".join(part.strip("\n") for part in (text, errors) if part.strip())
