"""The step that makes a machine trust the authority of the setting certificateAuthority, and what follows from it."""

import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from configuration.paths import GITLAB_TRUSTED_CERTIFICATES
from configuration.remote_step import script
from configuration.trusted_authority import certificates, fingerprints
from tests.conftest import tls_config
from tests.engine import Graph, run_program
from tests.shell import run_with_tools
from tests.test_program import CHECK_STEPS, COMMAND, MACHINES, payload

ANCHORS = "/etc/pki/ca-trust/source/anchors"
Trusts = Callable[..., dict[str, str]]


def authority(name: str) -> str:
    """A new authority's certificate."""
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-noenc",
        "-keyout",
        "/dev/null",
        "-subj",
        f"/CN={name}",
    ]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def old() -> str:
    return authority("old")


@pytest.fixture(scope="module")
def new() -> str:
    return authority("new")


def test_several_certificates_are_sent_one_by_one_and_nothing_between_them(old, new):
    assert certificates(f"subject=CN = old\n{old}\nsubject=CN = new\n{new}") == [old, new]
    assert certificates(None) == certificates("no certificate") == []
    assert len({*fingerprints(old), *fingerprints(new)}) == 2
    assert fingerprints(old) == fingerprints(f"\n{old}\n")


# On the machines ------------------------------------------------------------------------------------------------------


@pytest.fixture
def trusts(tmp_path) -> Trusts:
    """Run the step for certificates and return the files after it; `calls` records the calls of update-ca-trust."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name, text in {"update-ca-trust": f'echo "$*" >>{tmp_path}/calls', "systemctl": "exit 3"}.items():
        (tools / name).write_text(f"#!/bin/bash\n{text}\n")
        (tools / name).chmod(0o755)
    (tmp_path / "var/lib/gitlab-stack").mkdir(parents=True)

    def run(*given: str, folders: tuple[str, ...] = ()) -> dict[str, str]:
        text = re.sub(r"(?<![\w.])/(etc|var)/", rf"{tmp_path}/\1/", script("trust_authority.sh"))
        moved = [f"{tmp_path}{folder}" for folder in folders]
        done = run_with_tools(text, "trust_authority", moved, given, tools=tools, result=f"{tmp_path}/result")
        assert done.returncode == 0, done.stdout + done.stderr
        assert (tmp_path / "result").read_text() == f"trusts {len(given)} certificates of certificateAuthority\n"
        files = (path for path in (tmp_path / "etc").rglob("*") if path.is_file())
        return {str(file.relative_to(tmp_path)): file.read_text() for file in files}

    return run


def in_folder(folder: str, *given: str) -> dict[str, str]:
    return {f"{folder[1:]}/gitlab-stack-{number}.crt": one for number, one in enumerate(given, 1)}


def test_each_certificate_gets_a_file_of_its_own_for_the_machine_and_for_gitlab(trusts, old, new):
    """GitLab ignores a file with two certificates."""
    files = trusts(old, new, folders=(GITLAB_TRUSTED_CERTIFICATES,))
    assert files == in_folder(ANCHORS, old, new) | in_folder(GITLAB_TRUSTED_CERTIFICATES, old, new)


def test_what_the_setting_no_longer_contains_is_no_longer_trusted_and_other_anchors_stay(trusts, tmp_path, old, new):
    mine = Path(f"{tmp_path}{ANCHORS}/company.crt")
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    kept = {str(mine.relative_to(tmp_path)): "mine"}
    folders = (GITLAB_TRUSTED_CERTIFICATES,)
    assert trusts(old, new, folders=folders).keys() > kept.keys()
    assert trusts(new, folders=folders) == kept | in_folder(ANCHORS, new) | in_folder(folders[0], new)
    assert trusts(folders=folders) == kept
    assert (tmp_path / "calls").read_text().splitlines() == ["extract"] * 3


def test_without_an_authority_nothing_is_done(trusts, tmp_path):
    assert trusts() == {}
    assert not (tmp_path / "calls").exists()


# In the program -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trusting(old) -> Graph:
    return run_program(tls_config() | {"gitlab:certificateAuthority": old})


def test_every_machine_gets_the_authority_and_gitlab_for_its_own_connections(trusting, graph, old):
    for machine in MACHINES:
        step = trusting.step(f"{machine}-trust-authority")
        assert payload(trusting, step.name) == [old]
        assert payload(graph, step.name) == []
        folders = shlex.split(step.inputs["create"])[4:]
        assert folders == ([GITLAB_TRUSTED_CERTIFICATES] if machine == "server" else [])


def changed_steps(before: Graph, after: Graph) -> set[str]:
    def steps(graph: Graph) -> dict[str, object]:
        return {
            each.name: [each.inputs.get(key) for key in ("create", "stdin", "triggers")]
            for each in graph.of_type(COMMAND)
        }

    old, new = steps(before), steps(after)
    assert old.keys() == new.keys()
    return {name for name in old if old[name] != new[name]}


def test_another_authority_and_none_repeat_only_the_steps_that_load_it_and_the_checks(trusting, tls_graph, new):
    loading = {f"{machine}-trust-authority" for machine in MACHINES} | {"server-configure-gitlab"}
    other = run_program(tls_config() | {"gitlab:certificateAuthority": new})
    for changed in (other, tls_graph):
        assert changed_steps(trusting, changed) == loading | {*CHECK_STEPS, "registry-find-image"}
