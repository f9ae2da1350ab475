"""Runs Pulumi on the lab's stack: this clone's unmodified program, with state, secrets and plugins in `.lab`."""

import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from lab.engine import build
from lab.vendors import packages
from lab.workspace import LOGS, ROOT, RUN, STATE, Daemon, LabError, inputs_hash

STACK = "lab"
API = "http://127.0.0.1:5566"
SETTINGS = ROOT / "Pulumi.lab.yaml"
PROJECT = ROOT / "Pulumi.yaml"

KEYS = STATE / "keys"
PRIVATE_KEY = KEYS / "id_ed25519"
PASSPHRASE = KEYS / "passphrase"
AGENT_SOCKET = RUN / "ssh-agent.socket"
AGENT = Daemon("ssh-agent", ["ssh-agent", "-D", "-a", str(AGENT_SOCKET)])
"""The SSH agent with the private key, with which steps and the doctor log in. No setting contains the key."""

BACKEND = STATE / "state"
FOLDER = STATE / "stack"
"""A project with the same name, so that the CLI writes the stack's files here and not into the clone's own."""

CLONE_VARIABLE = "LAB_CLONE"
"""The environment variable that marks every process of the engine with its clone."""


class EngineError(LabError):
    """Pulumi failed and has printed the error."""


class Terminated(KeyboardInterrupt):
    """SIGTERM: unlike Ctrl-C at the terminal, it is not also sent to the engine."""


def environment() -> dict[str, str]:
    """Return the environment of every Pulumi command, from which the user's AWS account cannot be reached."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "PULUMI_"))}
    own = {
        CLONE_VARIABLE: str(ROOT),
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_ENDPOINT_URL": API,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "PULUMI_BACKEND_URL": f"file://{BACKEND}",
        "PULUMI_CONFIG_PASSPHRASE_FILE": str(PASSPHRASE),
        "PULUMI_CREDENTIAL_STORE": "plaintext",
        "PULUMI_DEBUG_COMMANDS": "true",  # required for --event-log
        "PULUMI_HOME": str(build.PULUMI_HOME),
        "PULUMI_SKIP_UPDATE_CHECK": "true",
        "SSH_AUTH_SOCK": str(AGENT_SOCKET),
    }
    if build.official():
        return inherited | own
    own |= {
        "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
        "PULUMI_DISABLE_REGISTRY_RESOLVE": "true",
    }
    if mirror := build.terraform_mirror():
        own[build.MIRROR_VARIABLE] = str(mirror)
    return inherited | own


def environment_of_commands() -> dict[str, str]:
    """Return the environment of a command that works with the lab as with AWS: its Pulumi, its credentials, its agent.

    The region is not in it: stacks are in several.
    """
    config = _read(SETTINGS)["config"]
    return environment() | {
        "AWS_ACCESS_KEY_ID": config["aws:accessKey"],
        "AWS_SECRET_ACCESS_KEY": config["aws:secretKey"],
        "PATH": os.pathsep.join((str(build.ensure().parent), os.environ["PATH"])),
    }


def up() -> None:
    """Run `pulumi up`, with its own display but without progress dots and outputs. Raises EngineError."""
    _operate("up", "--yes", "--skip-preview", "--suppress-progress", "--suppress-outputs")


def preview(*, refresh: bool = False, expect_no_changes: bool = False) -> None:
    """Run `pulumi preview`, with its own display. Raises EngineError, also for an unexpected change."""
    options = {"--refresh": refresh, "--expect-no-changes": expect_no_changes}
    _operate("preview", *[option for option, wanted in options.items() if wanted])


def preview_json(*, refresh: bool = False) -> dict[str, Any]:
    """Return the output of `pulumi preview --json`: `steps`, `changeSummary`, `diagnostics`."""
    prepare()
    options = ["--refresh"] if refresh else []
    answer: dict[str, Any] = json.loads(_ask("preview", *_stack_options(), "--json", *options, cwd=ROOT))
    return answer


def refresh() -> None:
    """Run `pulumi refresh`, with its own display. Raises EngineError."""
    _operate("refresh", "--yes", "--skip-preview")


def destroy() -> None:
    """Run `pulumi destroy`, with its own display; the empty stack remains. Raises EngineError."""
    _operate("destroy", "--yes", "--skip-preview")


def outputs(*, show_secrets: bool = False) -> dict[str, Any]:
    """Return the stack's outputs; secrets are `[secret]` unless `show_secrets` is set. Empty without a stack."""
    if not _exists():
        return {}
    options = ["--show-secrets"] if show_secrets else []
    answer: dict[str, Any] = json.loads(_ask("stack", "output", "--stack", STACK, "--json", *options))
    return answer


def state_in_clear() -> str:
    """Return the stack's state as JSON, with decrypted secrets."""
    return _ask("stack", "export", "--stack", STACK, "--show-secrets")


def names() -> list[str]:
    """Return the names of the stacks that have a state: this one, and those that `lab run` has created."""
    # A removed stack leaves NAME.json.bak.
    files = (BACKEND / ".pulumi" / "stacks" / _project()).glob("*")
    return sorted({found[1] for file in files if (found := re.fullmatch(r"(.+)\.json(\.gz)?", file.name))})


def resources(name: str = STACK) -> list[str]:
    """Return the URNs of the resources in a stack's state, without the stack itself and providers."""
    if name not in names():
        return []
    deployment = json.loads(_ask("stack", "export", "--stack", name))["deployment"]
    urns = [resource["urn"] for resource in deployment.get("resources") or []]
    return [urn for urn in urns if not urn.split("::")[2].startswith("pulumi:")]


def export(*, show_secrets: bool = False) -> str:
    """Return the stack's state as JSON, with decrypted secrets if `show_secrets` is set. Raises LabError."""
    return _ask("stack", "export", "--stack", STACK, *(["--show-secrets"] if show_secrets else []))


def forget() -> None:
    """Remove the state of all stacks and this stack's configuration, but no resource, passphrase or key pair."""
    shutil.rmtree(BACKEND, ignore_errors=True)
    shutil.rmtree(FOLDER, ignore_errors=True)


def prepare() -> None:
    """Create what an operation needs: passphrase, key pair, backend, stack, stack file. Idempotent; repeats are quick.

    The stack file contains what is specific to this clone: its public key and the keys of its vendors.
    """
    KEYS.mkdir(parents=True, exist_ok=True)
    KEYS.chmod(0o700)
    _ensure_passphrase()
    _ensure_key_pair()
    BACKEND.mkdir(parents=True, exist_ok=True)
    if not (_exists() and "encryptionsalt" in _read(_stack_file())):
        # Made by halves; the states of other stacks stay.
        shutil.rmtree(FOLDER, ignore_errors=True)
        for file in (BACKEND / ".pulumi" / "stacks" / _project()).glob(f"{STACK}.json*"):
            file.unlink()
    vendors_keys = packages.settings()
    made_from = inputs_hash(PROJECT, SETTINGS, PRIVATE_KEY, packages.FINGERPRINTS)
    stamp = FOLDER / "made-from"
    if stamp.exists() and stamp.read_text() == made_from:
        return
    salt = _read(_stack_file()).get("encryptionsalt")
    settings = _read(SETTINGS)
    settings["config"][f"{_project()}:sshPublicKey"] = PRIVATE_KEY.with_suffix(".pub").read_text().strip()
    settings["config"] |= {f"{_project()}:{key}": value for key, value in vendors_keys.items()}
    if salt is not None:
        settings["encryptionsalt"] = salt
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / "Pulumi.yaml").write_text(yaml.safe_dump({"name": _project(), "runtime": "python"}))
    _stack_file().write_text(yaml.safe_dump(settings, sort_keys=False))
    if not _exists():
        _ask("stack", "init", "--stack", STACK, "--secrets-provider", "passphrase")
    stamp.write_text(made_from)


def start_agent() -> None:
    """Start the SSH agent and add the stack's key to it. Idempotent. Raises LabError if it does not accept the key."""
    prepare()
    if not AGENT.running():
        AGENT_SOCKET.unlink(missing_ok=True)  # left behind by a killed agent, it prevents the start
        AGENT.start()
    command = ["ssh-add", "-q", str(PRIVATE_KEY)]
    done = subprocess.run(
        command, env=environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise LabError(f"the lab's SSH agent does not accept the lab's key: {done.stderr.strip()}")


def clear_stale() -> None:
    """Kill processes left by an engine that was killed, and release its locks. The caller must be alone."""
    for pid in sorted(_engine_processes()):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    locked = {lock.parent.name for lock in (BACKEND / ".pulumi" / "locks").rglob("*.json")}
    for name in sorted(locked.intersection(names())):
        _ask("cancel", "--yes", "--stack", name)


def start(
    *command: str, program: Path | None = None, output: int | None = None, stdin: int | None = None
) -> subprocess.Popen[str]:
    """Start an operation of the engine: `up`, `preview`, `refresh` or `destroy` with its options.

    `program` is the folder of the program to run, by default this clone's. `output`, for both output streams, and
    `stdin` are passed to subprocess. Events are logged in `.lab/logs`.
    """
    prepare()
    LOGS.mkdir(parents=True, exist_ok=True)
    events = LOGS / f"engine-events-{time.strftime('%Y%m%dT%H%M%S')}-{time.monotonic_ns()}-{command[0]}.jsonl"
    arguments = [str(build.ensure()), *command, *_stack_options(), "--event-log", str(events)]
    streams: dict[str, Any] = {} if output is None else {"stdout": output, "stderr": subprocess.STDOUT}
    return subprocess.Popen(arguments, cwd=program or ROOT, env=environment(), text=True, stdin=stdin, **streams)


def configure(key: str, value: str | None, *, secret: bool = False) -> None:
    """Set a key in the stack's settings, or remove it if `value` is None. Lasts until `forget`."""
    prepare()
    if value is None:
        _ask("config", "rm", "--stack", STACK, key)
    else:
        # Behind `--`, since a certificate in PEM format begins with dashes.
        _ask("config", "set", "--stack", STACK, *(["--secret"] if secret else []), "--", key, value)


def _operate(*command: str) -> None:
    process = start(*command)
    interruption: KeyboardInterrupt | None = None
    while process.returncode is None:
        # At the first interrupt the engine finishes its current operations; it must not be killed meanwhile.
        try:
            process.wait()
        except KeyboardInterrupt as interrupt:
            interruption = interrupt
            if isinstance(interrupt, Terminated):
                process.send_signal(signal.SIGINT)
    if interruption is not None:
        raise interruption
    if process.returncode:
        raise EngineError(f"pulumi {command[0]} failed: see above")


def _stack_options() -> list[str]:
    return ["--stack", STACK, "--config-file", str(_stack_file())]


def _ask(*command: str, cwd: Path = FOLDER) -> str:
    """Run a short command and return its standard output. Raises LabError with its error output."""
    arguments = [str(build.ensure()), "--non-interactive", "--color", "never", *command]
    done = subprocess.run(arguments, cwd=cwd, env=environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise LabError(f"pulumi {' '.join(command[:2])} failed:\n{done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def _project() -> str:
    name: str = _read(PROJECT)["name"]
    return name


def _stack_file() -> Path:
    return FOLDER / f"Pulumi.{STACK}.yaml"


def _exists() -> bool:
    return STACK in names()


def _read(file: Path) -> dict[str, Any]:
    """Parse a YAML file; a missing file is empty."""
    return (yaml.safe_load(file.read_text()) or {}) if file.exists() else {}


def _ensure_passphrase() -> None:
    if PASSPHRASE.exists():
        return
    unfinished = PASSPHRASE.with_suffix(".unfinished")
    unfinished.touch(mode=0o600)
    unfinished.write_text(secrets.token_urlsafe(32))
    unfinished.rename(PASSPHRASE)


def _ensure_key_pair() -> None:
    public_key = PRIVATE_KEY.with_suffix(".pub")
    if PRIVATE_KEY.exists() and public_key.exists():
        return
    PRIVATE_KEY.unlink(missing_ok=True)
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f", str(PRIVATE_KEY)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


def _engine_processes() -> Iterator[int]:
    """Yield the processes of this clone's engine and those it started."""
    mark = f"{CLONE_VARIABLE}={ROOT}\0".encode()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            variables = (folder / "environ").read_bytes()
        except OSError:
            continue
        if re.search(rb"(^|\0)" + re.escape(mark), variables):
            yield int(folder.name)
