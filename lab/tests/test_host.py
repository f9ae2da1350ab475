"""What the lab reports about the host, and the tools it installs."""

import os
import platform
import shutil
from pathlib import Path

import pytest

from lab import host
from lab.workspace import LabError

TOOLS = {"no-such-tool": "no-such-package", "sh": "dash", "no-such-other": "no-such-package"}


@pytest.fixture
def installed(monkeypatch, policy):
    """Make an installation as root with apt-get succeed; its commands, each with the policy in force."""
    commands: list[tuple[list[str], str]] = []

    def run(title, command, **options):
        commands.append((command, policy.read_text()))
        if "install" in command:
            monkeypatch.setattr(host, "missing", lambda tools: {})

    monkeypatch.setattr(host, "run", run)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    which = shutil.which
    monkeypatch.setattr(shutil, "which", lambda name, **options: name if name == "apt-get" else which(name))
    return commands


@pytest.fixture(autouse=True)
def policy(tmp_path, monkeypatch):
    file = tmp_path / "policy-rc.d"
    monkeypatch.setattr(host, "SERVICE_POLICY", file)
    return file


def test_missing_tools_are_found_with_their_packages():
    assert host.missing(TOOLS) == {"no-such-tool": "no-such-package", "no-such-other": "no-such-package"}


def test_a_file_that_ruby_requires_is_looked_for_by_ruby(tmp_path, monkeypatch):
    ruby = tmp_path / "ruby"
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    files = {"mixlib/config.rb": "ruby-mixlib-config"}
    for text, missing in (("#!/bin/sh\nexit 1\n", files), ('#!/bin/sh\n[ "$2" = mixlib/config ]\n', {})):
        ruby.write_text(text)
        ruby.chmod(0o755)
        assert host.missing(files) == missing
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert host.missing(files) == files


def test_root_gets_missing_tools_installed_and_no_service_started(installed, policy):
    host.ensure(TOOLS)
    assert [command for command, _ in installed] == [
        ["apt-get", "update"],
        ["apt-get", "install", "--yes", "--no-install-recommends", "no-such-package", host.WAIT_FOR_LOCK],
    ]
    assert all(in_force.endswith("exit 101\n") for _, in_force in installed)
    assert not policy.exists()


def test_the_machines_own_service_policy_stays(installed, policy):
    policy.write_text("#!/bin/sh\nexit 0\n")
    host.ensure(TOOLS)
    assert policy.read_text() == "#!/bin/sh\nexit 0\n"


def test_others_are_told_the_command(installed, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(LabError, match=r"no-such-tool: run  sudo apt-get install .* no-such-package$"):
        host.ensure(TOOLS)
    assert installed == []


def test_an_installation_that_brings_nothing_is_an_error(installed, monkeypatch):
    monkeypatch.setattr(host, "run", lambda *args, **options: None)
    with pytest.raises(LabError, match="still missing after the installation of no-such-package"):
        host.ensure(TOOLS)


def test_nothing_is_done_when_nothing_is_missing(installed):
    host.ensure({"sh": "dash"})
    assert installed == []


def test_without_the_right_to_install_the_unit_tests_run_without_some_tools(installed, monkeypatch, capsys):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(host, "TEST_TOOLS", {"no-such-tool": "no-such-package"})
    host.ensure_test_tools()
    output = capsys.readouterr().out
    assert "this machine lacks no-such-tool: run  sudo apt-get install" in output
    assert "tests that need them do not run" in output


def test_a_machine_with_too_little_memory_is_told_so_with_both_figures():
    host.ensure_memory(1, "the lab")
    with pytest.raises(LabError, match=r"the lab needs a machine with 9999 GiB of memory; this machine has \d+\.\d"):
        host.ensure_memory(9999, "the lab")


def test_a_person_without_rights_is_told_so(monkeypatch):
    monkeypatch.setattr(host, "_wrong_system", lambda: None)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("USER", "alice")
    assert host.why_no_machines() == "machines need root; the user is alice"


def test_another_system_is_named(monkeypatch):
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    assert host.why_no_machines() == "machines need Linux on x86_64; this is Darwin on arm64"


def test_a_container_without_capabilities_is_recognised(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    status = tmp_path / "status"
    status.write_text("Name:\tpython\nCapEff:\t00000000a80425fb\n")
    monkeypatch.setattr(host, "Path", lambda name: status)
    assert host._no_rights() == "root here lacks CAP_NET_ADMIN and CAP_SYS_ADMIN: is this an unprivileged container?"


def test_a_probe_says_what_is_missing_in_the_words_of_the_tool():
    assert host._fails(["sh", "-c", "echo 'cannot find a free one' >&2; exit 1"], "no loop devices") == (
        "no loop devices: cannot find a free one"
    )
    assert host._fails(["sh", "-c", "exit 4"], "nothing") == "nothing: sh exited with status 4"
    assert host._fails(["true"], "nothing") is None


def test_a_probe_whose_tool_is_not_installed_yet_says_nothing():
    assert host._fails(["no-such-tool"], "nothing") is None
    assert host._fails(["sh", "-c", "no-such-tool"], "nothing") is None


@pytest.mark.needs(root=True)
def test_the_probes_leave_nothing_behind():
    def links():
        return {link.name for link in Path("/sys/class/net").iterdir()}

    before = links()
    host.why_no_machines()
    assert links() == before
