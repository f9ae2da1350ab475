"""Two versions of the program: each reports its own facts, and the other commit leaves no trace in the clone."""

import subprocess

import pytest

from lab.preview import tree
from lab.preview.tree import Version, checked_out
from lab.workspace import ROOT, LabError

API = "http://127.0.0.1:7777"


@pytest.fixture
def clone(tmp_path):
    """The folder of a clone."""
    folder = tmp_path / "clone"
    folder.mkdir()
    return folder


@pytest.fixture
def repository(clone, monkeypatch):
    """That clone with two commits, the second of which is checked out."""
    monkeypatch.setattr(tree, "ROOT", clone)
    monkeypatch.setattr(tree, "WORK_TREE", clone / ".lab" / "base")

    def git(*command):
        identity = ["-c", "user.name=Name", "-c", "user.email=name@example.com"]
        return subprocess.run(
            ["git", *identity, *command], cwd=clone, check=True, capture_output=True, text=True
        ).stdout

    git("init", "--quiet", "--initial-branch", "main")
    for text in ("first", "second"):
        (clone / "Pulumi.dev.yaml").write_text(text)
        git("add", ".")
        git("commit", "--quiet", "--message", text)
    git("tag", "released", "HEAD~1")
    return git


def test_another_commit_is_checked_out_beside_the_clones_files_and_removed_again(clone, repository):
    with checked_out("released") as folder:
        assert (folder / "Pulumi.dev.yaml").read_text() == "first"
        assert (clone / "Pulumi.dev.yaml").read_text() == "second"
    assert not folder.exists()
    assert len(repository("worktree", "list").splitlines()) == 1


def test_what_a_killed_preview_left_is_no_hindrance(repository):
    with checked_out("released"), checked_out("main") as folder:
        assert (folder / "Pulumi.dev.yaml").read_text() == "second"
    assert len(repository("worktree", "list").splitlines()) == 1


def test_a_commit_that_git_does_not_know_is_refused_with_what_fetches_it(repository):
    message = "'origin/topic' is not a commit in this clone: set BASE= to one, or run git fetch origin topic"
    with pytest.raises(LabError, match=message), checked_out("origin/topic"):
        pass
    assert not tree.WORK_TREE.exists()


def test_a_version_is_asked_for_its_flows_and_its_cost():
    version = Version("this clone", ROOT, "dev")
    facts = version.facts(version.configuration(API))
    assert ["runner", "internet", 443, "packages and images"] in facts["flows"]
    assert ["server, m6i.xlarge", "167.90"] in facts["cost"]
    assert "| **total** |" in facts["costTable"]


def test_the_steps_of_a_version_answer_by_its_own_examples(tmp_path):
    (tmp_path / "remote").mkdir()
    (tmp_path / "remote/examples.json").write_text('{"make-token-key": "its own"}')
    assert Version("`topic`", tmp_path, "dev").answers() == {"make-token-key": "its own"}


def test_the_steps_of_a_version_that_has_no_examples_yet_answer_as_they_did_then(tmp_path):
    answers = Version("`before`", tmp_path, "dev").answers()
    assert "walk-hops" in answers
    assert "run-checks" not in answers


def test_a_version_that_does_not_run_says_why_in_its_own_words(tmp_path):
    for name in ("Pulumi.yaml", "Pulumi.dev.yaml"):
        (tmp_path / name).write_text((ROOT / name).read_text())
    (tmp_path / "settings.py").write_text("raise RuntimeError('half written')")
    version = Version("`topic`", tmp_path, "dev")
    with pytest.raises(LabError, match=r"the program of `topic` does not run:(.|\n)*half written"):
        version.facts(version.configuration(API))


def test_the_stack_file_of_the_lab_gets_a_key_that_opens_nothing():
    configuration = Version("this clone", ROOT, "lab").configuration(API)
    assert configuration.values["gitlab:sshPublicKey"].endswith(" placeholder")
    assert configuration.secrets == {}
