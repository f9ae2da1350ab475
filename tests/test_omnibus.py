"""The sources of GitLab's package for `make contract`: what is cloned, and the error without them."""

import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from configuration.upgrade_stops import REQUIRED_STOPS
from lab import host
from tests.contract import conftest as contract
from tests.engine import PROJECT, ROOT
from tools import omnibus

DEFAULT = PROJECT["config"]["gitlabVersion"]["default"]
STOP = REQUIRED_STOPS[-1]


@pytest.fixture
def upstream(tmp_path, monkeypatch) -> Path:
    """A repository with tags like GitLab's."""
    place = tmp_path / "upstream"
    git = ["git", "-C", place, "-c", "user.name=Somebody", "-c", "user.email=somebody@example.com"]
    subprocess.run(["git", "init", "--quiet", place], check=True)
    versions = (DEFAULT, f"{STOP}.0+rc42", f"{STOP}.2", f"{STOP}.10", f"{STOP}0.1")
    for version in versions:
        (place / "VERSION").write_text(f"{version}\n")
        tag = f"{version}.ce.0" if "+" in version else f"{version}+ce.0"
        subprocess.run([*git, "add", "VERSION"], check=True)
        subprocess.run([*git, "commit", "--quiet", "--message", version], check=True)
        subprocess.run([*git, "tag", "--annotate", "--message", tag, tag], check=True)
    monkeypatch.setattr(omnibus, "REPOSITORY", place.as_uri())
    return place


def test_the_default_version_and_the_newest_patch_of_the_newest_stop_are_cloned(
    upstream, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr("sys.argv", ["omnibus", str(tmp_path / "clones")])
    for _ in range(2):
        assert omnibus.main() == 0
        assert capsys.readouterr().out.split() == [f"{tmp_path}/clones/{DEFAULT}", f"{tmp_path}/clones/{STOP}.10"]
    for version in (DEFAULT, f"{STOP}.10"):
        assert (tmp_path / "clones" / version / "VERSION").read_text() == f"{version}\n"


def test_a_stop_without_a_tag_is_named(upstream, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(omnibus, "REQUIRED_STOPS", ("97.1",))
    monkeypatch.setattr("sys.argv", ["omnibus", str(tmp_path)])
    assert omnibus.main() == 1
    assert f"{upstream.as_uri()} has no tag 97.1.*+ce.0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("named", "said"),
    [("", "OMNIBUS is not set to a checkout of omnibus-gitlab"), ("/", "/ is not a checkout of omnibus-gitlab")],
)
def test_without_a_checkout_one_line_says_how_to_get_one_and_nothing_is_installed(named, said, monkeypatch):
    monkeypatch.setenv("OMNIBUS", named)
    monkeypatch.setattr(host, "ensure", lambda tools: pytest.fail("installs"))
    config: Any = SimpleNamespace(stash={})
    with pytest.raises(pytest.UsageError) as refused:
        contract.pytest_configure(config)
    command = f"git clone --depth 1 --branch {DEFAULT}+ce.0 https://gitlab.com/gitlab-org/omnibus-gitlab.git"
    assert str(refused.value) == f"{said}. Get one: {command} ../omnibus-gitlab"
    assert f"    {command} ../omnibus-gitlab\n" in (ROOT / "docs/pull-requests.md").read_text()
